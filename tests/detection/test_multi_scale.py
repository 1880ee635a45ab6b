"""Several views of an image as one answer."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.detectors import image, tiny_detector

from video_mvit.detection.boxes import has_area
from video_mvit.detection.multi_scale import detect_multi_scale, mirror, resize


@pytest.mark.parametrize("heads", ["mask_rcnn", "cascade_layer_norm"])
def test_one_view_of_the_same_size_is_plain_detection(heads: str) -> None:
    detector = tiny_detector(heads=heads, score_threshold=0.0).eval()
    picture = image(48, 64)
    found = detect_multi_scale(detector, picture, short_sides=(48,), mirrored=(False,))
    [expected] = detector([picture])
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.masks, expected.masks)


def test_a_mirrored_image_gives_mirrored_detections() -> None:
    detector = tiny_detector(score_threshold=0.0, num_detections=30).eval()
    picture = image(48, 64)
    found = detect_multi_scale(detector, picture, short_sides=(48,), masks="probabilities")
    swapped = detect_multi_scale(
        detector,
        picture.flip(-1),
        short_sides=(48,),
        mirrored=(True, False),
        masks="probabilities",
    )
    torch.testing.assert_close(swapped.scores, found.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(mirror(swapped.boxes, (48, 64)), found.boxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(swapped.masks.flip(-1), found.masks, rtol=0, atol=1e-3)


def test_views_of_other_sizes_answer_in_pixels_of_the_image() -> None:
    detector = tiny_detector(score_threshold=0.0, square_pad=64).eval()
    found = detect_multi_scale(detector, image(30, 40), short_sides=(60, 120), max_side=100)
    assert len(found.boxes) > 0
    assert found.masks.shape[1:] == (30, 40)
    assert has_area(found.boxes).all()
    assert (found.boxes[:, [0, 2]] <= 40).all()
    assert (found.boxes[:, [1, 3]] <= 30).all()
    assert found.boxes[:, 2].max() > 30


def test_resizing_is_that_of_pillow_to_a_gray_level() -> None:
    picture = image(30, 44)
    pillow = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((17, 21), Image.BILINEAR)
    expected = torch.from_numpy(np.array(pillow)).permute(2, 0, 1)
    assert (resize(picture, (21, 17)) - expected).abs().max() <= 1
