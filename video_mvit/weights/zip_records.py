"""The records of a PyTorch zip: none is compressed, none overlaps another, each has a checksum."""

import struct
import zipfile
from typing import IO

from video_mvit.weights.pickle_limits import RefusedPickleError

END = b"PK\x05\x06"
END_64, LOCATOR_64 = b"PK\x06\x06", b"PK\x06\x07"
END_BYTES, LOCATOR_BYTES, END_64_BYTES = 22, 20, 56
MAX_RECORDS = 50_000
MAX_DIRECTORY_BYTES = 16 * 2**20
CHUNK_BYTES = 2**20
LOCAL_HEADER_BYTES = 30


class Records:
    """The directory of a zip, checked; `sizes` has the bytes of each record without its folder.

    Raises `zipfile.BadZipFile`, or `RefusedPickleError` for compressed records.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        check_end(file, size)
        self.zip = zipfile.ZipFile(file)
        entries = sorted(self.zip.infolist(), key=lambda entry: entry.header_offset)
        ends = [entry.header_offset for entry in entries[1:]] + [self.zip.start_dir]
        if not entries or entries[0].header_offset != 0:
            raise zipfile.BadZipFile("it does not begin with a record")
        self.folder = entries[0].filename.partition("/")[0] + "/"
        self.sizes: dict[str, int] = {}
        for entry, end in zip(entries, ends, strict=True):
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise RefusedPickleError("a record is compressed, which PyTorch never does")
            if entry.header_offset + LOCAL_HEADER_BYTES + entry.file_size > end:
                raise zipfile.BadZipFile("two records overlap")
            if not entry.filename.startswith(self.folder):
                raise zipfile.BadZipFile("its records are in two folders")
            self.sizes[entry.filename.removeprefix(self.folder)] = entry.file_size
        if len({name.lower() for name in self.sizes}) != len(entries):  # PyTorch ignores case
            raise zipfile.BadZipFile("two records have one name")

    def verify(self) -> None:
        """Read every record and compare its checksum."""
        for name in self.sizes:
            with self.zip.open(self.folder + name) as record:
                while record.read(CHUNK_BYTES):
                    pass

    def read(self, name: str) -> bytes:
        return self.zip.read(self.folder + name)


def check_end(file: IO[bytes], size: int) -> None:
    """Check the size of the directory before it is read: the end has no comment in these files."""
    tail = _read_at(file, max(size - END_BYTES, 0), END_BYTES)
    if len(tail) != END_BYTES or not tail.startswith(END) or tail[-2:] != b"\0\0":
        raise zipfile.BadZipFile("its end is missing")
    count, num_bytes = struct.unpack("<HI", tail[10:16])
    locator = _read_at(file, max(size - END_BYTES - LOCATOR_BYTES, 0), LOCATOR_BYTES)
    if locator.startswith(LOCATOR_64):
        (place,) = struct.unpack("<Q", locator[8:16])
        end = _read_at(file, place, END_64_BYTES)
        if not end.startswith(END_64) or len(end) != END_64_BYTES:
            raise zipfile.BadZipFile("its end is missing")
        count, num_bytes = struct.unpack("<QQ", end[32:48])
    if count > MAX_RECORDS or num_bytes > min(MAX_DIRECTORY_BYTES, size):
        raise zipfile.BadZipFile("it has too many records")


def _read_at(file: IO[bytes], place: int, size: int) -> bytes:
    file.seek(min(place, 2**62))
    return file.read(size)
