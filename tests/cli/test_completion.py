"""TAB completion in Bash: the script is sourced and asked as Bash asks it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from video_mvit.cli import VERBS
from video_mvit.cli.completion import print_completion

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="there is no Bash here")
EQUALS_BREAKS, EQUALS_JOINS = " \t\n\"'><=;|&(:", " \t\n\"'><;|&(:"  # COMP_WORDBREAKS
ASK = """
source "$1"; shift
COMP_WORDBREAKS="$1"; COMP_LINE="$2"; COMP_POINT="$3"; shift 3
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_video_mvit
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The script, with `video-mvit` on the path."""
    print_completion(["bash"])
    (tmp_path / "completion.sh").write_text(capsys.readouterr().out)
    command = tmp_path / "bin" / "video-mvit"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m video_mvit "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "completion.sh"


def completed(
    script: Path, words: Sequence[str], breaks: str = EQUALS_BREAKS, *, after: str = ""
) -> list[str]:
    """What TAB offers behind the last of the words; `after` stands behind the cursor."""
    line = " ".join(words).replace(" = ", "=")
    arguments = [str(script), breaks, line + after, str(len(line)), *words]
    result = subprocess.run(
        [str(BASH), "--norc", "-c", ASK, "ask", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not result.stderr
    return result.stdout.split()


def test_first_word_is_a_verb(script: Path) -> None:
    assert completed(script, ["video-mvit", ""]) == [*VERBS, "--help", "--version"]
    assert completed(script, ["video-mvit", "e"]) == ["evaluate", "extract", "export"]
    assert completed(script, ["video-mvit", "--v"]) == ["--version"]


def test_options_and_choices_of_a_verb_follow(script: Path) -> None:
    train = ["video-mvit", "train"]
    choice = [*train, "experiment", "=", "de"]
    assert completed(script, choice) == ["demo", "demo_pictures"]
    assert completed(script, choice, after=" seed=1") == ["demo", "demo_pictures"]
    whole = completed(script, [*train, "experiment=de"], EQUALS_JOINS)
    assert whole == ["experiment=demo", "experiment=demo_pictures"]
    assert completed(script, [*train, "optim.lr_"]) == []
    assert "optim.layer_decay=" in completed(script, [*train, "optim.l"])


def test_verbs_with_flags_of_their_own_are_left_to_bash(script: Path) -> None:
    assert completed(script, ["video-mvit", "compare", "runs"]) == []


@pytest.mark.parametrize("words", [[], ["fish"], ["bash", "zsh"]])
def test_unknown_shell_is_one_sentence(words: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"^error: name a shell: video-mvit completion bash\|zsh"):
        print_completion(words)


def test_zsh_has_the_functions_of_bash(capsys: pytest.CaptureFixture[str]) -> None:
    print_completion(["zsh"])
    assert "bashcompinit" in capsys.readouterr().out
