"""Which tensor goes where, what is said of the rest, and models that load in one call."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import video_mvit
from video_mvit.models.mvit import MViT
from video_mvit.weights.checkpoint_files import write_safetensors
from video_mvit.weights.load import Source, plan_load, resize_rel_pos
from video_mvit.weights.load_plan import Shape
from video_mvit.weights.model_card import ModelCard

TINY = {"num_frames": 4, "crop_size": 32, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_classes": 5}


def tiny_model(**overrides: Any) -> MViT:
    return video_mvit.create_model("mvitv2_s", **{**TINY, **overrides}).eval()


def shapes(model: MViT) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def source_of(model: MViT, **changes: Any) -> Source:
    source = Source(
        path="a.pyth",
        container="SlowFast checkpoint",
        key_format="slowfast",
        state=model.state_dict(),
        architecture=asdict(model.config),
        unused=(),
        card=None,
        class_names=None,
    )
    return replace(source, **changes)


def clip_for(model: MViT) -> Tensor:
    side, frames = model.config.crop_size, model.config.num_frames
    return torch.randn(2, 3, frames, side, side, generator=torch.Generator().manual_seed(0))


def test_the_same_model_takes_every_tensor() -> None:
    theirs, ours = tiny_model(), tiny_model()
    plan = plan_load(source_of(theirs), shapes(ours))
    assert plan.counts() == {"loaded": len(shapes(ours))}
    plan.apply(ours)
    clip = clip_for(ours)
    assert torch.equal(ours(clip), theirs(clip))


def test_tables_are_resized_to_another_grid_and_listed() -> None:
    theirs, ours = tiny_model(), tiny_model(num_frames=8, crop_size=64)
    plan = plan_load(source_of(theirs), shapes(ours))
    resized = {row.name for row in plan.rows if row.action == "resized"}
    assert resized == {name for name in shapes(ours) if "rel_pos" in name}
    plan.apply(ours)
    table = ours.blocks[0].attn.rel_pos_t
    expected = F.interpolate(
        theirs.blocks[0].attn.rel_pos_t.T[None], size=len(table), mode="linear"
    )
    torch.testing.assert_close(table, expected[0].T)


def test_resized_table_is_half_pixel_linear() -> None:
    table = torch.arange(4.0)[:, None]
    assert resize_rel_pos(table, 2).flatten().tolist() == [0.5, 2.5]
    assert resize_rel_pos(table.half(), 8).dtype == torch.float16


def test_other_classes_need_a_new_head_by_name() -> None:
    theirs, ours = tiny_model(), tiny_model(num_classes=3)
    with pytest.raises(ValueError, match=r"2 of another shape: head\.projection\.weight \(5x128"):
        plan_load(source_of(theirs), shapes(ours))
    with pytest.raises(ValueError, match=r"reset=\[head\] starts a new head"):
        plan_load(source_of(theirs), shapes(ours))
    before = ours.head.projection.weight.clone()
    plan = plan_load(source_of(theirs), shapes(ours), reset=["head"])
    assert plan.counts()["new"] == 2
    plan.apply(ours)
    assert torch.equal(ours.head.projection.weight, before)
    assert torch.equal(ours.blocks[2].mlp.fc1.weight, theirs.blocks[2].mlp.fc1.weight)


def test_mismatches_are_three_short_lists() -> None:
    ours = tiny_model()
    state = dict(ours.state_dict())
    for i in range(4):
        state[f"extra.{i}"] = torch.zeros(1)
    del state["cls_token"]
    state["norm.weight"] = torch.zeros(7)
    with pytest.raises(ValueError, match=r"^a\.pyth does not fit this model; ") as error:
        plan_load(source_of(ours, state=state), shapes(ours))
    told = str(error.value)
    assert "1 missing: cls_token;" in told
    assert "4 unexpected: extra.0, extra.1, extra.2 and 1 more;" in told
    assert "1 of another shape: norm.weight (7 in the file, 128 here)" in told
    assert "\n" not in told


def test_ignored_modules_are_listed_as_unused_and_unknown_names_refused() -> None:
    theirs, ours = tiny_model(), tiny_model(cls_token=False, head="mean")
    with pytest.raises(ValueError, match=r"1 unexpected: cls_token"):
        plan_load(source_of(theirs), shapes(ours))
    plan = plan_load(source_of(theirs), shapes(ours), ignore=["cls_token"])
    assert [row.name for row in plan.rows if row.action == "unused"] == ["cls_token"]
    with pytest.raises(ValueError, match=r"reset names 'hat', but the model has no such"):
        plan_load(source_of(theirs), shapes(ours), reset=["hat"])
    with pytest.raises(ValueError, match=r"ignore names 'hat', but a\.pyth has no such"):
        plan_load(source_of(theirs), shapes(ours), ignore=["hat"])


def test_reset_takes_whole_modules_only() -> None:
    ours = tiny_model()
    with pytest.raises(ValueError, match=r"reset names 'blocks\.0\.nor'"):
        plan_load(source_of(ours), shapes(ours), reset=["blocks.0.nor"])


def test_exported_model_loads_in_one_call_with_its_card(tmp_path: Path) -> None:
    model = tiny_model()
    card = ModelCard(model=asdict(model.config), class_names=tuple("abcde"), frame_stride=4)
    path = tmp_path / "model.safetensors"
    write_safetensors(path, model.state_dict(), card)
    loaded = video_mvit.load_model(str(path))
    assert not loaded.training
    assert loaded.card.class_names == tuple("abcde")
    clip = clip_for(model)
    assert torch.equal(loaded(clip), model(clip))


def test_one_call_starts_a_fine_tune_on_other_clips(tmp_path: Path) -> None:
    model = tiny_model()
    path = tmp_path / "model.safetensors"
    card = ModelCard(model=asdict(model.config), class_names=tuple("abcde"))
    write_safetensors(path, model.state_dict(), card)
    loaded = video_mvit.load_model(str(path), num_classes=2, crop_size=64, reset=["head"])
    assert loaded(clip_for(loaded)).shape == (2, 2)
    assert loaded.card.class_names is None
    assert loaded.card.model["crop_size"] == 64
    with pytest.raises(ValueError, match="unknown model option crop"):
        video_mvit.load_model(str(path), crop=64)


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pyth"):
        video_mvit.load_model(str(tmp_path / "nowhere.pyth"))
