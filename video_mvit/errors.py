"""The exceptions that stand for a mistake of the user's, and advice that they share."""

import re
from importlib.metadata import PackageNotFoundError, requires

EXTRA = re.compile(r"extra *== *['\"]([\w-]+)['\"]")
OWN_EXTRAS = re.compile(r"video[-_]mvit\[([\w,-]+)\]")


class UserError(ValueError):
    """A mistake of the user's: its message is one sentence that says what, where and what to do.

    Commands print the sentence without a traceback and exit with code 1.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A `UserError` about a file or folder that is not there."""


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra, which works from any folder.

    The name of this package in it would have to be on an index.
    """
    packages = " ".join(f"'{each}'" for each in _packages_of(extra))
    return f"pip install {packages}" if packages else f"pip install '.[{extra}]' in a checkout"


def _packages_of(extra: str) -> list[str]:
    try:
        requirements = requires("video-mvit") or []
    except PackageNotFoundError:
        return []
    found: list[str] = []
    for requirement in requirements:
        package, _, condition = requirement.partition(";")
        match = EXTRA.search(condition)
        if match and match[1] == extra:
            own = OWN_EXTRAS.match(package)
            found += (
                [each for e in own[1].split(",") for each in _packages_of(e)]
                if own
                else [package.replace(" ", "")]
            )
    return found
