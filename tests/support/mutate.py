"""Damage bytes as disks, downloads and attackers do."""

import random
from collections.abc import Callable

EXTREMES = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return other bytes: `data` damaged in one to three ways, never as it is."""
    found = data
    for _ in range(rng.randint(1, 3)):
        found = rng.choice(WAYS)(found, rng)
    while found == data:
        found = _flip(found, rng) if found else b"\0"
    return found


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    """Return a range of the data, short ones more often."""
    size = min(len(data), 2 ** rng.randint(0, 16))
    start = rng.randint(0, len(data) - size)
    return start, start + rng.randint(0, size)


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _zero(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def _duplicate(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] + data[end:]


def _insert(data: bytes, rng: random.Random) -> bytes:
    place = rng.randint(0, len(data))
    return data[:place] + rng.randbytes(rng.randint(1, 64)) + data[place:]


def _swap(data: bytes, rng: random.Random) -> bytes:
    first, second = sorted((_span(data, rng), _span(data, rng)))
    if first[1] > second[0]:
        return _flip(data, rng)
    return (
        data[: first[0]]
        + data[second[0] : second[1]]
        + data[first[1] : second[0]]
        + data[first[0] : first[1]]
        + data[second[1] :]
    )


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    size = rng.choice((4, 8))
    if len(data) < size:
        return _flip(data, rng)
    number = rng.choice(EXTREMES) % 2 ** (8 * size)
    place = rng.randint(0, len(data) - size)
    new = number.to_bytes(size, rng.choice(("little", "big")))
    return data[:place] + new + data[place + size :]


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _cut,
    _zero,
    _duplicate,
    _insert,
    _swap,
    _overwrite,
)
