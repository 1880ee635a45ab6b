"""Show where a model looked, over the frames of a clip: as numbers, an image strip, a page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
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

from video_mvit.data.transforms.augment import Normalize
from video_mvit.files import replace_atomically
from video_mvit.prediction.attention_rollout import roll_out, spread_over_pixels
from video_mvit.prediction.input_spec import InputSpec
from video_mvit.prediction.writers import shown_name
from video_mvit.text import printable

COLOURS = "inferno"
GREYNESS, MIN_COVER, MAX_COVER = (
    0.75,
    0.1,
    0.75,
)  # of the frame; opacity of the colours
FRAMES_PER_LINE, MAX_FRAMES = 8, 16  # of a strip
FRAME_INCHES, DPI = 1.5, 120
PAGE_SIDE = 256  # smallest side of a frame in a page, in pixels


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A clip, a class with its score, and the relevance of each pixel for it.

    `frames` are (T, H, W, 3) uint8, `mass` is (T, H, W) float32 with sum 1.
    """

    frames: NDArray[np.uint8]
    mass: NDArray[np.float32]
    label: str
    score: float

    @property
    def density(self) -> NDArray[np.float32]:
        """Return the relevance relative to a uniform distribution: (T, H, W)."""
        return self.mass * np.float32(self.mass.size)

    @property
    def frame_shares(self) -> NDArray[np.float32]:
        """Return the relevance of each frame: (T,)."""
        return np.asarray(self.mass.sum(axis=(1, 2)), np.float32)


def explain_clip(model: Any, clip: Tensor, class_index: int, spec: InputSpec) -> Explanation:
    """Explain the score of a class for a raw clip (T, C, H, W) uint8.

    Raises `UserError` if the class does not exist, or the model is in training mode.
    """
    parameter = next(model.parameters())
    normalize = Normalize(mean=spec.mean, std=spec.std).to(parameter.device)
    normalized = normalize(clip[None].to(parameter.device)).to(parameter.dtype)  # (1, C, T, H, W)
    mass = spread_over_pixels(roll_out(model, normalized[0], class_index), model.config)
    with torch.inference_mode():
        score = model(normalized).float().softmax(dim=-1)[0, class_index]
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
    title = f"{explanation.label}  {explanation.score:.1%}   {name}"
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes = figure.subplots(2 * lines, columns, squeeze=False)
    colours = colour_scale(explanation)
    overlays = overlay(explanation, colours)
    for axis in axes.flat:
        axis.set_axis_off()
    for place, index in enumerate(shown):
        line, column = divmod(place, columns)
        above, below = axes[2 * line, column], axes[2 * line + 1, column]
        above.imshow(explanation.frames[index])
        above.set_title(f"frame {index}", fontsize=8)
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
    height = np.asarray(colours.norm(explanation.density), np.float32)[..., None]
    cover = MIN_COVER + (MAX_COVER - MIN_COVER) * np.sqrt(height)
    over = matplotlib.colormaps[COLOURS](height[..., 0])[..., :3]
    return np.asarray(255 * (under + cover * (over - under)) + 0.5, np.uint8)


def render_page(explanation: Explanation, name: str) -> str:
    """Render one self-contained page: a slider over the frames, with and without overlay."""
    overlays = overlay(explanation, colour_scale(explanation))
    ramp = matplotlib.colormaps[COLOURS](np.linspace(0, 1, 9), bytes=True)[:, :3]
    pages = Environment(loader=PackageLoader("video_mvit", "prediction"), autoescape=True)
    return pages.get_template("explanation.html.j2").render(
        label=explanation.label,
        score=f"{explanation.score:.1%}",
        name=name,
        last=len(explanation.frames) - 1,
        highest=f"{explanation.density.max():.1f}",
        ramp=", ".join(_css_colour(colour) for colour in ramp),
        clip={
            "frames": [as_jpeg(frame) for frame in explanation.frames],
            "overlays": [as_jpeg(frame) for frame in overlays],
            "shares": [round(float(share), 4) for share in explanation.frame_shares],
        },
    )


def as_jpeg(frame: NDArray[np.uint8]) -> str:
    """Encode a frame as a JPEG data URL; small ones are enlarged against JPEG blur."""
    picture = Image.fromarray(frame)
    factor = -(-PAGE_SIDE // max(picture.size))
    picture = picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC
    )
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _css_colour(colour: Sequence[int]) -> str:
    red, green, blue = (int(value) for value in colour)
    return f"rgb({red} {green} {blue})"
