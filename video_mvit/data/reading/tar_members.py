"""Videos inside tar shards, addressed as `shard!offset+size!name`."""

import os
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
    try:
        offset, size = int(place["offset"]), int(place["size"])
    except ValueError:  # thousands of digits
        raise OSError("a place in a shard that cannot be") from None
    shard = place["shard"]
    # More than there is would be allocated before it is read.
    if "://" not in shard and offset + size > os.path.getsize(shard):
        raise OSError(f"shard {shard} ends before the end of this video")
    content = read_bytes(shard, offset, size)
    if len(content) < size:
        raise OSError(f"shard {shard} ends before the end of this video")
    if len(content) > size:
        raise OSError(f"the server of shard {shard} sends more than the requested range")
    return content
