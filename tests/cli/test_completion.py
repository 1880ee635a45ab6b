"""TAB completion as bash asks for it, with the words and the breaks that bash sets."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

from video_mvit.cli import VERBS
from video_mvit.cli.completion import print_completion

pytestmark = pytest.mark.slow  # a command as a whole, or networks of other libraries

BASH = shutil.which("bash")
BREAKS = " \t\n\"'><=;|&(:"  # as bash has them
WITHOUT_EQUALS = BREAKS.replace("=", "")  # as many people set them


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What finds `video-mvit` on PATH, that of this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "video-mvit"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m video_mvit "$@"\n')
    command.chmod(0o755)
    paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


def completions(
    line: str, environment: dict[str, str], cwd: Path, breaks: str = BREAKS, *, behind: str = ""
) -> list[str]:
    """What bash would offer at the end of `line`; its last word is cut where `breaks` say.

    `behind` is what stands behind the cursor.
    """
    words: list[str] = []
    for word in line.split(" "):
        name, equals, value = word.partition("=")
        words += [name, equals, value] if equals and "=" in breaks else [word]
    script = f"""
eval "$(video-mvit completion bash)"
COMP_WORDBREAKS={shlex.quote(breaks)}
COMP_WORDS=({shlex.join(words)})
COMP_CWORD={len(words) - 1}
COMP_LINE={shlex.quote(line + behind)}
COMP_POINT={len(line)}
_video_mvit
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    assert BASH is not None
    result = subprocess.run(
        [BASH, "--norc", "--noprofile", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        env=environment,
    )
    assert not result.stderr
    return result.stdout.split()


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("video-mvit tr", {"train"}),
        ("video-mvit train trai", {"trainer=", "trainer."}),
        ("video-mvit train seed=1 trainer.max_s", {"trainer.max_steps="}),
        ("video-mvit predict time", {"timeline=", "timeline_picture="}),
        ("video-mvit doctor de", set()),
    ],
)
def test_bash_completes_verbs_and_options(
    line: str, expected: set[str], environment: dict[str, str], tmp_path: Path
) -> None:
    assert set(completions(line, environment, tmp_path)) == expected


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_bash_completes_choices_behind_the_equals_sign(
    environment: dict[str, str], tmp_path: Path
) -> None:
    line = "video-mvit train experiment=de"
    choices = {"demo", "demo_detection", "demo_pictures"}
    assert set(completions(line, environment, tmp_path)) == choices
    assert set(completions(line, environment, tmp_path, behind=" seed=1")) == choices
    whole_words = {f"experiment={choice}" for choice in choices}
    assert set(completions(line, environment, tmp_path, WITHOUT_EQUALS)) == whole_words


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_bash_completes_every_verb(environment: dict[str, str], tmp_path: Path) -> None:
    found = completions("video-mvit ", environment, tmp_path)
    assert {*VERBS, "--help", "--version"} <= set(found)


def test_zsh_is_given_the_functions_of_bash(capsys: pytest.CaptureFixture[str]) -> None:
    print_completion(["zsh"])
    script = capsys.readouterr().out
    assert "bashcompinit" in script
    assert "complete -o nospace -o default -F _video_mvit video-mvit" in script


@pytest.mark.parametrize("words", [[], ["fish"], ["bash", "zsh"]])
def test_other_shells_are_refused_with_the_names_of_both(words: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"error: name a shell: .*bash\|zsh"):
        print_completion(words)
