"""A run folder in place of options: which words it stands for, and which it may not decide."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from video_mvit.cli.run_words import problem_of_word, words_of_run
from video_mvit.cli.runs import expand_run, find_run
from video_mvit.errors import UserError

WORDS = ["experiment=demo", "data.root=datasets/demo_0", "run_dir=runs/x", "optim.num_epochs=2"]


def write_run(
    folder: Path, words: Sequence[str] = WORDS, names: Sequence[str] = ("best", "last")
) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config").mkdir()
    for name in names:
        (folder / "checkpoints" / f"{name}.ckpt").touch()
    text = "".join(f"- '{word}'\n" for word in words)
    (folder / "config" / "overrides.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("verb", ["evaluate", "predict", "extract", "export", "convert", "summary"])
def test_folder_that_is_not_there_is_told_at_once(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "runs" / "fading")
    with pytest.raises(UserError, match=r"no .*run folder .*runs/fadign; did you mean .*fading\?"):
        expand_run(verb, [f"{tmp_path}/runs/fadign", "clip.mp4"])
    assert capsys.readouterr().err == ""
    words = expand_run(verb, [str(run), "target=x.onnx"])
    assert any(word.endswith((str(run), "best.ckpt")) for word in words)


@pytest.mark.parametrize("word", ["videos/clip.mp4", "videos/*", "https://x.org/a/b", "clip"])
def test_name_of_a_video_is_left_to_the_verb(word: str) -> None:
    assert expand_run("predict", [word, "top=3"]) == [word, "top=3"]


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("model._target_=os.system", "names code to run"),
        ("+callbacks.x={_target_: os.system}", "names code to run"),
        ("augment.transforms=[{_target_: os.system}]", "names code to run"),
        ("hydra.run.dir=/etc", "is none of the options of a training"),
        ("hydra/launcher=slurm", "is none of the options of a training"),
        ("output=/etc", "is none of the options of a training"),
        ("--config-dir=/evil", "is none of the options of a training"),
        ("data.root=${oc.env:HOME}", "refers to something outside of the run"),
        ("data.root=${run_dir}", "refers to something outside of the run"),
        ("data.root=${oc.decode:${data.root}}", "refers to something outside of the run"),
        ("name=${name}", "refers to something outside of the run"),
        ("model=/etc/evil", "is no choice there is"),
        ("model=../model/mvitv2_s", "is no choice there is"),
        ("experiment=mine", "is no choice there is"),
        ("model@data=mvitv2_s", "is not an option"),
        ("experiment/x=demo", "is not an option"),
        ("optim.lr=1e-3,2e-3", "has several values"),
        ("data.root=https://example.org/list.csv", "names an address"),
        ("init.source=s3://bucket/x.pth", "names an address"),
        ("callbacks.best.dirpath=/etc", "names a place"),
        ("callbacks.best.dirpath=etc", "names a place"),
        ("+callbacks.best={dirpath: etc}", "names a place"),
        ("callbacks.curves.folder=..", "names a place"),
        ("trainer.default_root_dir=/etc", "names a place"),
        ("trainer.precision=../x", "names a place"),
        ("clip.num_frames=1000000", "is above 65536"),
        ("model.depths=[1,1,100000000,1]", "is above 65536"),
        ("optim.lr=1e300", "is above 1e+09"),
        ("optim.lr=nan", "is above 1e+09"),
        ("data.root=[[[[1]]]]", "is too large"),
        ("~model", "removes more than one option"),
        ("data.root='a", "is not an option"),
    ],
)
def test_word_that_a_file_may_not_decide_is_refused(word: str, problem: str) -> None:
    assert problem_of_word(word).startswith(problem)


@pytest.mark.parametrize(
    "word",
    [
        *("experiment=demo", "model=mvitv2_s", "init=null", "augment=published"),
        *("data.root=/videos", "data.root='a b,c'", "data.val_list=${data.root}/val.csv"),
        *("+model.depths=[1,2,1,1]", "optim.lr=1e-3", "callbacks.best.monitor=val/top5"),
        *("callbacks.ema.decay=0.9", "~logger.tensorboard", "init.source=weights/a.pth"),
        *("trainer.precision=bf16-mixed", "seed=3", "name=mine", "compile=null"),
    ],
)
def test_plain_words_of_a_run_are_used(word: str) -> None:
    assert problem_of_word(word) == ""


def test_own_choice_needs_the_folder_that_the_person_names(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: mine.Net\n")
    assert problem_of_word("model=mine")
    assert not problem_of_word("model=mine", [tmp_path])


def test_evaluation_takes_network_and_data_and_a_resumed_run_takes_all(tmp_path: Path) -> None:
    trained = [*WORDS, "trainer.devices=8", "data.num_workers=3", "overwrite=true", "seed=1"]
    run = write_run(tmp_path / "run", trained)
    assert words_of_run(run, "evaluate") == WORDS[:2]
    expected = [*WORDS[:2], "optim.num_epochs=2", "trainer.devices=8", "seed=1"]
    assert words_of_run(run, "resume") == expected


def test_words_of_the_person_replace_those_of_the_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [WORDS[0], "data.root=${oc.env:DATA}"])
    with pytest.raises(UserError, match=r"overrides.yaml: data.root=.* give data.root=... your"):
        words_of_run(run, "evaluate")
    assert words_of_run(run, "evaluate", ["++data.root=/videos"]) == [WORDS[0]]


def test_words_of_an_earlier_version_have_their_new_names(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ["data=own", "callbacks=averaged", "data.root=/videos"])
    assert words_of_run(run, "resume") == ["data=custom", "callbacks=ema", "data.root=/videos"]


def test_file_of_words_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run / "config" / "overrides.yaml"
    for text in ("x: &a [1]\ny: *a\n", "- [1]\n", "- a\n" * 60_000, "- \x1b[31mred=1\n", "a"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"^[ -~]+$"):
            words_of_run(run, "resume")
    path.unlink()
    with pytest.raises(UserError, match=r"so that its settings are unknown; give them as options"):
        words_of_run(run, "evaluate")


def test_each_verb_gets_what_the_run_stands_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(Path("runs", "x"))
    (run / "model.safetensors").touch()
    place = ["run_dir=runs/x", "checkpoint=best"]
    best = "source=runs/x/checkpoints/best.ckpt"
    expected = {
        ("evaluate", "runs/x", "motion=[frozen]"): [*WORDS[:2], *place, "motion=[frozen]"],
        ("evaluate", "runs/x", "checkpoint=last"): [*WORDS[:2], place[0], "checkpoint=last"],
        ("predict", "runs/x", "clip.mp4"): [*place, "clip.mp4"],
        ("extract", "runs/x", "clip.mp4"): [*place, "clip.mp4"],
        ("export", "runs/x/"): [best, "target=runs/x/model.onnx"],
        ("export", "target=a.pt2", "runs/x"): [best, "target=a.pt2"],
        ("convert", "runs/x"): [best, "target=runs/x/model.safetensors"],
        ("convert", "runs/x", "format=timm"): [best, "format=timm"],
        ("push", "runs/x", "repo=a/b"): ["source=runs/x/model.safetensors", "repo=a/b"],
        ("train", "resume_from=runs/x"): [
            *(*WORDS[:2], "optim.num_epochs=2", "run_dir=runs/x", "resume_from=last"),
        ],
        ("predict", "clip.mp4", "runs/x"): ["clip.mp4", "runs/x"],
        ("prepare", "runs/x"): ["runs/x"],
    }
    for (verb, *words), found in expected.items():
        assert expand_run(verb, words) == found, verb
    assert "settings of runs/x: experiment=demo" in capsys.readouterr().err


def test_run_without_a_best_checkpoint_stands_for_its_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"), names=["last"])
    assert expand_run("predict", ["run"]) == ["run_dir=run", "checkpoint=last"]


@pytest.mark.parametrize(
    ("verb", "words", "sentence"),
    [
        ("evaluate", ["run", "run_dir=other"], "run and run_dir=... both name what to use"),
        ("export", ["run", "source=a.pth"], "run and source=... both name what to use"),
        ("push", ["run", "repo=a/b"], "video-mvit convert run writes it"),
        ("train", ["run"], "'run' is no option; resume_from=run continues that run"),
        ("train", ["resume_from=run", "run_dir=x"], "continues in that folder; remove run_dir"),
        ("train", ["resume_from=empty"], "empty holds no run with a checkpoint last.ckpt"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"))
    Path("empty").mkdir()
    with pytest.raises(UserError, match=sentence):
        expand_run(verb, words)


def test_folder_of_runs_stands_for_its_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    places = ("2026-11-29_09-00-00", "2026-11-29_10-00-00/1", "mine", "2026-11-29_10-00-00/0")
    for age, place in enumerate(places):
        run = write_run(Path("runs", place))
        for path in (run / "checkpoints").iterdir():
            os.utime(path, (1e9 - age, 1e9 - age))
    (Path("runs") / "2026-11-30_10-00-00").mkdir()  # has not saved anything
    assert find_run(Path("runs")) == Path("runs", places[0])
    os.utime(Path("runs", places[1], "checkpoints", "last.ckpt"))
    assert expand_run("predict", ["runs", "a.mp4"])[0] == f"run_dir=runs/{places[1]}"
    assert f"runs/{places[1]} is the newest run of runs" in capsys.readouterr().err
    assert find_run(Path("nowhere")) is None
