"""Find a listed video whose file has another suffix or is written in another way."""

import os
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from video_mvit.data.lists.listing import FolderListing
from video_mvit.data.reading.formats import PICTURE_SUFFIXES, VIDEO_SUFFIXES


class ListingWithCopies(FolderListing):
    """Find the exact name, else a video that differs in its suffix or in how it is written.

    A video that is `listed` itself is not used for another one.
    """

    def __init__(self, root: str, listed: Collection[str]) -> None:
        super().__init__(root, by="name")
        self._listed = listed
        self._alike: dict[str, dict[str, list[str]]] = {}

    def find(self, places: Iterable[str]) -> str | None:
        for place in places:
            if (exact := super().find([place])) is not None:
                return exact
            for written in _ways_to_write(place):
                copies = [written, *_with_other_suffixes(written)]
                found = super().find(name for name in copies if name not in self._listed)
                if found or (found := self._find_alike(copies)):
                    return found
        return None

    def _find_alike(self, copies: Sequence[str]) -> str | None:
        """Find the one video that equals a place but for case of suffix and form of Unicode."""
        folder = ""
        *parts, _ = copies[0].split("/")
        for part in parts:
            names = self._names_alike(folder).get(_key(part), [])
            if len(names) != 1 and part not in names:
                return None
            folder += f"{part if part in names else names[0]}/"
        for copy in copies:
            names = self._names_alike(folder).get(_key(copy.rpartition("/")[2]), [])
            if len(names) == 1 and folder + names[0] not in self._listed:
                return folder + names[0]
        return None

    def _names_alike(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._alike:
            alike: dict[str, list[str]] = {}
            for name in self.names(folder.rstrip("/")):
                alike.setdefault(_key(name), []).append(name)
            self._alike[folder] = alike
        return self._alike[folder]


def _key(name: str) -> str:
    """Return what names have in common that differ in case of suffix and form of Unicode."""
    stem, suffix = os.path.splitext(unicodedata.normalize("NFC", name))
    return (
        stem + suffix.lower()
        if suffix.lower() in (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)
        else stem + suffix
    )


def _ways_to_write(place: str) -> list[str]:
    """List a place as it is, with `/` for the separators of Windows, and decoded as Latin-1."""
    ways = [place]
    if "\\" in place:
        ways.append(os.path.normpath(place.replace("\\", "/")))
    content = place.encode("utf-8", "surrogateescape")
    if not place.isascii() and content.decode("latin-1") != place:
        try:
            content.decode()
        except UnicodeDecodeError:
            ways.append(content.decode("cp1252", "replace"))
    return [way for way in ways if not way.startswith(("/", ".."))]


def _with_other_suffixes(place: str) -> list[str]:
    """List the possible names of copies: 1.mov.mp4, and 1.mp4 where .mov is of a video."""
    stem, suffix = os.path.splitext(place)
    stems = [place, stem] if suffix.lower() in VIDEO_SUFFIXES else [place]
    return [stem + other for stem in stems for other in VIDEO_SUFFIXES]
