"""What every option of every verb allows: one table, checked before anything is read or written.

The arguments of a `_target_` are not here: their types are in its signature, and their bounds in
its constructor.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf

from video_mvit.cli.config_check import Range, check_options
from video_mvit.errors import UserError

Positive = Annotated[int, Range(1)]
Paths = str | Sequence[str]
Colour = tuple[float, float, float]
Engine = Literal["torch", "onnxruntime", "openvino"]
Seed = Annotated[int, Range(0, 2**32 - 1)]

# Options that several verbs share.
MODEL: Mapping[str, Any] = {
    "checkpoint": str,
    "run_dir": str,
    "weights": str,
    "base": str | None,
    "device": Literal["auto", "cpu", "cuda"],
    "engine": Engine,
    "precision": Literal["auto", "float32", "bf16", "int8"],
    "num_clips": Positive | None,
    "num_crops": Literal[1, 3] | None,
    "frame_stride": Positive | None,
    "short_side": Positive | None,
    "sampling": Literal["strided", "segments"] | None,
    "interpolation": Literal["bilinear", "bicubic"] | None,
    "mean": Colour | None,
    "std": Colour | None,
    "overwrite": bool,
}
CARD: Mapping[str, Any] = {
    "class_names": str | None,
    "frame_stride": Positive | None,
    "mean": Colour | None,
    "std": Colour | None,
    "evaluation": str | None,
}
WEIGHT_FILE: Mapping[str, Any] = {
    "source": str,
    "target": str,
    "weights": str,
    "overwrite": bool,
}
RUN: Mapping[str, Any] = {
    "name": str | int | float,
    "run_dir": str | None,
    "seed": Seed,
    "overwrite": bool,
    "resume_from": str | None,
    "allow_config_changes": bool,
    "compile": Literal["blocks", "cudagraph"] | None,
    "label_smoothing": float,
    "class_weights": str | Sequence[float] | None,
    "focal_gamma": float | None,
    "logit_adjustment": Annotated[float, Range(0)] | None,
    "early_stopping": Positive | None,
    "float32_matmul": Literal["highest", "high", "medium"],
    "rank_timeout_s": float,
    "memory": Literal["auto"] | None,
    "auto_settings": bool,
    "clip.num_frames": Positive,
    "clip.frame_stride": Positive,
    "clip.crop_size": Positive,
    "data.root": str,
    "data.num_classes": Positive | None,
    "data.num_workers": Annotated[int, Range(0)] | Literal["auto"],
    "data.train_batch_size": Positive,
    "data.eval_batch_size": Positive,
    "data.num_samples": Positive,
    "data.balanced": bool | None,
    "data.short_side": Positive,
    "data.max_side": Positive,
    "data.task": Literal["multi_label", "multi_head", "regression"],
    "data.heads": Sequence[str] | None,
    "data.targets": Sequence[str] | None,
    "data.huber_delta": float | None,
    "data.combine_views": Literal["mean", "max"],
    "data.clip_labels": Literal["clip", "video"],
    "data.split": Literal[1, 2, 3],
    "data.train_list": str,
    "data.val_list": str | None,
    "data.test_list": str | None,
    "data.val_share": Annotated[float, Range(0, 1)] | None,
    "data.val_seed": Seed | None,
    "data.num_folds": Positive | None,
    "data.fold": Annotated[int, Range(0)] | None,
    "data.scan_reports": str,
    "data.shards": str | None,
    "data.normalize": dict,
    "data.normalize.mean": Colour,
    "data.normalize.std": Colour,
    "data.module": dict,
    "data.module.train": dict,
    "data.module.val": dict,
    "data.sources": dict,
    "data.samplers": dict,
}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "train": RUN,
    "evaluate": {
        **RUN,
        "checkpoint": str,
        "weights": str,
        "base": str | None,
        "motion": Sequence[Literal["frozen", "reversed", "shuffled"]],
        "engine": Engine,
        "precision": Literal["int8"] | None,
        "clips_per_pass": Positive | None,
        "reuse": Literal["predictions"] | None,
        "evaluator": Literal["pycocotools", "faster-coco-eval"],
        "report": dict,
        "report.thumbnails": bool,
        "output": str,
    },
    "tune": {**RUN, "ranges": str, "num_trials": Positive, "pruning": bool},
    "prepare": {
        **RUN,
        "mode": Literal["scan", "transcode", "shards"],
        "splits": Sequence[Literal["train", "val", "test"]],
        "num_workers": Positive | None,
        "scan_reports": str,
        "output": str | None,
        "shard": str,
        "max_bytes": Positive,
    },
    "predict": {
        **MODEL,
        "video": Paths | None,
        "image": Paths | None,
        "format": Literal["text", "json", "csv"],
        "output": str | None,
        "annotate": str | None,
        "explain": bool | str | None,
        "top": Positive,
        "every": Positive,
        "min_score": Annotated[float, Range(0, 1)],
        "thresholds": str | None,
        "soft_nms": bool,
        "multi_scale": bool,
        "timeline": bool | Literal["auto"],
        "timeline_picture": str | None,
        "step_s": float | None,
        "class_names": str | None,
    },
    "extract": {
        **MODEL,
        "video": Paths,
        "features": Literal["mean", "cls", "stage1", "stage2", "stage3", "stage4"],
        "output": str,
    },
    "probe": {
        **RUN,
        **MODEL,
        "run_dir": str | None,
        "cache": str,
        "report": dict,
        "report.thumbnails": bool,
        "output": str,
        "probe": dict,
        "probe.kinds": Sequence[Literal["linear", "attentive", "neighbours"]],
        "probe.num_folds": Annotated[int, Range(2)] | None,
    },
    "convert": {**WEIGHT_FILE, **CARD, "base": str | None, "format": str},
    "export": {
        **WEIGHT_FILE,
        **CARD,
        "base": str | None,
        "preprocess": bool,
        "precision": Literal["float32", "int8"],
        "image_size": tuple[Positive, Positive] | Literal["any"] | None,
        "part": Literal["detector", "backbone"],
        "image": str | None,
        "num_runs": Positive,
    },
    "inflate": {
        **WEIGHT_FILE,
        "rule": Literal["center", "average"],
        "head": Literal["new", "keep"],
        "keep_stride_kv": bool,
        "seed": Seed,
        "model.num_classes": Positive,
        "model.num_frames": Positive | None,
        "model.crop_size": Positive | None,
        "model.cls_token": bool | None,
        "model.expand_dim_in": Literal["attention", "mlp"] | None,
    },
    "browse": {
        **RUN,
        "output": str,
        "clips_per_class": Positive | None,
        "max_videos": Positive | None,
        "copies": bool,
        "num_workers": Positive | None,
    },
    "summary": {
        **RUN,
        "level": Literal["stages", "blocks", "layers"],
        "image_size": tuple[Positive, Positive] | None,
        "measure": bool,
    },
    "push": {"source": str, "repo": str, "private": bool},
}


def check_verb(cfg: DictConfig, verb: str) -> None:
    """Raise `UserError` for an option of a verb whose value is of another type, or out of range."""
    check_options(cfg, OPTIONS[verb])
    data = cfg.get("data")
    if data and OmegaConf.is_missing(data, "rows"):
        raise UserError(
            "data=rows has no rows: a function of yours yields them, "
            "+data.rows._target_=my_rows.named_files; rows that were given to "
            "video_mvit.train are not in the run folder, so give them again, rows=[...]"
        )
