"""Writers of videos with texture in every frame, and of files that are broken in one known way."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import av
import numpy as np

SIDE = 64
FPS = 25


def write_textured_video(
    path: Path,
    *,
    codec: str = "libx264",
    num_frames: int = 40,
    size: tuple[int, int] = (SIDE, SIDE),
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Frame `i` shows `i` (`videos.read_numbers`) under noise, so that every packet has content.

    Key frames every 10; the container follows from the suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", container_options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=FPS, options={"g": "10", **(options or {})})
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        for i in range(num_frames):
            picture = av.VideoFrame.from_ndarray(_textured(i, size), format="rgb24")
            picture.pts = i
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def _textured(number: int, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    bits = (number >> np.arange(8)) & 1
    row = np.resize(np.repeat(60 + bits * 136, width // 8), width)  # (W,)
    noise = np.random.default_rng(number).integers(-40, 40, (height // 4, width // 4))
    frame = row[None] + np.resize(noise.repeat(4, 0).repeat(4, 1), size)  # (H, W)
    return np.repeat(frame[..., None], 3, 2).astype(np.uint8)


def write_sound(path: Path, *, codec: str = "aac", service: str | None = None) -> Path:
    """A file with a second of silence and no video stream; as its own service of a broadcast."""
    options = dict.fromkeys(["mpegts_service_id", "mpegts_transport_stream_id"], service or "1")
    options |= {"mpegts_start_pid": "500", "mpegts_pmt_start_pid": "4000"} if service else {}
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream(codec, rate=16000)
        form = "s16" if codec == "mp2" else "fltp"
        silence = np.zeros((1, 16000), np.int16 if codec == "mp2" else np.float32)
        sound = av.AudioFrame.from_ndarray(silence, form, "mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return path


def cut(source: Path, path: Path, share: float) -> Path:
    """The first `share` of a file."""
    content = source.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def patch(source: Path, path: Path, changes: Mapping[int, bytes]) -> Path:
    """A copy with other bytes at some places."""
    content = bytearray(source.read_bytes())
    for place, new in changes.items():
        content[place : place + len(new)] = new
    path.write_bytes(bytes(content))
    return path


def box_content(path: Path, *names: bytes) -> int:
    """Place behind the header of the first box of the last name, each searched inside the one
    before it.
    """
    content, place = path.read_bytes(), 0
    for name in names:
        place = content.index(name, place) + len(name)
    return place


def patch_box(source: Path, path: Path, names: Sequence[bytes], offset: int, new: bytes) -> Path:
    """A copy with other bytes `offset` bytes into a box of an MP4."""
    return patch(source, path, {box_content(source, *names) + offset: new})


def packet_places(path: Path) -> list[tuple[int, int]]:
    """(first byte, bytes) of each packet, in decoding order."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
        return [(packet.pos, packet.size) for packet in packets]


def damage_packet(source: Path, path: Path, packet: int, *, seed: int = 0) -> Path:
    """Random bytes instead of the middle half of a packet, named by its place in the file."""
    place, size = packet_places(source)[packet]
    noise = np.random.default_rng(seed).bytes(size // 2)
    return patch(source, path, {place + size // 4: noise})


def write_huge_frame(path: Path) -> Path:
    """One grey frame of 8192x4320."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 8192, 4320, "yuvj420p"
        stream.codec_context.thread_count = 1
        container.mux(stream.encode(av.VideoFrame(8192, 4320, "yuvj420p")))
        container.mux(stream.encode(None))
    return path


def empty_mp4(path: Path) -> Path:
    """An MP4 with a video track of zero frames."""

    def box(name: bytes, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return struct.pack(">I4s", 8 + len(content), name) + content

    whole = write_textured_video(path, num_frames=1).read_bytes()
    start = whole.index(b"stsd") - 4
    (size,) = struct.unpack_from(">I", whole, start)
    stsd, hdlr = whole[start : start + size], b"\0" * 8 + b"vide" + b"\0" * 13
    identity = struct.pack(">9I", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    none = [box(name, b"\0" * 8) for name in (b"stts", b"stsc", b"stco")]
    stbl = box(b"stbl", stsd, *none, box(b"stsz", b"\0" * 12))
    mdhd = box(b"mdhd", b"\0" * 12, struct.pack(">II", 12800, 0), b"\0" * 4)
    mdia = box(b"mdia", mdhd, box(b"hdlr", hdlr), box(b"minf", stbl))
    tkhd = box(b"tkhd", struct.pack(">5I", 3, 0, 0, 1, 0), b"\0" * 20, identity, b"\0" * 8)
    mvhd = box(b"mvhd", b"\0" * 12, struct.pack(">II", 1000, 0), b"\0" * 80)
    path.write_bytes(
        box(b"ftyp", b"isom\0\0\0\0isom") + box(b"moov", mvhd, box(b"trak", tkhd, mdia))
    )
    return path
