"""Render what was found about a data set as one self-contained HTML page.

Order: numbers and what to look at, classes with clips, copies, sizes and rates and lengths,
unreadable and missing videos, settings.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from video_mvit.evaluation.report import page_environment
from video_mvit.files import replace_atomically
from video_mvit.inspection.clips import ClassShare, ClipPair
from video_mvit.inspection.copies import Copies
from video_mvit.inspection.films import Film, make_films
from video_mvit.inspection.videos import Split

MAX_NAMES = 1000  # of broken or missing videos, and groups of copies, that are listed
FEW_CLASSES = 12  # more of them scroll in a window of their own
MAX_PLACES = 20  # of a group of copies
MAX_KINDS = 8  # rows of a table of sizes, rates or codecs
NUM_BINS = 10  # of a histogram of lengths
MARK = '<meta name="generator" content="video-mvit browse">'


class ShownClip(NamedTuple):
    """A clip of a class: its video, before and after augmentation, and its label."""

    video: str
    before: Film | None
    after: Film | None
    target: tuple[ClassShare, ...]


class ClassRow(NamedTuple):
    """A class: its videos in each split, and some clips."""

    name: str
    counts: tuple[int, ...]
    clips: tuple[ShownClip, ...]


class ShareRow(NamedTuple):
    """A row of a table: how many of the opened videos of each split have a property."""

    name: str
    counts: tuple[int, ...]
    share: float  # of all opened videos


class BadVideo(NamedTuple):
    split: str
    video: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that the page shows. `settings` are texts by name; `copies` None: not looked for."""

    root: str
    splits: Sequence[Split]
    pairs: Sequence[ClipPair]
    copies: Sequence[Copies] | None
    clip_s: float  # seconds of a clip
    settings: Mapping[str, str]


def write_page(path: Path, findings: Findings) -> None:
    """Write the page; a page that was written before is replaced."""
    page = render_page(findings)
    with replace_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def is_page(path: Path) -> bool:
    """Return whether a file is such a page, which may be replaced."""
    try:
        with path.open("rb") as file:
            return MARK.encode() in file.read(1000)
    except OSError:
        return False


def render_page(findings: Findings) -> str:
    """Render the page."""
    splits = findings.splits
    bad = [
        BadVideo(split.name, split.video_name(index), reason)
        for split in splits
        for index, reason in split.unreadable.items()
    ]
    missing = [(split.name, name) for split in splits for name in split.manifest.missing]
    return (
        page_environment("inspection")
        .get_template("browse.html.j2")
        .render(
            findings=findings,
            mark=MARK,
            splits=splits,
            num_videos={split.name: len(split.manifest) for split in splits},
            classes=class_rows(findings),
            warnings=warnings_of(findings),
            copies=findings.copies,
            tables=property_tables(splits),
            bad=bad,
            missing=missing,
            max_names=MAX_NAMES,
            max_places=MAX_PLACES,
            few_classes=FEW_CLASSES,
        )
    )


def class_rows(findings: Findings) -> list[ClassRow]:
    """Return a row for each class, in the order of the labels."""
    train = findings.splits[0]
    names = train.manifest.class_names
    counts = [np.bincount(split.manifest.labels, minlength=len(names)) for split in findings.splits]
    films = make_films([clip for pair in findings.pairs for clip in (pair.before, pair.after)])
    clips: dict[int, list[ShownClip]] = {}
    for number, pair in enumerate(findings.pairs):
        before, after = films[2 * number], films[2 * number + 1]
        shown = ShownClip(train.video_name(pair.video_index), before, after, pair.target)
        clips.setdefault(pair.label, []).append(shown)
    return [
        ClassRow(name, tuple(int(each[label]) for each in counts), tuple(clips.get(label, ())))
        for label, name in enumerate(names)
    ]


def warnings_of(findings: Findings) -> list[str]:
    """Say what to look at before training, in a sentence each."""
    splits = findings.splits
    names = splits[0].manifest.class_names
    found = _about_copies(findings.copies or (), [split.name for split in splits])
    for split in splits:
        if num := len(split.unreadable):
            found.append(f"{_count(num, 'video')} of {split.name} cannot be read.")
        if num := len(split.manifest.missing):
            found.append(f"{_count(num, 'listed video')} of {split.name} {_is(num)} not on disk.")
        empty = [name for i, name in enumerate(names) if i not in set(split.manifest.labels)]
        if empty:
            more = f" and {len(empty) - 3:,} more" if len(empty) > 3 else ""
            found.append(
                f"{len(empty):,} of {len(names):,} classes have no video in {split.name}: "
                f"{', '.join(empty[:3])}{more}."
            )
        short = sum(video.duration_s < findings.clip_s for video in split.opened.values())
        if short and findings.clip_s:
            found.append(
                f"{short:,} of {len(split.opened):,} videos of {split.name} are shorter than a "
                f"clip of {findings.clip_s:.2g} s: their last frame repeats."
            )
    counts = np.bincount(splits[0].manifest.labels, minlength=len(names))
    if (least := int(counts.min())) and counts.max() >= 10 * least:
        found.append(
            f"The largest class has {counts.max():,} training videos, the smallest {least:,}."
        )
    return found


def _about_copies(copies: Sequence[Copies], splits: Sequence[str]) -> list[str]:
    """Count copies by video: those of other splits, of other classes, and the rest."""
    found = []
    for number, split in enumerate(splits):
        for earlier in splits[:number]:
            shared = [each for each in copies if {earlier, split} <= set(each.splits)]
            if num := sum(place.split == split for each in shared for place in each.places):
                sentence = f"{_count(num, 'video')} of {split} {_is(num)} also in {earlier}"
                if earlier == splits[0]:
                    them = "it" if num == 1 else "them"
                    sentence += f": what is measured on {them} is too high"
                found.append(f"{sentence}.")
    several = [each for each in copies if each.num_classes > 1]
    inside = [each for each in copies if len(each.splits) == 1 and each.num_classes == 1]
    for groups, what in (
        (several, "listed under several classes"),
        (inside, "of one split and class"),
    ):
        if groups:
            num = sum(len(each.places) for each in groups)
            found.append(f"{num:,} videos in {_count(len(groups), 'group')} of copies are {what}.")
    return found


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def property_tables(splits: Sequence[Split]) -> dict[str, list[ShareRow]]:
    """Return tables of sizes, rates, lengths and codecs of the videos that were opened."""
    opened = [list(split.opened.values()) for split in splits]
    if not any(opened):
        return {}
    return {
        "size": _kinds([[f"{v.size[1]} x {v.size[0]}" for v in videos] for videos in opened]),
        "rate": _kinds([[v.rate_text for v in videos] for videos in opened]),
        "length": _lengths([[v.duration_s for v in videos] for videos in opened]),
        "codec": _kinds([[v.codec for v in videos] for videos in opened]),
    }


def _kinds(texts: Sequence[Sequence[str]]) -> list[ShareRow]:
    """Count texts, the most common first, rare ones together."""
    counts = [Counter(each) for each in texts]
    total = sum(counts, Counter())
    names = [name for name, _ in total.most_common(MAX_KINDS)]
    rows = [ShareRow(n, tuple(c[n] for c in counts), total[n] / total.total()) for n in names]
    if rest := total.total() - sum(total[name] for name in names):
        others = tuple(sum(c.values()) - sum(c[n] for n in names) for c in counts)
        rows.append(ShareRow(f"{len(total) - len(names):,} others", others, rest / total.total()))
    return rows


def _lengths(lengths: Sequence[Sequence[float]]) -> list[ShareRow]:
    """Count lengths in bins that are wide alike, or the one length of all."""
    everything = np.array([length for each in lengths for length in each])
    low, high = float(everything.min()), float(everything.max())
    if high - low < 0.1:
        return _kinds([[f"{length:.1f} s" for length in each] for each in lengths])
    edges = np.linspace(low, high, NUM_BINS + 1)
    counts = [np.histogram(each, edges)[0] for each in lengths]
    digits = 0 if high - low > 2 * NUM_BINS else 1 if high - low > 2 else 2
    return [
        ShareRow(
            f"{edges[i]:,.{digits}f} to {edges[i + 1]:,.{digits}f} s",
            tuple(int(each[i]) for each in counts),
            float(sum(each[i] for each in counts)) / len(everything),
        )
        for i in range(NUM_BINS)
    ]
