"""Five rooms that never import each other; the scripts join them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "video_mvit"
# Module (or folder) -> what of ours and which libraries it may import, besides the standard
# library.
ALLOWED = {
    "__init__": {"video_mvit.mvit", "video_mvit.weights", "video_mvit.prediction"},
    "mvit": {
        "torch",
        "pytorchvideo",
        "video_mvit.attention",
        "video_mvit.heads",
        "video_mvit.norms",
        "video_mvit.pooling",
        "video_mvit.products",
        "video_mvit.recomputing",
        "video_mvit.tracing",
    },
    "attention": {"torch", "video_mvit.products", "video_mvit.tracing"},
    "tracing": {"torch"},
    "products": {"torch", "video_mvit.recomputing"},
    "recomputing": {"torch"},
    "pooling": {
        "torch",
        "video_mvit.pooling_triton",
        "video_mvit.products",
        "video_mvit.tracing",
        "video_mvit.triton_trial",
    },
    "pooling_triton": {"torch", "triton", "video_mvit.pooling", "video_mvit.triton_trial"},
    "norms": {"torch", "video_mvit.norms_triton", "video_mvit.triton_trial"},
    "norms_triton": {"torch", "triton", "video_mvit.triton_trial"},
    "heads": {
        "torch",
        "video_mvit.heads_triton",
        "video_mvit.pooling",
        "video_mvit.triton_trial",
    },
    "heads_triton": {"torch", "triton", "video_mvit.triton_trial"},
    "triton_trial": {"torch"},
    "zoo": {"torch"},  # and pytorchvideo.models, by name
    "optim": {"torch"},
    "ranks": {"torch"},
    "machine": set(),
    "checkpoints": {"torch", "pytorch_lightning"},
    "guard": {"torch", "pytorch_lightning", "video_mvit.ranks"},
    "preemption": {"pytorch_lightning", "video_mvit.checkpoints", "video_mvit.ranks"},
    "average": {"torch", "pytorch_lightning", "video_mvit.checkpoints"},
    "recipe": set(),
    "classifier": {
        "torch",
        "numpy",
        "torchmetrics",
        "pytorch_lightning",
        "video_mvit.guard",
        "video_mvit.optim",
        "video_mvit.ranks",
    },
    "progress": {
        "torch",
        "pytorch_lightning",
        "rich",
        "video_mvit.machine",
        "video_mvit.speed",
        "video_mvit.waiting",
    },
    "speed": {"torch", "video_mvit.machine"},
    "waiting": {"torch"},
    "memory": {"torch", "video_mvit.machine"},
    "curves": {"pytorch_lightning", "matplotlib"},
    "data": {"torch", "numpy", "pytorch_lightning", "video_mvit.data"},
    "data/decoding": {"numpy", "av", "video_mvit.data"},
    "data/pictures": {"numpy", "PIL", "video_mvit.data"},
    "data/pyav_reader": {"numpy", "av", "video_mvit.data"},
    "data/containers": {"av", "video_mvit.data"},
    "data/packets": {"numpy"},
    "data/sampling": {"numpy"},
    "data/remote": {"fsspec", "video_mvit.data"},
    "data/shards": {"numpy", "fsspec", "video_mvit.data"},
    "data/transcoding": {"numpy", "av", "video_mvit.data"},
    "data/demo": {"numpy", "av", "PIL"},
    "prediction": {
        "torch",
        "video_mvit.data",
        "video_mvit.machine",
        "video_mvit.prediction",
        "video_mvit.recipe",
    },
    "prediction/timeline": {"torch", "numpy"},
    "prediction/following": {"torch", "numpy", "video_mvit.data", "video_mvit.prediction"},
    "prediction/annotating": {"numpy", "av", "PIL", "video_mvit.data", "video_mvit.prediction"},
    "prediction/strip_chart": {"numpy", "matplotlib", "video_mvit.prediction"},
    "prediction/footage": {"torch", "numpy", "av", "video_mvit.data", "video_mvit.prediction"},
    "evaluation": {"torch", "torchmetrics", "video_mvit.evaluation"},
    "evaluation/figures": {"matplotlib", "video_mvit.evaluation"},
    "evaluation/pictures": {"numpy", "PIL", "video_mvit.evaluation"},
    "evaluation/report": {"numpy", "jinja2", "markupsafe", "video_mvit.evaluation"},
    "prediction/rollout": {"torch"},
    "prediction/features": {
        "torch",
        "numpy",
        "safetensors",
        "video_mvit.data",
        "video_mvit.machine",
        "video_mvit.prediction",
    },
    "prediction/explaining": {
        "torch",
        "numpy",
        "matplotlib",
        "jinja2",
        "PIL",
        "video_mvit.data",
        "video_mvit.prediction",
    },
    "weights": {"torch", "video_mvit.weights"},
    "weights/export": {"torch", "numpy", "onnxruntime", "video_mvit.weights"},
    "weights/hub": {"huggingface_hub", "video_mvit.weights"},
    "weights/files": {"torch", "numpy", "safetensors", "video_mvit.weights"},
}
MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py")
)


def imported_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
    return {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_its_room_may(module: str) -> None:
    allowed = ALLOWED.get(module, ALLOWED.get(module.split("/")[0]))
    assert allowed is not None, f"say in ALLOWED what {module} may import"
    for name in imported_names(PACKAGE / f"{module}.py"):
        assert any(name == prefix or name.startswith(prefix + ".") for prefix in allowed), (
            f"{module} imports {name}"
        )


def test_commands_do_not_import_each_other() -> None:
    shared = {
        "choosing",
        "decoder_checks",
        "examination",
        "finding",
        "machine_checks",
        "probes",
        "probing",
        "requirements_of",
        "software_checks",
        "comparing",
        "evaluation_run",
        "reporting",
        "training_run",
        "plan_table",
        "weight_files",
        "inflation",
        "launch",
        "run_folder",
        "memory_plan",
        "mistakes",
        "prediction_run",
        "preparation",
        "model_peers",
        "peer_errors",
        "plain_mvit",
        "benchmark_augment",
        "benchmark_data",
        "benchmark_growth",
        "benchmark_memory",
        "benchmark_model",
        "measurements",
        "machine_facts",
        "workloads",
        "footage",
        "pace",
        "pairs",
        "peers",
    }
    scripts = PACKAGE.parent / "scripts"
    commands = {path.stem for path in scripts.glob("*.py")} - shared
    for path in scripts.glob("*.py"):
        assert not imported_names(path) & commands


def test_package_imports_nothing_that_it_does_not_need_at_once() -> None:
    heavy = ["torchvision", "timm", "pytorch_lightning", "hydra", "av", "video_mvit.prediction"]
    heavy += ["triton", "torch._dynamo"]
    code = "import sys, video_mvit, video_mvit.zoo; "
    code += f"print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
    assert not result.stderr


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_help_does_not_wait_for_the_trainer_library(command: str) -> None:
    script = PACKAGE.parent / "scripts" / f"{command}.py"
    result = subprocess.run(
        [sys.executable, "-X", "importtime", str(script), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Configuration groups" in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "pytorch_lightning"}
