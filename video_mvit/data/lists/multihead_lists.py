"""Lists of videos with one class in each of several heads: columns named by a header, or JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from video_mvit.class_heads import check_head_names, classes_of_heads, heads_of
from video_mvit.data.lists.copies import ListingWithCopies
from video_mvit.data.lists.list_columns import ID_NAMES, PATH_NAMES, ROW_NAMES, plain_name
from video_mvit.data.lists.list_pairs import ListPairSource, places_of, take_even_part
from video_mvit.data.lists.list_table import Table, has_file_suffix, read_tables
from video_mvit.data.lists.multihead_manifest import HeadsRow, MultiHeadManifest, find_heads
from video_mvit.data.lists.multilabel_lists import LabelList, ListedLabels, number_labels
from video_mvit.data.lists.text import check_same_classes, quote, read_class_names, read_json
from video_mvit.errors import UserError
from video_mvit.text import short

EXPECTED = (
    "expected a header such as 'path,verb,noun' above rows such as 'a.mp4,open,door', or JSON "
    '[{"path": "a.mp4", "verb": "open", "noun": "door"}]'
)


class HeadsList(NamedTuple):
    """A list as written: heads, and rows of a path and the text of a class for each head."""

    heads: tuple[str, ...]
    rows: Sequence[ListedLabels]
    unit: Literal["line", "entry"]


@dataclass(frozen=True, kw_only=True)
class MultiHeadSource(ListPairSource):
    """A list of videos with one class in each head; see `read_heads_list` for its forms.

    `heads` chooses columns and their order; None: all but the path. Classes are names, or whole
    numbers; `classes` are files with a class name per line, by head, in the order of the numbers.
    """

    heads: Sequence[str] | None = None
    classes: Mapping[str, str] | None = None

    def read(self, class_names: Sequence[str] | None = None) -> MultiHeadManifest:
        path, is_divided = self.choose_list()
        known = None if class_names is None else heads_of(class_names)
        chosen = self.heads if known is None or self.heads else list(known)
        listed = read_heads_list(path, chosen)
        if known is not None and sorted(known) != sorted(listed.heads):
            raise UserError(
                f"{path} has the heads {', '.join(listed.heads)}; the model or training list has "
                f"{', '.join(known)}"
            )
        given = {} if known is None else classes_of_heads(class_names or (), known)
        if unknown := [head for head in self.classes or () if head not in listed.heads]:
            raise UserError(
                f"data.classes names classes of {short(unknown[0])}; the heads are "
                f"{', '.join(listed.heads)}"
            )
        classes, labels = {}, []
        for place, head in enumerate(listed.heads):
            names, of_head = self._number(path, listed, place, given.get(head))
            classes[head] = names
            labels.append(of_head)
        numbered = [(row.number, row.path) for row in listed.rows]
        root, places = places_of(path, self.folder, numbered, listed.unit)
        rows = [
            HeadsRow(row.number, row.path, each, (place.path,), place.part)
            for row, place, each in zip(listed.rows, places, zip(*labels, strict=True), strict=True)
        ]
        listing = ListingWithCopies(root, frozenset(place.path for place in places))
        whole = find_heads(path, rows, classes, listing, listed.unit).in_class_order(class_names)
        return take_even_part(whole, self.part, self.division, path) if is_divided else whole

    def _number(
        self, path: str, listed: HeadsList, place: int, known: Sequence[str] | None
    ) -> tuple[tuple[str, ...], list[int]]:
        """Return the classes of a head, in order, and the label of each row."""
        head, given = listed.heads[place], known
        if self.classes is not None and (file := self.classes.get(head)) is not None:
            given = read_class_names(file)
            check_same_classes(file, given, known)
        one = LabelList(
            rows=[row._replace(labels=(row.labels[place],)) for row in listed.rows],
            unit=listed.unit,
        )
        names, rows = number_labels(f"{path} head {short(head)}", one, given)
        return names, [min(row.labels) for row in rows]


def read_heads_list(path: str, heads: Sequence[str] | None = None) -> HeadsList:
    """Read a list: JSON, or rows below a header that names a column of paths and one for each head.

    Columns are separated by tabs, semicolons, commas or spaces. Raises `UserError` with the line of
    a row without a path or without a class in one of the heads.
    """
    if heads is not None:
        check_head_names(heads, "data.heads")
    listed = _read_json(path, heads) if path.lower().endswith(".json") else _read_table(path, heads)
    check_head_names(listed.heads, path)
    for row in listed.rows:
        place = f"{path} {listed.unit} {row.number}"
        for head, label in zip(listed.heads, row.labels, strict=True):
            if not label:
                raise UserError(f"{place}: {quote(row.path)} has no {head}")
    return listed


def _read_table(path: str, heads: Sequence[str] | None) -> HeadsList:
    problem: UserError | None = None
    for table in read_tables(path, exists=lambda _: False):
        if isinstance(table, UserError):
            problem = problem or table
            continue
        header = table.rows[0].fields
        paths = _path_columns(header, heads or ())
        if len(paths) != 1 or any(map(has_file_suffix, header)):
            problem = problem or UserError(
                f"{path} line {table.rows[0].number}: {quote(table.rows[0].text)} is not a header "
                f"with one column of paths; {EXPECTED}"
            )
            continue
        return _named(table, paths[0], heads)
    raise problem or UserError(f"{path} lists no videos; {EXPECTED}")


def _path_columns(header: Sequence[str], heads: Sequence[str]) -> list[int]:
    """Return the columns that are named like paths and are no heads."""
    others = [i for i, name in enumerate(header) if name not in heads]
    paths = [i for i in others if plain_name(header[i]) in PATH_NAMES]
    return paths or [i for i in others if plain_name(header[i]) in ID_NAMES]


def _named(table: Table, path: int, heads: Sequence[str] | None) -> HeadsList:
    header = table.rows[0].fields
    place = f"{table.path} line {table.rows[0].number}"
    if heads is None:
        heads = _usual_heads(place, [name for i, name in enumerate(header) if i != path])
    for head in heads:
        if list(header).count(head) != 1:
            raise UserError(
                f"{place} has no column {short(head)}, or two; its columns are "
                f"{', '.join(map(short, header[:6]))}"
            )
    columns = [list(header).index(head) for head in heads]
    rows = [
        ListedLabels(row.number, row.fields[path], tuple(row.fields[i] for i in columns))
        for row in table.rows[1:]
    ]
    if not rows:
        raise UserError(f"{table.path} lists no videos, only a header")
    return HeadsList(tuple(heads), rows, "line")


def _read_json(path: str, heads: Sequence[str] | None) -> HeadsList:
    content = read_json(path, list)
    if not content or not isinstance(content[0], dict):
        raise UserError(f"{path} holds no videos; {EXPECTED}")
    if heads is None:
        heads = _usual_heads(f"{path} entry 1", [name for name in content[0] if name != "path"])
    rows = []
    for number, entry in enumerate(content, 1):
        values = entry if isinstance(entry, dict) else {}
        texts = [_text(path, number, values, name) for name in ("path", *heads)]
        rows.append(ListedLabels(number, texts[0], tuple(texts[1:])))
    return HeadsList(tuple(heads), rows, "entry")


def _usual_heads(place: str, names: Sequence[str]) -> Sequence[str]:
    """Return columns beside that of paths; raises `UserError` for one that is rarely a head."""
    if strange := [name for name in names if plain_name(name) in ROW_NAMES]:
        raise UserError(
            f"{place} has a column {short(strange[0])}, which is rarely a head; choose the heads, "
            "such as data.heads=[verb,noun] (a part of a video is a path such as a.mp4#t=3.5,7.25)"
        )
    return names


def _text(path: str, number: int, values: Mapping[str, Any], name: str) -> str:
    """Return a field of an entry, a text or a whole number, as text."""
    value = values.get(name)
    if type(value) not in ((str,) if name == "path" else (str, int)):
        raise UserError(f"{path} entry {number} has no {short(name)}; {EXPECTED}")
    return str(value).strip()
