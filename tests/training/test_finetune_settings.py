"""Settings chosen from facts: what changes with what, and that a person's own value stands."""

from dataclasses import replace
from typing import Any

import pytest

from video_mvit.training.finetune_settings import (
    KEYS,
    SET_BY_USER,
    UNCHANGED,
    DatasetStats,
    ModelInfo,
    Suggestion,
    WeightsInfo,
    as_trained,
    suggest_settings,
)

NAMES = tuple(f"class {i}" for i in range(10))
DATA = DatasetStats(num_videos=1000, class_names=NAMES, median_s=10.0, shortest_s=8.0)
WEIGHTS = WeightsInfo(
    name="s.pyth", mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225), num_classes=400
)
S = ModelInfo(
    variant="mvitv2_s", num_frames=16, crop_size=224, depth=16, embed_dim=96, weights=WEIGHTS
)
L = replace(S, variant="mvitv2_l", num_frames=40, crop_size=312, depth=48, embed_dim=144)
SCRATCH = replace(S, weights=None)


def chosen(
    data: DatasetStats = DATA, network: ModelInfo = S, num_devices: int = 1, **given: Any
) -> dict[str, Suggestion]:
    own = {key.replace("__", "."): value for key, value in given.items()}
    choices = suggest_settings(data, network, own, num_devices)
    assert len({choice.key for choice in choices}) == len(choices)
    assert all(choice.reason for choice in choices)
    return {choice.key: choice for choice in choices}


@pytest.mark.parametrize(
    ("num_videos", "batch", "num_epochs"),
    [(4, 1, 100), (20, 5, 100), (100, 8, 100), (400, 8, 60), (5000, 8, 20), (100_000, 8, 20)],
)
def test_small_data_has_small_batches_and_more_epochs(
    num_videos: int, batch: int, num_epochs: int
) -> None:
    found = chosen(replace(DATA, num_videos=num_videos))
    assert found["data.train_batch_size"].value == batch
    assert found["optim.num_epochs"].value == num_epochs
    assert 0 < found["optim.warmup_epochs"].value <= 5
    steps = num_videos // batch
    assert f"{steps:,} step" in found["optim.num_epochs"].reason


@pytest.mark.parametrize(
    ("median_s", "trained", "stride"),
    [(10, None, 4), (10, 8, 8), (2.2, None, 4), (2.0, None, 3), (1.2, None, 2), (0.3, None, 1)],
)
def test_clip_fits_the_median_video(median_s: float, trained: int | None, stride: int) -> None:
    network = replace(S, weights=replace(WEIGHTS, frame_stride=trained))
    choice = chosen(replace(DATA, median_s=median_s), network)["clip.frame_stride"]
    assert choice.value == stride
    assert f"the median video {median_s:.2g} s" in choice.reason
    assert ("would need" in choice.reason) == (stride != (trained or 4))


def test_stride_of_published_clips_is_known() -> None:
    assert chosen(network=L)["clip.frame_stride"].value == 3
    strides = [c.value for c in as_trained(L) if c.key == "clip.frame_stride"]
    assert strides == [3]


def test_adapters_have_a_higher_rate_and_no_layer_decay() -> None:
    whole, adapters = chosen(), chosen(network=replace(S, has_adapters=True))
    differing = {key for key in whole if adapters[key] != whole[key]}
    assert differing == {"optim.lr", "optim.start_lr", "optim.end_lr", "optim.layer_decay"}
    assert adapters["optim.lr"].value == pytest.approx(10 * whole["optim.lr"].value)
    assert "adapters" in adapters["optim.lr"].reason
    assert adapters["optim.layer_decay"].value == 1.0
    assert adapters["optim.end_lr"].value == pytest.approx(4e-4)


def test_from_scratch_takes_more_epochs_and_no_layer_decay() -> None:
    tuned, scratch = chosen(), chosen(network=SCRATCH)
    assert scratch["optim.num_epochs"].value == 200 > tuned["optim.num_epochs"].value
    assert (tuned["optim.layer_decay"].value, scratch["optim.layer_decay"].value) == (0.75, 1.0)
    assert (tuned["optim.lr"].value, scratch["optim.lr"].value) == (4e-3, 1.6e-3)
    assert tuned["optim.end_lr"].value == pytest.approx(4e-5)
    assert scratch["optim.warmup_epochs"].value == pytest.approx(30)
    assert "init.reset" not in scratch
    assert "data.normalize.mean" not in scratch


def test_large_network_has_small_batches_and_recomputes_activations() -> None:
    large = chosen(network=L)
    assert large["data.train_batch_size"].value == 1
    assert large["model.activation_checkpointing"].value == "full"
    assert large["augment.mixing"].value is None
    assert large["optim.layer_decay"].value == 0.875
    assert large["data.short_side"].value == 357
    assert "model.activation_checkpointing" not in chosen()


def test_a_step_over_devices_is_at_most_a_quarter_of_the_videos() -> None:
    found = chosen(replace(DATA, num_videos=64), num_devices=4)
    assert found["data.train_batch_size"].value == 4
    assert "a quarter of the 64 training videos on 4 devices" in found["data.train_batch_size"]


def test_few_videos_of_a_class_are_not_mixed() -> None:
    assert chosen()["augment.mixing"].value is UNCHANGED
    few = chosen(replace(DATA, num_videos=290))["augment.mixing"]
    assert few.value is None
    assert "29 videos per class" in few.reason


@pytest.mark.parametrize(
    ("name", "flip_prob"),
    [
        ("Swiping Left", 0.0),
        ("swipe_right", 0.0),
        ("TurnClockwise", 0.0),
        ("TURN LEFT", 0.0),
        ("brightness", 0.5),
        ("leftovers", 0.5),
        ("push up", 0.5),
        ("going down", 0.5),
    ],
)
def test_classes_of_a_side_are_not_mirrored(name: str, flip_prob: float) -> None:
    data = replace(DATA, class_names=("rest", name))
    choice = chosen(data)["data.train_crop.flip_prob"]
    assert choice.value == flip_prob
    assert (repr(name) in choice.reason) == (flip_prob == 0)
    target = chosen(replace(data, has_classes=False))["data.train_crop.flip_prob"]
    assert target.value == flip_prob
    assert "class" not in target.reason


@pytest.mark.parametrize(
    ("changes", "reset", "reason"),
    [
        ({}, ["head"], "400 classes without names"),
        ({"class_names": NAMES[::-1], "num_classes": 10}, [], "exactly these classes"),
        ({"class_names": NAMES[1:], "num_classes": 9}, ["head"], "9 other classes"),
        ({"absent": ("norm", "head"), "num_classes": None}, ["head", "norm"], "not in s.pyth"),
    ],
)
def test_head_is_new_unless_the_file_has_exactly_these_classes(
    changes: dict[str, Any], reset: list[str], reason: str
) -> None:
    choice = chosen(network=replace(S, weights=replace(WEIGHTS, **changes)))["init.reset"]
    assert choice.value == reset
    assert reason in choice.reason


def test_image_weights_keep_the_clip_of_the_video_model_and_have_no_reset() -> None:
    found = chosen(network=replace(S, weights=replace(WEIGHTS, is_image=True)))
    assert "init.reset" not in found
    assert found["clip.num_frames"].reason == "from mvitv2_s"


def test_networks_options_and_normalization_are_those_of_the_weights() -> None:
    network = replace(S, options={"expand_dim_in": "mlp"})
    found = {choice.key: choice.value for choice in as_trained(network)}
    assert found["model.expand_dim_in"] == "mlp"
    assert found["data.normalize.mean"] == [0.45, 0.45, 0.45]
    assert found["data.normalize.std"] == [0.225, 0.225, 0.225]
    stated = replace(S, weights=replace(WEIGHTS, states_normalization=True))
    reasons = [
        next(choice.reason for choice in as_trained(n) if choice.key == "data.normalize.mean")
        for n in (S, stated)
    ]
    assert reasons == ["published for these weights", "from s.pyth"]


def test_given_values_stand_and_the_rest_follows_them() -> None:
    own = {"data__train_batch_size": 4, "optim__lr": 1e-3, "clip__num_frames": 32}
    found = chosen(replace(DATA, median_s=2.2), **own)
    for key, value in own.items():
        assert found[key.replace("__", ".")][1:] == (value, SET_BY_USER)
    assert found["optim.num_epochs"].reason.startswith("250 steps")
    assert found["optim.end_lr"].value == pytest.approx(1e-5)
    assert found["clip.frame_stride"].value == 2
    assert chosen(label_smoothing=0.0)["label_smoothing"][1:] == (0.0, SET_BY_USER)


def test_every_choice_can_be_given() -> None:
    keys = {*chosen(), *chosen(network=L), *chosen(network=SCRATCH)}
    assert keys == set(KEYS)


@pytest.mark.parametrize("value", ["many", 0, 2.5, None])
def test_given_count_that_is_none_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match=r"data\.train_batch_size is .*, expected a positive int"):
        chosen(data__train_batch_size=value)


def test_a_single_class_is_refused() -> None:
    with pytest.raises(ValueError, match="all 1000 training videos are of one class, 'walk'"):
        chosen(replace(DATA, class_names=("walk",)))
