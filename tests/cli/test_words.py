"""Names of files on the command line mean the files; Hydra's grammar keeps its meaning beside."""

import os
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from support.commands import composed

from video_mvit.cli.help import groups_of, options_of
from video_mvit.cli.words import OPTION, PATH_OPTIONS, prepare_words
from video_mvit.errors import UserError

NAMES = [
    *("clip (1).mp4", "a=b.mp4", "x, y.mp4", "x,y.mp4", "don't.mp4", "é & ü.mp4", "[cam] 1.mp4"),
    *("[cam]", "[a,b]", "#1.mp4", "$HOME.mp4", "${HOME}.mp4", "${oc.env:HOME}.mp4", "\\${x}.mp4"),
    *("{a}.mp4", "{a:b}", "a:b.mp4", "two words.mp4", "'quoted'.mp4", '"double".mp4', "'q'"),
    *("back\\slash.mp4", "a\\,b.mp4", "ends\\", "\\", "ends'", "trailing .mp4 ", " leading.mp4"),
    *("-dash.mp4", "--dash", "~tilde.mp4", "100%.mp4", "a+b.mp4", "a@b.mp4", "+a.mp4", "007"),
    *("2024", "1.50", "1e3", "true", "null", "nan", "clip(1)", "int(5)", "glob(*)", "range(1,3)"),
    *("choice(a,b)", "a;b.mp4", "a|b.mp4", "star*.mp4", "what?.mp4", "new\nline.mp4", "日本語.mp4"),
    *("🎬.mp4", "bad\udcff.mp4", "a!b.mp4", "<tag>.mp4", "^caret`.mp4", "$(touch x).mp4", "a=b"),
]
OPTIONS = ["video", "image", "output", "overwrite", "checkpoint"]


def prepared(*words: str) -> list[str]:
    return prepare_words(words, OPTIONS, "video")


def value(word: str) -> Any:
    """What Hydra and OmegaConf make of a word."""
    override = OverridesParser.create().parse_override(word)
    container = OmegaConf.create({"value": override.value()})
    return OmegaConf.to_container(container, resolve=True)["value"]  # type: ignore[call-overload,index]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in NAMES:
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_name_of_a_file_means_the_file(name: str, folder: Path) -> None:
    path = f"{folder}/{name}"
    assert value(*prepared(f"video={name}")) == name
    assert value(*prepared(f"video={path}")) == path
    assert value(*prepared(f"video=[{path},{name}, -dash.mp4]"))[0] == path
    assert value(*prepared(path)) == path
    assert value(*prepared("--", name)) == name
    assert value(prepared("--multirun", f"video={name}")[1]) == name
    assert value(*prepared("--", name, path)) == [name, path]
    assert os.path.lexists(name)  # and nothing of it ran


@pytest.mark.parametrize("name", [name for name in NAMES if "${" not in name], ids=ascii)
def test_name_of_a_file_that_is_not_there_is_literal_too(name: str, tmp_path: Path) -> None:
    meant = {"[cam]": ["cam"], "[a,b]": ["a", "b"], "'q'": "q", "null": None, "true": True}
    meant |= {"~tilde.mp4": os.path.expanduser("~tilde.mp4")}
    if name not in meant:
        assert value(*prepared(f"output={tmp_path}/{name}")) == f"{tmp_path}/{name}"
    assert value(*prepared(f"output={name}")) == meant.get(name, name)


def test_hydra_grammar_keeps_its_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert value(*prepared("video=[a (1).mp4, b.mp4]")) == ["a (1).mp4", "b.mp4"]
    assert value(*prepared("video=['a, b.mp4',don't.mp4]")) == ["a, b.mp4", "don't.mp4"]
    assert value(*prepared("video='a, b.mp4'")) == "a, b.mp4"
    assert value(*prepared("video=[]")) == []
    assert value(*prepared("video=~/v (1)")) == "/home/me/v (1)"
    assert value(*prepared("video=[~/a.mp4,~/b]")) == ["/home/me/a.mp4", "/home/me/b"]
    assert value(*prepared("video=${oc.env:HOME}/v")) == "/home/me/v"
    assert value(*prepared("image=null")) is None
    assert value(*prepared("video=")) == ""
    for words in (["video=a.mp4,b.mp4"], ["seed=1,2"], ["name=range(1,3)"]):
        assert prepared("-m", *words) == ["-m", *words]
    assert prepared("-m", "video=~/a.mp4,b (1)") == ["-m", "video='/home/me/a.mp4','b (1)'"]
    kept = ["mean=[0.45,0.45,0.45]", "+a.b=1", "~callbacks.best", "++x={a:1}", "seed=3", "a='b c'"]
    assert prepared(*kept) == kept
    assert value(*prepared("name=don't (1)")) == "don't (1)"


@pytest.mark.usefixtures("folder")
def test_list_finds_names_with_commas() -> None:
    assert value(*prepared("video=[x, y.mp4,a=b.mp4,x,y.mp4]")) == [
        "x, y.mp4",
        "a=b.mp4",
        "x,y.mp4",
    ]


@pytest.mark.usefixtures("folder")
def test_a_file_in_a_setting_of_others_cannot_hold_a_reference() -> None:
    Path("${oc.env:HOME}").mkdir()
    with pytest.raises(UserError, match="refers to another setting; rename it"):
        prepare_words(["data.root=${oc.env:HOME}"], ["data"], nested=True)


def test_flags_come_first_and_keep_their_values() -> None:
    flags = ["--cfg", "job", "-cd", "my confs", "-m", "--config-dir=x"]
    assert prepared("seed=1", *flags, "video=a") == [*flags, "seed=1", "video=a"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["overwrite"], "overwrite needs a value: overwrite=VALUE"),
        (["checkpont"], "'checkpont' is no option; did you mean checkpoint=VALUE"),
        (["--video", "a.mp4"], "there is no flag --video; did you mean video=VALUE"),
        (["--check-point=a"], "there is no flag --check-point=a; did you mean checkpoint=a"),
        (["-b.mp4"], "there is no flag -b.mp4; a file is video=-b.mp4"),
        (["a.mp4", "video=b.mp4"], "both name what to examine; give one"),
        (["=3"], "'=3' does not begin with the name of an option"),
        (["/a=b"], "'/a=b' does not begin with the name of an option"),
    ],
)
def test_word_that_is_no_option_is_one_sentence(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepared(*words)


def test_verb_without_bare_words_names_the_nearest_option() -> None:
    for word in ("sorce", "sorce.pyth"):
        with pytest.raises(UserError, match=r"is no option; (did you mean|options are)"):
            prepare_words([word], ["source", "target"])


@pytest.mark.parametrize("verb", ["predict", "extract", "convert", "export", "inflate", "push"])
def test_every_option_about_files_takes_their_names(verb: str) -> None:
    for option in options_of(verb):
        about_files = any(
            each in option.comment for each in ("a file", "folder", "NAME.", "picture")
        )
        if about_files and option.default in ("null", "???"):
            assert option.name in PATH_OPTIONS, option


def test_words_of_a_verb_compose() -> None:
    known = [*(option.name for option in options_of("predict")), *groups_of("predict")]
    words = prepare_words(["a (1).mp4", "output=[r] 1.csv", "top=2"], known, "video")
    cfg = composed("predict", *words)
    assert (cfg.video, cfg.output, cfg.top) == ("a (1).mp4", "[r] 1.csv", 2)
    assert all(OPTION.fullmatch(word) for word in words)
