"""Show where a model looked, over the frames of a clip: as numbers, an image strip, a page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from jinja2 import Environment, PackageLoader
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize as ColourRange
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from video_mvit.data.reading.open import open_video
from video_mvit.data.sampling import join_clips
from video_mvit.data.transforms.augment import Normalize
from video_mvit.data.transforms.cropping import UniformCrops, short_side_size, uniform_boxes
from video_mvit.files import replace_atomically
from video_mvit.prediction.attention_rollout import roll_out, spread_over_pixels
from video_mvit.prediction.clips import FIXED_RNG, cut_frame, decode_limits_for, each_frame
from video_mvit.prediction.input_spec import InputSpec
from video_mvit.prediction.writers import shown_name
from video_mvit.text import percent, printable

MARK = '<meta name="generator" content="video-mvit explain">'

COLOURS = "inferno"
GREYNESS, MIN_COVER, MAX_COVER = (
    0.75,
    0.1,
    0.75,
)  # of the frame; opacity of the colours
FRAMES_PER_LINE, MAX_FRAMES = 8, 16  # of a strip
FRAME_INCHES, DPI = 1.5, 120
MIN_PAGE_SIDE, MAX_PAGE_SIDE = 256, 1920  # of the larger side of a frame in a page, in pixels


@dataclass(frozen=True, kw_only=True)
class SourceFrames:
    """The whole frames of a clip (T, H, W, 3) uint8, as the file has them up to 1920 pixels.

    `times_s` is when each appears, counted from the first frame of the video. `box` is the window
    (top, left, height, width) that the model saw, in shares of the frame.
    """

    frames: NDArray[np.uint8]
    times_s: tuple[float, ...]
    box: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A clip, a class with its score, and the relevance of each pixel for it.

    `frames` are what the model saw, (T, H, W, 3) uint8; `mass` is (T, H, W) float32 with sum 1.
    `source` are the frames of the file, where the clip is from one. `score` is that of the clip,
    `video_score` that of a prediction from all views of the video, where there is one.
    """

    frames: NDArray[np.uint8]
    mass: NDArray[np.float32]
    label: str
    score: float
    source: SourceFrames | None = None
    video_score: float | None = None

    @property
    def scores_text(self) -> str:
        """Return the score of the clip, beside that of the video where there is one."""
        video = "" if self.video_score is None else f", video {percent(self.video_score)}"
        return f"{percent(self.score)} in this clip{video}"

    @property
    def density(self) -> NDArray[np.float32]:
        """Return the relevance relative to a uniform distribution: (T, H, W)."""
        return self.mass * np.float32(self.mass.size)

    @property
    def frame_shares(self) -> NDArray[np.float32]:
        """Return the relevance of each frame: (T,)."""
        return np.asarray(self.mass.sum(axis=(1, 2)), np.float32)

    @property
    def frame_names(self) -> list[str]:
        """Return the time of each frame, its number where that is unknown."""
        if self.source is None:
            return [f"frame {index}" for index in range(len(self.frames))]
        return [f"{time_s:.2f} s" for time_s in self.source.times_s]


def explain_video(model: Any, path: str, class_index: int, spec: InputSpec) -> Explanation:
    """Explain the score of a class for the clip in the middle of a video.

    Raises `VideoDecodeError`, and `UserError` as `explain_clip`.
    """
    pipeline = spec.pipeline(1, 1)
    with open_video(path, pipeline.reader, decode_limits_for(path)) as video:
        (indices,) = pipeline.sampler(video.clock, FIXED_RNG)
        wanted, (places,) = join_clips([indices])
        crop, seen, whole = spec.crop(), {}, {}
        # Large frames are shrunk as they come, so that few are in memory.
        for index, frame in each_frame(video, wanted):
            height, width = frame.shape[:2]
            seen[index], whole[index] = cut_frame(frame, crop)[0], shrink(frame)
        times_s = tuple(video.clock.time_s(int(index)) for index in indices)
    ordered = [int(index) for index in wanted[places]]
    source = SourceFrames(
        frames=np.stack([whole[index] for index in ordered]),
        times_s=times_s,
        box=seen_window(height, width, crop),
    )
    clip = torch.stack([seen[index] for index in ordered])
    return replace(explain_clip(model, clip, class_index, spec), source=source)


def shrink(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink a frame (H, W, 3) that is too large for a page; any other stays as it is."""
    if max(frame.shape) <= MAX_PAGE_SIDE:
        return frame
    picture = Image.fromarray(frame)
    picture.thumbnail((MAX_PAGE_SIDE, MAX_PAGE_SIDE))
    return np.asarray(picture)


def seen_window(height: int, width: int, crop: UniformCrops) -> tuple[float, float, float, float]:
    """Return the first window of a crop as shares (top, left, height, width) of a frame."""
    height, width = short_side_size(height, width, crop.short_side)
    box = uniform_boxes(height, width, crop.size, crop.num_crops)[0]
    return box.top / height, box.left / width, box.height / height, box.width / width


def explain_clip(model: Any, clip: Tensor, class_index: int, spec: InputSpec) -> Explanation:
    """Explain the score of a class for a raw clip (T, C, H, W) uint8.

    Raises `UserError` if the class does not exist, or the model is in training mode.
    """
    parameter = next(model.parameters())
    normalize = Normalize(mean=spec.mean, std=spec.std).to(parameter.device)
    normalized = normalize(clip[None].to(parameter.device)).to(parameter.dtype)  # (1, C, T, H, W)
    mass = spread_over_pixels(roll_out(model, normalized[0], class_index), model.config)
    with torch.inference_mode():
        score = spec.scoring.of_clips(model(normalized))[0, class_index]
    return Explanation(
        frames=clip.permute(0, 2, 3, 1).cpu().numpy(),
        mass=mass.cpu().numpy(),
        label=printable(spec.class_names[class_index]),
        score=float(score),
    )


def write_explanation(explanation: Explanation, folder: Path, name: str) -> tuple[Path, Path]:
    """Write `<name>.png` and `<name>.html` into an existing folder; -> their paths."""
    picture, page = folder / f"{name}.png", folder / f"{name}.html"
    shown = printable(shown_name(name))
    draw_strip(explanation, shown).savefig(picture, dpi=DPI)
    with replace_atomically(page) as temporary:
        temporary.write_text(render_page(explanation, shown), encoding="utf-8")
    return picture, page


def draw_strip(explanation: Explanation, name: str) -> Figure:
    """Draw frames in order, each above its overlay; of long clips, some."""
    num_frames = len(explanation.frames)
    shown = np.linspace(0, num_frames - 1, min(num_frames, MAX_FRAMES)).round().astype(int).tolist()
    columns = min(len(shown), FRAMES_PER_LINE)
    lines = -(-len(shown) // columns)
    width, height = columns * FRAME_INCHES + 1.1, lines * (2 * FRAME_INCHES + 0.3) + 0.45
    figure = Figure(figsize=(max(width, 5.5), height), layout="constrained")
    title = f"{explanation.label}  {explanation.scores_text}   {name}"
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes = figure.subplots(2 * lines, columns, squeeze=False)
    colours = colour_scale(explanation)
    overlays = overlay(explanation, colours)
    names = explanation.frame_names
    for axis in axes.flat:
        axis.set_axis_off()
    for place, index in enumerate(shown):
        line, column = divmod(place, columns)
        above, below = axes[2 * line, column], axes[2 * line + 1, column]
        above.imshow(explanation.frames[index])
        above.set_title(names[index], fontsize=8)
        below.imshow(overlays[index])
    bar = figure.colorbar(colours, ax=axes, fraction=0.02, pad=0.01)
    bar.set_label("attention, times the average pixel's", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def colour_scale(explanation: Explanation) -> ScalarMappable:
    """Map densities from 0 to the highest of the clip to colours."""
    return ScalarMappable(ColourRange(0, float(explanation.density.max())), COLOURS)


def overlay(explanation: Explanation, colours: ScalarMappable) -> NDArray[np.uint8]:
    """Blend grey frames with colours that are more opaque for higher densities: -> (T, H, W, 3)."""
    frames = explanation.frames.astype(np.float32) / 255
    grey = frames.mean(axis=3, keepdims=True)
    under = frames + GREYNESS * (grey - frames)
    over = colour_map(explanation, colours)
    return np.asarray(255 * (under + over[..., 3:] * (over[..., :3] - under)) + 0.5, np.uint8)


def colour_map(explanation: Explanation, colours: ScalarMappable) -> NDArray[np.float32]:
    """Colour the density: -> (T, H, W, 4) in 0..1, more opaque where it is higher."""
    height = np.asarray(colours.norm(explanation.density), np.float32)
    painted = matplotlib.colormaps[COLOURS](height)
    painted[..., 3] = MIN_COVER + (MAX_COVER - MIN_COVER) * np.sqrt(height)
    return np.asarray(painted, np.float32)


def render_page(explanation: Explanation, name: str) -> str:
    """Render one self-contained page: a slider over the frames of the file, the map over them."""
    source = explanation.source
    frames = explanation.frames if source is None else source.frames
    top, left, height, width = (0.0, 0.0, 1.0, 1.0) if source is None else source.box
    maps = 255 * colour_map(explanation, colour_scale(explanation)) + 0.5
    ramp = matplotlib.colormaps[COLOURS](np.linspace(0, 1, 9), bytes=True)[:, :3]
    pages = Environment(loader=PackageLoader("video_mvit", "prediction"), autoescape=True)
    return pages.get_template("explanation.html.j2").render(
        label=explanation.label,
        mark=MARK,
        scores=explanation.scores_text,
        span=None if source is None else (min(source.times_s), max(source.times_s)),
        has_video=explanation.video_score is not None,
        name=name,
        size=frames.shape[2:0:-1],
        box=[f"{100 * share:.3f}%" for share in (top, left, height, width)],
        is_part=min(height, width) < 1,
        seen=explanation.frames.shape[2:0:-1],
        last=len(frames) - 1,
        highest=f"{explanation.density.max():.1f}",
        ramp=", ".join(_css_colour(colour) for colour in ramp),
        clip={
            "frames": [as_jpeg(frame) for frame in frames],
            "maps": [as_webp(each) for each in maps.astype(np.uint8)],
            "names": explanation.frame_names,
            "shares": [round(float(share), 4) for share in explanation.frame_shares],
        },
    )


def as_jpeg(frame: NDArray[np.uint8]) -> str:
    """Encode a frame as a JPEG data URL, in its own size if that is not tiny."""
    picture = Image.fromarray(frame)
    factor = -(-MIN_PAGE_SIDE // max(picture.size))  # small ones are enlarged against JPEG blur
    if factor > 1:
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return _address(picture, "JPEG", quality=85)


def as_webp(painted: NDArray[np.uint8]) -> str:
    """Encode a map (H, W, 4) with its opacity as a WebP data URL."""
    return _address(Image.fromarray(painted), "WEBP", quality=80)


def _address(picture: Image.Image, kind: str, quality: int) -> str:
    file = io.BytesIO()
    picture.save(file, kind, quality=quality)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _css_colour(colour: Sequence[int]) -> str:
    red, green, blue = (int(value) for value in colour)
    return f"rgb({red} {green} {blue})"
