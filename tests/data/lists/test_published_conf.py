"""Every shipped data set names readers that exist, with the fields they have."""

from typing import Any

import pytest
from hydra.utils import instantiate
from support.commands import composed

from video_mvit.cli.config_check import check_values
from video_mvit.data.lists.holdout import CustomSource
from video_mvit.data.lists.published import (
    HMDB51Source,
    KineticsSource,
    SomethingSource,
    UCF101Source,
)

SOURCES = {
    "demo": (KineticsSource, None),
    "kinetics400": (KineticsSource, 400),
    "kinetics600": (KineticsSource, 600),
    "kinetics700": (KineticsSource, 700),
    "ssv2": (SomethingSource, 174),
    "ucf101": (UCF101Source, 101),
    "hmdb51": (HMDB51Source, 51),
    "custom": (CustomSource, 5),
}


def make_sources(data: str, *overrides: str) -> dict[str, Any]:
    cfg = composed("config", f"data={data}", "data.root=/data", *overrides)
    check_values(cfg.data.sources, "data.sources")
    assert cfg.data.num_classes == SOURCES[data][1]
    return {name: instantiate(cfg.data.sources[name]) for name in ("train", "val", "test")}


@pytest.mark.parametrize("data", SOURCES)
def test_data_set_names_its_readers(data: str) -> None:
    sources = make_sources(data, *(["data.num_classes=5"] if data == "custom" else []))
    assert {type(source) for source in sources.values()} == {SOURCES[data][0]}
    assert sources["train"] != sources["val"]
    assert (sources["test"] == sources["val"]) == (data != "demo")


def test_split_of_ucf101_and_hmdb51_is_one_override() -> None:
    ucf101 = make_sources("ucf101", "data.split=3")["val"]
    assert str(ucf101.manifest).endswith("/testlist03.txt")
    assert make_sources("hmdb51", "data.split=2")["train"].split == 2


@pytest.mark.slow
def test_own_lists_default_to_the_root_and_may_lie_elsewhere() -> None:
    here = make_sources("custom", "data.num_classes=5")
    train, val = "/data/train", "/data/val"
    assert here == {
        "train": CustomSource(part="train", manifest=train, other_manifest=val, folder="/data"),
        "val": CustomSource(part="val", manifest=val, other_manifest=train, folder="/data"),
        "test": here["val"],
    }
    there = make_sources("custom", "data.num_classes=5", "data.val_list=/v.txt", "data.classes=c")
    assert there["val"] == CustomSource(
        part="val", manifest="/v.txt", other_manifest=train, folder="/data", classes="c"
    )
