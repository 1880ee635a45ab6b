"""Why a peer cannot be measured: told as one kind of error, whatever its library raises."""

import contextlib
from collections.abc import Iterator

LOAD_ERRORS = (ImportError, OSError, RuntimeError)  # a library of another build raises any of them


class PeerError(Exception):
    """Why a peer cannot be measured, in a few words."""


@contextlib.contextmanager
def told_as_peer_error(what: str, *errors: type[BaseException]) -> Iterator[None]:
    """Raise `PeerError` with the first line of a library's complaint instead of its own error."""
    try:
        yield
    except errors as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PeerError(f"{what}: {reason}") from error
