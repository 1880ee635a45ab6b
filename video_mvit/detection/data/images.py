"""Reading of an image: upright RGB in 8 bits, whatever the file holds."""

from PIL import Image

from video_mvit.data.reading.containers import check_regular
from video_mvit.data.reading.images import PICTURE_ERRORS, decode_picture, open_picture
from video_mvit.data.reading.reader import (
    DecodeLimits,
    Frames,
    LimitChecker,
    VideoDecodeError,
    decode_errors,
)

IMAGE_LIMITS = DecodeLimits(frame_pixels=2**26)  # of a camera, not of a satellite
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width


def read_image(path: str) -> Frames:
    """Read an image: -> (H, W, 3) uint8. Raises `VideoDecodeError`."""
    limit_checker = LimitChecker(path, IMAGE_LIMITS)
    with decode_errors(path, *PICTURE_ERRORS):
        check_regular(path)
        with open_picture(path, limit_checker) as picture:
            return decode_picture(picture, limit_checker)


def read_annotated_image(path: str, size: tuple[int, int]) -> Image.Image:
    """Read an image whose annotations are for a (height, width). Raises `VideoDecodeError`."""
    pixels = read_image(path)
    if pixels.shape[:2] != size:
        height, width = pixels.shape[:2]
        reason = f"it has {width}x{height} pixels, its annotations are for {size[1]}x{size[0]}"
        raise VideoDecodeError(path, reason)
    return Image.fromarray(pixels)


def read_upright_size(path: str) -> tuple[int, int]:
    """Read the (height, width) of an upright image from its header. Raises `VideoDecodeError`."""
    with decode_errors(path, *PICTURE_ERRORS):
        check_regular(path)
        with open_picture(path, LimitChecker(path, IMAGE_LIMITS)) as picture:
            sideways = picture.getexif().get(EXIF_ORIENTATION) in SIDEWAYS
            return (picture.width, picture.height) if sideways else (picture.height, picture.width)
