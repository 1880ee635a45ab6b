"""Names of version 0.1 and what they are called since 0.2: one table for every use.

The command line and the configuration refuse an old name with the new one, imports of an old module
say where it is now, and checkpoints, cards and logs of version 0.1 are read under the new names.
"""

import re
from collections.abc import Mapping
from typing import Any

COMMANDS = {
    f"scripts/{verb}.py": f"video-mvit {verb}"
    for verb in (
        *("train", "evaluate", "predict", "extract", "prepare", "inflate", "convert", "export"),
        *("push", "compare", "doctor", "demo", "benchmark"),
    )
}

# Dotted keys; what is below a key moves with it.
OPTIONS = {
    "accept_changes": "allow_config_changes",
    "augment.erase_rate": "augment.erase_prob",
    "augment.mixing.cutmix_rate": "augment.mixing.switch_to_cutmix_prob",
    "augment.mixing.rate": "augment.mixing.prob",
    "budget": "decode_limits",
    "callbacks.average": "callbacks.ema",
    "callbacks.finite_loss": "callbacks.nonfinite_loss",
    "callbacks.kept": "callbacks.keep_last",
    "callbacks.stop_when_asked": "callbacks.graceful_shutdown",
    "choose": "auto_settings",
    "data.budget": "data.decode_limits",
    "data.ledgers": "data.scan_reports",
    "data.max_unreadable_share": "data.max_unreadable_fraction",
    "data.module.loading": "data.module.loader",
    "data.module.loading.max_unreadable_share": "data.module.loader.max_unreadable_fraction",
    "data.module.test.ledger": "data.module.test.scan_report",
    "data.module.test.views": "data.module.test.pipeline",
    "data.module.test.views.budget": "data.module.test.pipeline.decode_limits",
    "data.module.train.ledger": "data.module.train.scan_report",
    "data.module.train.views": "data.module.train.pipeline",
    "data.module.train.views.budget": "data.module.train.pipeline.decode_limits",
    "data.module.val.ledger": "data.module.val.scan_report",
    "data.module.val.views": "data.module.val.pipeline",
    "data.module.val.views.budget": "data.module.val.pipeline.decode_limits",
    "data.train_crop.flip_rate": "data.train_crop.flip_prob",
    "dialect": "format",
    "hop_s": "step_s",
    "ledger": "scan_reports",
    "model.checkpoint_activations": "model.activation_checkpointing",
}
# Options that version 0.1 did not have -> the value that stands for what it did.
NEW_OPTIONS = {"trainer.max_steps": -1, "float32_matmul": "highest"}
GROUP_CHOICES = {"callbacks=averaged": "callbacks=ema", "data=own": "data=custom"}
# Option, by its new name -> old value -> new value.
OPTION_VALUES: Mapping[str, Mapping[Any, Any]] = {
    "compile": {True: "blocks", False: None},
    "init.weights": {"average": "ema"},
    "model.activation_checkpointing": {True: "full", False: "none"},
    "weights": {"average": "ema"},
}
# In run folders and beside lists of videos; files of the old name are still read.
FILES = {
    "<run_dir>/config/chosen.yaml": "<run_dir>/config/auto_settings.yaml",
    "<split>.ledger.jsonl": "<split>.scan.jsonl",
}
LOG_KEYS = {
    "speed/matmul_share": "speed/mfu",
    "speed/waiting_share": "speed/data_wait_fraction",
    "val/average_top1": "val/ema_top1",
    "val/average_top5": "val/ema_top5",
}
CHECKPOINT_KEYS = {"average": "ema"}
CARD_FIELDS = {"dialect": "key_format"}
RESULT_FIELDS = {"normalisation": "normalization"}  # of results.json and partial results
# Fields of a saved network that say how it was trained, and nothing that its weights depend on.
DROPPED_MODEL_FIELDS = ("checkpoint_activations",)

MODULES = {
    "video_mvit.attention": "video_mvit.kernels.cpu_attention",
    "video_mvit.average": "video_mvit.training.ema",
    "video_mvit.checkpoints": "video_mvit.training.checkpoints",
    "video_mvit.classifier": "video_mvit.training.classifier",
    "video_mvit.curves": "video_mvit.training.curves",
    "video_mvit.data.augment": "video_mvit.data.transforms.augment",
    "video_mvit.data.containers": "video_mvit.data.reading.containers",
    "video_mvit.data.cropping": "video_mvit.data.transforms.cropping",
    "video_mvit.data.decoding": "video_mvit.data.reading.open",
    "video_mvit.data.demo": "video_mvit.data.preparation.demo",
    "video_mvit.data.first_look": "video_mvit.data.sanity_check",
    "video_mvit.data.holding_out": "video_mvit.data.lists.holdout",
    "video_mvit.data.image_ops": "video_mvit.data.transforms.image_ops",
    "video_mvit.data.ledger": "video_mvit.data.preparation.scan",
    "video_mvit.data.list_files": "video_mvit.data.lists.text",
    "video_mvit.data.manifest": "video_mvit.data.lists.manifest",
    "video_mvit.data.mixing": "video_mvit.data.transforms.mixup",
    "video_mvit.data.own_lists": "video_mvit.data.lists.custom",
    "video_mvit.data.packets": "video_mvit.data.reading.packets",
    "video_mvit.data.pictures": "video_mvit.data.reading.images",
    "video_mvit.data.processes": "video_mvit.data.preparation.worker_pool",
    "video_mvit.data.pyav_reader": "video_mvit.data.reading.pyav_reader",
    "video_mvit.data.rand_augment": "video_mvit.data.transforms.rand_augment",
    "video_mvit.data.remote": "video_mvit.data.reading.remote",
    "video_mvit.data.shards": "video_mvit.data.lists.shards",
    "video_mvit.data.sources": "video_mvit.data.lists.published",
    "video_mvit.data.transcoding": "video_mvit.data.preparation.transcode",
    "video_mvit.data.video": "video_mvit.data.reading.reader",
    "video_mvit.evaluation.folder": "video_mvit.evaluation.output_folder",
    "video_mvit.evaluation.motion": "video_mvit.evaluation.motion_tests",
    "video_mvit.evaluation.pictures": "video_mvit.evaluation.thumbnails",
    "video_mvit.evaluation.wording": "video_mvit.evaluation.summary_text",
    "video_mvit.guard": "video_mvit.training.nonfinite",
    "video_mvit.heads": "video_mvit.kernels.rel_pos",
    "video_mvit.heads_triton": "video_mvit.kernels.triton_rel_pos",
    "video_mvit.machine": "video_mvit.host",
    "video_mvit.memory": "video_mvit.training.memory_fit",
    "video_mvit.mvit": "video_mvit.models.mvit",
    "video_mvit.norms": "video_mvit.kernels.layer_norm",
    "video_mvit.norms_triton": "video_mvit.kernels.triton_layer_norm",
    "video_mvit.optim": "video_mvit.training.optim",
    "video_mvit.pooling": "video_mvit.kernels.pooling",
    "video_mvit.pooling_triton": "video_mvit.kernels.triton_pooling",
    "video_mvit.prediction.annotating": "video_mvit.prediction.annotate",
    "video_mvit.prediction.explaining": "video_mvit.prediction.explain",
    "video_mvit.prediction.facts": "video_mvit.prediction.input_spec",
    "video_mvit.prediction.finding": "video_mvit.prediction.inputs",
    "video_mvit.prediction.following": "video_mvit.prediction.sliding_window",
    "video_mvit.prediction.footage": "video_mvit.prediction.clips",
    "video_mvit.prediction.groups": "video_mvit.prediction.prefetch",
    "video_mvit.prediction.rollout": "video_mvit.prediction.attention_rollout",
    "video_mvit.prediction.scoring": "video_mvit.prediction.scorer",
    "video_mvit.prediction.strip_chart": "video_mvit.prediction.timeline_chart",
    "video_mvit.prediction.writing": "video_mvit.prediction.writers",
    "video_mvit.preemption": "video_mvit.training.preemption",
    "video_mvit.products": "video_mvit.kernels.cpu_linear",
    "video_mvit.progress": "video_mvit.training.progress",
    "video_mvit.ranks": "video_mvit.training.distributed",
    "video_mvit.recipe": "video_mvit.training.finetune_settings",
    "video_mvit.recomputing": "video_mvit.models.checkpointing",
    "video_mvit.speed": "video_mvit.training.throughput",
    "video_mvit.tracing": "video_mvit.kernels.dispatch",
    "video_mvit.triton_trial": "video_mvit.kernels.dispatch",
    "video_mvit.waiting": "video_mvit.training.data_wait",
    "video_mvit.weights.card": "video_mvit.weights.model_card",
    "video_mvit.weights.dialects": "video_mvit.weights.key_formats",
    "video_mvit.weights.files": "video_mvit.weights.checkpoint_files",
    "video_mvit.weights.plan": "video_mvit.weights.load_plan",
    "video_mvit.weights.start": "video_mvit.weights.initialize",
    "video_mvit.weights.still_clip": "video_mvit.weights.inflation_check",
    "video_mvit.weights.strangers": "video_mvit.weights.key_formats",
    "video_mvit.zoo": "video_mvit.models.pytorchvideo_zoo",
}
CLASSES = {
    "video_mvit.average.WeightAverage": "video_mvit.training.ema.EmaWeights",
    "video_mvit.checkpoints.NotWritten": "video_mvit.training.checkpoints.CheckpointNotWritten",
    "video_mvit.checkpoints.SafeCheckpointIO": "video_mvit.training.checkpoints.AtomicCheckpointIO",
    "video_mvit.data.datamodule.Loading": "video_mvit.data.datamodule.LoaderConfig",
    "video_mvit.data.datamodule.Progress": "video_mvit.data.datamodule.DataProgress",
    "video_mvit.data.dataset.Views": "video_mvit.data.dataset.ClipPipeline",
    "video_mvit.data.decoding.WorkBudget": "video_mvit.data.reading.open.DecodeLimits",
    "video_mvit.data.first_look.FirstLook": "video_mvit.data.sanity_check.VideoSample",
    "video_mvit.data.first_look.Glimpse": "video_mvit.data.sanity_check.ProbedVideo",
    "video_mvit.data.holding_out.OwnSource": "video_mvit.data.lists.holdout.CustomSource",
    "video_mvit.data.ledger.Ledger": "video_mvit.data.preparation.scan_report.ScanReport",
    "video_mvit.data.ledger.VideoRecord": "video_mvit.data.preparation.scan_report.ScannedVideo",
    "video_mvit.data.manifest.StringTable": "video_mvit.data.lists.manifest.PackedStrings",
    "video_mvit.data.processes.Late": "video_mvit.data.preparation.worker_pool.WorkerTimedOut",
    "video_mvit.data.processes.Lost": "video_mvit.data.preparation.worker_pool.WorkerCrashed",
    "video_mvit.data.video.Meter": "video_mvit.data.reading.reader.LimitChecker",
    "video_mvit.data.video.WorkBudget": "video_mvit.data.reading.reader.DecodeLimits",
    "video_mvit.evaluation.predictions.Notes": "video_mvit.evaluation.predictions.PartialResults",
    "video_mvit.evaluation.predictions.Prediction": "video_mvit.evaluation.predictions.VideoResult",
    "video_mvit.guard.FiniteLoss": "video_mvit.training.nonfinite.NonFiniteLossGuard",
    "video_mvit.guard.HostCopy": "video_mvit.training.deferred.DeferredScalar",
    "video_mvit.memory.Need": "video_mvit.training.memory_fit.MemoryModel",
    "video_mvit.memory.Plan": "video_mvit.training.memory_fit.StepPlan",
    "video_mvit.memory.Trial": "video_mvit.training.memory_fit.TrialStep",
    "video_mvit.mvit.BlockSpec": "video_mvit.models.config.BlockSpec",
    "video_mvit.mvit.MViTConfig": "video_mvit.models.config.MViTConfig",
    "video_mvit.prediction.facts.Facts": "video_mvit.prediction.input_spec.InputSpec",
    "video_mvit.prediction.following.WindowStream": (
        "video_mvit.prediction.sliding_window.SlidingWindows"
    ),
    "video_mvit.prediction.footage.Footage": "video_mvit.prediction.clips.VideoClips",
    "video_mvit.preemption.StopWhenAsked": "video_mvit.training.preemption.GracefulShutdown",
    "video_mvit.ranks.Vote": "video_mvit.training.distributed.HostAllReduce",
    "video_mvit.recipe.Choice": "video_mvit.training.finetune_settings.Suggestion",
    "video_mvit.recipe.DataFacts": "video_mvit.training.finetune_settings.DatasetStats",
    "video_mvit.recipe.NetworkFacts": "video_mvit.training.finetune_settings.ModelInfo",
    "video_mvit.recipe.WeightFacts": "video_mvit.training.finetune_settings.WeightsInfo",
    "video_mvit.waiting.Advice": "video_mvit.training.data_wait.LoaderAdvice",
    "video_mvit.waiting.CudaMark": "video_mvit.training.data_wait.CudaTimestamp",
    "video_mvit.waiting.HostMark": "video_mvit.training.data_wait.CpuTimestamp",
    "video_mvit.waiting.Loading": "video_mvit.training.data_wait.LoaderStats",
    "video_mvit.waiting.Mark": "video_mvit.training.data_wait.Timestamp",
    "video_mvit.waiting.Times": "video_mvit.training.data_wait.EpochTimes",
    "video_mvit.waiting.TrainingClock": "video_mvit.training.data_wait.DataWaitTimer",
    "video_mvit.weights.dialects.Dialect": "video_mvit.weights.key_formats.KeyFormat",
}
INTERPOLATION = re.compile(r"\$\{([\w.]+)\}")


def rename_option(key: str) -> str:
    """Return the new name of a dotted key; of one that kept its name, the key itself."""
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        old = ".".join(parts[:end])
        if old in OPTIONS:
            return ".".join([OPTIONS[old], *parts[end:]])
    return key


def rename_target(path: str) -> str:
    """Return the new dotted path of a class or function; of others, the path itself."""
    if path in CLASSES:
        return CLASSES[path]
    module, _, name = path.rpartition(".")
    return f"{MODULES[module]}.{name}" if module in MODULES else path


def where_is(module: str) -> str:
    """Say in one sentence where a module of version 0.1 is now; "" for other modules."""
    if module not in MODULES:
        return ""
    classes = [
        f"{old.rpartition('.')[2]} is now {new}"
        for old, new in CLASSES.items()
        if old.rpartition(".")[0] == module
    ]
    return "; ".join([f"{module} is now {MODULES[module]}", *classes])


def rename_value(key: str, value: Any) -> Any:
    """Return the value that the option with the new name `key` has instead of an old one."""
    if not isinstance(value, str | bool):
        return value
    if key.endswith("._target_") or key == "_target_":
        return rename_target(str(value))
    value = OPTION_VALUES.get(key, {}).get(value, value)
    if not isinstance(value, str):
        return value
    value = INTERPOLATION.sub(lambda match: f"${{{rename_option(match[1])}}}", value)
    if key.endswith(".scan_report") and value.startswith("${data.scan_reports}/"):
        value = value.replace(".ledger.jsonl", ".scan.jsonl")
    return LOG_KEYS.get(value, value)


def rename_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat settings, dotted key to plain value, under their new names."""
    renamed = {rename_option(key): value for key, value in settings.items()}
    return {**NEW_OPTIONS, **{key: rename_value(key, value) for key, value in renamed.items()}}


def rename_keys(content: Mapping[str, Any], table: Mapping[str, str]) -> dict[str, Any]:
    """Return a mapping with the keys of a table under their new names."""
    return {table.get(key, key): value for key, value in content.items()}


def rename_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a model card under their new names."""
    renamed = rename_keys(card, CARD_FIELDS)
    if isinstance(renamed.get("model"), Mapping):
        fields = renamed["model"].items()
        renamed["model"] = {n: value for n, value in fields if n not in DROPPED_MODEL_FIELDS}
    return renamed
