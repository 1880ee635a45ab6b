"""Which room may import which: the table of the architecture, nothing listed by hand beside it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT, SCRIPTS

from video_mvit.cli import VERBS

PACKAGE = ROOT / "video_mvit"
# Which every room but the doctor may import.
SHARED = {
    "host",
    "files",
    "lock",
    "errors",
    "class_heads",
    "renamed",
    "schema",
    "text",
}
PLAIN = {"copies"}  # standard library only: every room may import it, the doctor too
# Room -> our rooms, or modules of them, that it may import besides itself and `SHARED`.
TABLE: dict[str, set[str]] = {
    "kernels": set(),
    "weights": set(),
    "data": set(),
    "models": {"kernels"},
    "evaluation": {"data.reading"},
    "training": {"evaluation", "data.sampling", "kernels", "weights.torch_files"},
    "prediction": {"data", "evaluation.view_scores"},
    "detection": {
        "models",
        "kernels",
        "weights",
        "training",
        "data",
        "evaluation",
        "prediction",
    },
    "probing": {
        "models",
        "kernels",
        "weights",
        "training",
        "data",
        "evaluation",
        "prediction",
    },
    "inspection": {"data", "evaluation", "detection", "training.throughput"},
    "doctor": set(),
    "host": set(),
    "files": set(),
    "lock": set(),
    "errors": set(),
    "class_heads": set(),
    "renamed": set(),
    "schema": {"text"},
    "text": set(),
    "copies": set(),
}
JOINING = {"api", "cli", "__init__", "__main__"}  # which may import every room
PATHS = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports(path: Path, *, at_import: bool = False) -> Iterator[str]:
    """Modules that a file imports; with `at_import`, those outside functions only."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""
            if node.module in ("video_mvit", "video_mvit.data", "video_mvit.evaluation"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))


def room_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_room_imports_only_what_the_table_allows(path: Path) -> None:
    room = room_of(path)
    if room in JOINING or room == "conf":
        return
    assert room in TABLE, f"add the room {room} to the table"
    allowed = TABLE[room] | {room} | PLAIN | (SHARED if room != "doctor" else set())
    at_import = room == "doctor"  # it asks the package in processes of its own
    for name in imports(PACKAGE / path, at_import=at_import):
        if name.startswith("video_mvit."):
            inner = name.removeprefix("video_mvit.")
            is_allowed = any(inner == each or inner.startswith(f"{each}.") for each in allowed)
            is_package = any(each.startswith(f"{inner}.") for each in allowed)
            assert is_allowed or is_package, f"{path} imports {name}"


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_only_the_commands_import_hydra(path: Path) -> None:
    found = {name.partition(".")[0] for name in imports(PACKAGE / path)}
    if room_of(path) != "cli":
        assert not found & {"hydra", "omegaconf"}
    if room_of(path) not in ("detection", "doctor"):  # the doctor asks whether it works
        assert not found & {"torchvision", "timm", "transformers"}


@pytest.mark.parametrize("path", [p for p in PATHS if room_of(p) in {"doctor", *PLAIN}], ids=str)
def test_doctor_needs_only_the_standard_library_at_import(path: Path) -> None:
    ours = tuple(f"video_mvit.{room}" for room in ("doctor", *PLAIN))
    for name in imports(PACKAGE / path, at_import=True):
        top = name.partition(".")[0]
        assert top in sys.stdlib_module_names or name.startswith(ours), name


def test_every_folder_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.name)
def test_scripts_are_thin(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 8 or path.name == "benchmark.py"


HEAVY = ["torch", "pytorch_lightning", "av", "matplotlib", "hydra", "numpy"]


@pytest.mark.parametrize(
    "command",
    [["-c", "import video_mvit"], *(["-m", "video_mvit", verb, "--help"] for verb in VERBS)],
    ids=lambda command: command[-1] if command[0] == "-c" else command[2],
)
def test_import_and_help_load_no_heavy_library(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parent,
    )
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "video_mvit" in imported
    assert not imported & set(HEAVY)
