"""Weights as other programs leave them: wrapped, nested, several in a file, beside objects."""

import argparse
import logging
import pickle
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from support.detectors import tiny_detector
from torch import Tensor, nn

import video_mvit
from video_mvit.detection.weights import read_detector
from video_mvit.errors import UserError
from video_mvit.weights.initialize import FromWeights, initialize_from
from video_mvit.weights.key_formats import KEY_FORMATS, to_key_format
from video_mvit.weights.load import read_source
from video_mvit.weights.networks import find_networks, mvitv2_prefixes

TINY = {"num_frames": 4, "crop_size": 32, "embed_dim": 8, "depths": (1, 1, 1, 1), "num_classes": 3}
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return dict(video_mvit.create_model("mvitv2_s", **TINY).state_dict())


@pytest.fixture(scope="module")
def ema(state: State) -> State:
    return {name: tensor * 0.5 for name, tensor in state.items()}


def below(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def wrapped_inside(state: State) -> State:
    wrapper = "_checkpoint_wrapped_module."
    names = {name: name.replace("blocks.1.", f"blocks.1.{wrapper}") for name in state}
    return {names[name]: tensor for name, tensor in state.items()}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


PREFIXES = (
    *("module.", "_orig_mod.", "module._orig_mod.", "model.", "model._orig_mod.", "net."),
    *("encoder.", "backbone.", "student.", "video_model.", "_forward_module.module.", "a.b.c.d."),
    "_fsdp_wrapped_module.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_is_left_out_and_told(
    tmp_path: Path, state: State, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.pth"
    torch.save(below(prefix, state), path)
    with caplog.at_level("INFO"):
        source = read_source(path)
    assert_same(source.state, state)
    assert not source.unused
    (told,) = caplog.messages
    assert told.endswith(f"a.pth: PyTorch state dict, names below {prefix}")


@pytest.mark.parametrize("key_format", ["slowfast", "torchvision", "mmaction2"])
@pytest.mark.parametrize("prefix", ["", "model.", "module._orig_mod.", "backbone."])
def test_prefix_is_found_before_the_names_of_every_library(
    tmp_path: Path, state: State, key_format: str, prefix: str
) -> None:
    theirs, _ = to_key_format(state, KEY_FORMATS[key_format])
    torch.save({"state_dict": below(prefix, theirs)}, tmp_path / "a.pth")
    source = read_source(tmp_path / "a.pth")
    assert source.key_format == key_format
    assert_same(source.state, state)


def test_image_backbones_are_found_behind_prefixes() -> None:
    blocks = "blocks.0.attn.pool_q.weight", "blocks.0.attn.rel_pos_h"
    for library, before in (("timm", "stages.1."), ("detectron2", "backbone.bottom_up.")):
        for prefix in ("", "model.", "net._orig_mod."):
            names = {f"{prefix}{before}{name}": torch.zeros(1) for name in blocks}
            (network,) = find_networks(names, mvitv2_prefixes)
            assert (network.prefix, library) == (prefix, library)
            assert list(network.state) == [f"{before}{name}" for name in blocks]


def test_wrappers_inside_of_names_are_left_out(tmp_path: Path, state: State) -> None:
    torch.save({"state_dict": below("model.", wrapped_inside(state))}, tmp_path / "a.ckpt")
    assert_same(read_source(tmp_path / "a.ckpt").state, state)


CONTAINERS: Mapping[str, Callable[[State], Any]] = {
    "state_dict": lambda s: {"state_dict": s, "epoch": 1},
    "module": lambda s: {"module": s},
    "net": lambda s: {"net": s, "acc": 90.1, "epoch": 3},
    "params": lambda s: {"params": s},
    "nested": lambda s: {"state_dict": {"model": s}},
    "deep": lambda s: {"a": {"weights": {"network": s}}},
    "tuple": lambda s: (s, 3),
    "list": lambda s: [{"epoch": 1}, {"model": s}],
    "optimizer": lambda s: {
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
        "network": s,
    },
    "parameters": lambda s: {"model": {k: nn.Parameter(v) for k, v in s.items()}},
    "class names": lambda s: {"state_dict": s, "class_names": ["a", "b", "c"]},
    "twice": lambda s: {"model": s, "module": below("module.", s)},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_are_found_by_their_content(tmp_path: Path, state: State, name: str) -> None:
    torch.save(CONTAINERS[name](state), tmp_path / "a.pth")
    source = read_source(tmp_path / "a.pth")
    assert_same(source.state, state)
    if name == "class names":
        assert source.class_names == ("a", "b", "c")


def test_arrays_and_safetensors_have_prefixes_as_well(tmp_path: Path, state: State) -> None:
    arrays = {name: tensor.numpy() for name, tensor in below("net.", state).items()}
    for protocol in range(1, 6):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": arrays}, protocol))
        assert_same(read_source(tmp_path / "a.pkl").state, state)
    save_file(below("model.", state), tmp_path / "b.bin")  # whatever the suffix says
    assert_same(read_source(tmp_path / "b.bin").state, state)


EMA_FILES: Mapping[str, Callable[[State, State], Any]] = {
    "timm": lambda s, e: {"arch": "mvitv2", "state_dict": s, "state_dict_ema": e},
    "torchvision": lambda s, e: {
        "model": s,
        "model_ema": {"n_averaged": torch.tensor(3), **below("module.", e)},
    },
    "basicsr": lambda s, e: {"params": s, "params_ema": e},
    "prefixes": lambda s, e: {"state_dict": below("model.", s) | below("ema_model.", e)},
    "callback": lambda s, e: {"state_dict": below("net.", s), "callbacks": {"EMA": {"weights": e}}},
    "mmengine": lambda s, e: {
        "state_dict": e,  # which swaps the two
        "ema_state_dict": {"steps": torch.tensor(3), **below("module.", s)},
        "message_hub": {},
    },
    "lightning": lambda s, e: {
        "state_dict": below("model.", e),
        "current_model_state": below("model.", s),
    },
}


@pytest.mark.parametrize("name", EMA_FILES)
def test_ema_of_other_trainers_is_chosen_by_weights_and_told(
    tmp_path: Path, state: State, ema: State, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.pth"
    torch.save(EMA_FILES[name](state, ema), path)
    with caplog.at_level("WARNING"):
        by_default = read_source(path)
    assert_same(by_default.state, ema)
    assert "EMA weights" in by_default.container
    (told,) = caplog.messages
    assert "a.pth holds 2 networks; the EMA weights in " in told
    assert "are used, weights=raw takes those in " in told
    assert_same(read_source(path, "ema").state, ema)
    assert_same(read_source(path, "raw").state, state)
    assert not by_default.unused
    loaded = video_mvit.load_model(str(path), weights="raw")
    assert_same(loaded.state_dict(), state)


def test_student_and_teacher_are_chosen_by_name(tmp_path: Path, state: State, ema: State) -> None:
    path = tmp_path / "a.pth"
    for content in (
        {"student": below("module.backbone.", state), "teacher": below("backbone.", ema)},
        {"state_dict": below("student.", state) | below("teacher.", ema)},
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=r"holds 2 networks of one kind: .*student.*teacher"):
            read_source(path)
        assert_same(read_source(path, "student").state, state)
        assert_same(read_source(path, "teacher").state, ema)
        with pytest.raises(UserError, match=r"has no network 'pupil', only .*student.*teacher"):
            read_source(path, "pupil")


@pytest.mark.parametrize("value", [None, "", 1, [], True])
def test_choice_of_another_type_is_refused(tmp_path: Path, state: State, value: Any) -> None:
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"weights is .*, expected ema, raw, or the name of"):
        read_source(tmp_path / "a.pth", value)
    with pytest.raises(UserError, match="weights is "):
        FromWeights(source="a.pth", weights=value)


def test_raw_weights_that_are_not_there_are_not_replaced(tmp_path: Path, ema: State) -> None:
    torch.save({"model_ema": ema}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"has EMA weights alone \(model_ema\); weights=ema takes"):
        read_source(tmp_path / "a.pth", "raw")


def test_what_is_beside_the_network_is_named(
    tmp_path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.ckpt"
    beside = {"loss.weight": torch.ones(3), "metric.total": torch.ones(1)}
    torch.save({"state_dict": below("model.", state) | beside}, path)
    with caplog.at_level("WARNING"):
        source = read_source(path)
    assert source.unused == tuple(beside)
    assert "not of it and not used: loss.weight, metric.total" in caplog.messages[0]
    torch.save({**state, **beside}, path)
    with pytest.raises(UserError, match=r"2 unexpected: .*\(ignore=\[loss,metric\] skips them\)"):
        video_mvit.load_model(str(path))
    assert_same(video_mvit.load_model(str(path), ignore=["loss", "metric"]).state_dict(), state)


def test_ema_that_equals_the_network_is_both(tmp_path: Path, state: State) -> None:
    torch.save({"model_ema": state, "model": state}, tmp_path / "a.pth")
    for weights in ("ema", "raw"):
        assert_same(read_source(tmp_path / "a.pth", weights).state, state)


def test_counters_of_profilers_are_no_weights(tmp_path: Path, state: State) -> None:
    counters = {f"blocks.{i}.total_ops": torch.zeros(1) for i in range(4)}
    torch.save({**state, **counters, "total_params": torch.zeros(1)}, tmp_path / "a.pth")
    assert_same(read_source(tmp_path / "a.pth").state, state)


def test_part_of_a_sharded_checkpoint_is_told(tmp_path: Path, state: State) -> None:
    empty = {name: tensor.new_zeros(0) for name, tensor in state.items()}
    torch.save({"module": empty, "ds_version": "0.16"}, tmp_path / "mp_rank_00_model_states.pt")
    with pytest.raises(UserError, match=r"its cls_token is empty, as in a part of a sharded"):
        read_source(tmp_path / "mp_rank_00_model_states.pt")


def test_detector_is_found_behind_a_prefix(tmp_path: Path) -> None:
    theirs = tiny_detector()
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": below("model._orig_mod.", theirs.state_dict())}, path)
    assert_same(dict(read_detector(path).state), dict(theirs.state_dict()))


class Own(nn.Module):
    """A network of a user's, with a name that a wrapper has as well."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.head = nn.Linear(2, 3)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.net."])
def test_own_network_takes_files_with_prefixes(tmp_path: Path, prefix: str) -> None:
    theirs, ours = Own(), Own()
    path = tmp_path / "a.pth"
    torch.save({"net": below(prefix, theirs.state_dict())}, path)
    initialize_from(FromWeights(source=str(path)), ours)
    assert_same(ours.state_dict(), theirs.state_dict())


def test_own_network_is_not_mistaken_for_what_shares_a_name(tmp_path: Path) -> None:
    theirs, ours = Own(), Own()
    content = {"criterion": {"head.bias": torch.ones(3)}, "model": theirs.state_dict()}
    torch.save(content, tmp_path / "a.pth")
    initialize_from(FromWeights(source=str(tmp_path / "a.pth")), ours)
    assert_same(ours.state_dict(), theirs.state_dict())


def test_list_of_arrays_has_no_names(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": 1, "b": [np.ones(3), np.ones(2)]}))
    with pytest.raises(UserError, match="contains no named tensors, only a, b"):
        read_source(tmp_path / "a.pkl")
    torch.save([torch.ones(3), torch.ones(2)], tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"contains a list without named tensors; save model\."):
        read_source(tmp_path / "a.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_that_of_the_model(
    tmp_path: Path, state: State, dtype: torch.dtype
) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "a.pth")
    loaded = video_mvit.load_model(str(tmp_path / "a.pth")).state_dict()
    assert_same(loaded, {name: tensor.to(dtype).float() for name, tensor in state.items()})


@pytest.fixture
def history() -> Iterator[Any]:
    """An object of mmengine's class that keeps a history of losses."""

    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history = np.zeros(3)
            self._count_history = np.ones(3)

    name = "mmengine.logging.history_buffer"
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = name, "HistoryBuffer"
    before = dict(sys.modules)
    for module in ("mmengine", "mmengine.logging", name):
        sys.modules[module] = types.ModuleType(module)
    sys.modules[name].HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    yield HistoryBuffer()
    for module in ("mmengine", "mmengine.logging", name):
        sys.modules.pop(module)
        if module in before:
            sys.modules[module] = before[module]


def test_runner_checkpoint_of_mmengine_is_read(tmp_path: Path, state: State, history: Any) -> None:
    theirs, _ = to_key_format(state, KEY_FORMATS["mmaction2"])
    content = {
        "meta": {"epoch": 1, "cfg": "model = dict()", "time": "20260101"},
        "state_dict": {**theirs, "data_preprocessor.mean": torch.ones(3)},
        "message_hub": {"log_scalars": {"train/loss": history}, "runtime_info": {"iter": 7}},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "param_schedulers": [{"last_step": 3}],
    }
    torch.save(content, tmp_path / "epoch_1.pth")
    source = read_source(tmp_path / "epoch_1.pth")
    assert_same(source.state, state)
    assert source.unused == ("data_preprocessor.mean",)


OBJECTS: Mapping[str, Callable[[], Any]] = {
    "namespace": lambda: argparse.Namespace(lr=0.1, betas=(0.9, 0.95)),
    "simple namespace": lambda: types.SimpleNamespace(lr=0.1),
    "omegaconf": lambda: OmegaConf.create({"lr": 1, "layers": [1, {"x": "y"}], "none": None}),
    "numpy scalar": lambda: np.float64(77.1),
    "numpy bool": lambda: np.ones(1, bool)[0],
    "numpy texts": lambda: np.array(["a", "b"]),
    "numpy objects": lambda: np.array([None, "b"], dtype=object),
    "numpy random state": lambda: np.random.RandomState(0).get_state(),
    "numpy generator": lambda: np.random.default_rng(0),
    "path": lambda: Path("/a/b"),
    "date": lambda: __import__("datetime").datetime.now(),
    "uuid": lambda: __import__("uuid").uuid4(),
    "decimal": lambda: __import__("decimal").Decimal("1.5"),
    "range": lambda: range(3),
    "slice": lambda: slice(1, 2),
    "default dictionary": lambda: __import__("collections").defaultdict(list, a=[1]),
    "version": lambda: torch.__version__,
    "device": lambda: [torch.device("cuda:1"), torch.float16, torch.Size([1])],
    "random state": lambda: [torch.get_rng_state(), __import__("random").getstate()],
}


@pytest.mark.parametrize("how", ["zip", "legacy"])
@pytest.mark.parametrize("name", OBJECTS)
def test_objects_beside_the_tensors_are_left_out(
    tmp_path: Path, state: State, name: str, how: str
) -> None:
    content = {"state_dict": state, "beside": OBJECTS[name]()}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=how == "zip")
    assert_same(read_source(tmp_path / "a.pth").state, state)


def test_hostile_names_take_no_time_and_print_nothing(
    tmp_path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    nasty = {"\x1b[31m." + "blocks.0.attn.pool_q." * 50_000: torch.ones(1)}
    nasty |= {f"p{i}.blocks.0.attn.{part}": torch.ones(1) for i in range(300) for part in "ab"}
    torch.save({**below("m\x1b.", state), **nasty}, tmp_path / "a.pth")
    with caplog.at_level(logging.INFO):
        assert_same(read_source(tmp_path / "a.pth").state, state)
    assert "\x1b" not in caplog.text


def test_many_networks_are_refused_in_one_sentence(tmp_path: Path) -> None:
    parts = ("attn.pool_q.weight", "attn.rel_pos_h")
    many = {f"n{i}.blocks.0.{part}": torch.full((1,), i) for i in range(100) for part in parts}
    torch.save(many, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"holds 20 networks of one kind: n\d+, "):
        read_source(tmp_path / "a.pth")
