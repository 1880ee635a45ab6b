"""Why a baseline cannot be measured: one kind of error, whatever its library raises."""

import contextlib
from collections.abc import Iterator

LOAD_ERRORS = (ImportError, OSError, RuntimeError)  # a library of another build raises any of them


class BaselineError(Exception):
    """Why a baseline cannot be measured, in a few words."""


@contextlib.contextmanager
def baseline_errors(what: str, *errors: type[BaseException]) -> Iterator[None]:
    """Raise `BaselineError` with the first line of a library's own error."""
    try:
        yield
    except errors as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaselineError(f"{what}: {reason}") from error
