"""Maps the columns of a table to their roles in a log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from debias.data.shown import MANY, SEVERAL, listed, matching
from debias.data.tables import Part
from debias.data.text import near, printable, quoted, role_and_column

Chosen = Mapping[str, tuple[str, ...]]  # columns by role


NEEDED = ("query", "item", "click")  # a log must have these


@dataclass(frozen=True)
class Columns:
    """The columns of a table, by role.

    The columns for query, item and click must exist. Any other column may be absent,
    unless you choose its name. None switches a role off. With `query=None`, all
    sessions share one query.

    An optional column that is NULL in every row counts as absent.

    Attributes:
        session: Id of the session; not used if each row is a session.
        query: Name of the query, such as a search text, a page or a slot on a page. A
            session has one query.
        item: Id of the shown item: text, or any whole number. In a list, NULL is
            padding. In lists of a fixed size, which this library writes, -1 is padding
            too.
        click: Whether the item was clicked: 0 or 1, or a bool.
        position: Rank from the top, counted from 1. Without this column, the items of a
            list are assumed to be in order of rank. If each row is an item, ranks
            follow the columns `row` and `column`; without these columns, they follow
            the order of the rows.
        row, column: Row and column on a grid, from 1.
        features: Names and patterns of the feature columns, such as "f_*". A column may
            have any type, and may also hold a list of numbers per item.
        categories: Names and patterns of features to read as categories, whatever their
            type. `features` may contain these columns too.
        numbers: Names and patterns of features to read as numbers, whatever their type.
        label: Grade of the (query, item) pair, from 0.
        timestamp: Time of the session.
        user: Id of the user.
        device: Name of the device. `Reading.devices` lists the devices in the order of
            their codes.
        context: Names and patterns of columns of numbers that describe the session.
        presentation: Columns of text or numbers that describe the presentation of items
            or lists, such as a badge, a media type or a height. Bias towers read
            presentation columns; rankers do not. More than 12 distinct numbers in a
            column are divided into bins. `ClickLog.presentation` holds presentation
            columns by name.
        target: Columns of other user actions on an item, as counts or seconds; NULL
            means no action.
        propensity: Probability, in (0, 1], that the logging policy puts this item at
            this position given the items above it.

    >>> columns = Columns.of(["query=q", "features=f_*,price", "user="])
    >>> columns.query, columns.features, columns.user, columns.item
    ('q', ('f_*', 'price'), None, 'item')
    """

    session: str | None = "session"
    query: str | None = "query"
    item: str = "item"
    click: str = "click"
    position: str | None = "position"
    row: str | None = "row"
    column: str | None = "column"
    features: str | tuple[str, ...] | None = "features"
    label: str | None = "label"
    timestamp: str | None = "timestamp"
    user: str | None = "user"
    device: str | None = "device"
    context: str | tuple[str, ...] | None = "context"
    propensity: str | None = "propensity"
    presentation: str | tuple[str, ...] | None = None
    target: str | tuple[str, ...] | None = None
    categories: str | tuple[str, ...] | None = None
    numbers: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            several = each.name in SEVERAL and isinstance(value, list | tuple)
            for name in value if several else (value,):
                if not isinstance(name, str | None):
                    raise ValueError(
                        f"{each.name} must be the name of a column, got {quoted(name)}"
                    )

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """Parses texts of the form ROLE=COLUMN; the text ROLE= switches a role off.

        The roles features, context, presentation, target, categories and numbers may
        have several columns: repeat the role, or separate the names by commas.

        Raises:
            ValueError: A text does not have the form ROLE=COLUMN, or two columns are
                given for a role that takes only one column.

        >>> Columns.of(["features=f_0", "features=f_1"]).features
        ('f_0', 'f_1')
        """
        known = [field.name for field in fields(cls)]
        given: dict[str, Any] = {}
        for text in texts:
            part, name = role_and_column(text, known)
            before = given.get(part)
            if part in SEVERAL:
                held = (before,) if isinstance(before, str) else before or ()
                names = (*held, *filter(None, name.split(",")))
                given[part] = (names[0] if len(names) == 1 else names) if name else None
            elif before not in (None, name) and name:
                raise ValueError(
                    f"{part} must be one column, got {quoted(before)} and "
                    f"{quoted(name)}"
                )
            else:
                given[part] = name or None
        return cls(**given)


def choose(parts: Sequence[Part], asked: Columns) -> dict[str, tuple[str, ...]]:
    """Finds the columns of each role, which all files must have.

    Raises:
        ValueError: A column is missing, or the rows are sessions in one file and shown
            items in another file. The message names the file and the column.
    """
    chosen = _single(parts[0], asked)
    taken = {column for columns in chosen.values() for column in columns}
    chosen |= _several(parts[0], asked, taken)
    more = [*chosen.get("categories", ()), *chosen.get("numbers", ())]
    if more:
        features = dict.fromkeys([*chosen.get("features", ()), *more])
        chosen["features"] = tuple(features)
    name, names = parts[0].name, parts[0].schema.names
    if not listed(parts[0], chosen) and "session" not in chosen:
        lacks = f"no column session: {near('session', names)}"
        if asked.session is None:
            lacks = "without a session each row is a list, but here it is an item"
        raise ValueError(
            f"{name}: {lacks}; if each row is a shown item, say session=NAME "
            "(with -c at the prompt)"
        )
    for part in parts[1:]:
        _check_alike(part, parts[0], chosen)
    return chosen


def _single(part: Part, asked: Columns) -> dict[str, tuple[str, ...]]:
    """The roles that take a single column."""
    names = part.schema.names
    chosen: dict[str, tuple[str, ...]] = {}
    for field in fields(asked):
        wanted = getattr(asked, field.name)
        if wanted is None or field.name in SEVERAL:
            continue
        if wanted in names:
            chosen[field.name] = (wanted,)
        elif wanted != field.default or field.name in NEEDED:
            absent = [
                role
                for role in NEEDED
                if role != field.name and getattr(asked, role) not in (None, *names)
            ]
            raise ValueError(
                f"{part.name}: no column {printable(wanted)} for {field.name}: "
                f"{near(wanted, names)}; {_todo(part, field.name, absent)}"
            )
    return chosen


def _todo(part: Part, role: str, absent: Sequence[str]) -> str:
    from debias.data.events.roles import tracker_of

    tracker = tracker_of(part.schema)
    if tracker is not None:
        return f"for a log of events, debias import --preset {tracker} comes first"
    named = " ".join(f"{each}=NAME" for each in (role, *absent))
    also = "; query= if the log has no queries" if role == "query" else ""
    return f"say {named} (each with -c at the prompt){also}"


def _several(part: Part, asked: Columns, taken: set[str]) -> dict[str, tuple[str, ...]]:
    """The roles that take several columns."""
    chosen = {}
    for role in SEVERAL:
        wanted = getattr(asked, role)
        if not wanted:  # None, or an empty list
            continue
        patterns = (wanted,) if isinstance(wanted, str) else wanted
        found = matching(patterns, part.schema.names, taken)
        if found is not None:
            chosen[role] = found
            taken = taken | {*found} if role in MANY else taken
        elif wanted != getattr(Columns, role):
            absent = [
                p for p in patterns if not matching([p], part.schema.names, taken)
            ]
            raise ValueError(
                f"{part.name}: no column {printable(absent[0])} for {role}: "
                f"{near(absent[0], part.schema.names)}; say {role}=NAME "
                "(with -c at the prompt)"
            )
    return chosen


def _check_alike(part: Part, first: Part, chosen: Chosen) -> None:
    for role, columns in chosen.items():
        for column in columns:
            if column not in part.schema.names:
                raise ValueError(
                    f"{part.name}: no column {printable(column)} for {role}, but "
                    f"{first.name} has it: {near(column, part.schema.names)}"
                )
    if listed(part, chosen) != listed(first, chosen):
        raise ValueError(
            f"{part.name}: column {chosen['item'][0]}: one of this file and "
            f"{first.name} has a row per session, the other a row per shown item"
        )
