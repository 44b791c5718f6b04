"""What a part of a condition becomes: a type, and a closure over the raw rows that gives its value or None for NULL.

The closures of columns and literals are made for each shape of operands, since they run once for every change: a
generic one costs another call for each column.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pgevents.condition.error import Unsent
from pgevents.condition.kind import BOOL
from pgevents.wal import Row

Read = Callable[[Row | None, Row | None], Any]
Decode = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Term:
    """``constant``: ``value`` is what ``read`` gives for every row. ``column`` is (side, name) of what is a column as
    it stands, and ``decode`` makes its value of what the plug-in printed; None where that is the value.
    ``ordered``: a text that is compared by COLLATE "C".
    """

    oid: int
    read: Read
    constant: bool = False
    value: Any = None
    column: tuple[str, str] | None = None
    decode: Decode | None = None
    ordered: bool = False


def constant(value: Any, oid: int, *, ordered: bool = False) -> Term:
    return Term(oid, lambda _new, _old: value, constant=True, value=value, ordered=ordered)


def column(side: str, name: str, oid: int, decode: Decode | None, *, ordered: bool = False) -> Term:
    read = _sided(side, _mapped_column(f"{side}.{name}", name, decode))
    return Term(oid, read, column=(side, name), decode=decode, ordered=ordered)


def mapped(term: Term, function: Decode, oid: int) -> Term:
    """``function`` of a value that is not NULL; NULL stays NULL."""
    if term.constant:
        return constant(None if term.value is None else function(term.value), oid, ordered=term.ordered)
    if term.column:
        side, name = term.column
        return column(side, name, oid, _composed(term.decode, function), ordered=term.ordered)
    read = term.read

    def run(new: Row | None, old: Row | None) -> Any:
        value = read(new, old)
        return None if value is None else function(value)

    return Term(oid, run, ordered=term.ordered)


def combined(function: Callable[[Any, Any], Any], left: Term, right: Term, oid: int = BOOL) -> Term:
    """``function`` of two values; NULL where one is."""
    if (left.constant and left.value is None) or (right.constant and right.value is None):
        return constant(None, oid)
    if left.constant and right.constant:
        return constant(function(left.value, right.value), oid)
    if left.column and right.constant:
        side, name = left.column
        return Term(oid, _sided(side, _column_and_value(f"{side}.{name}", name, left.decode, function, right.value)))
    return Term(oid, _pair(function, left.read, right.read))


def _composed(first: Decode | None, second: Decode) -> Decode:
    if first is None:
        return second

    def decode(raw: Any) -> Any:
        value = first(raw)
        return None if value is None else second(value)

    return decode


def _sided(side: str, read: Read) -> Read:
    """``read`` looks at its first row."""
    return read if side == "new" else lambda new, old: read(old, new)


def _mapped_column(label: str, name: str, decode: Decode | None) -> Read:
    def plain(row: Row | None, _other: Row | None) -> Any:
        if row is None:
            return None
        try:
            return row[name]
        except KeyError:
            raise Unsent(label) from None

    def decoded(row: Row | None, _other: Row | None) -> Any:
        if row is None:
            return None
        try:
            raw = row[name]
        except KeyError:
            raise Unsent(label) from None
        return None if raw is None else decode(raw)  # type: ignore[misc]

    return plain if decode is None else decoded


def _column_and_value(
    label: str, name: str, decode: Decode | None, function: Callable[[Any, Any], Any], value: Any
) -> Read:
    def plain(row: Row | None, _other: Row | None) -> Any:
        if row is None:
            return None
        try:
            raw = row[name]
        except KeyError:
            raise Unsent(label) from None
        return None if raw is None else function(raw, value)

    def decoded(row: Row | None, _other: Row | None) -> Any:
        if row is None:
            return None
        try:
            raw = row[name]
        except KeyError:
            raise Unsent(label) from None
        if raw is None:
            return None
        found = decode(raw)  # type: ignore[misc]
        # What is read from a document may not be there.
        return None if found is None else function(found, value)

    return plain if decode is None else decoded


def _pair(function: Callable[[Any, Any], Any], left: Read, right: Read) -> Read:
    def run(new: Row | None, old: Row | None) -> Any:
        # Both before NULL is looked for, as PostgreSQL does: either may fail.
        first, second = left(new, old), right(new, old)
        return None if first is None or second is None else function(first, second)

    return run
