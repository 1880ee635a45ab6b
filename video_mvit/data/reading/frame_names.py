"""Which pictures of a folder are the frames of a video, and in which order.

Frames are numbered: `00001.jpg`, `img_1.jpg`, `frame_000010.png`. Optical flow, masks, covers and
thumbnails beside them are not frames. Where pictures of several kinds remain, a template such as
`img_%05d.jpg` or `img_{:05}.jpg` has to say which. A place `<folder>[<first>:<stop>]` stands for a
part of the frames, `<folder>/<template>` for those of a template, and both may be given.
"""

import os
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from video_mvit.data.reading.formats import PICTURE_SUFFIXES
from video_mvit.text import short

# A template names the number once, as Python or as FFmpeg does: img_{:05}.jpg, img_%05d.jpg.
NUMBER = r"(?:\{(?::0?(\d{1,2})?d?)?\}|%(?:0?(\d{1,2}))?d)"
TEMPLATE = re.compile(rf"(?P<before>[^/{{}}%]*){NUMBER}(?P<after>[^/{{}}%]*)")
PART = re.compile(r"(?P<whole>.+)\[(?P<first>\d{1,9}):(?P<stop>\d{1,9})\]", re.DOTALL)
# Words for pictures that are beside the frames, at the beginning of a name or after a separator.
BESIDE = re.compile(
    r"(?:^|[ _.-])(?:opt(?:ical)?[ _.-]?)?(?:flow|depth|mask|matte|seg(?:mentation)?|cover|poster"
    r"|thumb(?:nail)?|preview|tn|icon|folder|contact[ _.-]?sheet)s?(?=[ _.#-]|$)",
    re.IGNORECASE,
)
MAX_KINDS = 3  # in a message


class FramePlace(NamedTuple):
    """A folder of frames, the template of their names, and the part of them that is meant."""

    folder: str
    template: str | None = None
    first: int = 0
    stop: int | None = None


def is_template(text: str) -> bool:
    """Return whether a text is a template of names of pictures, such as `img_{:05}.jpg`."""
    return TEMPLATE.fullmatch(text) is not None and text.lower().endswith(PICTURE_SUFFIXES)


def frame_place(path: str) -> FramePlace | None:
    """Return the folder of frames that a path stands for; None for a path of another kind."""
    if os.path.isdir(path):
        return FramePlace(path)
    whole, first, stop = path, 0, None
    if match := PART.fullmatch(path):
        whole, first, stop = match["whole"], int(match["first"]), int(match["stop"])
    folder, _, last = whole.rpartition("/")
    template = last if is_template(last) else None
    place = FramePlace(folder if template else whole, template, first, stop)
    is_place = (template is not None or stop is not None) and os.path.isdir(place.folder)
    return place if is_place else None


def choose_frames(names: Iterable[str], place: FramePlace) -> Sequence[str]:
    """Choose the names of the frames of a place in a listing of its folder, in order.

    Raises `ValueError` with the reason where there are none, or several kinds of them.
    """
    pictures = [
        name
        for name in names
        if name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")
    ]
    if not pictures:
        raise ValueError("a folder without pictures")
    if place.template is None:
        frames = _numbered_alike(pictures)
    else:
        frames = _by_template(pictures, place.template)
    if place.stop is not None:
        if place.stop > len(frames):
            raise ValueError(
                f"the list says frames up to {place.stop:,}, the folder has {len(frames):,}"
                + _gap(frames)
            )
        frames = frames[place.first : place.stop]
        if not frames:
            raise ValueError("the list says 0 frames")
    return frames


def _by_template(pictures: Iterable[str], template: str) -> list[str]:
    match = TEMPLATE.fullmatch(template)
    assert match is not None
    width = match[2] or match[3]
    digits = rf"\d{{{width},}}" if width else r"\d+"
    pattern = re.compile(re.escape(match["before"]) + rf"({digits})" + re.escape(match["after"]))
    numbers = {name: int(m[1]) for name in pictures if (m := pattern.fullmatch(name))}
    if not numbers:
        raise ValueError(f"no picture is named like {template}")
    return sorted(numbers, key=lambda name: numbers[name])


def _numbered_alike(pictures: Sequence[str]) -> list[str]:
    """Return the pictures of the only kind that are frames, in the order of their numbers."""
    numbered = [name for name in pictures if re.search(r"\d", os.path.splitext(name)[0])]
    if not numbered and len(pictures) == 1:
        return list(pictures)
    if not numbered:
        raise ValueError(f"pictures without numbers, such as {short(min(pictures))}")
    kinds_of: dict[tuple[str, str], list[str]] = {}
    for name in numbered:
        kinds_of.setdefault(_kind(name), []).append(name)
    frames = [names for (text, _), names in kinds_of.items() if not BESIDE.search(text)]
    frames = frames or list(kinds_of.values())
    if len(frames) > 1:
        shown = [f"{short(min(names))} ({len(names):,})" for names in frames[:MAX_KINDS]]
        raise ValueError(
            f"pictures of several kinds: {', '.join(shown)}; {_advice(min(frames[0]))}"
        )
    ordered = sorted(frames[0], key=lambda name: (_numbers_in(name), name))
    _check_one_number(ordered)
    return ordered


def _check_one_number(names: Sequence[str]) -> None:
    """Raise `ValueError` where numbers repeat: cam1_001 and cam2_001, or 1 and 01."""
    numbers = [_numbers_in(name) for name in names]
    varying = [i for i in range(len(numbers[0])) if len({each[i] for each in numbers}) > 1]
    first: dict[int, str] = {}
    for name, each in zip(names, numbers, strict=True):
        other = first.setdefault(each[varying[-1]] if varying else 0, name)
        if other != name and each:
            raise ValueError(
                f"{short(other)} and {short(name)} have the same number; {_advice(other)}"
            )


def _kind(name: str) -> tuple[str, str]:
    """Return what a name is without its numbers, and its suffix."""
    stem, suffix = os.path.splitext(name)
    return re.sub(r"\d+", "#", stem), suffix.lower().replace("jpeg", "jpg")


def _numbers_in(name: str) -> list[int]:
    """Return the sort key that puts `frame_2.jpg` before `frame_10.jpg`."""
    return [int(digits[:18]) for digits in re.findall(r"\d+", os.path.splitext(name)[0])]


def _advice(name: str) -> str:
    """Say how the frames that are numbered like a name are chosen."""
    stem, suffix = os.path.splitext(name)
    before, digits, after = re.findall(r"(.*?)(\d+)(\D*)$", stem, re.DOTALL)[0]
    width = f"0{len(digits)}" if digits.startswith("0") else ""
    template = f"{before}%{width}d{after}{suffix}"  # braces would need quotes in a command line
    return f"choose with a template, {short(template)}: data.frame_template, or FOLDER/TEMPLATE"


def _gap(frames: Sequence[str]) -> str:
    """Name the first number that is missing between the frames."""
    numbers = [each[-1] for name in frames if (each := _numbers_in(name))]
    missing = next((a + 1 for a, b in pairwise(numbers) if b > a + 1), None)
    return "" if missing is None else f", without number {missing}"
