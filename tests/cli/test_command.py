"""The command itself: its overview, its version, unknown verbs, and what every verb has."""

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.paths import ROOT, SCRIPTS

import video_mvit
from video_mvit.cli import OTHER_WORDS, VERBS, main, overview
from video_mvit.cli.help import options_of

WITH_YAML = {verb: entry.config for verb, entry in VERBS.items() if entry.config}


def run(*words: str, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Run `video-mvit words`, and return what it exits with."""
    monkeypatch.setattr(sys, "argv", ["video-mvit", *words])
    return exit_of(main)


def exit_of(function: Callable[[], object]) -> int | str | None:
    try:
        function()
    except SystemExit as end:
        return end.code
    return 0


def test_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--version", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == f"video-mvit {video_mvit.__version__}\n"


@pytest.mark.parametrize(
    ("verb", "sentence"),
    [
        ("trian", "unknown command 'trian'; did you mean train?"),
        (
            "explain",
            "unknown command 'explain'; try video-mvit predict RUN_FOLDER FILE explain=true",
        ),
        ("xyzzy", f"unknown command 'xyzzy'; choose one of {', '.join(VERBS)}"),
        ("a b.mp4", "a b.mp4 is a file, and no command; try video-mvit predict FILE"),
    ],
)
def test_unknown_verb_is_one_sentence_with_the_nearest_or_all(
    verb: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "a b.mp4").touch()
    words = [sys.executable, "-m", "video_mvit", verb, "seed=1"]
    result = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"error: {sentence}\n")


def test_words_of_other_tools_lead_to_verbs_that_are_there() -> None:
    assert not set(OTHER_WORDS) & set(VERBS)
    for word, advice in OTHER_WORDS.items():
        verb, *options = advice.format(word).split()
        assert verb in VERBS or verb in ("--help", "--version")
        config = VERBS[verb].config if verb in VERBS else None
        known = {option.name for option in options_of(config)} if config else set()
        names = {option.partition("=")[0] for option in options if "=" in option}
        assert names <= known | {"experiment", "data", "data.root"}
    for word in ("test", "validate", "infer", "resume", "fit", "info", "explain", "eval"):
        assert word in OTHER_WORDS


@pytest.mark.parametrize(("words", "code"), [([], 2), (["-h"], 0), (["--help"], 0)])
def test_overview_lists_every_verb(
    words: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*words, monkeypatch=monkeypatch) == code
    printed = capsys.readouterr().out
    assert printed == overview()
    for verb, entry in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(entry.summary)}$", printed, re.MULTILINE)


def test_every_verb_has_a_script() -> None:
    assert {path.stem for path in SCRIPTS.glob("*.py")} == set(VERBS)


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"benchmark"}))
def test_script_gives_the_help_of_the_verb(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # the script of the doctor adds to it
    assert run(verb, "--help", monkeypatch=monkeypatch) == 0
    expected = capsys.readouterr().out
    assert f"usage: video-mvit {verb}" in expected
    script = SCRIPTS / f"{verb}.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    assert exit_of(lambda: runpy.run_path(str(script), run_name="__main__")) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("verb", WITH_YAML)
def test_every_option_has_a_comment(verb: str) -> None:
    options = options_of(WITH_YAML[verb])
    assert options
    assert [option.name for option in options if not option.comment.strip()] == []


def documented_names() -> set[str]:
    """The names that docs/api/index.md lists for `import video_mvit`, its first list."""
    text = Path(ROOT, "docs/api/index.md").read_text()
    block = text.split("```{eval-rst}", 1)[1].split("```", 1)[0]
    assert ".. currentmodule:: video_mvit\n" in block
    return set(re.findall(r"^   (\w+)$", block, re.MULTILINE))


def test_public_names_are_the_documented_ones() -> None:
    assert sorted(video_mvit.__all__) == list(video_mvit.__all__)
    assert set(video_mvit.__all__) == documented_names()
    assert set(video_mvit.__all__) <= set(dir(video_mvit))


@pytest.mark.parametrize("name", video_mvit.__all__)
def test_public_name_is_there_under_its_own_name(name: str) -> None:
    assert getattr(video_mvit, name).__name__ == name


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        _ = video_mvit.create_modle
