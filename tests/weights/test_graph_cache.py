"""Converted graphs are found again by what they compute, in a bounded folder of the user's own."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from support.engines import needs_openvino
from torch import Tensor, nn

from video_mvit.weights import graph_cache, openvino_graphs
from video_mvit.weights.engines import open_engine
from video_mvit.weights.export import trace


class Scaled(nn.Module):
    """A network with weights, and a number that is none of them."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.factor, self.linear = factor, nn.Linear(6, 3)

    def forward(self, items: Tensor) -> Tensor:
        return self.factor * self.linear(items)


@pytest.fixture
def conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Use a folder of the test's own; hold an entry for each conversion."""
    needs_openvino()
    monkeypatch.setenv("VIDEO_MVIT_CACHE", str(tmp_path))
    done: list[int] = []
    convert = openvino_graphs.convert

    def counted(*arguments: Any) -> Any:
        done.append(1)
        return convert(*arguments)

    monkeypatch.setattr(openvino_graphs, "convert", counted)
    return done


def opened(network: nn.Module, num_features: int = 6) -> Tensor:
    """Return what OpenVINO computes of ones."""
    items = torch.ones(2, num_features)
    return open_engine(network.eval(), items, "openvino", "float32", 1).run(items)


@pytest.mark.slow
def test_same_network_is_converted_once_and_another_one_anew(
    tmp_path: Path, conversions: list[int]
) -> None:
    first, again = opened(Scaled(2.0)), opened(Scaled(2.0))
    assert len(conversions) == 1
    assert torch.equal(first, again)
    torch.testing.assert_close(opened(Scaled(3.0)), 1.5 * first)  # other code, equal weights
    assert len(conversions) == 2
    other = Scaled(2.0)
    nn.init.ones_(other.linear.weight)
    opened(other)
    assert len(conversions) == 3
    suffixes = sorted(path.suffix for path in (tmp_path / "graphs").iterdir())
    assert suffixes == [".bin"] * 3 + [".xml"] * 3


@pytest.mark.slow
def test_damaged_graph_is_converted_again_or_leads_to_a_clean_cache(
    tmp_path: Path, conversions: list[int]
) -> None:
    expected = opened(Scaled(2.0))
    (graph,) = (tmp_path / "graphs").glob("*.xml")
    graph.write_text("<net")
    torch.testing.assert_close(opened(Scaled(2.0)), expected)
    assert len(conversions) == 2
    weights = graph.with_suffix(".bin")
    weights.write_bytes(bytes(weights.stat().st_size))  # zeros instead of the weights
    with pytest.raises(ValueError, match="openvino was not used: its outputs are"):
        opened(Scaled(2.0))
    torch.testing.assert_close(opened(Scaled(2.0)), expected)
    assert len(conversions) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("conversions")
def test_graphs_that_were_not_used_for_longest_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, example = tmp_path / "graphs", torch.ones(1, 6)
    first, second, third = (trace(Scaled(x).eval(), example) for x in (2.0, 3.0, 4.0))
    graph_cache.converted(first, example)
    (used,) = folder.glob("*.bin")
    graph_cache.converted(second, example)
    (unused,) = set(folder.glob("*.bin")) - {used}
    for seconds, path in enumerate((used, unused)):
        os.utime(path, (seconds, seconds))
    graph_cache.converted(first, example)  # again
    leftover = folder / ".draft.killed"
    leftover.mkdir()
    os.utime(leftover, (0, 0))
    monkeypatch.setattr(graph_cache, "MAX_BYTES", 2 * used.stat().st_size)
    graph_cache.converted(third, example)
    assert used.is_file()
    assert not unused.exists()
    assert len(list(folder.iterdir())) == 4
    graph_cache.clear()
    assert not list(folder.iterdir())


def test_folder_is_of_the_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEO_MVIT_CACHE", str(tmp_path / "a" / "b"))
    folder = graph_cache.cache_folder()
    assert folder == tmp_path / "a" / "b" / "graphs"
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o777)  # others could put graphs into it
    assert graph_cache.cache_folder() is None
    monkeypatch.setenv("VIDEO_MVIT_CACHE", "")
    assert graph_cache.cache_folder() is None
    monkeypatch.delenv("VIDEO_MVIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert graph_cache.cache_folder() == tmp_path / "cache" / "video_mvit" / "graphs"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert graph_cache.cache_folder() is None
