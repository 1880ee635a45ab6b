"""A page that leads to all explanations in a folder, whichever command made them."""

import html
import re
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader

from video_mvit.files import replace_atomically
from video_mvit.prediction.explain import MARK
from video_mvit.text import printable

INDEX = "index.html"
INDEX_MARK = '<meta name="generator" content="video-mvit explanations">'
HEAD_BYTES = 10_000  # in which the title of a page is
TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)


class Listed(NamedTuple):
    """An explanation of a folder: its files, relative to it, and its title."""

    page: str
    picture: str | None
    title: str


def write_index(folder: Path) -> Path | None:
    """Write `index.html`, which lists the explanations of a folder; -> its path.

    None where another file has that name, such as the explanation of a video called so.
    """
    path = folder / INDEX
    if path.exists() and INDEX_MARK not in _head(path):
        return None
    pages = Environment(loader=PackageLoader("video_mvit", "prediction"), autoescape=True)
    text = pages.get_template("explanation_index.html.j2").render(
        mark=INDEX_MARK, listed=list_explanations(folder)
    )
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def list_explanations(folder: Path) -> list[Listed]:
    """List the explanations of a folder by name; other pages are left out."""
    listed = []
    for path in sorted(folder.glob("*.html")):
        head = _head(path)
        if MARK in head and (title := TITLE.search(head)):
            picture = path.with_suffix(".png")
            name = picture.name if picture.is_file() else None
            listed.append(Listed(path.name, name, printable(html.unescape(title[1]))))
    return listed


def _head(path: Path) -> str:
    """Return the start of a file; "" of one that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
