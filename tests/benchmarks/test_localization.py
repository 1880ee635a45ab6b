"""scripts/localization.py where a person gives it nothing to measure."""

import sys

import pytest
from benchmarks import localization


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.ckpt"], "error: no weight file nowhere.ckpt"),
        (["nowhere.ckpt", "--num-videos", "0"], "error: --num-videos is 0, expected a positive"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["localization.py", *arguments])
    with pytest.raises(SystemExit, match=told):
        localization.main()
