"""No value of an option ends in a traceback: every option of every verb, with values of odd types.

A verb runs up to its building. The settings are composed once and then changed as Hydra would, so
that a case takes milliseconds. Each test counts its cases, and fails if its verb does not run as it
stands or if a case was lost.
"""

import contextlib
import copy
import io
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import video_mvit
from video_mvit.cli import (
    VERBS,
    browse,
    convert,
    evaluate,
    export,
    extract,
    inflate,
    predict,
    prepare,
    probe,
    push,
    summary,
    tune,
)
from video_mvit.cli import train as training
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.help import groups_of, options_of
from video_mvit.cli.option_values import OPTIONS, check_verb
from video_mvit.cli.run_folder import open_run
from video_mvit.cli.run_place import folder_of
from video_mvit.cli.words import prepare_words
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.weights.checkpoint_files import write_safetensors
from video_mvit.weights.model_card import ModelCard

VALUES = ("null", "true", "0", "[]", "{a: 1}", "word", "-1", "1.5", "2024-01-31")
WITH_YAML = {verb: entry.config for verb, entry in VERBS.items() if entry.config}
NUM_SAMPLED = 12  # of the cases of a verb, unless all are run
BUILT = "built"  # a verb has come as far as it is run here


def build_training(cfg: DictConfig) -> None:
    with exit_on_user_error():
        check_verb(cfg, "train")
        cfg.run_dir = str(folder_of(cfg))
        training.build_parts(training.resolve(cfg, open_run(cfg)))


def build_evaluation(cfg: DictConfig) -> None:
    with exit_on_user_error():
        check_verb(cfg, "evaluate")
        evaluate.build_evaluation(evaluate.resolve(cfg))


def read_lists(cfg: DictConfig) -> None:
    with exit_on_user_error():
        check_verb(cfg, "prepare")
        cfg = copy.deepcopy(cfg)
        prepare.resolve_num_workers(cfg)
        prepare.check(cfg)
        prepare.open_folder(cfg.run_dir, "prepare")
        list(prepare.read_splits(cfg))


def begin_search(cfg: DictConfig) -> None:
    with exit_on_user_error():
        check_verb(cfg, "tune")
        tune.search_of(cfg, [])


def build_probing(cfg: DictConfig) -> None:
    with exit_on_user_error():
        probe.build_probing(probe.resolve(cfg))


RUNS: dict[str, Callable[[DictConfig], None]] = {
    "tune": begin_search,
    "train": build_training,
    "evaluate": build_evaluation,
    "prepare": read_lists,
    "predict": predict.main,
    "extract": extract.main,
    "probe": build_probing,
    "convert": convert.main,
    "export": export.main,
    "inflate": inflate.main,
    "push": push.main,
    "browse": browse.main,
    "summary": summary.main,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and a model with its card."""
    root = tmp_path_factory.mktemp("values")
    write_demo_dataset(root / "data", {"train": 8, "val": 2, "test": 2}, 0, lambda _: None)
    model = video_mvit.create_model("mvitv2_demo", num_classes=8)
    card = ModelCard(model=asdict(model.config), frame_stride=4, short_side=32)
    write_safetensors(root / "model.safetensors", model.state_dict(), card)
    (root / "ranges.yaml").write_text("optim.lr: [1e-3, 1e-4]")
    return root


def base_of(verb: str, root: Path) -> list[str]:
    """Words with which a verb runs."""
    model, target = f"{root}/model.safetensors", f"{root}/out"
    video = next((root / "data" / "val").rglob("*.mp4"))
    data = ["experiment=demo", f"data.root={root}/data", f"run_dir={root}/run"]
    data += ["data.num_workers=0", "data.train_batch_size=2"]
    weights = [f"source={model}", "overwrite=true"]
    scoring = [f"checkpoint={model}", f"video={video}", "device=cpu", "num_clips=1"]
    return {
        "train": data,
        "evaluate": [*data, f"checkpoint={model}", f"output={root}/evaluation"],
        "prepare": [*data, "num_workers=1", "splits=[val]"],
        "predict": [*scoring, "timeline=false"],
        "extract": [*scoring, f"output={target}.npz", "overwrite=true"],
        "probe": [*data, f"checkpoint={model}", "device=cpu", "num_clips=1"],
        "convert": [*weights, f"target={target}.safetensors"],
        "export": [*weights, f"target={target}.onnx"],
        "inflate": [*weights, f"target={target}.safetensors", "model=mvitv2_demo"],
        "push": [f"source={model}", "repo=owner/name"],
        "browse": [*data, f"output={target}.html", "max_videos=2", "clips_per_class=1"],
        "summary": ["model=mvitv2_demo", "clip=8x4", "clip.crop_size=32"],
        "tune": [*data, f"ranges={root}/ranges.yaml"],
    }[verb]


def keys_of(content: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")
            yield from [f"{prefix}{key}"] if prefix else []  # a choice of a group is another test
        elif key != "_target_":
            yield f"{prefix}{key}"


@cache
def parser() -> OverridesParser:
    return OverridesParser.create()


def composed(verb: str, words: Sequence[str]) -> DictConfig:
    with initialize_config_module("video_mvit.conf", version_base="1.3"):
        cfg = compose(WITH_YAML[verb], list(words), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)  # noqa: FBT003
    cfg.pop("hydra")
    OmegaConf.set_struct(cfg, True)  # noqa: FBT003
    return cfg


def outcome(run: Callable[[DictConfig], None], cfg: DictConfig) -> str:
    """Run a verb: "ran", the sentence that it ended with, or the traceback."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            run(copy.deepcopy(cfg))
    except SystemExit as end:
        return "ran" if end.code in (None, 0, BUILT) else str(end.code)
    except Exception:
        return traceback.format_exc()
    return "ran"


def check_every_value(verb: str, root: Path, num_cases: int | None) -> None:
    known = [*(option.name for option in options_of(WITH_YAML[verb])), *groups_of(WITH_YAML[verb])]
    cfg = composed(verb, prepare_words(base_of(verb, root), known))
    run = RUNS[verb]
    assert outcome(run, cfg) == "ran", "the verb does not run as it stands"
    content: Any = OmegaConf.to_container(cfg, resolve=False)
    cases = [(key, value) for key in keys_of(content) for value in VALUES]
    assert len(cases) > 20
    if num_cases is not None:
        cases = random.Random(0).sample(cases, min(num_cases, len(cases)))
    counts: Counter[str] = Counter()
    bad = []
    for key, value in cases:
        changed = copy.deepcopy(cfg)
        word = prepare_words([f"{key}={value}"], known)[0]
        try:
            OmegaConf.update(changed, key, parser().parse_override(word).value(), merge=True)
        except OmegaConfBaseException:
            counts["refused"] += 1
            continue
        found = outcome(run, changed)
        counts["ran" if found == "ran" else "sentence"] += 1
        if "Traceback" in found or "\n" in found.strip() or len(found) > 600:
            bad.append(f"{word}: {found}")
    sys.stdout.write(f"{verb}: {len(cases)} cases, {dict(counts)}\n")
    assert not bad, f"{len(bad)} of {len(cases)}:\n" + "\n".join(bad[:10])
    assert counts.total() == len(cases)
    # Of a few cases, most may be allowed values.
    assert counts["sentence"] >= (len(cases) / 4 if num_cases is None else 1)


@pytest.fixture(autouse=True)
def only_up_to_what_is_slow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No export, no proof and no upload: they begin once all options are checked."""

    def stop(*_: object, **__: object) -> None:
        sys.exit(BUILT)

    monkeypatch.chdir(tmp_path)
    for place, name in ((export, "export"), (inflate, "inflated"), (push, "push")):
        monkeypatch.setattr(place, name, stop)
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
    HydraConfig.instance().cfg = None


@pytest.mark.slow
@pytest.mark.parametrize("verb", WITH_YAML)
def test_some_values_of_odd_types_end_in_a_sentence(verb: str, root: Path) -> None:
    check_every_value(verb, root, NUM_SAMPLED)


@pytest.mark.long
@pytest.mark.parametrize("verb", WITH_YAML)
def test_all_values_of_odd_types_end_in_a_sentence(verb: str, root: Path) -> None:
    check_every_value(verb, root, None)


@pytest.mark.parametrize("verb", WITH_YAML)
def test_every_option_has_a_type(verb: str) -> None:
    named = {option.name for option in options_of(WITH_YAML[verb])}
    groups = set(groups_of(WITH_YAML[verb]))
    nodes = {"model", "decode_limits"}  # checked by their targets
    assert named - groups - nodes <= set(OPTIONS[verb])
    assert {key.partition(".")[0] for key in OPTIONS[verb]} <= named | groups | nodes
