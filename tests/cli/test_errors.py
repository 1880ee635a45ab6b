"""A mistake in the settings is one sentence, an error in a user's own code shows file and line."""

import logging
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from support.commands import run_command
from support.paths import CONF
from torch.utils.data import DataLoader, Dataset

from video_mvit.cli.build import build_all
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.failed_starts import leaving_nothing
from video_mvit.cli.own_code import is_own_frame
from video_mvit.cli.run_log import RunLog
from video_mvit.errors import MissingFileError, UserError

DEMO = ("experiment=demo", "data.num_classes=16")
OWN = """
from torch import nn

class Shift(nn.Module):
    def __init__(self, amount: int = 1, **options):
        super().__init__()
        if amount > 5:
            raise {error}
        if options:
            nn.Linear(**options)
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a user's with an augmentation that may fail."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_augmentation", raising=False)
    path = tmp_path / "own_augmentation.py"
    path.write_text(OWN.format(error='ValueError("of my own")'))
    return path


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        own = "+augment._target_=own_augmentation.Shift"
        words = [*DEMO, "data.root=/data", "run_dir=/run", own, *overrides]
        return compose("config", words)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "error"), [("+augment.amount=9", ValueError), ("+augment.size=1", TypeError)]
)
def test_error_in_ones_own_constructor_is_told_with_file_and_line(
    own_module: Path, override: str, error: type[Exception]
) -> None:
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        build_all(composed(override))
    text = str(caught.value)
    assert f'File "{own_module}", line ' in text
    assert f"\n{error.__name__}: " in text
    assert "video_mvit/cli/build.py" not in text


def test_user_error_is_one_sentence_with_its_key(own_module: Path) -> None:
    raised = OWN.format(error='UserError("amount is too large")')
    own_module.write_text(f"from video_mvit.errors import UserError\n{raised}")
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        build_all(composed("+augment.amount=9"))
    assert str(error.value) == "error: amount is too large (in augment)"


def test_wrong_arguments_are_one_sentence_with_their_key(own_module: Path) -> None:
    own_module.write_text("class Shift:\n    def __init__(self, amount): ...\n")
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        build_all(composed())
    assert "missing 1 required positional argument: 'amount' (in augment)" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"augment\._target_ is 'own_augmentation\.Shift', which cannot be imported"),
        (
            "",
            r"augment\._target_ is 'own_augmentation\.Shift', but own_augmentation has no 'Shift'",
        ),
        ("def shift(): ...", r"but own_augmentation has no 'Shift'; did you mean shift\?"),
    ],
)
def test_target_that_is_not_there_is_one_sentence(
    own_module: Path, content: str | None, message: str
) -> None:
    own_module.unlink() if content is None else own_module.write_text(content)
    with pytest.raises(SystemExit, match=message), exit_on_user_error():
        build_all(composed())


def test_error_while_importing_ones_own_module_keeps_its_traceback(own_module: Path) -> None:
    own_module.write_text("\nimport a_package_that_is_not_there\n")
    with pytest.raises(SystemExit, match="a_package_that") as caught, exit_on_user_error():
        build_all(composed())
    assert f'File "{own_module}", line 2' in str(caught.value)


def test_syntax_error_in_ones_own_module_is_told_with_file_and_line(own_module: Path) -> None:
    own_module.write_text("def f(:\n")
    with pytest.raises(SystemExit, match="SyntaxError") as caught, exit_on_user_error():
        build_all(composed())
    assert f'File "{own_module}", line 1' in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("of ours"), "error: of ours"),
        (MissingFileError("no list of ours"), "error: no list of ours"),
        (FileNotFoundError(2, "No such file", "x.csv"), "error: [Errno 2] No such file: 'x.csv'"),
        (
            OSError(28, "No space left", "x"),
            "error: No space left: x; free some space and try again",
        ),
        (OSError(30, "Read-only", "x"), "error: Read-only: x; make it writable and try again"),
    ],
)
def test_mistakes_are_one_sentence(error: Exception, message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        raise_elsewhere(error)
    assert str(caught.value) == message


def raise_elsewhere(error: Exception) -> None:
    """Raise an error in a command, in code that is not a user's own."""
    future: Future[None] = Future()
    future.set_exception(error)
    exit_on_user_error()(future.result)()


def test_error_of_a_library_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="of torch"):
        raise_elsewhere(ValueError("of torch"))


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "x.csv"),
        type("MisconfigurationException", (Exception,), {})("of Lightning"),
        ValueError("on one line\nand the next"),
    ],
)
def test_error_in_own_code_is_told_by_file_and_line_and_whole_in_the_log(
    tmp_path: Path, error: Exception
) -> None:
    handler = RunLog(tmp_path / "train.log")
    logging.getLogger().addHandler(handler)
    try:
        with pytest.raises(SystemExit) as caught, exit_on_user_error():
            raise error
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    for text in (str(caught.value), (tmp_path / "train.log").read_text()):
        assert f'File "{__file__}", line ' in text
        assert str(error) in text
    assert "video_mvit/cli/errors.py" not in str(caught.value)
    assert "the whole traceback is in " in str(caught.value)
    assert "train.log" in str(caught.value)


class OwnRows(Dataset[int]):
    """Samples of a user's own, none of which can be read."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return [][index]


def test_error_in_a_loader_process_is_told_by_file_and_line() -> None:
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        next(iter(DataLoader(OwnRows(), num_workers=1)))
    text = str(caught.value)
    assert f'File "{__file__}", line ' in text
    assert "return [][index]" in text
    assert "\nIndexError: list index out of range" in text
    assert "_utils/worker.py" not in text


def test_log_of_an_error_in_own_code_outlives_a_failed_start(tmp_path: Path) -> None:
    def start() -> None:
        (tmp_path / "train.log").touch()
        Path("a file of mine").read_text()

    with pytest.raises(FileNotFoundError), leaving_nothing(tmp_path):
        start()
    assert (tmp_path / "train.log").exists()


def look_up(name: str) -> None:
    try:
        int(name)
    except ValueError as error:
        raise KeyError(name) from error


def test_errors_that_led_to_another_are_told_too() -> None:
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        look_up("b")
    assert "invalid literal for int()" in str(caught.value)
    assert "KeyError: 'b'" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("is_own", [True, False])
def test_command_shows_the_traceback_of_ones_own_code_alone(own_module: Path, is_own: bool) -> None:  # noqa: FBT001
    folder = own_module.parent
    override = "+augment.amount=9" if is_own else "label_smoothing=abc"
    options = [*DEMO, "data.root=/data", f"run_dir={folder}/run", override]
    own = "+augment._target_=own_augmentation.Shift"
    result = run_command("train", *options, own, cwd=folder)
    assert result.returncode == 1
    assert (f'File "{own_module}", line 8' in result.stderr) == is_own
    assert ("the whole traceback is in run/train.log" in result.stderr) == is_own
    assert ("Traceback" in result.stderr) == is_own
    if not is_own:
        assert result.stderr.strip() == "error: label_smoothing is 'abc', expected float"


def test_method_that_a_dataclass_makes_is_no_own_code() -> None:
    assert not is_own_frame("<string>", "__init__")
    assert is_own_frame("<string>", "<module>")  # python -c
    assert is_own_frame(__file__, "__init__")
