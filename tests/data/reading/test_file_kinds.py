"""What is no video is refused with what it is; what only looks odd is read."""

import io
import re
import struct
import tarfile
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support.broken import cut, patch_box, write_sound, write_textured_video
from support.videos import Encoding, numbered_frame, read_numbers, write_numbered_video

from video_mvit.data.reading.open import VideoDecodeError, open_video

TEXTS = {
    "<!DOCTYPE html>\n<html><title>404</title></html>": "^a web page, not a video$",
    "\n\n  <html>\n<body>Video unavailable</body></html>": "^a web page, not a video$",
    '{"error": {"code": 404}}': r"^text \(JSON\), not a video$",
    '<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>': "^an error message",
    '<?xml version="1.0"?>\n<movie/>': r"^text \(XML\), not a video$",
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n": "pointer of Git LFS",
    "/annex/objects/SHA256E-s12345--4d7a.mp4\n": "pointer of git-annex",
    "1\n00:00:00,000 --> 00:00:01,000\nhi\n": "^subtitles, not a video$",
    "YUV4MPEG2 W64 H64 F30:1 Ip A1:1 C420jpeg XYSCSS=420JPEG\nFRAME\n": "^frames without a cont",
    "WEBVTT\n\n00:00.000 --> 00:01.000\nhi\n": "^subtitles, not a video$",
    "d8:announce20:udp://tracker.a:1337e": "^a torrent, not a video$",
    "-----BEGIN PGP MESSAGE-----\n": "^an encrypted file, not a video$",
    "Access denied\n": "^text, not a video$",
    "\ufeffzugriff verweigert\n": "^text, not a video$",
}
BYTES = {
    b"": "^an empty file$",
    bytes(100_000): "^nothing but zeros .*, not a video$",
    "Zugriff".encode("utf-16"): "^text, not a video$",
    b"d8:announce3:a:1e4:infod6:pieces4:\xff\0\xfe\1": "^a torrent, not a video$",
    b"Rar!\x1a\x07\x01\0" + b"\1" * 500: "^a RAR archive, not a video$",
    b"7z\xbc\xaf\x27\x1c" + b"\1" * 500: "^a 7z archive, not a video$",
    b"\x1f\x8b\x08\0" + b"\1" * 500: "^a gzip archive, not a video$",
    b"%PDF-1.4\n\xe2\xe3" + b"\1" * 500: "^a PDF document, not a video$",
    b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(200): "^what macOS notes about a file",
    b"SQLite format 3\0" + bytes(300): "^a database",
    b"Salted__" + b"\1\2\0" * 500: r"^an encrypted file \(OpenSSL\), not a video$",
    b"\0\0\1\0RED2" + b"\1" * 500: "^raw data of a RED camera, not a video$",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0\0\0\x10meta" + bytes(8): "^a HEIC picture, not",
    b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(90): "^raw data of a camera",
    b"ID3\4\0\0\0\0\0\0" + b"\1" * 500: r"^audio \(MP3\), not a video$",
    b"RIFF\0\1\0\0WAVEfmt " + b"\1" * 500: r"^audio \(WAV\), not a video$",
}


def reason_for(path: Path) -> str:
    with pytest.raises(VideoDecodeError) as caught, open_video(path) as video:
        video.read(range(video.num_frames))
    return caught.value.reason


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_told_by_its_kind(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.mp4").write_text(text, encoding="utf-8")
    assert re.search(TEXTS[text], reason_for(tmp_path / "a.mp4"))


@pytest.mark.parametrize("content", BYTES, ids=lambda content: str(content[:12]))
def test_other_files_are_told_by_their_kind(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    assert re.search(BYTES[content], reason_for(tmp_path / "a.mp4"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_picture_named_as_a_video(tmp_path: Path, kind: str) -> None:
    Image.fromarray(numbered_frame(1)).save(tmp_path / "a.mp4", kind)
    assert reason_for(tmp_path / "a.mp4").startswith("a ")
    assert kind.lower() in reason_for(tmp_path / "a.mp4").lower()
    assert reason_for(tmp_path / "a.mp4").endswith(", not a video")


@pytest.mark.parametrize("brand", [b"avif", b"heic", b"mif1"])
def test_tiles_of_a_picture_are_not_taken_for_a_video(tmp_path: Path, brand: bytes) -> None:
    from PIL import features

    if not features.check("avif"):
        pytest.skip("Pillow cannot write AVIF here")
    content = io.BytesIO()
    Image.fromarray(numbered_frame(1)).save(content, "AVIF")
    (tmp_path / "a.mp4").write_bytes(content.getvalue().replace(b"ftypavif", b"ftyp" + brand, 1))
    assert reason_for(tmp_path / "a.mp4").endswith("picture, not a video")


def test_video_named_as_a_picture(tmp_path: Path) -> None:
    video = write_textured_video(tmp_path / "a.mp4", num_frames=3)
    assert reason_for(video.rename(tmp_path / "a.jpg")) == (
        "an MP4 or QuickTime video, not a picture"
    )
    (tmp_path / "b.png").write_text("<html>404</html>")
    assert reason_for(tmp_path / "b.png") == "a web page, not a picture"
    Image.fromarray(numbered_frame(1)).save(tmp_path / "c.png", "JPEG2000")
    assert "JPEG 2000 picture, in a format that is not read" in reason_for(tmp_path / "c.png")
    (tmp_path / "d.png").write_bytes(b"\1\2\3\0" * 9)
    assert reason_for(tmp_path / "d.png") == "damaged, or no picture in a known format"


def test_archives_are_told(tmp_path: Path) -> None:
    video = write_textured_video(tmp_path / "a.mp4", num_frames=3)
    with zipfile.ZipFile(tmp_path / "zip.mp4", "w") as file:
        file.write(video)
    with tarfile.open(tmp_path / "tar.mp4", "w") as file:
        file.add(video)
    assert reason_for(tmp_path / "zip.mp4") == "a ZIP archive, not a video"
    assert reason_for(tmp_path / "tar.mp4") == "a tar archive, not a video"


@pytest.mark.parametrize("suffix", [".part", ".crdownload", ".Part"])
def test_unfinished_download_is_called_so_unless_it_is_whole(tmp_path: Path, suffix: str) -> None:
    video = write_textured_video(tmp_path / "a.mp4", num_frames=30)
    half = cut(video, tmp_path / f"a.mp4{suffix}", 0.5)
    assert reason_for(half).startswith(f"an unfinished download ({suffix.lower()}): no index")
    with open_video(video.rename(half)) as opened:
        assert opened.num_frames == 30


def test_segment_without_its_start(tmp_path: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    whole = write_textured_video(tmp_path / "a.mp4", container_options=options).read_bytes()
    (tmp_path / "b.m4s").write_bytes(whole[whole.index(b"moof") - 4 :])
    assert reason_for(tmp_path / "b.m4s").startswith("a segment of a stream, without the header")


def test_format_that_is_not_read(tmp_path: Path) -> None:
    path = write_textured_video(tmp_path / "a.wtv", codec="mpeg2video", num_frames=5)
    assert reason_for(path) == "damaged, or a format that is not read; convert it to MP4"


def write_with_picture(path: Path, streams: str) -> Path:
    """A file with the streams `a` (sound), `v` (a video), `p` (a cover picture), in this order."""
    picture = io.BytesIO()
    Image.fromarray(numbered_frame(200)).save(picture, "JPEG")
    with av.open(str(path), "w") as container:
        added = {}
        for kind in streams:
            if kind == "a":
                added[kind] = container.add_stream("aac", rate=16000, layout="mono")
                continue
            added[kind] = container.add_stream("mjpeg" if kind == "p" else "libx264", rate=30)
            added[kind].width = added[kind].height = 64
            added[kind].pix_fmt = "yuvj420p" if kind == "p" else "yuv420p"
            if kind == "p":
                added[kind].disposition = av.stream.Disposition.attached_pic
        for i in range(10 if "v" in added else 0):
            frame = av.VideoFrame.from_ndarray(numbered_frame(i), format="rgb24")
            container.mux(added["v"].encode(frame))
        if "a" in added:
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
            sound.sample_rate = 16000
            container.mux(added["a"].encode(sound))
        if "p" in added:
            container.start_encoding()
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.pts, packet.dts = added["p"], 0, 0
            packet.time_base = Fraction(1, 30)
            container.mux(packet)
        for kind, stream in added.items():
            if kind != "p":
                container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("streams", "reason"),
    [
        ("ap", "audio with a cover picture, no video"),
        ("pa", "audio with a cover picture, no video"),
        ("p", "a cover picture, no video"),
    ],
)
def test_cover_picture_is_not_a_video(tmp_path: Path, streams: str, reason: str) -> None:
    assert reason_for(write_with_picture(tmp_path / "song.mp4", streams)) == reason


@pytest.mark.parametrize("streams", ["vp", "pv", "apv", "vap"])
def test_cover_picture_is_not_taken_for_the_film(tmp_path: Path, streams: str) -> None:
    with open_video(write_with_picture(tmp_path / "film.mp4", streams)) as video:
        assert read_numbers(video.read(range(video.num_frames))) == list(range(10))


def test_audio_alone_is_told(tmp_path: Path) -> None:
    assert reason_for(write_sound(tmp_path / "a.mp4")) == "audio, no video"
    assert reason_for(write_sound(tmp_path / "a.wav", codec="pcm_s16le")) == (
        "audio (WAV), not a video"
    )


CENC = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}


@pytest.mark.parametrize("flags", [{}, {"movflags": "frag_keyframe+empty_moov"}])
def test_encrypted_file_is_told(tmp_path: Path, flags: dict[str, str]) -> None:
    path = tmp_path / "a.mp4"
    write_textured_video(path, container_options=CENC | flags)
    assert reason_for(path) == "encrypted (DRM)"


def test_scrambled_broadcast_is_encrypted(tmp_path: Path) -> None:
    content = bytearray(write_textured_video(tmp_path / "a.ts").read_bytes())
    for packet in range(0, len(content), 188):
        if int.from_bytes(content[packet + 1 : packet + 3], "big") & 0x1FFF == 0x100:
            content[packet + 3] |= 0x80
            content[packet + 12 : packet + 188] = np.random.default_rng(packet).bytes(176)
    (tmp_path / "b.ts").write_bytes(content)
    assert reason_for(tmp_path / "b.ts") == "encrypted (DRM)"


def test_windows_media_with_rights_is_encrypted(tmp_path: Path) -> None:
    good = write_textured_video(tmp_path / "a.wmv", codec="wmv2", num_frames=5)
    codecs = bytes.fromhex("4052d1861d31d011a3a400a0c90348f6")  # an object that is not needed
    rights = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")
    content = good.read_bytes()
    assert codecs in content
    (tmp_path / "b.wmv").write_bytes(content.replace(codecs, rights))
    assert reason_for(tmp_path / "b.wmv") == "encrypted (DRM)"


def element(name: str, *parts: bytes) -> bytes:
    """An element of a Matroska file."""
    content = b"".join(parts)
    return bytes.fromhex(name) + struct.pack(">Q", len(content) | 1 << 56) + content


def test_encrypted_webm_is_told(tmp_path: Path) -> None:
    options = {"live": "1"}  # sizes are left open
    good = write_textured_video(tmp_path / "a.webm", codec="libvpx", container_options=options)
    content = good.read_bytes()
    start = content.rindex(bytes.fromhex("1654ae6b"))  # tracks
    size_length = 9 - content[start + 4].bit_length()
    size = int.from_bytes(content[start + 4 : start + 4 + size_length], "big")
    stop = start + 4 + size_length + (size & ((1 << 7 * size_length) - 1))
    entry = content.index(b"\xae", start + 4 + size_length)
    entry_content = content[entry + 1 + 9 - content[entry + 1].bit_length() : stop]
    key = element("5035", element("47e1", b"\5"), element("47e2", b"k" * 16))
    encoding = element("6240", element("5033", b"\1"), key)
    tracks = element("1654ae6b", element("ae", entry_content, element("6d80", encoding)))
    (tmp_path / "b.webm").write_bytes(content[:start] + tracks + content[stop:])
    assert reason_for(tmp_path / "b.webm") == "encrypted (DRM)"


def test_film_of_a_shop_is_encrypted(tmp_path: Path) -> None:
    good = write_textured_video(tmp_path / "a.mp4", num_frames=3)
    path = patch_box(good, tmp_path / "b.mp4", [b"stsd", b"avc1"], -4, b"drmi")
    assert reason_for(path) == "encrypted (DRM)"
    path = patch_box(good, tmp_path / "c.mp4", [b"stsd", b"avc1"], -4, b"braw")
    assert reason_for(path) == "its codec is unknown (Blackmagic RAW)"


@pytest.mark.parametrize("rate", [1000, 2000, 20_000])
def test_high_speed_video_is_read(tmp_path: Path, rate: int) -> None:
    with open_video(write_numbered_video(tmp_path / "a.mp4", 20, fps=rate)) as video:
        assert video.fps == rate
        assert read_numbers(video.read([0, 7, 19])) == [0, 7, 19]


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.h264", "libx264", 30),
        ("a.h264", "libx264", 24),
        ("a.hevc", "libx265", 50),
        ("a.m2v", "mpeg2video", 30),
    ],
)
def test_raw_stream_is_read_at_its_rate(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {"b": "2000000"}
    encoding = Encoding(codec=codec, options={"g": "12", **options})
    with open_video(write_numbered_video(tmp_path / name, 24, rate, encoding=encoding)) as video:
        assert video.fps == rate
        assert read_numbers(video.read(range(24))) == list(range(24))


def test_nothing_of_the_content_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(struct.pack(">I4s", 8, b"ftyp") + b"\0\0\0\0secret")
    assert "secret" not in reason_for(tmp_path / "a.mp4")
