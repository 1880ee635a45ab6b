"""Read bytes of files on disk or behind any fsspec address, retrying after short failures."""

import contextlib
import http.client
import logging
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.callbacks import Callback

from video_mvit.data.reading.reader import first_line
from video_mvit.errors import MissingFileError, UserError

logger = logging.getLogger(__name__)

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
RETRY_PAUSES_S = (0.5, 2.0)  # before retrying a remote read
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
# Errors of storage clients besides OSError. A client that raises one is imported by then; it is
# looked up by name, so that this package neither imports nor needs it.
CLIENT_ERRORS = (
    ("aiohttp", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("paramiko", "SSHException"),
)


def is_address(path: str) -> bool:
    """Return whether a path is an address such as `https://...`, and no file of that name."""
    return ADDRESS.match(path) is not None


def fetch(address: str, target: Path, largest: int) -> None:
    """Copy what is behind an address to a file; raises `UserError` if it cannot be had.

    Args:
        largest: bytes; more than that are not written.
    """

    class Limit(Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.value > largest:
                raise UserError(f"{address} is larger than {largest:,} bytes")

    try:
        with client_errors_as_os_errors():
            files, place = fsspec.core.url_to_fs(address)
            files.get_file(place, str(target), callback=Limit())
    except FileNotFoundError:
        raise MissingFileError(f"there is nothing at {address}") from None
    except ImportError as error:
        raise UserError(f"{address} cannot be read: {first_line(error)}") from None
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{address} cannot be read: {first_line(error)}") from None
    if not target.is_file():
        raise UserError(f"{address} is a folder; name the files in it")


def open_address(path: str) -> Any:
    """Open a file or an address for reading bytes."""
    return fsspec.open(path, "rb").open() if "://" in path else open(path, "rb")


def read_bytes(path: str, offset: int = 0, size: int | None = None) -> bytes:
    """Read bytes [offset, offset + size) of a file or address; one request if it is remote.

    A failed request is retried after a pause, so that a short disturbance does not end a training.
    Raises `OSError`, whatever the storage client raises.
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
            logger.info("%s: %s; retrying in %g s", path, first_line(error), pause_s)
            time.sleep(pause_s)
    return _request(path, offset, size)


def _request(path: str, offset: int, size: int | None) -> bytes:
    """Read once, without retrying."""
    with client_errors_as_os_errors():
        files, place = fsspec.core.url_to_fs(path)
        if size is None:
            return bytes(files.cat_file(place))
        return bytes(files.cat_file(place, start=offset, end=offset + size))


@contextlib.contextmanager
def client_errors_as_os_errors() -> Iterator[None]:
    """Turn every error of a storage client into an `OSError`."""
    try:
        yield
    except _client_errors() as error:
        raise OSError(f"{type(error).__name__}: {first_line(error)}") from error


def _client_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of those storage clients that are imported."""
    modules = [(sys.modules.get(module), name) for module, name in CLIENT_ERRORS]
    found = (getattr(module, name) for module, name in modules if hasattr(module, name))
    return (http.client.HTTPException, *found)
