"""Divide videos into those that are trained on and those that are validated on.

Clips of one source video stay together, and each class is divided. Without options, a hash of the
file name decides, so that new videos never move old ones. With a share, a seed or folds, each class
is divided as exactly as its sources allow.
"""

import hashlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal, TypeVar

from video_mvit.data.lists.manifest import EMPTY, Manifest
from video_mvit.data.reading.formats import VIDEO_SUFFIXES
from video_mvit.data.reading.frame_names import PART, is_template
from video_mvit.data.reading.segments import SEGMENT
from video_mvit.errors import UserError
from video_mvit.text import some_of

logger = logging.getLogger(__name__)

ManifestT = TypeVar("ManifestT", bound=Manifest)
NO_CLASS = -1  # stands for the videos without any
SHARE = 0.2  # fraction of the source videos of a class
MAX_FOLDS = 1000
# Suffix of a clip of a source video: a marked number (v_Fencing_g07_c01,
# talk-part2), or start and end (Kinetics' XYZ_000010_000020).
MARKED = re.compile(
    r"[ _.-]+(?:c|clip|part|pt|seg|segment|scene|shot|chunk|cut)[ _.-]?\d+$|_\d{6}_\d{6}$",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"(.*)[_-]\d{1,3}", re.DOTALL)
Groups = Mapping[str, Mapping[int, int]]  # source video -> label -> its number of videos


def source_of(name: str) -> str:
    """Guess the source video of a clip from its name, a path below its class folder.

    A short number at the end counts clips if the rest has letters and a number of its own
    (game3_012); otherwise it belongs to the video (push_012, 2024-05-01).
    """
    for form in (SEGMENT, PART):  # a part of a video, some frames of a folder
        if match := form.fullmatch(name):
            name = match["whole"]
    folder, _, last = name.rpartition("/")
    stem = folder if is_template(last) else os.path.splitext(name)[0]
    if os.path.splitext(stem)[1].lower() in VIDEO_SUFFIXES:  # a copy of 1.mov, 1.mov.mp4
        stem = os.path.splitext(stem)[0]
    if match := MARKED.search(stem):
        return stem[: match.start()]
    match = NUMBERED.fullmatch(stem)
    is_clip = match and re.search(r"[^\W\d_]", match[1]) and re.search(r"\d", match[1])
    return match[1] if match and is_clip else stem


def held_out(sources: Iterable[str]) -> set[str]:
    """Choose the held-out source videos of one class: about a fifth, at least one, never all.

    Those with a SHA-1 in the lowest fifth of its range. If that is none or all, the lowest is held
    out or the highest is not; only this one may change sides when videos are added. Of a class with
    a single source, nothing is held out.
    """
    places = sorted((_place(source), source) for source in set(sources))
    if len(places) < 2:
        return set()
    below = sum(place < SHARE for place, _ in places)
    return {source for _, source in places[: min(max(below, 1), len(places) - 1)]}


def _place(source: str) -> float:
    """Hash a text to a number in [0, 1)."""
    content = source.encode("utf-8", "surrogateescape")
    return int(hashlib.sha1(content, usedforsecurity=False).hexdigest()[:13], 16) / 16**13


@dataclass(frozen=True, kw_only=True)
class DivisionOptions:
    """The options of a division; None: not given."""

    val_share: float | None = None
    val_seed: int | None = None
    num_folds: int | None = None
    fold: int | None = None


@dataclass(frozen=True, kw_only=True)
class DividedSource(DivisionOptions):
    """What sources share whose videos are divided where there is no list to validate on."""

    @cached_property
    def division(self) -> "Division":
        return Division(**{each.name: getattr(self, each.name) for each in fields(DivisionOptions)})


@dataclass(frozen=True, kw_only=True)
class Division(DivisionOptions):
    """How videos are divided: a share to validate on, or one of several folds.

    Where nothing is given, `held_out` chooses a fifth. Else `val_seed` (0 if not given) draws the
    source videos of `val_share` of the videos of each class (a fifth if not given), or of the fold
    number `fold` of `num_folds`, counted from 0. The folds of a seed do not overlap.
    """

    def __post_init__(self) -> None:
        if self.val_share is not None and not 0 < self.val_share < 1:
            raise UserError(f"data.val_share {self.val_share:g} is not between 0 and 1")
        if self.val_seed is not None and self.val_seed < 0:
            raise UserError(f"data.val_seed {self.val_seed} must be 0 or more")
        if self.num_folds is None:
            if self.fold is not None:
                raise UserError(f"data.fold={self.fold} needs data.num_folds, such as 5")
            return
        if self.val_share is not None:
            raise UserError("data.val_share and data.num_folds exclude each other; remove one")
        if not 2 <= self.num_folds <= MAX_FOLDS:
            raise UserError(f"data.num_folds {self.num_folds} is not from 2 to {MAX_FOLDS:,}")
        if self.fold is None or not 0 <= self.fold < self.num_folds:
            raise UserError(
                f"data.num_folds={self.num_folds} needs data.fold, the one to validate on, from 0 "
                f"to {self.num_folds - 1}" + ("" if self.fold is None else f", not {self.fold}")
            )

    @property
    def given(self) -> str:
        """Return the options that were given, in words; "" for none."""
        return " ".join(f"data.{name}={v:g}" for name, v in vars(self).items() if v is not None)

    def choose(self, groups: Groups) -> set[str]:
        """Choose the source videos to validate on."""
        by_label: dict[int, set[str]] = defaultdict(set)
        for source, labels in groups.items():
            for label in labels:
                by_label[label].add(source)
        seed = self.val_seed or 0
        order = sorted(groups, key=lambda source: _place(f"{seed}:{source}"))
        if self.num_folds is not None:
            bins = _deal(groups, order, [1 / self.num_folds] * self.num_folds)
            chosen = {source for source in order if bins[source] == self.fold}
        else:
            share = SHARE if self.val_share is None else self.val_share
            bins = _deal(groups, order, [share, 1 - share])
            chosen = {source for source in order if bins[source] == 0}
            for sources in by_label.values():
                _validate_on_one(sources, chosen, by_label, groups)
        # Every class keeps a source to train on.
        for sources in by_label.values():
            if sources <= chosen:
                chosen.remove(_smallest(sources, groups))
        return chosen


def _deal(groups: Groups, order: Sequence[str], weights: Sequence[float]) -> dict[str, int]:
    """Deal sources to bins, so that each bin gets its weight of the videos of each class.

    Each source in turn goes where the sum of squared deviations becomes the least.
    """
    totals: Counter[int] = Counter()
    for labels in groups.values():
        totals.update(labels)
    excess = [dict.fromkeys(totals, -weight) for weight in weights]  # bin -> label -> share
    bins = {}
    for source in order:
        added = {label: number / totals[label] for label, number in groups[source].items()}
        costs = [sum(a * (a + 2 * each[label]) for label, a in added.items()) for each in excess]
        bins[source] = costs.index(min(costs))
        for label, a in added.items():
            excess[bins[source]][label] += a
    return bins


def _validate_on_one(
    sources: Collection[str],
    chosen: set[str],
    by_label: Mapping[int, Collection[str]],
    groups: Groups,
) -> None:
    """Add a source of a class to those that are `chosen`, if none is and its classes keep one."""
    if chosen.isdisjoint(sources):
        can_go = [
            source
            for source in sources
            if all(len(set(by_label[label]) - chosen) > 1 for label in groups[source])
        ]
        if can_go:
            chosen.add(_smallest(can_go, groups))


def _smallest(sources: Iterable[str], groups: Groups) -> str:
    return min(sources, key=lambda source: (sum(groups[source].values()), _place(source)))


def take_part(
    whole: Manifest, part: Literal["train", "val"], division: Division, place: str
) -> Manifest:
    """Take the videos to train or to validate on; those that are not on disk count for training.

    `place` says in messages where the videos are listed. Raises `UserError` if no video can be held
    out.
    """
    labels = whole.labels.tolist()
    pairs = list(zip(whole.names, labels, strict=True))
    start = _common_folder(whole.names)
    sources = [
        source_of(_below_class(name[start:], whole.class_names[label])) for name, label in pairs
    ]
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for source, label in zip(sources, labels, strict=True):
        counts[source][label] += 1
    if division.given:
        chosen = division.choose(counts)
        is_val = [source in chosen for source in sources]
    else:
        by_label: dict[int, list[str]] = defaultdict(list)
        for source, label in zip(sources, labels, strict=True):
            by_label[label].append(source)
        held = {label: held_out(of_label) for label, of_label in by_label.items()}
        is_val = [source in held[label] for source, label in zip(sources, labels, strict=True)]
    if not any(is_val):
        raise UserError(
            f"none of the {len(whole)} videos in {place} can be held out for validation, since no "
            "class has two source videos; put videos in val/<class>/ and train/<class>/ below "
            "data.root, or list others with data.val_list"
        )
    if part == "train":
        _say(whole, is_val, division, place)
        return whole.take([i for i, is_held in enumerate(is_val) if not is_held])
    found = whole.take([i for i, is_held in enumerate(is_val) if is_held])
    return replace(found, missing=EMPTY)


def take_even_part(
    whole: ManifestT, part: Literal["train", "val"], division: Division, place: str
) -> ManifestT:
    """Take the videos to train or to validate on, of videos that have several classes.

    The division is as even as can be in each class. Clips of one source video stay together; those
    that are not on disk count for training. `place` says in messages where the videos are listed.
    Raises `UserError` if none can be held out.
    """
    sources = [source_of(name) for name in whole.names]
    groups: dict[str, Counter[int]] = {source: Counter() for source in sources}
    for index, source in enumerate(sources):
        groups[source].update(whole.classes_of(index) or [NO_CLASS])
    chosen = division.choose(groups)
    is_val = [source in chosen for source in sources]
    if not any(is_val):
        raise UserError(
            f"none of the {len(whole)} videos in {place} can be held out for validation, since no "
            "class has two source videos; list others with data.val_list"
        )
    if part == "train":
        message = "%s: no list to validate on, so %d of %d videos (%.3g %%) are held out (%s)"
        share = 100 * sum(is_val) / len(is_val)
        how = division.given or "about a fifth of each class; see data.val_share"
        logger.info(message, place, sum(is_val), len(is_val), share, how)
        return whole.take([i for i, is_held in enumerate(is_val) if not is_held])
    return replace(whole.take([i for i, is_held in enumerate(is_val) if is_held]), missing=EMPTY)


def _say(whole: Manifest, is_val: Sequence[bool], division: Division, place: str) -> None:
    """Tell how many videos are held out, of all and of each class, and why these."""
    labels = whole.labels.tolist()
    totals = Counter(labels)
    held = Counter(label for label, is_held in zip(labels, is_val, strict=True) if is_held)
    shares = [100 * held[label] / total for label, total in totals.items() if held[label]]
    low, high = f"{min(shares):.3g}", f"{max(shares):.3g}"
    spread = f"{low} to {high} % of a class" if low != high else "as of each class"
    how = division.given or "about a fifth, chosen by a hash of the file name; see data.val_share"
    logger.info(
        "%s: no list to validate on, so %d of %d videos (%.3g %%, %s) are held out (%s)",
        *(place, sum(is_val), len(labels), 100 * sum(is_val) / len(labels), spread, how),
    )
    whole_classes = sorted(whole.class_names[label] for label in totals if not held[label])
    if not whole_classes:
        return
    if division.num_folds is None:
        why = "have a single source video, which is used for training only"
    else:
        why = "have too few source videos for one in each fold, and none in this one"
    logger.warning("%d classes %s: %s", len(whole_classes), why, some_of(whole_classes))


def _common_folder(names: Iterable[str]) -> int:
    """Return the length of the folder that all names begin with.

    How a list writes its paths (absolute, or from which folder) must not decide what is held out.
    """
    folders = {name.rpartition("/")[0] for name in names}
    common = os.path.commonpath(folders or {""})
    return len(common) + 1 if common else 0


def _below_class(name: str, class_name: str) -> str:
    """Strip the class from `<class>/<video>`."""
    return name.removeprefix(f"{class_name}/")
