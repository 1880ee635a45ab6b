"""The columns that the option `columns` names: by their place in each row, or by a header."""

from collections.abc import Mapping, Sequence

from video_mvit.data.lists.list_columns import (
    IGNORED,
    LABEL_NAMES,
    MAX_LISTED,
    PATH_NAMES,
    ROLES,
    Columns,
    names_columns,
    plain_name,
)
from video_mvit.data.lists.list_table import Table, is_numeric
from video_mvit.data.lists.text import quote
from video_mvit.errors import UserError
from video_mvit.text import short

# Of each column, or of some columns of a header by their names.
Roles = Sequence[str] | Mapping[str, str]


def parse_columns(columns: str | Roles) -> tuple[str, ...] | dict[str, str]:
    """Check the option `columns`: path, label and others, `_` for what is ignored.

    A mapping names columns of the header: {path: file, label: activity}.
    """
    names = columns.split(",") if isinstance(columns, str) else columns
    roles = tuple(str(name).strip() for name in names)
    known = [role for role in roles if role != IGNORED]
    if set(known) - set(ROLES) or len(set(known)) != len(known):
        raise UserError(
            f"columns is {','.join(roles)!r}; it names each column of the list once: "
            f"{', '.join(ROLES)}, or {IGNORED} for one that is ignored"
        )
    if not {"path", "label"} <= set(known):
        raise UserError(f"columns is {','.join(roles)!r}; it has to name path and label")
    if ("start" in known) != ("end" in known):
        raise UserError(f"columns is {','.join(roles)!r}; a part of a video has a start and an end")
    if isinstance(columns, Mapping):
        return {role: str(columns[role]) for role in roles}
    return roles


def named_columns(table: Table, named: Roles) -> Columns:
    """Return the columns that the option `columns` names; raises `UserError` if it does not fit."""
    first = table.rows[0]
    roles = (
        roles_of_header(table.path, first.fields, named) if isinstance(named, Mapping) else named
    )
    if isinstance(named, Mapping) and len(table.rows) == 1:
        raise UserError(f"{table.path} lists no videos, only a header")
    if len(roles) != table.num_columns:
        raise UserError(
            f"columns names {len(roles)} columns, but {table.path} line {first.number}: "
            f"{quote(first.text)} has {table.num_columns}"
        )
    places = {role: i for i, role in enumerate(roles) if role in ROLES}
    labels = table.column(places["label"])
    has_numbers = all(is_numeric(text) for text in labels[1:]) and bool(labels[1:])
    is_header = (has_numbers and not is_numeric(labels[0])) or names_columns(first.fields)
    is_header = is_header or isinstance(named, Mapping)
    return Columns(
        path=places["path"],
        label=places["label"],
        offset=places.get("offset"),
        num_frames=places.get("num_frames"),
        start=places.get("start"),
        end=places.get("end"),
        first_row=int(is_header),
        has_numbers=all(is_numeric(text) for text in labels[is_header:]),
    )


def roles_of_header(place: str, header: Sequence[str], named: Mapping[str, str]) -> list[str]:
    """Return the role of each column of a header; raises `UserError` for a name that is not there.

    Args:
        place: where the header is, for the message.
        named: role -> name of its column.
    """
    for role, name in named.items():
        if list(header).count(name) != 1:
            raise UserError(
                f"{place} has no column {short(name)} for {role}; its columns are "
                f"{', '.join(map(short, header[:MAX_LISTED]))}; name them with data.columns, such "
                "as {path: file, label: activity}"
            )
    return [next((role for role in named if named[role] == name), IGNORED) for name in header]


def usual_columns(place: str, header: Sequence[str]) -> dict[str, str]:
    """Return role -> column for a header with usual names of path and label; raises `UserError`."""
    found = {}
    for role, usual in (("path", PATH_NAMES), ("label", LABEL_NAMES)):
        named = [name for name in header if plain_name(name) == role]
        named = named or [name for name in header if plain_name(name) in usual]
        found[role] = named[0] if len(named) == 1 else role
    roles_of_header(place, header, found)
    return found
