"""What comes out of a pickle, and what never does."""

import argparse
import datetime
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from video_mvit.weights.arrays import NUMBERS, read_arrays
from video_mvit.weights.pickle_limits import BrokenPickleError, Ignored, RefusedPickleError

DTYPE = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4K\x00K\x01tR"


def read(tmp_path: Path, content: bytes) -> Any:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    return read_arrays(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_and_plain_values_come_out_as_they_went_in(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        code: rng.integers(0, 2, (3, 2)).astype(order + code) for code in NUMBERS for order in "<>"
    }
    arrays |= {
        "fortran": np.asfortranarray(rng.random((2, 3, 4))),
        "empty": np.zeros((0, 3)),
        "no axes": np.array(1.5),
        "scalar": np.float32(2.5),
        "part": rng.random((4, 4))[::2, 1],
    }
    values = [1, -1, 2**40, 1.5, None, True, "é", b"\xff"]
    plain = {"a": values, "b": (1, (2,)), 3: OrderedDict(x=1)}
    found = read(tmp_path, pickle.dumps({"arrays": arrays, "plain": plain}, protocol))
    assert found["plain"] == plain
    for name, array in arrays.items():
        assert found["arrays"][name].dtype == array.dtype, name
        np.testing.assert_array_equal(found["arrays"][name], array)


def test_array_of_python_2_is_read(tmp_path: Path) -> None:
    state = b"(K\x01K\x02\x85" + DTYPE + STATE + b"\x89U\x08" + np.float32([1, 2]).tobytes() + b"tb"
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    assert read(tmp_path, b"\x80\x02" + start + state + b".").tolist() == [1, 2]


STATE = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


@pytest.mark.parametrize(
    "value",
    [
        argparse.Namespace(lr=1),
        Path("a"),
        datetime.datetime(2024, 1, 1),
        datetime.timedelta(1),
        np.array(["a"]),
        np.array([{}], dtype=object),
        np.datetime64("2024-01-01"),
        {1, 2},
        frozenset((1,)),
    ],
    ids=str,
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_other_objects_beside_arrays_are_ignored(tmp_path: Path, value: Any, protocol: int) -> None:
    found = read(tmp_path, pickle.dumps({"about": value, "x": np.ones(2)}, protocol))
    assert isinstance(found["about"], Ignored)
    assert vars(found["about"]) == {}
    assert found["x"].tolist() == [1, 1]


def test_defaultdict_keeps_its_items_without_its_function(tmp_path: Path) -> None:
    found = read(tmp_path, pickle.dumps(defaultdict(list, {"a": 1})))
    assert found == {"a": 1}
    assert type(found) is OrderedDict


def built(state: Any, code: str = "f4") -> bytes:
    """A dtype with a state that a person wrote."""
    text = code.encode()
    dtype = b"cnumpy\ndtype\n(X" + len(text).to_bytes(4, "little") + text + b"K\x00K\x01tR"
    return b"\x80\x02" + dtype + pickle.dumps(state, 2)[2:-1] + b"b."


@pytest.mark.parametrize(
    "state",
    [
        (3, "<", None, ("a",), {"a": (1, 0)}, -1, -1, 0),
        (3, "<", (1, (2,)), None, None, -1, -1, 0),
        (3, "<", None, None, None, 2**40, 1, 0),
        (3, "<", None, None, None, -1, -1, 2**31),
        (4, "<", None, None, None, -1, -1, 0, {"metadata": 1}),
        (3, "x", None, None, None, -1, -1, 0),
        (3, "<"),
        3,
        {},
    ],
    ids=str,
)
def test_dtype_with_another_state_than_numpy_writes_is_refused(tmp_path: Path, state: Any) -> None:
    with pytest.raises(RefusedPickleError, match="data type that NumPy does not write"):
        read(tmp_path, built(state))
    assert read(tmp_path, built((3, ">", None, None, None, -1, -1, 0))) == np.dtype(">f4")


GLOBAL = b"cbuiltins\nprint\n"
LIST = b"]q\x00" + b"(" + b"K\x01" * 1000 + b"e0"  # a list of 1000 numbers at place 0 of the memo
DOUBLED = b"".join(b"(h%ch%ctq%c" % (i, i, i + 1) for i in range(60))


def array_of(shape: bytes, order: bytes) -> bytes:
    """An array of four bytes, with a shape and an order that a person wrote."""
    name = b"cnumpy.core.numeric\n_frombuffer\n"
    return name + b"(C\x04\0\0\0\0" + DTYPE + STATE + shape + b"X\1\0\0\0" + order + b"tR."


HOSTILE = {
    "other name": (GLOBAL + b".", r"run builtins\.print"),
    "name with control characters": (b"cos\x1b[31m\nsystem\n.", r"run 'os\\x1b\[31m\.system'"),
    "state of a function": (b"cbuiltins\nint\n}b.", "state of something"),
    "state of a dictionary": (b"}}b.", "state of something"),
    "call of a value": (b"K\x01)R.", "not a name"),
    "encoding of its choice": (b"c_codecs\nencode\n(X\1\0\0\0aX\3\0\0\0hextR.", "encodes"),
    "subclass of arrays": (b"cnumpy\nmemmap\n.", r"run numpy\.memmap"),
    "array by its class": (b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.", "without its values"),
    "too few bytes": (
        b"cnumpy.core.multiarray\nscalar\n" + DTYPE + STATE + b"C\x01a\x86R.",
        "has 1 bytes",
    ),
    "extension": (b"\x82\x01.", "operation EXT1"),
    "buffer": (b"\x97.", "operation NEXT_BUFFER"),
    "object outside": (b"K\x01Q.", "outside of it"),
    "long number": (b"\x8b\xe8\x03\0\0" + b"\1" * 1000 + b".", "thousands of digits"),
    "key that nests": (b"}" + b")" + b"\x85" * 2000 + b"K\x01s.", "key of a dictionary"),
    "key that is large": (b"}\x8a\x09" + b"\1" * 9 + b"K\x01s.", "key of a dictionary"),
    "nesting": (b"]" * 2000 + b"a" * 1999 + b".", "nested more than"),
    "nested tuples": (b")" + b"\x85" * 2000 + b".", "nested more than"),
    "list in itself": (b"]q\x00h\x00a.", "contains itself"),
    "doubling": (b"]q\x00" + DOUBLED + b".", "repeats"),
    "many objects": (b"(" + b"]" * 20_000 + b"t.", "too many objects"),
    "many calls": (b"(" + b"cbuiltins\nint\n)R" * 2000 + b"t.", "too many objects"),
    "copies of a list": (LIST + b"ccollections\nOrderedDict\nh\x00\x85R" * 2, None),
    "data type of structures": (b"cnumpy\ndtype\n(X\5\0\0\0f4,f4K\0K\1tR.", "not of numbers"),
    "other state of an array": (
        b"cnumpy.core.multiarray\n_reconstruct\n)RK\x05b.",
        "array that NumPy does not write",
    ),
    "a name alone": (b"cnumpy\ndtype\n.", "keeps a class or a function"),
    "a name in a list": (b"]cnumpy\ndtype\na.", "keeps a class or a function"),
    "dictionary of a number": (b"ccollections\nOrderedDict\nK\x01\x85R.", "no pairs"),
    "pair of one": (b"K\x01\x86.", "too few objects"),
    "item of a number": (b"K\x01K\x02a.", "no list"),
    "key of a number": (b"K\x01K\x02K\x03s.", "no dictionary"),
    "set of a number": (b"K\x01(K\x02\x90.", "no set"),
    "number as a name": (b"K\x01K\x02\x93.", "no name"),
    "number as arguments": (b"cbuiltins\nint\nK\x01R.", "no arguments"),
    "array in no order": (array_of(b"K\x01\x85", b"A"), "no array"),
    "shape that is a number": (array_of(b"K\x01", b"C"), "no shape"),
    "shape of many axes": (array_of(b"(" + b"K\x01" * 70 + b"t", b"C"), "no shape"),
    "shape of minus one": (array_of(b"J\xff\xff\xff\xff\x85", b"C"), "no shape"),
    "same bytes again": (
        b"B\x40\x42\x0f\0"
        + b"\0" * 1_000_000
        + b"q\x000"
        + DTYPE
        + STATE
        + b"q\x010("
        + b"cnumpy.core.numeric\n_frombuffer\n(h\x00h\x01J\x90\xd0\x03\0\x85X\1\0\0\0CtR" * 100
        + b"t.",
        "again and again",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickle_is_refused_with_the_reason(
    tmp_path: Path,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("video_mvit.weights.pickle_limits.MAX_COST", 10**6)
    content, reason = HOSTILE[name]
    with pytest.raises((RefusedPickleError, BrokenPickleError), match=reason) as error:
        read(tmp_path, b"\x80\x04" + content)
    assert capsys.readouterr().out == ""
    assert "\n" not in str(error.value)
