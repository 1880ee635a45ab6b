"""Reading models from a hub and pushing them to one, against a small hub on this machine."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from support.commands import run_command, run_python
from support.hub_server import Hub, forget_hub_library, running_hub

import video_mvit
from video_mvit.models.mvit import MViT
from video_mvit.weights.checkpoint_files import write_safetensors
from video_mvit.weights.hub import is_hub_id, readme
from video_mvit.weights.model_card import ModelCard

pytest.importorskip("huggingface_hub")
TINY = {"num_frames": 4, "crop_size": 32, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_classes": 3}
Run = Callable[..., subprocess.CompletedProcess[str]]
LOAD = """
import sys, torch, video_mvit
try:
    model = video_mvit.load_model(sys.argv[1])
except (ValueError, FileNotFoundError) as error:
    sys.exit(str(error))
torch.save(model.state_dict(), sys.argv[2])
print(model.card.class_names if model.card else None)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def run(tmp_path: Path, hub: Hub) -> Run:
    """Run a verb, or "-c" and Python, with this hub and a cache of its own, and nothing besides."""

    own = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_TOKEN": "secret",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": "5",
    }

    def run_verb_or_code(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        options = {"environment": {**own, **environment}, "before": forget_hub_library}
        if words[0] == "-c":
            return run_python(*words[1:], cwd=tmp_path, **options)
        return run_command(*words, cwd=tmp_path, **options)

    return run_verb_or_code


@pytest.fixture
def model(tmp_path: Path) -> MViT:
    """A model, exported to model.safetensors and model.json."""
    model = video_mvit.create_model("mvitv2_s", **TINY).eval()
    card = ModelCard(model=asdict(model.config), class_names=("jump", "run", "sit"))
    write_safetensors(tmp_path / "model.safetensors", model.state_dict(), card)
    return model


@pytest.mark.slow
def test_pushed_model_is_read_cached_and_read_offline(
    tmp_path: Path, run: Run, hub: Hub, model: MViT
) -> None:
    push = ["push", "source=model.safetensors", "repo=me/tiny"]
    pushed = run(*push)
    assert pushed.returncode == 0, pushed.stderr
    assert f"{hub.address}/me/tiny" in pushed.stdout
    assert [sorted(names) for names in hub.commits] == [
        ["README.md", "model.json", "model.safetensors"]
    ]
    assert b'video_mvit.load_model("me/tiny")' in hub.repos["me/tiny"]["README.md"]

    hub.repos["me/tiny"]["README.md"] = b"mine"
    assert run(*push).returncode == 0
    assert hub.repos["me/tiny"]["README.md"] == b"mine"

    os.rename(tmp_path / "model.json", tmp_path / "kept.json")
    loaded = run("-c", LOAD, "me/tiny", "state.pt")
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == "('jump', 'run', 'sit')"
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    files = [request for request in hub.requests if request.startswith("GET")]
    assert {request.rpartition("/")[2] for request in files} == {"model.safetensors", "model.json"}

    again = run("-c", LOAD, "me/tiny", "state.pt")
    assert again.returncode == 0
    assert [request for request in hub.requests if request.startswith("GET")] == files
    unreachable = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    for environment in (unreachable, {"HF_HUB_OFFLINE": "1"}):
        offline = run("-c", LOAD, "me/tiny", "state.pt", **environment)
        assert offline.stdout.strip() == "('jump', 'run', 'sit')", offline.stderr
    absent = run("-c", LOAD, "me/other", "state.pt", HF_HUB_OFFLINE="1")
    assert "is neither a file here nor in the local cache" in absent.stderr
    assert len(absent.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_revision_is_that_of_weights_and_card(
    tmp_path: Path, run: Run, hub: Hub, model: MViT
) -> None:
    names = ("model.safetensors", "model.json")
    hub.tags["me/tiny"] = {"v1": {name: (tmp_path / name).read_bytes() for name in names}}
    newer = video_mvit.create_model("mvitv2_s", **TINY)
    card = ModelCard(model=asdict(newer.config), class_names=("x", "y", "z"))
    write_safetensors(tmp_path / "model.safetensors", newer.state_dict(), card)
    hub.repos["me/tiny"] = {name: (tmp_path / name).read_bytes() for name in names}
    for hub_id, expected, class_names in (
        ("me/tiny@v1", model, "('jump', 'run', 'sit')"),
        ("me/tiny", newer, "('x', 'y', 'z')"),
    ):
        loaded = run("-c", LOAD, hub_id, "state.pt")
        assert loaded.stdout.strip() == class_names, loaded.stderr
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        assert torch.equal(state["head.projection.weight"], expected.head.projection.weight)


@pytest.mark.slow
@pytest.mark.usefixtures("model")
def test_failures_are_one_sentence_each(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.repos["me/empty"] = {"config.json": b"{}"}
    hub.repos["me/gated"] = {"model.safetensors": b""}
    hub.gated.add("me/gated")
    hub.repos["timm/foreign"] = {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()}
    expected = {
        "me/unknown": "me/unknown is neither a file here nor a model on the hub",
        "me/empty": "me/empty has no model.safetensors",
        "me/gated": "me/gated is gated: request access",
        "me/empty@v9": "me/empty@v9 has no such revision",
        "timm/foreign": "",
    }
    names = json.dumps(list(expected))
    code = f"""
import video_mvit
for name in {names}:
    try:
        print(video_mvit.load_model(name).card)
    except (ValueError, FileNotFoundError) as error:
        print(error)
"""
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == len(expected)
    for line, message in zip(lines, expected.values(), strict=True):
        assert line.startswith(message or "None")

    for options, message in (
        (["repo=me/tiny", "source=model.pyth"], "model.pyth is not an exported model"),
        (["repo=tiny", "source=model.safetensors"], "repo is 'tiny', expected owner/name"),
    ):
        refused = run("push", *options)
        assert refused.returncode == 1
        assert message in refused.stderr
    push = ["push", "source=model.safetensors", "repo=me/tiny"]
    stranger = run(*push, HF_TOKEN="wrong")
    assert "error: " in stranger.stderr
    assert "HF_TOKEN or" in stranger.stderr
    assert "me/tiny" not in hub.repos


@pytest.mark.parametrize("text", ["me/model", "me/model.v2@main"])
def test_names_on_a_hub_are_recognised(text: str) -> None:
    assert is_hub_id(text)


@pytest.mark.parametrize("text", ["me/model.pyth", "model", "a/b/c", "/a/b", "../b", "me/there"])
def test_paths_are_no_names_on_a_hub(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "there").mkdir(parents=True)
    assert not is_hub_id(text)


def test_readme_says_how_good_the_model_is() -> None:
    evaluation = {"protocol": "5x1@16x4", "top1": 0.81, "top5": 0.946, "num_videos": 19760}
    card = ModelCard(
        model={"num_frames": 16, "crop_size": 224, "num_classes": 400},
        variant="mvitv2_s",
        frame_stride=4,
        evaluation=evaluation,
    )
    text = readme(card, "me/s")
    assert "mvitv2_s: 16 frames of stride 4, 224 pixels, 400 classes." in text
    assert "Top-1 81.0 %, top-5 94.6 % (5x1@16x4, 19760 videos)." in text
