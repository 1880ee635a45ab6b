"""Class names from files, and the permutation between two orders."""

from pathlib import Path

import pytest
from support.counted_text import CountedText

from video_mvit.weights.class_names import label_permutation, read_class_names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "run\nopen a box\n\nsit\n"),
        ("names.json", '["run", "open a box", "sit"]'),
        ("names.json", '{"sit": 2, "run": "0", "open a box": 1}'),
    ],
)
def test_names_are_read_in_the_order_of_labels(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_class_names(tmp_path / name) == ("run", "open a box", "sit")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("names.txt", "\n\n", "contains no class name"),
        ("names.json", "{", "contains no class names"),
        ("names.json", "3", "must be a list of class names"),
        ("names.json", '["a", 3]', "must be a list of class names"),
        ("names.json", '{"a": 0, "b": 2}', "must number its 2 classes 0, 1, 2"),
        ("names.json", '{"a": []}', "must give each class name its label"),
    ],
)
def test_other_files_are_one_sentence(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_class_names(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no file of class names"):
        read_class_names(tmp_path / "absent")


def test_permutation_says_where_each_class_was() -> None:
    assert label_permutation(("a", "b", "c"), ("c", "a", "b")) == [2, 0, 1]


@pytest.mark.parametrize(
    ("saved", "wanted", "message"),
    [
        (("a", "a"), ("a", "b"), "class 'a' occurs twice"),
        (("a", "b"), ("a", "c"), "it has no 'c'; the data has no 'b'"),
        (("a", "b"), ("a",), "its 2 classes are not the 1 of the data; the data has no 'b'"),
    ],
)
def test_other_classes_are_no_permutation(
    saved: tuple[str, ...], wanted: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        label_permutation(saved, wanted)


def test_many_classes_are_matched_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [CountedText(f"class {i}") for i in range(1000)]
    wanted = [CountedText(name) for name in names[::-1]]
    monkeypatch.setattr(CountedText, "num_calls", 0)
    assert label_permutation(names, wanted)[0] == 999
    assert CountedText.num_calls < 50 * len(names)
