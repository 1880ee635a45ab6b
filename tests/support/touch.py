"""Empty files, where only their names matter."""

from pathlib import Path


def touch(root: Path, *names: str) -> Path:
    """Make empty files below a root, with their folders; -> the root."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root
