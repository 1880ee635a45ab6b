"""video-mvit predict as a person runs it: the evaluation's scores, mistakes, Ctrl-C."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from support.commands import composed as composed_of
from support.commands import running_command
from support.evaluations import assert_same_predictions
from support.processes import TIMEOUT_S, wait_until
from support.random_model import write_random_model

from video_mvit.cli import predict
from video_mvit.cli.build import quiet_libraries
from video_mvit.cli.evaluate import build_evaluation, evaluate
from video_mvit.weights.checkpoint_files import write_safetensors

pytestmark = pytest.mark.slow  # a command as a whole, or networks of other libraries


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos to test on, and a model of random weights with its card."""
    root = tmp_path_factory.mktemp("demo")
    model = write_random_model(root, num_tested=5)
    write_safetensors(root / "bare.safetensors", model.state_dict(), None)
    return root


def composed(name: str, *overrides: str) -> Any:
    quiet_libraries()
    return composed_of(name, *overrides)


def run(root: Path, *options: str) -> None:
    checkpoint = f"checkpoint={root}/model.safetensors"
    predict.main(composed("predict", checkpoint, "device=cpu", "precision=float32", *options))


def test_scores_are_those_of_the_evaluation(root: Path, tmp_path: Path) -> None:
    options = ["experiment=demo", f"data.root={root}", "data.num_workers=0", f"output={tmp_path}"]
    options += [f"checkpoint={root}/model.safetensors", "data.num_crops=3"]
    options += ["data.num_classes=8"]
    _, expected = evaluate(build_evaluation(composed("evaluate", "run_dir=run", *options)))
    run(root, f"video={root}/test", f"output={tmp_path}/p.jsonl", "format=json", "num_crops=3")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    found = {str(Path(line["video"]).relative_to(root / "test")): line["top"] for line in lines}
    names = sorted(folder.name for folder in (root / "train").iterdir())
    assert found.keys() == {each.video for each in expected}
    shown = [
        replace(
            each,
            classes=tuple(names.index(row["label"]) for row in found[each.video]),
            scores=tuple(row["score"] for row in found[each.video]),
        )
        for each in expected
    ]
    assert_same_predictions(shown, expected)


def test_unreadable_video_is_told_and_the_others_go_on(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(SystemExit) as stopped:
        run(root, f"video=[{tmp_path},{root}/test]", "format=csv", "top=1")
    assert stopped.value.code == "1 of 6 videos could not be read"
    shown = capsys.readouterr()
    rows = list(csv.DictReader(shown.out.splitlines()))
    assert len(rows) == 6
    assert rows[0]["problem"]
    assert [bool(row["label"]) for row in rows] == [False, *[True] * 5]
    assert not shown.err


def test_what_nobody_stated_is_said_in_one_line(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(root, f"checkpoint={root}/bare.safetensors", f"video={root}/test", "top=1")
    shown = capsys.readouterr()
    assert "is incomplete; assumed: frame_stride=4 short_side=37 sampling" in shown.err
    assert shown.err.count("\n") == 1
    assert "\n  class " in shown.out


def test_annotated_copies_lie_in_a_folder(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "copies"
    run(root, f"video={root}/test", f"annotate={place}", "num_clips=1")
    assert len(list(place.glob("*.mp4"))) == 5
    with pytest.raises(SystemExit, match="mp4 exists; overwrite=true replaces it"):
        run(root, f"video={root}/test", f"annotate={place}")


def test_addresses_are_fetched_and_named_as_given(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = next((root / "test").rglob("*.mp4"))
    address = "memory://cli/clip 1.mp4"
    with fsspec.open(address, "wb") as file:
        file.write(video.read_bytes())
    run(root, f"video=['{address}','{video.as_uri()}']", "format=json", f"annotate={tmp_path}")
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["video"] for line in found] == [address, str(video)]
    assert found[0]["top"] == found[1]["top"]
    assert {path.name for path in tmp_path.iterdir()} == {"clip 1.mp4", video.name}


@pytest.mark.parametrize("target", ["video", "checkpoint"])
def test_results_do_not_replace_what_they_are_made_from(
    root: Path, tmp_path: Path, target: str
) -> None:
    video = tmp_path / "own.mp4"
    shutil.copy(next((root / "test").rglob("*.mp4")), video)
    place = {"video": video, "checkpoint": root / "model.safetensors"}[target]
    before = place.read_bytes()
    with pytest.raises(SystemExit, match=r"error: output would overwrite .*; choose another path"):
        run(root, f"video={video}", f"output={place}", "overwrite=true")
    assert place.read_bytes() == before


def test_copies_do_not_replace_each_other(root: Path, tmp_path: Path) -> None:
    video = next((root / "test").rglob("*.mp4"))
    both = [f"timeline_picture={tmp_path}/out", f"explain={tmp_path}/out"]
    with pytest.raises(SystemExit, match=r"error: explain would overwrite .*\.png; choose"):
        run(root, f"video={video}", *both)
    strip = tmp_path / "strip.png"
    strip.touch()
    with pytest.raises(SystemExit, match=r"strip.png exists; overwrite=true replaces it"):
        run(root, f"video={video}", f"explain={tmp_path}/strip.html")
    with pytest.raises(SystemExit, match=r"error: .*strip\.png"):
        run(root, f"video={root}/test", f"annotate={strip}")


def test_explanations_lie_beside_each_other(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(root, f"video={root}/test", "explain=true", "format=json")
    tops = [json.loads(line)["top"][0] for line in capsys.readouterr().out.splitlines()]
    index = tmp_path / "explanations" / "index.html"
    pages = sorted(set(index.parent.glob("*.html")) - {index})
    strips = sorted((tmp_path / "explanations").glob("*.png"))
    assert len(pages) == len(strips) == len(tops) == 5
    assert {top["label"] for top in tops} <= set(
        re.findall(r"(?:moving|turning|zooming) \w+", "".join(page.read_text() for page in pages))
    )
    assert all(f"video {100 * top['score']:.1f} %" in index.read_text() for top in tops)
    assert all(f'href="./{page.name}"' in index.read_text() for page in pages)
    with pytest.raises(SystemExit, match=r"explanations/.* exists; overwrite=true replaces it"):
        run(root, f"video={root}/test", "explain=true")
    with pytest.raises(SystemExit, match="explain is 3, expected"):
        run(root, f"video={root}/test", "explain=3")


def test_picture_of_a_timeline_follows_short_videos_too(root: Path, tmp_path: Path) -> None:
    run(
        root,
        f"video={root}/test",
        f"timeline_picture={tmp_path}",
        f"output={tmp_path}/a.csv",
        "format=csv",
    )
    assert len(list(tmp_path.glob("*.png"))) == 5
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert sum(row["end_s"] != "" for row in rows) >= 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["video=none.mp4"], "no file or folder none.mp4"),
        (["video=x", "format=xml"], "format is 'xml', expected one of text, json, csv"),
        (["video=x", "top=0"], "top is 0, expected int from 1"),
        (["video=x", "num_clips=-1"], "num_clips is -1, expected int from 1 or null"),
        (["video={root}/test", "checkpoint=none.ckpt"], "no checkpoint none.ckpt; use"),
        (["video={root}/test", "output={root}/test.csv"], "test.csv exists; overwrite=true"),
        (["video={root}/test", "output={root}/none/a.csv"], "no folder"),
        (["video=x", "timeline=maybe"], "timeline is 'maybe', expected bool or auto"),
        (["video=x", "step_s=-1"], "step_s is -1, expected positive seconds or null"),
        (["video={root}/test", "annotate=a.mp4"], "annotate is the file a.mp4, but there are 5"),
        (
            ["video={root}/test", "sampling=segments", "timeline=true"],
            "with one clip; use timeline=false",
        ),
        (["video={root}/test", "num_crops=2"], "num_crops is 2, expected one of 1, 3 or null"),
    ],
)
def test_mistake_is_one_sentence(root: Path, options: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(root, *(option.format(root=root) for option in options))
    assert str(stopped.value).startswith("error: ")
    assert message in str(stopped.value)


def test_messages_are_kept_apart_from_results(root: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.xyz").touch()
    (tmp_path / "a.mp4").hardlink_to(next((root / "test").rglob("*.mp4")))
    options = [f"checkpoint={root}/model.safetensors", f"video={tmp_path}", "format=json"]
    words = [sys.executable, "-m", "video_mvit", "predict", "precision=float32", *options]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["video"] == f"{tmp_path}/a.mp4"
    assert f"\n{tmp_path}: 1 with a suffix that is not of a video: .xyz" in f"\n{done.stderr}"


def test_ctrl_c_leaves_what_was_done(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "p.jsonl"
    videos = list((root / "test").rglob("*.mp4"))
    for i in range(3000):
        (tmp_path / f"{i:04}.mp4").hardlink_to(videos[i % len(videos)])
    options = [f"checkpoint={root}/model.safetensors", f"video={tmp_path}", "format=json"]
    words = ["predict", "precision=float32", *options, f"output={output}"]
    log = tmp_path.with_name(f"{tmp_path.name}.log")
    with running_command(*words, cwd=tmp_path, log=log) as process:
        wait_until(lambda: output.exists() and output.stat().st_size > 0, process)
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(TIMEOUT_S)
        assert process.exitcode == 130
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    *_, last = log.read_text().splitlines()
    assert last == f"interrupted after {len(lines):,} of 3,000 videos"
    assert 0 < len(lines) < 3000
    assert all(line["top"] for line in lines)
