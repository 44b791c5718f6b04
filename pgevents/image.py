"""From the old and new image of a row to its event: compared, completed, masked, converted."""

from dataclasses import dataclass
from typing import Any

from pgevents.columns import ColumnPlan
from pgevents.event import Event, Transaction
from pgevents.wal import IDENTITY_FULL, Change, Converter, Relation, Row, made


# Not a NamedTuple: its attributes are read for every change, and those of slots in a third of the time.
@dataclass(frozen=True, slots=True)
class Layout:
    """What is decided about the rows of one relation: ``names`` are the columns it has, ``shown`` those published.

    ``key`` is what is shown of ``relation_key``.
    """

    names: tuple[str, ...]
    shown: frozenset[str]
    relation_key: tuple[str, ...]
    key: tuple[str, ...]
    full: bool
    converters: tuple[tuple[str, Converter], ...]
    columns: ColumnPlan | None


def layout_of(relation: Relation, columns: ColumnPlan | None) -> Layout:
    """The layout of a relation's events under a plan for its columns."""
    shown = frozenset(relation.names if columns is None else columns.names)
    final = frozenset[str]() if columns is None else columns.raw
    return Layout(
        names=relation.names,
        shown=shown,
        relation_key=relation.key,
        key=tuple(name for name in relation.key if name in shown),
        full=relation.identity == IDENTITY_FULL,
        converters=tuple(each for each in relation.converters if each[0] in shown and each[0] not in final),
        columns=columns,
    )


def rows_of(change: Change, layout: Layout) -> tuple[Row | None, Row | None]:
    """The raw images for a condition, with what the plug-in left out because the other one has it.

    That is unchanged TOAST under FULL, and with pgoutput an old key that did not change. The rows are not changed.
    """
    _, _, new, old = change
    if new is not None and change.op == "update":
        if old is None:
            old = {name: new[name] for name in layout.relation_key if name in new}
        elif layout.full and len(new) != len(layout.names):
            new = {**old, **new}
    return new, old


def row_event(change: Change, layout: Layout, transaction: Transaction, seq: int) -> Event:
    """The event of an insert, update or delete. The rows of ``change`` are used up."""
    op, relation, new, old = change
    missing: list[str] = []
    changed: list[str] | None = None
    columns = layout.columns
    if new is not None:
        new, missing, changed = _compared(new, old, layout)
        if columns is not None:
            columns.apply(new)
            missing = [name for name in missing if name in layout.shown]
            changed = changed and [name for name in changed if name in layout.shown]
        _convert(new, layout.converters)
    if old is not None:
        if columns is not None:
            columns.apply(old)
        _convert(old, layout.converters)
    elif op == "update" and new is not None:
        # pgoutput leaves out an old key that did not change.
        old = {name: new[name] for name in layout.key}
    return made(
        Event,
        (
            f"{transaction.id_prefix}{seq}",
            op,
            relation.schema,
            relation.name,
            _key(layout.key, new, old),
            new,
            old,
            old is not None and layout.full,
            changed,
            missing,
            transaction,
            seq,
            None,
            None,
            None,
        ),
    )


def _compared(new: Row, old: Row | None, layout: Layout) -> tuple[Row, list[str], list[str] | None]:
    """The new image as complete as it can be, the columns it lacks, and those that changed where that is known."""
    if old is None or not layout.full:
        return new, [] if len(new) == len(layout.names) else [name for name in layout.names if name not in new], None
    if len(new) != len(layout.names):
        new = _filled(new, old, layout.names)
    # Compared as PostgreSQL printed them: embedded JSON has no equality of its own.
    return new, [], [name for name in new if new[name] != old[name]]


def _filled(new: Row, old: Row, names: tuple[str, ...]) -> Row:
    """``new`` in the table's order, its unchanged TOAST values taken from the full old image."""
    return {name: new[name] if name in new else old[name] for name in names}


def _convert(row: Row, converters: tuple[tuple[str, Converter], ...]) -> None:
    for name, convert in converters:
        value = row.get(name)
        if value is not None:
            row[name] = convert(value)


def _key(key: tuple[str, ...], new: Row | None, old: Row | None) -> dict[str, Any] | None:
    """The row's identity after the change, before it where the row is gone; None for a table without one."""
    if not key:
        return None
    if new is None:
        return {name: old[name] for name in key} if old else None
    return {name: new[name] if name in new or old is None else old[name] for name in key}
