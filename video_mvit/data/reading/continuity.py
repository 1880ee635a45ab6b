"""Tell a joint of two broadcasts (MPEG-TS) from a loss: pure arithmetic on bytes, no files.

FFmpeg marks the frame before either as not whole, since the counter of packets is not continued.
"""

SYNC, PACKET_SIZES = 0x47, (188, 192)  # bytes; in the second one, a time is before each packet
COUNTER = 0x0F
FIELDS = {0x10: 6, 0x08: 6, 0x04: 1}  # bytes of two clock references and a countdown
HAS_FIELD, HAS_PAYLOAD = 0x20, 0x10


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
