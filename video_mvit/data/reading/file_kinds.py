"""Say what a file is that is no video, by its first bytes.

Files are named wrongly, downloads end early, and a server's error message is saved as a video.
Nothing of the content is quoted.
"""

import re
from typing import BinaryIO

NUM_READ = 1024  # bytes that tell the kind
UNFINISHED_SUFFIXES = (
    *(".part", ".partial", ".crdownload", ".download", ".opdownload", ".filepart", ".!qb"),
    *(".aria2", ".!ut"),
)
PICTURES = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"8BPS": "a Photoshop picture",
    b"II*\0": "a TIFF picture, or raw data of a camera",
    b"MM\0*": "a TIFF picture, or raw data of a camera",
    b"II+\0": "a TIFF picture",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 picture",
    b"\0\0\0\x0cJXL ": "a JPEG XL picture",
    b"\xff\x0a": "a JPEG XL picture",
}
AUDIO = {
    b"ID3": "audio (MP3)",
    b"fLaC": "audio (FLAC)",
    b"#!AMR": "audio (AMR)",
    b"MThd": "audio (MIDI)",
    b"caff": "audio (CAF)",
    **dict.fromkeys([b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xfa"], "audio (MP3)"),
    **dict.fromkeys([b"\xff\xf1", b"\xff\xf9"], "audio (AAC)"),
}
OTHERS = {
    **dict.fromkeys([b"PK\3\4", b"PK\5\6"], "a ZIP archive"),
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"%PDF": "a PDF document",
    b"\xd0\xcf\x11\xe0": "a document of Office, or thumbnails of Windows",
    b"\0\5\x16\7": "what macOS notes about a file (its name begins with ._)",
    b"bplist00": "a property list of Apple, such as iCloud leaves for a file that is not here",
    b"SQLite format 3": "a database (SQLite)",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"Salted__": "an encrypted file (OpenSSL)",
    b"MZ": "a program",
    b"\x7fELF": "a program",
}
# ISO/IEC 14496-12: brands of files that hold pictures where there is no index of a film.
PICTURE_BRANDS = {
    **dict.fromkeys([b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"], "a HEIC picture"),
    b"avif": "an AVIF picture",
    b"crx ": "raw data of a camera (CR3)",
}
ZEROS = "nothing but zeros (a download or copy that did not finish)"
PICTURE_KINDS = {*PICTURES.values(), *PICTURE_BRANDS.values(), "a WebP picture", "a BMP picture"}
PLAYLIST = rb"#extm3u|ffconcat|<mpd|<smooth|<\?xml.*<(mpd|smooth|composition)"
# Texts by how they begin, in lower case; the plain ones must not hold anything but text.
TEXTS = {
    PLAYLIST: "a playlist of other files",
    rb"yuv4mpeg2 ": "frames without a container (Y4M; convert them to MP4)",
    rb"version https://git-lfs": "a pointer of Git LFS (git lfs pull fetches the file)",
    rb"(\.\./)*(\.git)?/?annex/objects/": "a pointer of git-annex (git annex get fetches the file)",
    rb"<!doctype html|<html|<head|<body": "a web page",
    rb"<\?xml.*<error": "an error message (XML)",
    rb"<\?xml": "text (XML)",
    rb"webvtt|\[script info\]|\d+\s+\d\d:\d\d:\d\d,\d{3} -->": "subtitles",
    rb"d\d+:(announce|comment|created by|creation date|encoding|info|nodes)": "a torrent",
    rb"-----begin pgp|age-encryption\.org": "an encrypted file",
}
PLAIN_TEXTS = {rb"[\[{]": "text (JSON)", rb"": "text"}
NUM_PLAIN = 64  # bytes that are text
VIDEOS = {
    b"\x1aE\xdf\xa3": "a Matroska or WebM video",
    b"GIF8": "a GIF animation",
    b"FLV": "a Flash video",
    b"OggS": "an Ogg video",
    b"0&\xb2u\x8ef\xcf\x11": "a Windows Media video",
    b"\0\0\1\xba": "an MPEG video",
}


def explain_no_video(file: BinaryIO) -> str | None:
    """Say what a file is instead of a video; None if unknown."""
    return _explain(file, "video")


def explain_no_picture(file: BinaryIO) -> str:
    """Say what a file is instead of a picture in a format that is read."""
    start = _start_of(file)
    kind = picture_brand(start) or _binary_kind(start)
    if kind in PICTURE_KINDS:
        return f"{kind}, in a format that is not read; convert it to JPEG or PNG"
    if kind := _video_kind(start):
        return f"{kind}, not a picture"
    return _explain(file, "picture") or "damaged, or no picture in a known format"


def _explain(file: BinaryIO, expected: str) -> str | None:
    start = _start_of(file)
    if not start:
        return "an empty file"
    if any(start):
        kind = _text_kind(start) or _binary_kind(start)
    else:
        kind = None if any(file.read(2**16)) else ZEROS
    return f"{kind}, not a {expected}" if kind else None


def _start_of(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(NUM_READ)


def unfinished_suffix(path: str) -> str | None:
    """Return the suffix that a browser or client gives a file while it downloads it."""
    return next((suffix for suffix in UNFINISHED_SUFFIXES if path.lower().endswith(suffix)), None)


def picture_brand(start: bytes) -> str | None:
    """Return which picture an ISO file is by its brand, unless it has an index of a film."""
    return PICTURE_BRANDS.get(start[8:12]) if start[4:8] == b"ftyp" else None


def _video_kind(start: bytes) -> str | None:
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "an MP4 or QuickTime video"
    if start[:4] == b"RIFF" and start[8:11] == b"AVI":
        return "an AVI video"
    return next((kind for magic, kind in VIDEOS.items() if start.startswith(magic)), None)


def _binary_kind(start: bytes) -> str | None:
    if start[:4] == b"RIFF":
        return {b"WEBP": "a WebP picture", b"WAVE": "audio (WAV)"}.get(start[8:12])
    if start[:4] == b"FORM" and start[8:11] == b"AIF":
        return "audio (AIFF)"
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return "a BMP picture"
    if start[257:262] == b"ustar":
        return "a tar archive"
    if start[4:7] == b"RED" and start[7:8] in b"12":
        return "raw data of a RED camera"
    known = PICTURES | AUDIO | OTHERS
    return next((kind for magic, kind in known.items() if start.startswith(magic)), None)


def _text_kind(start: bytes) -> str | None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text"  # in UTF-16
    start = start.removeprefix(b"\xef\xbb\xbf")
    words = start.lower().strip()
    kinds = TEXTS | PLAIN_TEXTS if _is_text(start[:NUM_PLAIN]) else TEXTS
    found = (kind for pattern, kind in kinds.items() if re.match(pattern, words, re.DOTALL))
    return next(found, None)


def _is_text(start: bytes) -> bool:
    text = start.decode("utf-8", "ignore")  # the last character may be incomplete
    if b"\0" in start or len(text.encode()) < len(start) - 3:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
