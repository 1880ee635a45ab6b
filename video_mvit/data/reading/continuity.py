"""Tell a joint of two broadcasts (MPEG-TS) from a loss, by the counters of their packets.

FFmpeg marks the frame before either as not whole, since the counter of packets is not continued.
"""

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

SYNC, PACKET_SIZES = 0x47, (188, 192)  # bytes; in the second one, a time is before each packet
COUNTER = 0x0F
FIELDS = {0x10: 6, 0x08: 6, 0x04: 1}  # bytes of two clock references and a countdown
HAS_FIELD, HAS_PAYLOAD = 0x20, 0x10
MAX_CHECKED = 2**26  # bytes of two frames


def find_whole(
    file: BinaryIO,
    pid: int,
    places: Sequence[tuple[int | None, bool]],
    is_key: NDArray[np.bool_],
) -> set[int]:
    """Find frames that FFmpeg marks as not whole only because another broadcast follows.

    `places` has the position of each frame in the file, and whether it is marked.
    """
    whole = set()
    for number in [i for i, (_, is_marked) in enumerate(places) if is_marked]:
        # The mark of a frame is at the one before it, which FFmpeg holds back.
        if not is_key[number + 2 : number + 3].any():
            continue
        start, stop = places[number][0], places[number + 2][0]
        if start is None or stop is None or not 0 < stop - start < MAX_CHECKED:
            continue
        file.seek(start)
        if is_unbroken(file.read(stop - start), pid):
            whole.add(number)
    return whole


def is_unbroken(content: bytes, pid: int) -> bool:
    """Return whether the packets of a stream continue, the last one filled up as at a frame's end.

    `content` begins with a packet and ends between two.
    """
    size = next((n for n in PACKET_SIZES if content[n : n + 1] == bytes([SYNC])), len(content) or 1)
    expected, is_filled_up = None, False
    for place in range(0, len(content), size):
        header = content[place : place + 6]
        if len(header) < 6 or header[0] != SYNC:
            return False
        if int.from_bytes(header[1:3], "big") & 0x1FFF != pid or not header[3] & HAS_PAYLOAD:
            continue
        counter = header[3] & COUNTER
        if expected is not None and counter != expected:
            return False
        expected = (counter + 1) & COUNTER
        # Of its field before the payload: length, flags, and what they announce; then filling.
        needed = 1 + sum(length for flag, length in FIELDS.items() if header[5] & flag)
        is_filled_up = bool(header[3] & HAS_FIELD) and (header[4] == 0 or header[4] > needed)
    return is_filled_up
