"""Export detectors, or their backbone with the pyramid, as `torch.export` programs and ONNX.

A graph is made for images of one size, or as ONNX for any whose sides are multiples of 32. It is
read back, run and compared with the detector on pictures before it is moved into place.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from video_mvit.data.reading.reader import Frames
from video_mvit.detection.boxes import Size
from video_mvit.detection.config import STRIDE
from video_mvit.detection.demo_pictures import draw_demo_picture
from video_mvit.detection.detector import Detector, finish
from video_mvit.detection.fpn import STRIDES
from video_mvit.detection.instances import Detections
from video_mvit.errors import UserError
from video_mvit.weights.export import (
    MAX_BATCH_SIZE,
    RunAll,
    draft_of,
    keep,
    open_outputs,
    write_program,
)

Part = Literal["detector", "backbone"]
PARTS: tuple[Part, ...] = ("detector", "backbone")
INPUTS: Mapping[Part, str] = {"detector": "image", "backbone": "images"}
DETECTOR_OUTPUTS = {
    "boxes": "(N, 4) float32: x0, y0, x1, y1 in pixels of the image, best score first",
    "scores": "(N,) float32",
    "labels": "(N,) int64: index of the class",
    "masks": "(N, 28, 28) float32: probabilities inside the box, a mask from 0.5 on",
}
# An object is found by both where it differs by no more.
BOX_TOLERANCE_PX, SCORE_TOLERANCE, MASK_TOLERANCE = 0.05, 2e-4, 2e-3
MAP_TOLERANCE = 1e-4  # relative to the largest value of a map
# Where scores or overlaps are equal but for their last digits, rounding chooses.
MAX_UNPAIRED_SHARE = 0.02
MAX_SIDE = 128  # in units of 32 pixels
NUM_DRAWN = 8  # pictures of each size, to find one with objects
ANY_SIZES = ((320, 416), (256, 256), (512, 352))  # on which graphs for any size are compared


@dataclass(frozen=True, kw_only=True)
class DetectorInterface:
    """Input and outputs of an export, for users without this package.

    Attributes:
        part: "detector", or "backbone": with the pyramid.
        layout: names of the input's axes.
        shape: of an image; H and W where they are any multiples of 32.
        outputs: name -> what it is.
    """

    part: Part
    input: str
    dtype: str
    layout: str
    shape: tuple[int | str, ...]
    outputs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far an export is from its detector on the pictures of the comparison.

    Attributes:
        num_objects: found by the detector; `num_unpaired` were found by one of the two only.
        boxes_px, scores, masks: largest differences of the other ones.
        maps: largest difference of the pyramid, relative to the largest value of a map.
    """

    num_objects: int = 0
    num_unpaired: int = 0
    boxes_px: float = 0.0
    scores: float = 0.0
    masks: float = 0.0
    maps: float = 0.0

    def problem(self) -> str:
        """Say what differs too much; nothing where all is well."""
        if self.num_unpaired > MAX_UNPAIRED_SHARE * self.num_objects:
            return (
                f"{self.num_unpaired} of {self.num_objects} objects differ by more than "
                f"{BOX_TOLERANCE_PX} px, {SCORE_TOLERANCE} in score or {MASK_TOLERANCE} in mask"
            )
        if not self.maps <= MAP_TOLERANCE:
            return f"its maps are {self.maps:.1e} from the model's, more than {MAP_TOLERANCE:g}"
        return ""

    def summary(self) -> str:
        """Say what was compared, and the largest differences."""
        if not self.num_objects:
            return f"max |diff| {self.maps:.1e} of the largest value on batches of drawn pictures"
        return (
            f"{self.num_objects} objects, {self.num_unpaired} found by one only, max |diff| "
            f"{self.boxes_px:.1e} px, {self.scores:.1e} in score, {self.masks:.1e} in mask"
        )


@dataclass(frozen=True, kw_only=True)
class WrittenDetector:
    """A verified export, and what is needed to time it beside its detector.

    `model` and `run` take one of the `pictures`.
    """

    files: tuple[Path, ...]
    about: DetectorInterface
    agreement: Agreement
    pictures: Sequence[Tensor]
    model: RunAll
    run: RunAll


class ExportableDetector(nn.Module):
    """A detector of one image as a graph: uint8 (3, H, W) -> the values of `DETECTOR_OUTPUTS`.

    What `detector([image], masks="probabilities")` finds, from the same functions; N, the number
    of objects, is the graph's to decide.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        generator, heads = self.detector.proposal_generator, self.detector.roi_heads
        sizes = [(image.shape[1], image.shape[2])]
        pyramid = pyramid_of(self.detector, image[None])
        proposals = generator.propose(generator(pyramid), sizes)
        # Classes and boxes of the proposals, and masks of those that are kept.
        (candidates,) = heads.classify(pyramid[:4], proposals, sizes)
        boxes, scores, labels = heads.select(candidates, sizes[0])
        (masks,) = heads.masks(pyramid[:4], [boxes], [labels])
        found = Detections(boxes=boxes, scores=scores, labels=labels, masks=masks)
        found = finish(found, sizes[0], sizes[0], "probabilities")
        return found.boxes, found.scores, found.labels, found.masks


class ExportableBackbone(nn.Module):
    """Backbone and pyramid as a graph: uint8 (B, 3, H, W) -> maps p2 to p6."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(pyramid_of(self.detector, images))


def pyramid_of(detector: Detector, images: Tensor) -> list[Tensor]:
    """Compute the pyramid of images of one size: uint8 (B, 3, H, W) -> maps p2 to p6."""
    height, width = images.shape[2], images.shape[3]
    x = (images.float() - detector.pixel_mean) / detector.pixel_std
    padded = detector.padded_size([(height, width)])
    x = F.pad(x, (0, padded[1] - width, 0, padded[0] - height))
    # Plain strides: exporters later find other ones than tracing does.
    maps = detector.backbone(x).values()
    return [x.clone(memory_format=torch.contiguous_format) for x in maps]


def export_detector(
    detector: Detector,
    path: Path,
    size: Size | None,
    part: Part = "detector",
    picture: Frames | None = None,
) -> WrittenDetector:
    """Export a detector in evaluation mode as .pt2 or .onnx, and verify it.

    Args:
        size: (height, width) of the images; None for any, multiples of 32, as ONNX only.
        picture: (H, W, 3) with objects to compare on, else drawn ones.

    Raises:
        UserError: if both differ, or find no object; nothing is written then.
    """
    if detector.config.suppression != "nms":
        raise UserError("soft NMS cannot be exported; load the detector with suppression='nms'")
    if size is None and (path.suffix != ".onnx" or detector.config.square_pad):
        raise UserError("only ONNX of a detector without square_pad takes images of any size")
    about, model = interface_of(detector, size, part), model_of(detector, part)
    sizes = ANY_SIZES if size is None else (size, size)
    if part == "detector":
        network: nn.Module = ExportableDetector(detector)
        pictures = [
            with_object(model, drawn(each, seed) if picture is None else [resized(picture, each)])
            for seed, each in enumerate(sizes)
        ]
    else:
        network = ExportableBackbone(detector)
        pictures = [
            torch.stack(drawn(each)[:num]) for num, each in zip((2, 1, 1), sizes, strict=False)
        ]
    with draft_of(path, network) as draft:
        program = trace(network.eval(), pictures[0], part, size)
        write_program(program, pictures[0], draft, about.input, list(about.outputs))
        del program
        compare = compare_objects if part == "detector" else compare_maps
        agreement = compare(model, open_outputs(draft), pictures)
        if problem := agreement.problem():
            raise UserError(f"{path} was not written: {problem}")
        files = keep(draft, path)
    return WrittenDetector(
        files=files,
        about=about,
        agreement=agreement,
        pictures=pictures,
        model=model,
        run=open_outputs(path),
    )


def interface_of(detector: Detector, size: Size | None, part: Part) -> DetectorInterface:
    """Describe input and outputs of an export."""
    outputs: Mapping[str, str] = DETECTOR_OUTPUTS
    rule = "resized to H x W" if size else f"H and W any multiples of {STRIDE} from {2 * STRIDE} on"
    layout = f"(3, H, W), RGB, {rule}"
    C = detector.config.fpn_channels
    if part == "backbone":
        layout = f"(B, 3, H, W), RGB, {rule}; B is from 1 to {MAX_BATCH_SIZE}"
        outputs = {
            f"p{i}": f"(B, {C}, H/{stride}, W/{stride}) float32, H and W as padded, rounded up"
            for i, stride in enumerate(STRIDES, start=2)
        }
    return DetectorInterface(
        part=part,
        input=INPUTS[part],
        dtype="uint8",
        layout=layout,
        shape=(3, *(size or ("H", "W"))),
        outputs=outputs,
    )


def model_of(detector: Detector, part: Part) -> RunAll:
    """Return what an export shall do, as the detector does it."""

    @torch.inference_mode()
    def detect(image: Tensor) -> tuple[Tensor, ...]:
        (found,) = detector([image], masks="probabilities")
        assert isinstance(found, Detections)
        return found.boxes, found.scores, found.labels, found.masks

    @torch.inference_mode()
    def pyramid(images: Tensor) -> tuple[Tensor, ...]:
        batch, _ = detector.batch([*images])
        return tuple(detector.backbone(batch).values())

    return detect if part == "detector" else pyramid


def trace(
    network: nn.Module, example: Tensor, part: Part, size: Size | None
) -> torch.export.ExportedProgram:
    """Trace a network for images of this size, or of any; the backbone takes a batch of them."""
    Dim = torch.export.Dim
    axes: dict[int, object] = {}
    if part == "backbone":
        axes[0] = Dim("batch", min=1, max=MAX_BATCH_SIZE)
    if size is None:
        rows, columns = (STRIDE * Dim(name, min=2, max=MAX_SIDE) for name in ("rows", "columns"))
        axes |= {example.ndim - 2: rows, example.ndim - 1: columns}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torchvision calls what PyTorch renamed
        return torch.export.export(network, (example,), dynamic_shapes=(axes,), strict=False)


def drawn(size: Size, seed: int = 0) -> list[Tensor]:
    """Draw pictures with shapes: -> uint8 (3, *size) each."""
    generator = np.random.default_rng(seed)
    return [resized(draw_demo_picture(generator)[0], size) for _ in range(NUM_DRAWN)]


def resized(picture: Frames, size: Size) -> Tensor:
    """Resize a picture: (H, W, 3) -> uint8 (3, *size)."""
    image = Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def with_object(model: RunAll, pictures: Sequence[Tensor]) -> Tensor:
    """Return the first picture in which the detector finds something."""
    for picture in pictures:
        if len(model(picture)[0]):
            return picture
    raise UserError(
        f"the detector finds nothing in {len(pictures)} picture(s), so its export cannot be "
        "compared with it; name a picture with objects that it finds: image=FILE"
    )


def compare_objects(model: RunAll, run: RunAll, pictures: Sequence[Tensor]) -> Agreement:
    """Pair the objects that detector and export find, and compare them."""
    num_objects, num_unpaired, largest = 0, 0, torch.zeros(3)
    for picture in pictures:
        expected, found = model(picture), run(picture)
        differences = paired(expected, found)
        num_objects += len(expected[0])
        num_unpaired += len(expected[0]) + len(found[0]) - 2 * len(differences)
        largest = torch.cat([largest[None], differences]).amax(dim=0)
    boxes_px, scores, masks = largest.tolist()
    return Agreement(
        num_objects=num_objects,
        num_unpaired=num_unpaired,
        boxes_px=boxes_px,
        scores=scores,
        masks=masks,
    )


def paired(expected: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
    """Return differences of boxes, scores and masks of the objects that are in both: -> (N, 3)."""
    rows: list[Tensor] = []
    tolerance = torch.tensor([BOX_TOLERANCE_PX, SCORE_TOLERANCE, MASK_TOLERANCE])
    is_left = torch.ones(len(found[0]), dtype=torch.bool)
    for box, score, label, mask in zip(*expected, strict=True):
        boxes, scores, labels, masks = found
        differences = [(boxes - box), (scores - score)[:, None], (masks - mask).flatten(1)]
        row = torch.stack([each.abs().amax(dim=1) for each in differences], dim=1)  # (M, 3)
        fits = (is_left & (labels == label) & (row <= tolerance).all(dim=1)).nonzero()[:1, 0]
        is_left[fits] = False
        rows.append(row[fits])
    return torch.cat([torch.zeros(0, 3), *rows])


def compare_maps(model: RunAll, run: RunAll, batches: Sequence[Tensor]) -> Agreement:
    """Compare all maps, also where one is NaN."""
    differences = [
        (found - expected).abs().max() / expected.abs().max()
        for batch in batches
        for found, expected in zip(run(batch), model(batch), strict=True)
    ]
    return Agreement(maps=torch.stack(differences).max().item())
