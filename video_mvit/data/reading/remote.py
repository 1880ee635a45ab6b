"""Reading bytes of files on a disk or behind any fsspec address, in spite of short disturbances."""

import contextlib
import http.client
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import fsspec

from video_mvit.data.reading.reader import first_line

logger = logging.getLogger(__name__)

RETRY_PAUSES_S = (0.5, 2.0)  # before a remote read is tried again
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
# What storage clients raise besides OSError. A client that raised it is imported by then; asking
# for it by name keeps the package from importing, or needing, any of them.
CLIENT_ERRORS = (
    ("aiohttp", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("paramiko", "SSHException"),
)


def open_address(path: str) -> Any:
    """Open a file or an address for reading bytes."""
    return fsspec.open(path, "rb").open() if "://" in path else open(path, "rb")


def read_bytes(path: str, offset: int = 0, size: int | None = None) -> bytes:
    """Bytes [offset, offset + size) of a file or address; one request where it is remote.

    A request that fails is made again after a pause, for a short disturbance must not end a
    training. Raises `OSError`, whatever the client of an address raises.
    """
    if "://" not in path:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(-1 if size is None else size)
    for pause_s in RETRY_PAUSES_S:
        try:
            return _request(path, offset, size)
        except FINAL:
            raise
        except OSError as error:
            logger.info("%s: %s; trying again in %g s", path, first_line(error), pause_s)
            time.sleep(pause_s)
    return _request(path, offset, size)


def _request(path: str, offset: int, size: int | None) -> bytes:
    with client_errors_as_os_errors():
        files, place = fsspec.core.url_to_fs(path)
        if size is None:
            return bytes(files.cat_file(place))
        return bytes(files.cat_file(place, start=offset, end=offset + size))


@contextlib.contextmanager
def client_errors_as_os_errors() -> Iterator[None]:
    """Make every complaint of a storage client an `OSError`."""
    try:
        yield
    except _client_errors() as error:
        raise OSError(f"{type(error).__name__}: {first_line(error)}") from error


def _client_errors() -> tuple[type[Exception], ...]:
    """Exceptions of those storage clients that are imported."""
    modules = [(sys.modules.get(module), name) for module, name in CLIENT_ERRORS]
    found = (getattr(module, name) for module, name in modules if hasattr(module, name))
    return (http.client.HTTPException, *found)
