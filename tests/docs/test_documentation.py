"""The README and the docs: every command and Python block runs or says why not, every option that
they name exists, every link leads somewhere."""

import re
import shutil
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from support.documents import (
    COMMAND_LANGUAGES,
    SMALL,
    Block,
    check_marks,
    read_blocks,
    run_command,
    run_python,
    verb_of,
)
from support.paths import CONF, ROOT, SCRIPTS
from support.processes import TIMEOUT_S, fresh_processes

import video_mvit
from video_mvit.cli import VERBS
from video_mvit.cli.config_check import check_values
from video_mvit.data.preparation.demo import MOTIONS, write_demo_dataset
from video_mvit.detection.config import DetectorConfig
from video_mvit.detection.data.transforms import MultiScaleCrop
from video_mvit.detection.demo_pictures import (
    CLASS_COLORS,
    draw_demo_picture,
    write_detection_demo,
)
from video_mvit.detection.weights import write_detector
from video_mvit.models.backbone import BackboneConfig
from video_mvit.models.config import MViTConfig
from video_mvit.weights.model_card import ModelCard

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *(page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts)]
NUM_VIDEOS = {"train": 40, "val": 8, "test": 16}
NUM_IMAGES = {"train": 8, "val": 4}
OWN_CLASSES = ("moving up", "turning clockwise", "zooming in")


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def steps_of(page: Path) -> list[Block]:
    """Blocks that do something, in order."""
    is_step = {*COMMAND_LANGUAGES, "python"}
    return [b for b in read_blocks(page) if b.language in is_step or b.mark == "file"]


# What is said of blocks


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_block_runs_or_has_a_reason(page: Path) -> None:
    for block in read_blocks(page):
        check_marks(block)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```bash\nffmpeg -i a.mp4\n```\n", "ffmpeg is neither run by the tests nor has a reason"),
        ("```bash\npip install .\n```\n", "pip is neither run"),
        ("<!-- not run: -->\n```bash\nffmpeg\n```\n", "is neither run|says nothing"),
        ("<!-- not run: slow -->\n\nwords\n\n```bash\nffmpeg\n```\n", "ffmpeg is neither run"),
        ("```console\nonly output\n```\n", "no command in it"),
        ("```\nvideo-mvit train\n```\n", "a block needs a language"),
        ("<!-- run with: x=1 -->\n```python\nx = 1\n```\n", "only commands run with more words"),
    ],
)
def test_block_without_run_or_reason_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        _ = [check_marks(block) for block in read_blocks(page)]  # type: ignore[func-returns-value]


def test_commands_are_split_as_a_shell_does(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ video-mvit x 'a=b c' \\\n    d=1  # why\noutput\n$ two\n```\n")
    (block,) = read_blocks(page)
    assert block.commands() == [["video-mvit", "x", "a=b c", "d=1"], ["two"]]


# What runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Run a function of `support.documents` in a process of its own; fail with what it printed."""
    context = fresh_processes()
    log = tmp_path_factory.mktemp("log") / "log.txt"

    def run_in_process(function: Callable[..., None], what: Any, folder: Path, place: str) -> None:
        log.unlink(missing_ok=True)
        process = context.Process(target=function, args=(what, folder, log))
        process.start()
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
        printed = log.read_text(errors="replace") if log.exists() else ""
        assert process.exitcode == 0, f"{place}: exit code {process.exitcode}\n{printed[-4000:]}"

    return run_in_process


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, run: Callable[..., None]) -> Path:
    """What the pages take for granted: the demo and its run, own videos, weight files.

    And what the README's commands make of them: it is the first page that a person reads.
    """
    folder = tmp_path_factory.mktemp("workplace")
    demo = folder / "datasets" / "demo_0"
    write_demo_dataset(demo, NUM_VIDEOS, 0, lambda _: None, [f"red {name}" for name in MOTIONS])
    rows = []
    for label, name in enumerate(OWN_CLASSES):
        shutil.copytree(demo / "train" / f"red {name}", folder / "videos" / name)
        (folder / "named_videos").mkdir(exist_ok=True)
        for i, video in enumerate(sorted((folder / "videos" / name).iterdir())):
            rows.append(f"{name}/{video.name},{label}\n")
            shutil.copy(video, folder / "named_videos" / f"{name}__{i}.mp4")
    (folder / "lists").mkdir()
    (folder / "lists" / "train.csv").write_text("".join(rows[::2]))
    (folder / "lists" / "val.csv").write_text("".join(rows[1::2]))
    (folder / "lists" / "classes.txt").write_text("\n".join(OWN_CLASSES))
    shutil.copy(next((demo / "test" / f"red {OWN_CLASSES[0]}").iterdir()), folder / "clip.mp4")
    # The files of published weights, with the tiny network in them.
    published = {"MViTv2_S_16x4_k400_f302660347": (400, 8), "MViTv2_S_in1k": (1000, 1)}
    for name, (num_classes, num_frames) in published.items():
        model = video_mvit.create_model(
            "mvitv2_demo", num_classes=num_classes, num_frames=num_frames
        )
        torch.save({"model_state": model.state_dict()}, folder / f"{name}.pyth")
    write_detection_files(folder)
    options = "experiment=demo data.root=datasets/demo_0 run_dir=runs/demo_0"
    run(run_command, ["video-mvit", "train", *options.split(), *SMALL], folder, "the demo")
    run_page(README, folder, run)
    return folder


def write_detection_files(folder: Path) -> None:
    """Write a published detector, tiny and untrained, images with painted masks, and shapes."""
    detector = video_mvit.create_detector("mask_rcnn_mvitv2_demo", num_classes=80)
    write_detector(folder / "mask_rcnn_mvitv2_t.pkl", detector.state_dict(), ModelCard(model={}))
    generator = np.random.default_rng(0)
    for split, count in NUM_IMAGES.items():
        for name in CLASS_COLORS:
            (folder / "images" / split / name).mkdir(parents=True)
        for number in range(count):
            picture, shapes = draw_demo_picture(generator)
            label = shapes[0].label
            painted = np.zeros(picture.shape[:2], np.uint8)
            for color, shape in enumerate(shapes, start=1):
                painted[shape.mask] = color if shape.label == label else 0
            place = folder / "images" / split / list(CLASS_COLORS)[label]
            Image.fromarray(picture).save(place / f"{number}.jpg")
            Image.fromarray(painted).save(place / f"{number}.png")
    Image.fromarray(picture).save(folder / "street.jpg")
    write_detection_demo(folder / "datasets" / "shapes_0", NUM_IMAGES, 0, lambda _: None)


def run_page(page: Path, folder: Path, run: Callable[..., None]) -> None:
    """Do in a folder what a page says, from top to bottom."""
    for step in grouped(steps_of(page)):
        first = step[0]
        if first.mark == "file":
            target = folder / first.mark_text
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(first.text)
        elif first.language == "python":
            if first.is_run:
                run(run_python, step, folder, first.place)
        else:
            for words in first.commands():
                if first.is_run:
                    place = f"{first.place}: {' '.join(words)}"
                    run(run_command, first.with_more(words), folder, place)
                else:
                    check_command(words)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_page_runs(page: Path, workplace: Path, tmp_path: Path, run: Callable[..., None]) -> None:
    if page != README and steps_of(page):
        shutil.copytree(workplace, tmp_path / "workplace")
        run_page(page, tmp_path / "workplace", run)


def grouped(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Each block alone, but Python blocks that follow each other together."""
    group: list[Block] = []
    for block in blocks:
        is_python = block.language == "python" and block.is_run
        if is_python and group:
            group.append(block)
            continue
        if group:
            yield group
        group = [block] if is_python else []
        if not is_python:
            yield [block]
    if group:
        yield group


# What does not run, and options in the text: they exist


CONFIGS: dict[str, tuple[type, ...]] = {  # what builds a model -> where its options are
    "video_mvit.create_model": (MViTConfig,),
    "video_mvit.create_detector": (DetectorConfig, BackboneConfig),
}


def names_of(*configs: type) -> set[str]:
    return {field.name for config in configs for field in fields(config)}


@cache
def composed(verb: str, *overrides: str) -> DictConfig:
    config, folder = (VERBS[verb].config, CONF) if verb != "benchmark" else (verb, None)
    assert config
    with initialize_config_dir(str(folder or SCRIPTS / "benchmarks"), version_base="1.3"):
        return compose(config, overrides=list(overrides))


def check_command(words: Sequence[str]) -> None:
    """Fail where a command names a verb, option, target, extra or file that is not there."""
    if (rest := verb_of(words)) is not None:
        check_verb(rest)
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), words
    elif words[0] in ("pip", "uv"):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for extras in re.findall(r"\[([\w,-]+)\]", " ".join(words)):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), words
    for word in words:
        if word.startswith(("scripts/", "tests/")):
            assert (ROOT / word.partition("::")[0]).exists(), word


def check_verb(words: Sequence[str]) -> None:
    verb, *options = words
    assert verb in (*VERBS, "completion"), verb
    if verb != "benchmark" and (verb not in VERBS or not VERBS[verb].config):
        return
    overrides = [word for word in options if "=" in word and not word.startswith("hydra/")]
    overrides = [re.sub(r"\$\w+", "1", word) for word in overrides]
    if "--multirun" in options:
        overrides = [re.sub(r"=([^\[,]+),.*", r"=\1", word) for word in overrides]
    for word in options:
        if word.startswith("hydra/"):
            assert (CONF / f"{word.replace('=', '/')}.yaml").exists(), word
    cfg = composed(verb, *overrides)
    for name in ("model", "data", "augment", "optim", "trainer", "callbacks", "logger"):
        if name in cfg and "experiment" in cfg:
            check_values(cfg[name], name)
    if "model" in cfg and (configs := CONFIGS.get(cfg.model.get("_target_"))):
        known = {"_target_", "name", *names_of(*configs)}
        assert set(cfg.model) <= known, f"no model option {set(cfg.model) - known}"


# Compositions that together have every option.
KNOWN_BY = [
    ("train", "experiment=demo", "augment=published", "callbacks=ema"),
    ("train", "data=custom", "init=weights"),
    ("train", "data=rows"),
    ("train", "data=ssv2", "init=inflate"),
    ("train", "data=hmdb51", "optim=sgd_cosine"),
    ("train", "experiment=demo", "debug=overfit", "logger=wandb"),
    ("train", "experiment=finetune_detector"),
    ("train", "data=multi_label"),
    ("train", "data=regression"),
    ("train", "data=charades"),
    ("train", "data=multi_head"),
    ("train", "data=epic_kitchens"),
    ("train", "adapter=lora"),
    *(("train", f"ablation={path.stem}") for path in sorted((CONF / "ablation").iterdir())),
    *((verb,) for verb in VERBS if VERBS[verb].config),
]
PLACEHOLDERS = ("name=", "+name=", "++name=", "group=", "group.option=")
ONLY_IN_CODE = {  # so that `+` or `++` adds them
    "data.module.test.num_videos",
    *(f"data.train_transform.{name}" for name in names_of(MultiScaleCrop)),
    *(f"model.{name}" for name in names_of(MViTConfig, DetectorConfig, BackboneConfig)),
}
GROUPS = [path.name for path in CONF.iterdir() if path.is_dir() and path.name != "__pycache__"]


@cache
def known_options() -> frozenset[str]:
    def keys(node: Any, prefix: str) -> Iterator[str]:
        for name in node:
            yield prefix + name
            if isinstance(node, dict) and isinstance(node[name], dict):
                yield from keys(node[name], f"{prefix}{name}.")

    found = set[str]()
    for verb, *overrides in KNOWN_BY:
        content = OmegaConf.to_container(composed(verb, *overrides), resolve=False)
        found |= set(keys(content, ""))
    return frozenset(found)


def options_in_text(page: Path) -> Iterator[str]:
    """Words in code spans that are options: NAME=VALUE, or GROUP.NAME."""
    text = re.sub(r"^( *)(`{3,}).*?^\1\2$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"(?<!\})(?<!`)`([^`\n]+)`(?!`)", text):
        for word in span.split():
            is_dotted = re.fullmatch(rf"({'|'.join(GROUPS)})(\.[a-z_]\w*)+", word)
            is_set = re.fullmatch(r"'?\+*[a-z_]+([./][a-z_]\w*)*=.*", word)
            if (is_set or is_dotted) and not word.startswith(PLACEHOLDERS):
                yield word.lstrip("'")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_options_in_the_text_exist(page: Path) -> None:
    for word in options_in_text(page):
        name, _, value = word.partition("=")
        if name in GROUPS or name.startswith("hydra/"):
            if re.fullmatch(r"[a-z_0-9x]+", value) and value != "null":
                assert (CONF / name / f"{value}.yaml").exists(), word
        elif name.startswith("+"):
            assert name.lstrip("+") in ONLY_IN_CODE, word
        elif not name.startswith("hydra."):
            is_said = "=" not in word and name in ONLY_IN_CODE  # a name, not a command
            assert is_said or name in known_options(), word


@pytest.mark.slow
def test_unknown_options_in_the_text_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Set `data.nothing=3`, `optim.lr`, or `clip=16x4`; {py:mod}`video_mvit.data`.")
    assert list(options_in_text(page)) == ["data.nothing=3", "optim.lr", "clip=16x4"]
    assert "data.nothing" not in known_options()
    assert "optim.lr" in known_options()


# Links, and the length of the README


def anchors_of(page: Path) -> set[str]:
    """Anchors of headings, as GitHub and MyST make them, and those that are set by hand."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {
        re.sub(r"[^\w\- ]", "", h.replace("`", "")).lower().replace(" ", "-") for h in headings
    }
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.M)
    for target in targets:
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors_of(file), f"{page.name} links to {target}"
    for name, label in re.findall(r"(?<!!)\[[^\]]+\]\[(\w*)\]()", text):
        assert re.search(rf"^\[{name}\]: ", text, re.M), f"no target [{name}]{label}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_in_the_text_exist(page: Path) -> None:
    text, folders = page.read_text(), "conf|docs(?!/_build)|scripts|tests|video_mvit"
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", text)
    for name in (*named, *re.findall(r"tests/[\w/]+\.py", text)):  # also in reasons
        assert (ROOT / name).exists(), name


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200
