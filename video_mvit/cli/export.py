"""Export a trained model, and verify what was written.

video-mvit export runs/finetune target=model.onnx preprocess=true
video-mvit export runs/finetune target=model.xml precision=int8
video-mvit export source=det.ckpt target=det.onnx image_size=[800,1344]
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.own_networks import read_network
from video_mvit.cli.tables import describe_card, describe_source, wide_console
from video_mvit.cli.weight_files import (
    card_for,
    interface_of,
    is_detector_file,
    latencies,
    with_preprocessing,
)
from video_mvit.errors import UserError
from video_mvit.host import peak_resident_memory
from video_mvit.prediction.input_spec import sizes_of
from video_mvit.weights.class_names import read_class_names
from video_mvit.weights.export import check_target, export, write_about
from video_mvit.weights.model_card import ModelCard

OF_CLASSIFIERS = ("preprocess", "precision", "frame_stride", "mean", "std", "evaluation")
DEFAULTS = {"preprocess": False, "precision": "float32", "part": "detector"}  # the others are null
# What runs an exported file, in Python, by its suffix.
RUN = {
    ".onnx": "onnxruntime.InferenceSession({!r}).run(None, inputs)",
    ".pt2": "torch.export.load({!r}).module()(input)",
    ".xml": "openvino.Core().compile_model({!r})(input)",
}
OF_DETECTORS = ("image_size", "part", "image")


def main(cfg: DictConfig) -> None:
    """Export, verify, and print interface and latency."""
    console = wide_console()
    with exit_on_user_error():
        check_verb(cfg, "export")
        target = Path(cfg.target)
        check_target(target, overwrite=cfg.overwrite, weights=cfg.precision)
        if is_detector_file(cfg.source, cfg.weights, cfg.base):
            _refuse(cfg, OF_CLASSIFIERS, "a classifier's export")
            if target.suffix == ".xml":
                raise UserError(f"{target}: a detector is exported as .pt2 or .onnx")
            _export_detector(cfg, target, console)
            return
        _refuse(cfg, OF_DETECTORS, "a detector's export")
        source, model = read_network(cfg, cfg.source)
        sizes = sizes_of(model)
        card, assumed = card_for(cfg, source, model)
        console.print(f"[bold]{cfg.source}[/]", describe_source(source, model), sep="\n  ")
        network = with_preprocessing(model, card) if cfg.preprocess else model
        about, examples = interface_of(
            sizes, preprocess=cfg.preprocess, weights=cfg.precision, task=card.task
        )
        is_in_units = cfg.preprocess and card.task == "regression"
        start = time.perf_counter()
        scale = max(card.target_std or (1.0,)) if is_in_units else 1.0
        written = export(network, examples, target, about, scale)
        time_s, peak_gb = time.perf_counter() - start, (peak_resident_memory() or 0) / 1e9
        model_s, export_s = latencies(network, written.run, examples[-1], cfg.num_runs)
        about_path = write_about(target, card, about)
        lines = (
            f"input          {about.input}: {about.dtype} {about.layout}",
            f"               item shape {'x'.join(map(str, about.shape))}, any batch size up to 64",
            f"output         {about.output} of {sizes.num_classes} "
            f"{'targets' if card.task == 'regression' else 'classes'}",
            *describe_card(card, assumed),
            f"weights        {about.weights} in linear layers",
            f"verified       max |diff| {written.max_abs_diff:.1e}, "
            f"{100 * written.difference:.2g} % of the largest, on batches of 1 and 2",
            f"latency        {1000 * export_s:.0f} ms per clip; PyTorch {1000 * model_s:.0f} ms",
            f"export took    {time_s:.0f} s including verification, peak {peak_gb:.1f} GB",
        )
        _print_export(console, written.files, about_path, lines)


def _export_detector(cfg: DictConfig, target: Path, console: Console) -> None:
    """Export a detector, or its backbone with the pyramid."""
    from video_mvit.detection.export import export_detector  # needs an extra
    from video_mvit.detection.predict import read_picture
    from video_mvit.detection.weights import load_detector

    detector = load_detector(cfg.source, weights=cfg.weights, suppression="nms")
    card = detector.card
    if cfg.class_names:
        card = replace(card, class_names=read_class_names(cfg.class_names))
    size, start = _image_size(cfg, card), time.perf_counter()
    picture = read_picture(cfg.image) if cfg.image else None
    if isinstance(picture, str):
        raise UserError(f"cannot read {cfg.image}: {picture}")
    written = export_detector(detector, target, size, cfg.part, picture)
    time_s, peak_gb = time.perf_counter() - start, (peak_resident_memory() or 0) / 1e9
    example = written.pictures[-1]
    model_s, export_s = latencies(written.model, written.run, example, cfg.num_runs)
    about_path, about = write_about(target, card, written.about), written.about
    outputs = [f"{name}: {what}" for name, what in about.outputs.items()]
    shape = "x".join(map(str, about.shape))
    lines = (
        f"input          {about.input}: {about.dtype} {about.layout}, {shape}",
        "output         " + "\n                 ".join(outputs),
        f"class names    {', '.join(card.class_names or ['not known'])}",
        f"verified       {written.agreement.summary()}",
        f"latency        {1000 * export_s:.0f} ms per image; PyTorch {1000 * model_s:.0f} ms",
        f"export took    {time_s:.0f} s including verification, peak {peak_gb:.1f} GB",
    )
    _print_export(console, written.files, about_path, lines)


def _image_size(cfg: DictConfig, card: ModelCard) -> tuple[int, int] | None:
    """Return (height, width) of a detector's input, by default the largest of its test.

    None stands for any size.
    """
    if cfg.image_size == "any":
        return None
    if cfg.image_size is None:
        if card.short_side is None or card.max_side is None:
            raise UserError("the file does not say how large images are; set image_size=[H,W]")
        return card.short_side, card.max_side
    height, width = cfg.image_size
    return height, width


def _refuse(cfg: DictConfig, names: Sequence[str], whose: str) -> None:
    """Refuse options that another kind of model has."""
    for name in names:
        if cfg[name] != DEFAULTS.get(name):
            raise UserError(f"{name} is an option of {whose}, which {cfg.source} is not")


def _print_export(
    console: Console, files: Sequence[Path], about_path: Path, lines: Sequence[str]
) -> None:
    size_mb = sum(file.stat().st_size for file in files) / 1e6
    target = about_path.with_suffix("")
    console.print(f"[bold]{target}[/]  {size_mb:.1f} MB, {about_path.name} beside it")
    console.print("  " + "\n  ".join(lines), markup=False)
    console.print(f"next: {RUN[target.suffix].format(str(target))}", markup=False)
