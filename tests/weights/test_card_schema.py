"""The schema of model cards, and the numbers that it and the tensors must agree on."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import video_mvit
from video_mvit.detection.config import DetectorConfig
from video_mvit.errors import UserError
from video_mvit.models.backbone import BackboneConfig
from video_mvit.models.config import MViTConfig
from video_mvit.models.mvit import MViT
from video_mvit.weights import card_schema
from video_mvit.weights.checkpoint_files import read_weight_file, write_safetensors
from video_mvit.weights.load import read_source
from video_mvit.weights.model_card import ModelCard, read_card

TINY = {"num_frames": 4, "crop_size": 32, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_classes": 5}
CARD = {"format": "video_mvit 1", "model": {}}


def tiny_model() -> MViT:
    return video_mvit.create_model("mvitv2_s", **TINY).eval()


def exported(folder: Path, **card: Any) -> Path:
    model, path = tiny_model(), folder / "m.safetensors"
    write_safetensors(path, model.state_dict(), ModelCard(model=asdict(model.config), **card))
    return path


@pytest.mark.parametrize(
    ("schema", "config"),
    [
        (card_schema.CLASSIFIER, MViTConfig),
        (card_schema.BACKBONE, BackboneConfig),
        ({**card_schema.DETECTOR, "backbone": None}, DetectorConfig),
        ({**card_schema.CARD, "model": None, "evaluation": None}, ModelCard),
    ],
)
def test_schema_has_the_fields_of_the_configuration(schema: Any, config: Any) -> None:
    assert set(schema) == {field.name for field in fields(config)}


@pytest.mark.parametrize(
    ("schema", "config"),
    [
        (card_schema.CLASSIFIER, MViTConfig),
        (card_schema.BACKBONE, BackboneConfig),
        (card_schema.DETECTOR, DetectorConfig),
    ],
)
def test_schema_allows_the_choices_of_the_configuration(schema: Any, config: Any) -> None:
    hints = get_type_hints(config)
    choices = {name: get_args(hints[name]) for name in schema if get_origin(hints[name]) is Literal}
    assert choices
    for name, allowed in choices.items():
        assert schema[name]("no choice") == f"one of {', '.join(allowed)}"
        assert not any(map(schema[name], allowed))


def test_published_variants_are_within_the_limits() -> None:
    from video_mvit.detection.config import DETECTORS
    from video_mvit.models.config import VARIANTS

    for config in (*VARIANTS.values(), *DETECTORS.values()):
        card_schema.check_card({"model": asdict(config)}, "card")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frame_stride": {"_target_": "os.system"}}, "frame_stride is a mapping, expected an int"),
        ({"frame_stride": True}, "frame_stride is True, expected an integer from 1 to 100000"),
        ({"class_names": ["a", 1]}, "class_names is a list, expected a list of a text"),
        ({"class_names": "ab"}, "class_names is a text, expected a list of 1 to"),
        ({"class_names": ["\ud800"]}, "class_names is a list, expected a list of a text in Uni"),
        ({"mean": [0, 1]}, "mean is a list, expected a list of 3 values"),
        ({"std": [0, 1, 1]}, "std is a list, expected a list of a number above 0"),
        ({"variant": "${oc.env:HOME}"}, "variant is a text, expected a word"),
        ({"model": {"crop_size": 100_000}}, r"model\.crop_size is 100000, expected an integer fr"),
        ({"model": {"crop_size": "32"}}, r"model\.crop_size is a text, expected an integer"),
        ({"model": {"depths": [1, 1, 1, 10**5]}}, r"model\.depths is a list, expected a list of"),
        ({"model": {"_target_": "x"}}, "model has an unknown field _target_"),
        ({"model": {"\x1b[31m": 1}}, r"model has an unknown field '\\x1b\[31m'"),
        ({"model": {"backbone": 3}}, r"model\.backbone is a int, expected its fields"),
        ({"model": {"backbone": {"window": -1}}}, r"model\.backbone\.window is -1, expected"),
        ({"model": None}, "has no model configuration"),
        (
            {"evaluation": {"top1": 0.5}},
            "evaluation has no protocol, or none of top1 and top5, map, all",
        ),
        (
            {"evaluation": {"protocol": "5x1", "top1": 5, "top5": 1}},
            "evaluation: top1 is 5, expected a number from 0 to 1",
        ),
        ({"category_ids": [1, 2], "model": {"num_classes": 3}}, "2 category_ids for 3 classes"),
        ({"class_names": ["a"], "model": {"num_classes": 3}}, "1 class names for 3 classes"),
    ],
)
def test_value_of_another_type_or_size_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^card(: | ).*{message}"):
        read_card(json.dumps({**CARD, **values}), "card")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": "video_mvit 1", ' + '"a": [' * 200_000, "is not JSON"),
        ("[" * 200_000 + "]" * 200_000, "is not JSON that anybody writes"),
        ('{"a": 1, "a": 2}', "a occurs twice"),
        ('{"format": "video_mvit 1", "model": {"crop_size": NaN}}', "NaN is not a number"),
        ('{"a": ' + "1" * 10_000 + "}", "is not JSON that anybody writes"),
    ],
)
def test_text_that_is_no_card_is_told(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_card(text, "card")


def test_unknown_fields_of_later_versions_are_ignored() -> None:
    evaluation = {"protocol": "5x1", "top1": 0.5, "top5": 1, "later": [[]]}
    card = read_card(json.dumps({**CARD, "later": {}, "evaluation": evaluation}), "card")
    assert card.evaluation == {"protocol": "5x1", "top1": 0.5, "top5": 1}


def test_card_in_a_training_checkpoint_has_the_same_schema(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "last.ckpt"
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    content = {"state_dict": state, "class_names": list("abcde")}
    card = {"model": asdict(model.config), "frame_stride": {"_target_": "torch.hub.load"}}
    torch.save({**content, "card": card}, path)
    with pytest.raises(UserError, match=r"card in .*last\.ckpt: frame_stride is a mapping"):
        read_weight_file(path)
    torch.save({**content, "card": {**card, "frame_stride": 4}}, path)
    file = read_weight_file(path)
    assert file.card is not None
    assert file.card.frame_stride == 4
    torch.save({**content, "class_names": ["a", 2]}, path)
    with pytest.raises(UserError, match=r"last\.ckpt: class_names is a list, expected a list of"):
        read_weight_file(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_size", 2048),
        ("num_frames", 1024),
        ("depths", (1000, 1000, 1000, 1000)),
        ("embed_dim", 8192),
        ("num_classes", 50_000),
        ("num_heads", 16),
        ("cls_token", False),
        ("expand_dim_in", "mlp"),
    ],
)
def test_card_that_says_another_size_than_the_tensors_is_refused_before_building(
    tmp_path: Path, field: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported(tmp_path)
    card = json.loads(path.with_suffix(".json").read_text())
    card["model"] |= {field: value, **({"head": "mean"} if field == "cls_token" else {})}
    path.with_suffix(".json").write_text(json.dumps(card))
    monkeypatch.setattr("video_mvit.api.MViT", lambda _: pytest.fail("built"))
    with pytest.raises(UserError, match=rf"m\.safetensors: its card says {field} .*, its tensors"):
        video_mvit.load_model(str(path))


def without(state: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name not in names}


def test_small_tensors_do_not_make_a_large_model(tmp_path: Path) -> None:
    path, state = tmp_path / "m.safetensors", dict(tiny_model().state_dict())
    one, name = torch.zeros(1), "blocks.1.mlp.fc1.weight"
    for changes, message in (
        ({name: one[None]}, rf"its {name} is of \(1, 1\), expected \(128, 32\)"),
        ({name: one}, rf"its {name} has the shape \(1,\), expected 2 axes"),
        ({"blocks.0.attn.rel_pos_h": torch.zeros(9999, 16)}, "crop_size is 20000, expected"),
        ({"blocks.0.attn.rel_pos_t": torch.zeros(9999, 16)}, "num_frames is 10000, expected"),
        ({"blocks.9.attn.pool_q.weight": state["blocks.0.attn.pool_q.weight"] + 1}, "not numbered"),
        ({"blocks.0.norm1.weight": torch.zeros(0)}, r"shape \(0,\)|is empty"),
        ({"patch_embed.proj.weight": torch.zeros(8192, 3, 3, 7, 7)}, "is of .*expected"),
    ):
        save_file({**state, **changes}, path)
        with pytest.raises(UserError, match=message):
            read_source(path)
    for name in ("blocks.2.attn.rel_pos_h", "blocks.2.attn.qkv.weight", "patch_embed.proj.weight"):
        save_file(without(state, name), path)
        with pytest.raises(UserError, match=f"its {name} is missing"):
            read_source(path)


def test_position_tables_of_many_blocks_are_limited() -> None:
    from video_mvit.weights.architecture import check_tables

    check_tables(80, (1, 224 // 4))
    check_tables(48, (20, 312 // 4))
    check_tables(80, (1, 1024 // 4))
    with pytest.raises(UserError, match="larger than those of any MViTv2"):
        check_tables(1000, (512, 512))


def test_weights_carry_their_hash_in_the_file_and_in_the_card(tmp_path: Path) -> None:
    path = exported(tmp_path)
    content, card = path.read_bytes(), path.with_suffix(".json").read_text()
    changed = bytearray(content)
    changed[-1] ^= 1
    path.write_bytes(changed)
    with pytest.raises(UserError, match=r"m\.safetensors is damaged: its weights are not those"):
        read_weight_file(path)
    other = tmp_path / "other"
    other.mkdir()
    exported(other)
    path.write_bytes(content)
    path.with_suffix(".json").write_text((other / "m.json").read_text())
    with pytest.raises(UserError, match=r"m\.json is the card of other weights than those"):
        read_weight_file(path)
    path.with_suffix(".json").write_text(card)
    assert read_weight_file(path).card is not None


def test_files_of_others_and_old_cards_need_no_hash(tmp_path: Path) -> None:
    path = exported(tmp_path)
    state = read_weight_file(path).state
    save_file(dict(state), path)
    card = json.loads(path.with_suffix(".json").read_text())
    del card["weights_sha1"]
    path.with_suffix(".json").write_text(json.dumps(card))
    assert read_weight_file(path).card is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.index_fill(0, torch.tensor([1]), float("nan")), "has NaN or infinite"),
        (lambda t: t.index_fill(0, torch.tensor([1]), float("-inf")), "has NaN or infinite"),
        (lambda t: t.double() + 1e300, "has NaN or infinite"),
        (lambda t: t.half().index_fill(0, torch.tensor([1]), float("nan")), "has NaN or infin"),
        (lambda t: t.to(torch.complex64), "is of complex64, expected float32"),
        (lambda t: t.int(), "is of int32, expected float32"),
        (lambda t: t > 0, "is of bool, expected float32"),
    ],
)
def test_values_that_no_model_has_are_refused_by_name(
    tmp_path: Path, change: Any, message: str
) -> None:
    path, state = tmp_path / "m.pth", dict(tiny_model().state_dict())
    name = "blocks.1.mlp.fc1.bias"
    torch.save({**state, name: change(state[name])}, path)
    with pytest.raises(UserError, match=rf"m\.pth: {name} {message}"):
        video_mvit.load_model(str(path))
    assert video_mvit.load_model(str(path), reset=["blocks.1.mlp.fc1"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in tiny_model().state_dict().items()}
    torch.save(state, tmp_path / "m.pth")
    loaded = video_mvit.load_model(str(tmp_path / "m.pth")).state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in state.items())


HEADS_CARD = {
    "class_names": ("verb: a", "verb: b", "noun: x", "noun: y", "noun: z"),
    "task": "multi_head",
    "heads": {"verb": 2, "noun": 3},
}


def test_heads_of_a_card_come_back_in_order(tmp_path: Path) -> None:
    found = read_weight_file(exported(tmp_path, **HEADS_CARD)).card
    assert list(found.heads.items()) == [("verb", 2), ("noun", 3)]
    assert video_mvit.load_model(tmp_path / "m.safetensors").card.task == "multi_head"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": {"verb": 2, "noun": 2}}, "heads have 4 classes, the network 5"),
        ({"heads": {"verb": 2, "noun": 4}}, "heads have 6 classes, the network 5"),
        ({"heads": {"verb": 3, "noun": 2}}, "names of the classes are of other heads"),
        ({"heads": {"noun": 3, "verb": 2}}, "names of the classes are of other heads"),
        ({"heads": {"verb": 2, "thing": 3}}, "names of the classes are of other heads"),
        ({"heads": {"all": 5}, "class_names": None}, "'all' cannot be the name of a head"),
        ({"heads": {"a: b": 5}, "class_names": None}, "'a: b' cannot be the name of a head"),
        ({"heads": {"verb": 0, "noun": 5}}, "heads is a mapping, expected 1 to 32 names"),
        ({"heads": {"verb": True, "noun": 4}}, "heads is a mapping, expected 1 to 32 names"),
        ({"heads": ["verb", "noun"]}, "heads is a list, expected"),
        ({"heads": {f"h{i}": 1 for i in range(33)}}, "heads is a mapping, expected 1 to 32"),
        ({"heads": None}, "heads are of the task multi_head, which needs them"),
        ({"task": None}, "heads are of the task multi_head, which needs them"),
        (
            {"class_names": ["verb: a", "verb: a", "noun: x", "noun: y", "noun: z"]},
            "two classes of several heads have the same name",
        ),
        ({"class_names": ["a", "b", "c", "d", "e"]}, "class 'a' has no head"),
    ],
)
def test_heads_that_are_not_those_of_the_classes_are_refused(
    change: dict[str, Any], message: str
) -> None:
    content = {**CARD, "model": {"num_classes": 5}, **HEADS_CARD, **change}
    with pytest.raises(UserError, match=message):
        read_card(json.dumps(content), "card")


def test_a_head_that_occurs_twice_is_refused() -> None:
    text = json.dumps({**CARD, **HEADS_CARD}).replace('"noun": 3', '"verb": 3')
    with pytest.raises(UserError, match="verb occurs twice"):
        read_card(text, "card")


@pytest.mark.parametrize("heads", [{"verb": {"top1": 2}}, {"verb": 0.5}, [], {"\ud800": {}}])
def test_accuracies_of_heads_are_checked(heads: Any) -> None:
    evaluation = {"protocol": "1x1", "all_top1": 0.5, "heads": heads}
    with pytest.raises(UserError, match="heads is a"):
        read_card(json.dumps({**CARD, **HEADS_CARD, "evaluation": evaluation}), "card")
