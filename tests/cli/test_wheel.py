"""The package as others install it: a wheel in an environment of its own, away from a checkout.

The environment has what the wheel requires, and nothing that belongs to an extra.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from support.paths import ROOT
from support.processes import TIMEOUT_S

from video_mvit import __version__
from video_mvit.data.preparation.demo import write_demo_dataset

pytestmark = pytest.mark.slow
UV = Path(sys.executable).with_name("uv")
# Importing what they need takes longer than such commands themselves.
IN_ONE_PROCESS = """
import sys
from video_mvit.cli import main
for words in {commands}:
    sys.argv = ["video-mvit", *words]
    main()
"""


class Environment(NamedTuple):
    """A virtual environment that finds our dependencies, but neither extras nor this checkout."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    @property
    def command(self) -> str:
        return str(self.folder / "bin" / "video-mvit")

    def pip_install(self, *arguments: str) -> None:
        options = ("--no-deps", "--no-build-isolation", *arguments)
        if UV.exists():
            run([str(UV), "pip", "install", "--offline", "--python", self.python, *options])
        else:
            pip = (sys.executable, "-m", "pip", "--python", self.python)
            run([*pip, "install", "--no-index", *options])

    def output(self, code: str, cwd: Path) -> str:
        return run([self.python, "-c", code], cwd).stdout.strip()


def run(words: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed, as if nothing of the checkout were known to the shell."""
    unknown = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    result = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name not in unknown},
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 0, f"{words}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result


def new_environment(folder: Path) -> Environment:
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    (site_packages,) = folder.glob("lib/python*/site-packages")
    for package in required_distributions():
        for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            link, target = site_packages / name, Path(str(package.locate_file(name)))
            if target.exists() and not link.exists():  # some share a folder
                link.symlink_to(target)
    return Environment(folder)


def required_distributions() -> list[Distribution]:
    """Return what the package requires, with what that requires, and nothing of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = {*map(Requirement, project["dependencies"])}
    seen: set[Requirement] = set()
    found: dict[str, Distribution] = {}
    while waiting:
        one = waiting.pop()
        seen.add(one)
        extras = ("", *one.extras)
        with contextlib.suppress(PackageNotFoundError):  # one for other machines
            found[one.name] = distribution(one.name)
            for each in map(Requirement, found[one.name].requires or ()):
                if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in extras):
                    waiting |= {each} - seen
    return list(found.values())


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout, to know which files belong to the project")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return [Path(name) for name in listed.stdout.split("\0") if name]


@pytest.fixture(scope="module")
def checkout(tracked: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git tracks, in a folder with the name of the package."""
    folder = tmp_path_factory.mktemp("parent") / "video_mvit"
    for path in tracked:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    if UV.exists():
        build = [str(UV), "build", "--offline", "--wheel", "--python", sys.executable, "--out-dir"]
    else:
        build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--wheel-dir"]
    run([*build, str(folder), "--no-build-isolation", str(checkout)])
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = new_environment(tmp_path_factory.mktemp("installed") / "venv")
    environment.pip_install(str(wheel))
    return environment


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    write_demo_dataset(root, {"train": 16, "val": 8, "test": 8}, 0, lambda _: None)
    return root


def test_wheel_holds_exactly_the_files_of_the_package(wheel: Path, tracked: list[Path]) -> None:
    expected = {str(path) for path in tracked if path.parts[0] == "video_mvit"}
    assert "video_mvit/conf" in expected  # the link
    expected.remove("video_mvit/conf")
    expected |= {f"video_mvit/{path}" for path in tracked if path.parts[0] == "conf"}
    assert {Path(name).suffix for name in expected} == {".py", ".yaml", ".j2", ".typed"}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_installed_package_is_the_one_of_the_wheel(installed: Environment, tmp_path: Path) -> None:
    code = "import video_mvit; print(video_mvit.__file__, video_mvit.__version__)"
    file, version = installed.output(code, tmp_path).split()
    assert Path(file).is_relative_to(installed.folder)
    assert version == __version__
    printed = run([installed.command, "--version"], tmp_path).stdout
    assert printed == f"video-mvit {__version__}\n"


def test_installed_command_trains_evaluates_and_predicts(
    installed: Environment, dataset: Path, tmp_path: Path
) -> None:
    options = (
        "experiment=demo",
        f"data.root={dataset}",
        "run_dir=run",
        "+model.embed_dim=8",
        "data.num_workers=0",
        "data.train_batch_size=4",
        "trainer.max_steps=2",
    )
    trained = run([installed.command, "train", *options], tmp_path)
    assert "no files for TensorBoard, which is not installed: pip install" in trained.stdout
    assert not (tmp_path / "run/tensorboard").exists()
    for name in ("checkpoints/last.ckpt", "metrics/version_0/metrics.csv", "curves.png"):
        assert (tmp_path / "run" / name).exists()
    video = min((dataset / "test").rglob("*.mp4"))
    commands = [
        ["evaluate", *options, "checkpoint=last"],
        ["predict", "run_dir=run", "checkpoint=last", f"video={video}", "format=csv"],
        ["predict", "run_dir=run", "checkpoint=last", f"video={video}", "explain=true"],
    ]
    printed = installed.output(IN_ONE_PROCESS.format(commands=commands), tmp_path)
    assert f"\n{video}," in printed  # rows
    assert f"\n{video}  " in printed  # and a table
    for name in ("results.json", "predictions.csv", "report.html"):
        assert (tmp_path / "run/evaluation" / name).exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "explanations"}


def test_environment_has_no_package_of_an_extra(installed: Environment, tmp_path: Path) -> None:
    names = ("decord", "tensorboard", "torchvision", "onnx", "optuna", "pycocotools", "wandb")
    code = f"from importlib.util import find_spec; print([*filter(find_spec, {names})])"
    assert installed.output(code, tmp_path) == "[]"


def test_installed_command_takes_a_persons_own_yaml_files(
    installed: Environment, tmp_path: Path
) -> None:
    path = tmp_path / "mine" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        "# @package _global_\n"
        "defaults:\n"
        "  - demo\n"
        "  - override /clip: 16x4\n"
        "\n"
        "name: mine\n"
        "label_smoothing: 0.25\n"
    )
    words = ("train", "--config-dir", "mine", "experiment=mine", "--cfg", "job")
    printed = run([installed.command, *words], tmp_path).stdout
    of_demo = "  train_batch_size: 32"
    for line in ("name: mine", "label_smoothing: 0.25", "  num_frames: 16", of_demo):
        assert line in printed.splitlines()


def test_package_is_found_in_the_folder_above_an_editable_checkout_of_its_name(
    checkout: Path, tmp_path: Path
) -> None:
    """There, the folder of the checkout looks like a package without `__init__.py`."""
    copy = tmp_path / "parent" / "video_mvit"  # an installation writes into it
    shutil.copytree(checkout, copy, symlinks=True)
    environment = new_environment(tmp_path / "venv")
    environment.pip_install("--editable", str(copy))
    code = "import video_mvit; print(video_mvit.__file__, video_mvit.__version__)"
    file, version = environment.output(code, copy.parent).split()
    assert (Path(file), version) == (copy / "video_mvit/__init__.py", __version__)
