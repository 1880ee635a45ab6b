"""Videos inside tar shards, addressed as `shard!offset+size!name`."""

import re

from video_mvit.data.reading.remote import (
    read_bytes,
)
from video_mvit.errors import UserError

PLACE = re.compile(r"^(?P<shard>.*?)!(?P<offset>\d+)\+(?P<size>\d+)!", re.DOTALL)


def is_member(path: str) -> bool:
    """Return whether a path is a place in a shard: `<shard>!<offset>+<size>!<name>`."""
    return PLACE.match(path) is not None


def read_member(path: str) -> bytes:
    """Read the bytes of a video in a shard; raises `OSError` if they do not exist."""
    place = PLACE.match(path)
    if place is None:
        raise UserError(f"{path!r} is not a place in a shard: <shard>!<offset>+<size>!<name>")
    size = int(place["size"])
    content = read_bytes(place["shard"], int(place["offset"]), size)
    if len(content) < size:
        raise OSError(f"shard {place['shard']} ends before the end of this video")
    if len(content) > size:
        raise OSError(f"the server of shard {place['shard']} sends more than the requested range")
    return content
