"""Tell films that are encrypted, which FFmpeg would read as damaged ones or as noise."""

from typing import BinaryIO

IS_ENCRYPTED = "encrypted (DRM)"
SAMPLE_ENTRIES = {b"encv", b"drmi"}  # as an MP4 names the codec of an encrypted film
MATROSKA_KEY = "enc_key_id"  # as FFmpeg calls the key of a track
NUM_READ = 2**16  # bytes
# Objects of a Windows Media header: of content encryption, and of its extended form.
ASF_START = bytes.fromhex("3026b2758e66cf11")
ASF_ENCRYPTION = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
)
TS_SIZE, TS_SYNC, TS_NO_CONTENT = 188, 0x47, 0x1FFF
TS_SCRAMBLED, TS_HAS_PAYLOAD = 0xC0, 0x10  # bits of the fourth byte of a packet


def has_encryption(file: BinaryIO) -> bool:
    """Return whether a broadcast is scrambled, or a Windows Media file encrypted."""
    file.seek(0)
    start = file.read(NUM_READ)
    if start.startswith(ASF_START):
        return any(guid in start for guid in ASF_ENCRYPTION)
    return _is_scrambled(start)


def _is_scrambled(start: bytes) -> bool:
    """Return whether most packets of an MPEG-TS are scrambled."""
    for skip, step in ((0, TS_SIZE), (4, TS_SIZE + 4)):
        if start[skip : skip + 1] != bytes([TS_SYNC]):
            continue
        packets = [start[at : at + 4] for at in range(skip, len(start) - 3, step)]
        if len(packets) > 1 and all(packet[0] == TS_SYNC for packet in packets):
            flags = [
                packet[3]
                for packet in packets
                if packet[3] & TS_HAS_PAYLOAD
                and int.from_bytes(packet[1:3], "big") & TS_NO_CONTENT != TS_NO_CONTENT
            ]
            return sum(bool(flag & TS_SCRAMBLED) for flag in flags) > len(flags) / 2
    return False
