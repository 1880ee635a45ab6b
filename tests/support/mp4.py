"""MP4 files whose index lists more than there is."""

import struct
from pathlib import Path

from support.broken import box_content, patch

MANY = 40_000_000  # samples


def with_sample_sizes(source: Path, path: Path, each: int, count: int) -> Path:
    """A copy whose samples all have one size, or where `each` is 0, one from a table."""
    place = box_content(source, b"stsz") + 4
    return patch(source, path, {place: struct.pack(">II", each, count)})


def with_run(source: Path, path: Path, count: int) -> Path:
    """A copy of a fragmented file whose first run has many samples, none with fields of its own."""
    place = box_content(source, b"trun")
    return patch(source, path, {place: struct.pack(">II", 0, count)})


def box(name: bytes, *parts: bytes) -> bytes:
    """A box of an MP4 file."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), name) + content
