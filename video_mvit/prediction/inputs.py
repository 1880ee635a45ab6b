"""Resolve files, folders and patterns to a list of videos."""

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from video_mvit.data.lists.folders import FolderWalk
from video_mvit.data.lists.listing import left_out_by_suffix
from video_mvit.data.reading.formats import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from video_mvit.data.reading.frame_names import frame_place
from video_mvit.data.reading.remote import is_address
from video_mvit.errors import MissingFileError, UserError
from video_mvit.prediction.sources import NO_CAMERA, is_camera, local_path

logger = logging.getLogger(__name__)

NUM_NAMED = 5  # suffixes in a message
KNOWN = f"{', '.join(VIDEO_SUFFIXES[:NUM_NAMED])} and {len(VIDEO_SUFFIXES) - NUM_NAMED} more"


def find_videos(places: str | Path | Sequence[str | Path]) -> list[str]:
    """Resolve places to files, in order, without duplicates.

    A file is used whatever its name, a folder stands for all videos below it, a pattern (`*`, `?`,
    `[]`, `**`) for its matches, an address (`https://`, ...) for itself. A folder of pictures
    without a video is one video. Raises `FileNotFoundError` for the first place without any.
    """
    if isinstance(places, str | Path):
        places = [places]
    if not places:
        raise UserError("video is empty; expected a file, a folder or a pattern")
    found = [video for place in places for video in _videos_at(str(place))]
    return list(dict.fromkeys(found))


def find_pictures(places: str | Path | Sequence[str | Path]) -> list[str]:
    """Resolve places to picture files, in order, without duplicates, as `find_videos` does.

    Raises `FileNotFoundError` for the first place without any.
    """
    if isinstance(places, str | Path):
        places = [places]
    if not places:
        raise UserError("image is empty; expected a file, a folder or a pattern")
    found = [picture for place in places for picture in _pictures_at(str(place))]
    return list(dict.fromkeys(found))


def output_paths(option: str, target: Path, suffix: str, videos: Sequence[str]) -> dict[str, Path]:
    """Return the path of the file made of each video: `target` for a single one, else inside it.

    Raises `UserError`, which names the `option`, if that is impossible or would overwrite a video.
    """
    places: dict[str, Path] = {}
    if target.suffix.lower() == suffix and not target.is_dir():
        if len(videos) != 1:
            raise UserError(
                f"{option} is the file {target}, but there are {len(videos):,} videos; use a folder"
            )
        places = {videos[0]: target}
    else:
        taken: set[str] = set()
        for video in videos:
            stem, number = Path(video).stem, 1
            while (name := f"{stem}_{number}" if number > 1 else stem) in taken:
                number += 1
            taken.add(name)
            places[video] = target / f"{name}{suffix}"
    originals = {os.path.realpath(video) for video in videos}
    for place in places.values():
        if os.path.realpath(place) in originals:
            raise UserError(f"{option} would overwrite the video {place}; choose another path")
    return places


def _videos_at(place: str) -> list[str]:
    if place.startswith("file://") and not os.path.lexists(place):
        place = local_path(place)
    if os.path.isdir(place):
        return _videos_below(place)
    if os.path.lexists(place) or is_address(place) or frame_place(place) is not None:
        return [place]
    matches = sorted(glob.glob(os.path.expanduser(place), recursive=True))
    videos = [video for match in matches for video in _videos_of_match(match)]
    if not videos:
        what = "file or folder" if not glob.has_magic(place) else "video matches"
        raise MissingFileError(
            f"no {what} {place}" + (f"; {NO_CAMERA}" if is_camera(place) else "")
        )
    return videos


def _videos_of_match(match: str) -> list[str]:
    """Resolve one match of a pattern; files of other kinds are skipped."""
    if os.path.isdir(match):
        return list(_walk(match))
    return [match] if match.lower().endswith((*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)) else []


def _pictures_at(place: str) -> list[str]:
    if place.startswith("file://") and not os.path.lexists(place):
        place = local_path(place)
    if os.path.isdir(place):
        if pictures := list(_walk(place, PICTURE_SUFFIXES)):
            return pictures
        known = ", ".join(PICTURE_SUFFIXES)
        raise MissingFileError(f"no picture in folder {place} (suffixes: {known})")
    if os.path.lexists(place) or is_address(place):
        return [place]
    matches = sorted(glob.glob(os.path.expanduser(place), recursive=True))
    pictures = [match for match in matches if match.lower().endswith(PICTURE_SUFFIXES)]
    if not pictures:
        what = "file or folder" if not glob.has_magic(place) else "picture matches"
        raise MissingFileError(f"no {what} {place}")
    return pictures


def _videos_below(folder: str) -> list[str]:
    if videos := list(_walk(folder)):
        return videos
    if any(entry.name.lower().endswith(PICTURE_SUFFIXES) for entry in os.scandir(folder)):
        return [folder]
    raise MissingFileError(f"no video in folder {folder} (suffixes: {KNOWN})")


def _walk(folder: str, suffixes: tuple[str, ...] = VIDEO_SUFFIXES) -> Iterator[str]:
    """Yield the files below a folder, but not those that links out of it lead to."""
    walk = FolderWalk(folder, suffixes, follow_links=False)
    yield from walk.below(folder, os.path.join(folder, ""))
    walk.log("a pattern such as FOLDER/* names them")
    kind = "picture" if suffixes is PICTURE_SUFFIXES else "video"
    for left_out in left_out_by_suffix(walk.others, kind):
        logger.info("%s: %s are left out", folder, left_out)
