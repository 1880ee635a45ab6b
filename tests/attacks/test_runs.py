"""Run folders and checkpoints of others: they name no code, no path and no key of their own."""

import contextlib
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from support.commands import composed, run_command
from support.mutate import mutated
from support.training import Clips, Data, classifier, trainer

from video_mvit.cli import auto_memory, auto_settings, saved_settings
from video_mvit.cli.auto_settings import SETTINGS_FILE, apply, apply_auto_settings
from video_mvit.cli.run_folder import Run, remove_old_checkpoints
from video_mvit.cli.saved_settings import check_saved_settings, problem_of, read_suggestions
from video_mvit.errors import UserError
from video_mvit.evaluation.output_folder import PARTIAL_DIR, clear_folder, next_partial_number
from video_mvit.renamed import rename_option
from video_mvit.training.checkpoints import Checkpoint
from video_mvit.training.finetune_settings import UNCHANGED, Suggestion

GOOD = [
    {"key": "model.name", "value": "mvitv2_demo", "reason": "from x"},
    {"key": "clip.num_frames", "value": 8, "reason": "from x"},
    {"key": "data.normalize.mean", "value": [0.1, 0.2, 0.3], "reason": "from x"},
    {"key": "optim.lr", "value": 0.004, "reason": "fine"},
    {"key": "augment.mixing", "value": None, "reason": "few videos"},
    {"key": "init.reset", "value": ["head"], "reason": "new head"},
]
TARGET = {"_target_": "os.system", "command": "touch hacked"}
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "- &a0 {key: x}\n" + "\n".join(f"- &a{i + 1} {{<<: [*a{i}, *a{i}]}}" for i in range(40))


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("logger.x", TARGET),
        ("logger.x", 1),
        ("accept_changes", True),
        ("allow_config_changes", True),
        ("run_dir", "/tmp"),
        ("callbacks.best.dirpath", "/tmp"),
        ("model._target_", "os.system"),
        ("model", TARGET),
        ("model.num_frames", 8),
        ("model.depths._target_", "os.system"),
        ("optim.lr", TARGET),
        ("optim.lr", "${oc.env:HOME}"),
        ("optim.lr", "fast"),
        ("optim.lr", float("nan")),
        ("optim.lr", True),
        ("clip.num_frames", [8]),
        ("clip.num_frames", 8.5),
        ("clip.frame_stride", TARGET),
        ("clip.crop_size", 10**12),
        ("data.short_side", 10**6),
        ("data.train_batch_size", 10**7),
        ("data.train_batch_size", -1),
        ("data.normalize.mean", [TARGET]),
        ("data.normalize.mean", [0.1] * 1000),
        ("data.normalize.mean", ["${oc.env:HOME}"]),
        ("augment.mixing", TARGET),
        ("init.reset", [["head"]]),
        ("init.reset", "head"),
        ("init.reset", ["x" * 10_000]),
        ("model.name", "../../etc/passwd"),
        ("model.name", "???"),
        ("model.head", "${init}"),
        ("model.depths", [[1], 1, 1, 1]),
        ("model.cls_token", 1),
    ],
)
def test_settings_of_a_run_folder_are_known_keys_and_plain_values(
    tmp_path: Path, key: str, value: object
) -> None:
    path = write(tmp_path / "settings.yaml", [*GOOD[:1], {"key": key, "value": value}])
    if key == "model.name":
        path = write(path, [{"key": key, "value": value}])
    with pytest.raises(UserError) as error:
        read_suggestions(path)
    sentence = str(error.value)
    assert str(path) in sentence
    assert rename_option(key) in sentence
    assert "\n" not in sentence
    assert "os.system" not in sentence.replace(key, "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\xff\xfe",
        b"[" * 50_000,
        b"- [" * 20_000,
        b"text",
        b"{key: optim.lr, value: 1}",
        b"- !!python/object/apply:os.system [touch hacked]",
        b"- {key: optim.lr, value: !!python/object/apply:os.system [touch hacked]}",
        b"- {key: optim.lr, value: 2001-99-99}",
        b"- {key: 1, value: 1}",
        b"- {key: optim.lr, value: 1, more: 2}",
        b"- {key: optim.lr, value: 1, reason: {a: 1}}",
        b"- {key: optim.lr, value: 1}\n- {key: optim.lr, value: 2}",
        b"- {key: optim.lr, value: '${'}",
        b"- key: &a optim.lr\n  value: 1\n- *a",
        b"- {key: optim.lr, value: 1}\n" + b"#" * 2_000_000,
        BOMB.encode(),
        MERGES.encode(),
    ],
    ids=range(19),
)
def test_file_that_is_no_list_of_settings_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "settings.yaml", content)
    with pytest.raises(UserError, match=rf"^{path}: [^\n]*; remove the file and give"):
        read_suggestions(path)
    assert [each.name for each in tmp_path.iterdir()] == ["settings.yaml"]


def test_settings_that_a_run_writes_are_read_back(tmp_path: Path) -> None:
    found = read_suggestions(write(tmp_path / "settings.yaml", GOOD))
    assert found == [Suggestion(row["key"], row["value"], row["reason"]) for row in GOOD]
    row = {"key": "augment.mixing", "value": TARGET, "reason": "set by you"}
    path = write(tmp_path / "settings.yaml", [row])
    assert read_suggestions(path, kept=["augment.mixing"])  # an option has another value
    path = write(path, [{"key": "augment.mixing", "reason": "as published"}])
    assert read_suggestions(path)[0].value is UNCHANGED


def check_mutated_settings(path: Path, count: int) -> None:
    """What comes out of a damaged file is one sentence, or settings that may be applied."""
    rng, content = random.Random(0), json.dumps(GOOD, indent=1).encode()
    for _ in range(count):
        path.write_bytes(mutated(content, rng))
        with contextlib.suppress(UserError):
            for key, value, _ in read_suggestions(path):
                assert value is UNCHANGED or not problem_of(key, value)


def test_damaged_settings_are_read_or_refused(tmp_path: Path) -> None:
    check_mutated_settings(tmp_path / "settings.yaml", 100)


@pytest.mark.long
def test_many_damaged_settings_are_read_or_refused(tmp_path: Path) -> None:
    check_mutated_settings(tmp_path / "settings.yaml", 5000)


TASK = ["experiment=finetune", "resume_from=last", "data.root=/x"]


@pytest.fixture(scope="module")
def configuration() -> DictConfig:
    return composed("config", *TASK)


@pytest.fixture
def resumed(
    configuration: DictConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> DictConfig:
    """The configuration of a run that is resumed, and Hydra's memory of the overrides."""
    task = [*TASK, f"run_dir={tmp_path}"]
    monkeypatch.setattr(auto_settings, "words_for_settings", lambda: task)
    cfg = configuration.copy()
    cfg.run_dir = str(tmp_path)
    return cfg


CARD = {"model": {"depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": 1, "stride_kv": [1, 4, 4]}}


@pytest.mark.parametrize(
    ("row", "card"),
    [
        ({"key": "clip.num_frames", "value": 500}, {"model": {"num_frames": 8}}),
        ({"key": "clip.crop_size", "value": 100_000}, {"model": {"crop_size": 32}}),
        ({"key": "data.num_classes", "value": 10**8}, {"model": {"num_classes": 8}}),
        ({"key": "model.depths", "value": [9999, 1, 1, 1]}, CARD),
        ({"key": "model.embed_dim", "value": 10**6}, CARD),
        ({"key": "model.name", "value": "mvitv2_l"}, CARD),
        ({"key": "model.name", "value": "mvitv2_l"}, {}),
    ],
)
def test_settings_build_no_other_network_than_the_checkpoint(
    resumed: DictConfig, tmp_path: Path, row: dict, card: dict
) -> None:
    write(tmp_path / SETTINGS_FILE, [row])
    with pytest.raises(UserError, match=r"auto_settings\.yaml: .* is not that of the checkpoint"):
        apply_auto_settings(resumed, card)


def test_value_of_another_kind_is_never_applied(resumed: DictConfig) -> None:
    """Of a model card, for one."""
    stride = Suggestion("clip.frame_stride", TARGET, "from mine.safetensors")
    with pytest.raises(UserError, match=r"clip\.frame_stride is not int \(from mine\.safetensors"):
        apply(resumed, [stride])


@pytest.mark.slow
def test_resumed_run_runs_nothing_that_its_folder_names(tmp_path: Path) -> None:
    checkpoint = {"state_dict": {}, "class_names": ["a"], "settings": {"optim.lr": 1}}
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, tmp_path / "run" / "checkpoints" / "last.ckpt")
    path = tmp_path / "run" / "config" / "chosen.yaml"
    command = ["train", "experiment=finetune", "data.root=/x", "run_dir=run", "resume_from=last"]
    write(path, [{"key": "logger.x", "value": TARGET, "reason": ""}])
    result = run_command(*command, cwd=tmp_path)
    assert not (tmp_path / "hacked").exists()
    assert result.returncode == 1
    (sentence,) = result.stderr.strip().splitlines()
    assert sentence.startswith("error: run/config/chosen.yaml: logger.x is not a setting that")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        [],
        {},
        {"num_videos": 2},
        {"num_videos": "2", "num_passes": 2, "activation_checkpointing": "none", "needed": 1.0},
        {"num_videos": 2, "num_passes": -2, "activation_checkpointing": "none", "needed": 1.0},
        {"num_videos": 2, "num_passes": 2, "activation_checkpointing": TARGET, "needed": 1.0},
        {"num_videos": 2, "num_passes": 2, "activation_checkpointing": "none", "needed": TARGET},
        {"num_videos": 2, "num_passes": 2, "checkpoint_activations": [], "x": 1, "needed": 1.0},
    ],
)
def test_plan_of_memory_is_a_plan_or_one_sentence(tmp_path: Path, content: object) -> None:
    path = write(tmp_path / auto_memory.FILE, content)
    with pytest.raises(UserError, match=rf"^{path} is not a plan of memory=auto; resume without"):
        auto_memory._read_plan(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": []},
        {"settings": {1: 2}},
        {"settings": {"optim.lr": torch.zeros(2)}},
        {"settings": {"optim.lr": {1: 2}}},
        {"class_names": "ab"},
        {"class_names": [1]},
        {"class_names": {"a": 1}},
    ],
    ids=str,
)
def test_settings_of_a_checkpoint_are_plain(changes: dict[str, Any]) -> None:
    good: dict[str, Any] = {"settings": {"a.b": [1, {"c": None}]}, "class_names": ["a"]}
    check_saved_settings(Path("last.ckpt"), good)
    with pytest.raises(UserError, match=r"^last\.ckpt cannot be resumed: its .* are not "):
        check_saved_settings(Path("last.ckpt"), {**good, **changes})


def test_settings_of_a_checkpoint_are_shown_short_and_escaped() -> None:
    assert saved_settings.shorten("\x1b[31m\n") == "\\x1b[31m\\n"
    assert len(saved_settings.shorten("x" * 10**6)) == 60


class Scores(pl.Callback):
    """Logs a score that rises."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("val/top1", float(trainer.current_epoch))


def keeps_last(folder: Path, save_top_k: int = 1) -> Checkpoint:
    return Checkpoint(
        dirpath=folder,
        filename="e{epoch:03d}",
        auto_insert_metric_name=False,
        monitor="step",
        mode="max",
        save_top_k=save_top_k,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def train(folder: Path, max_epochs: int, resume_from: Path | None = None, **k: int) -> Checkpoint:
    kept = keeps_last(folder, **k)
    fitted = trainer(kept, max_epochs=max_epochs, enable_checkpointing=True)
    fitted.fit(classifier(), Data(Clips(2)), ckpt_path=resume_from, weights_only=True)
    return kept


def forge(path: Path, target: str) -> None:
    """Let the state of the callback name another path."""
    content = torch.load(path, weights_only=True)
    (state,) = (each for each in content["callbacks"].values() if "best_k_models" in each)
    (score,) = state["best_k_models"].values()
    state.update(best_k_models={target: score}, kth_best_model_path=target, best_model_path=target)
    state["last_model_path"] = target
    torch.save(content, path)


@pytest.mark.parametrize("target", ["../../precious", "../precious"])
def test_checkpoint_removes_nothing_outside_of_its_folder(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "run" / "checkpoints"
    train(folder, 1)
    precious = folder / target
    write(precious / "file", b"data")
    forge(folder / "e000.ckpt", str(precious))
    train(folder, 2, folder / "e000.ckpt")
    assert (precious / "file").read_bytes() == b"data"
    assert (folder / "e001.ckpt").exists()


def test_checkpoint_removes_no_link_and_no_file_of_another_name(tmp_path: Path) -> None:
    precious, folder = write(tmp_path / "precious.ckpt", b"data"), tmp_path / "checkpoints"
    train(folder, 1)
    (folder / "e007.ckpt").symlink_to(precious)
    os.mkdir(folder / "e008.ckpt")
    for name in ("best.ckpt", "e.txt"):
        write(folder / name, b"data")
    before = {each.name for each in folder.iterdir()}
    for name in ("e007.ckpt", "e008.ckpt", "best.ckpt", "e.txt", "", "e\0.ckpt", "e000.ckpt/x"):
        forge(folder / "e000.ckpt", str(folder / name))
        kept = keeps_last(folder)
        content = torch.load(folder / "e000.ckpt", weights_only=True)
        (state,) = (each for each in content["callbacks"].values() if "best_k_models" in each)
        kept.load_state_dict(state)
        assert kept.best_k_models == {}, name
        assert kept.last_model_path == ""
        for path in (folder / name, precious, folder / ".." / "precious.ckpt"):
            kept._remove_checkpoint(trainer(), str(path)) if name not in ("", "e\0.ckpt") else None
    assert {each.name for each in folder.iterdir()} >= before - {"best.ckpt", "e.txt"}
    assert precious.read_bytes() == b"data"


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"best_k_models": None, "best_model_path": 3},
        {"best_k_models": {"e000.ckpt": "high", 3: torch.tensor(1.0)}},
        {"best_k_models": {"e000.ckpt": torch.tensor(float("nan"))}},
        {"best_k_models": {"e000.ckpt": torch.zeros(3)}},
        {"best_k_models": {"e000.ckpt": torch.zeros((), device="meta")}},
        {"best_k_models": {"e000.ckpt": torch.zeros((), dtype=torch.complex64)}},
    ],
    ids=range(7),
)
def test_state_without_scores_is_a_start(tmp_path: Path, state: dict) -> None:
    write(tmp_path / "e000.ckpt", b"")
    kept = keeps_last(tmp_path)
    kept.load_state_dict(state)
    assert (kept.best_k_models, kept.kth_best_model_path) == ({}, "")


def test_moved_run_folder_keeps_what_it_knows(tmp_path: Path) -> None:
    train(tmp_path / "before", 1, save_top_k=2)
    (tmp_path / "before").rename(tmp_path / "now")
    kept = train(tmp_path / "now", 3, tmp_path / "now" / "e000.ckpt", save_top_k=2)
    assert sorted(kept.best_k_models) == [
        str(tmp_path / "now" / name) for name in ("e001.ckpt", "e002.ckpt")
    ]
    assert not (tmp_path / "before").exists()
    resumed = keeps_last(tmp_path / "now", save_top_k=2)
    resumed.load_state_dict({**kept.state_dict(), "dirpath": str(tmp_path / "before")})
    assert resumed.state_dict() == {**kept.state_dict(), "current_score": None}
    # Where its files are not, a run begins without scores.
    elsewhere = keeps_last(tmp_path / "elsewhere")
    elsewhere.load_state_dict(kept.state_dict())
    assert elsewhere.best_k_models == {}


def test_overwriting_removes_nothing_behind_a_link(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "run"
    write(precious / "last.ckpt", b"data")
    folder.mkdir()
    (folder / "checkpoints").symlink_to(precious)
    run = Run(
        folder=folder, resume_from=None, path=None, checkpoint={}, replaces=True, overrides=[]
    )
    with pytest.raises(UserError, match="is a link, and overwrite=true removes nothing outside"):
        remove_old_checkpoints(run)
    assert (precious / "last.ckpt").read_bytes() == b"data"
    (folder / "checkpoints").unlink()
    remove_old_checkpoints(run)
    remove_old_checkpoints(replace(run, replaces=False))


def test_evaluation_removes_only_its_own_partial_results(tmp_path: Path) -> None:
    mine, own = tmp_path / PARTIAL_DIR / "thoughts.md", tmp_path / PARTIAL_DIR / "0.jsonl"
    for path in (mine, own, tmp_path / PARTIAL_DIR / "list.jsonl"):
        write(path, b"{}")
    (tmp_path / PARTIAL_DIR / "7.jsonl").symlink_to(tmp_path / "elsewhere")
    assert next_partial_number(tmp_path) == 8  # a link is not written through
    clear_folder(tmp_path)
    assert sorted(os.listdir(tmp_path / PARTIAL_DIR)) == ["7.jsonl", "list.jsonl", "thoughts.md"]
    linked = tmp_path / "output"
    linked.mkdir()
    (linked / PARTIAL_DIR).symlink_to(tmp_path / PARTIAL_DIR)
    with pytest.raises(UserError, match="is a link, which an evaluation neither follows nor"):
        clear_folder(linked)
