"""The exceptions that stand for a mistake of the user's, and advice that they share."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution

DISTRIBUTION = "video-mvit"


class UserError(ValueError):
    """A mistake of the user's: its message is one sentence that says what, where and what to do.

    Commands print the sentence without a traceback and exit with code 1.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A `UserError` about a file or folder that is not there."""


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra, which works from any folder.

    The name of this package in it would have to be on an index. Where no package of the extra has
    a wheel for this machine, that is said instead.
    """
    try:
        known = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        known = None
    if known is None or extra not in (known.metadata.get_all("Provides-Extra") or ()):
        return f"pip install '.[{extra}]' in a checkout"
    packages = " ".join(f"'{each}'" for each in _packages_of(extra, known.requires or ()))
    return f"pip install {packages}" if packages else "there is no wheel of it for this machine"


def _packages_of(extra: str, requirements: Sequence[str]) -> list[str]:
    from packaging.requirements import Requirement  # slow to import, and rarely needed

    found: list[str] = []
    for each in map(Requirement, requirements):
        by_extra = [bool(each.marker and each.marker.evaluate({"extra": e})) for e in (extra, "")]
        if by_extra != [True, False]:
            continue
        if each.name == DISTRIBUTION:
            for other in sorted(each.extras):
                found += _packages_of(other, requirements)
        else:
            found.append(f"{each.name}{each.specifier}")
    return found
