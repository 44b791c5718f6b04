"""What is known of changes that are not published one by one: how many of each table, and in a summary which."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from pgevents.wal import IDENTITY_FULL, Change, Outline, Relation, Row

_MOST_TABLES = 10
"""So many are named in a log line of one filter."""


class Skipped(NamedTuple):
    """The record of one transaction that a rule took out of the stream, whole or in part.

    ``by`` and ``application`` are who marked it, by the mark's own words. ``rows`` counts what is not published, by
    operation and table. ``from_seq`` is the number of the first such change, 0 where there was none.
    """

    rule: str
    action: str
    reason: str
    by: str
    application: str
    rows: dict[Outline, int]
    from_seq: int


class Summary(NamedTuple):
    """One table's part of a summarised transaction.

    ``operations`` counts rows. ``first`` and ``last`` are the least and greatest key, or None where keys have no
    order or there are none. ``columns`` holds the columns that updates changed, None where that is not known.
    """

    relation: Relation
    operations: dict[str, int]
    first: dict[str, Any] | None
    last: dict[str, Any] | None
    columns: tuple[str, ...] | None


@dataclass(slots=True)
class Counts:
    """What the rules did, over all sessions: transactions and rows by skip rule, events by filter and table."""

    transactions: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    filtered: Counter[tuple[str, str]] = field(default_factory=Counter)
    late_marks: int = 0
    malformed_marks: int = 0
    overruled_marks: int = 0

    def skipped(self, rule: str, rows: int) -> None:
        self.transactions[rule] += 1
        self.rows[rule] += rows

    def said(self) -> str:
        """What was done, as the words of a log line; nothing where nothing was."""
        said = {
            "skipped": self.transactions.total(),
            "skipped_rows": self.rows.total(),
            "filtered": self.filtered.total(),
            "late_marks": self.late_marks,
            "malformed_marks": self.malformed_marks,
            "overruled_marks": self.overruled_marks,
        }
        return "".join(f" {name}={count}" for name, count in said.items() if count)

    def by_rule(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """A log line for each rule that took something out: its message and its fields."""
        for rule, transactions in self.transactions.items():
            yield "skipped by rule", {"rule": rule, "transactions": transactions, "rows": self.rows[rule]}
        of_rule: dict[str, Counter[str]] = defaultdict(Counter)
        for (rule, table), changes in self.filtered.items():
            of_rule[rule][table] += changes
        for rule, tables in of_rule.items():
            most = dict(tables.most_common(_MOST_TABLES))
            yield "filtered by rule", {"rule": rule, "changes": tables.total(), "tables": most}


class Digest:
    """A summary in the making. Its size does not grow with the rows."""

    __slots__ = ("_changed", "_first", "_key", "_last", "_operations", "_ordered", "_relation")

    def __init__(self, relation: Relation) -> None:
        self._operations: Counter[str] = Counter()
        self._first: _Key | None = None
        self._last: _Key | None = None
        self._changed: set[str] | None = set()
        self._ordered = True
        self._relation = relation
        self._key = _key_of(relation)

    def add(self, change: Change) -> None:
        op, relation, new, old = change
        if relation is not self._relation:
            self._learn(relation)
        self._operations[op] += 1
        if op == "update" and new is not None:
            self._compare(new, old)
        for row in (new, old):
            if row is not None and self._ordered:
                self._widen(row)

    def truncated(self) -> None:
        self._operations["truncate"] += 1

    def _learn(self, relation: Relation) -> None:
        """The table's shape has changed. Keys of another kind are not compared with those before."""
        if _key_types(relation) != _key_types(self._relation):
            self._ordered = False
        self._relation, self._key = relation, _key_of(relation)

    def _compare(self, new: Row, old: Row | None) -> None:
        if self._changed is None:
            return
        if old is None or self._relation.identity != IDENTITY_FULL:
            self._changed = None
            return
        self._changed.update(name for name, value in new.items() if old.get(name) != value)

    def _widen(self, row: Row) -> None:
        try:
            values = [(rank(row[name]), convert(row[name])) for name, rank, convert in self._key]
            key = (tuple([rank for rank, _ in values]), tuple([shown for _, shown in values]))
            if self._first is None or key[0] < self._first[0]:
                self._first = key
            if self._last is None or key[0] > self._last[0]:
                self._last = key
        except KeyError:  # an old tuple without its key
            return
        except (TypeError, ValueError, ArithmeticError):  # a NULL, or a numeric that is none
            self._ordered = False

    def summary(self) -> Summary:
        names, changed = self._relation.names, self._changed
        return Summary(
            self._relation,
            dict(self._operations),
            self._named(self._first),
            self._named(self._last),
            None if changed is None else tuple(name for name in names if name in changed),
        )

    def _named(self, key: "_Key | None") -> Row | None:
        names = self._relation.key
        return dict(zip(names, key[1], strict=True)) if key and names and self._ordered else None


_Key = tuple[tuple[Any, ...], tuple[Any, ...]]
"""The values of a key as they are compared, and as they are shown."""

# Types whose values compare in Python as they do in PostgreSQL, or nearly: text by code point.
_RANKS: dict[int, Callable[[Any], Any]] = {
    **dict.fromkeys((20, 21, 23), int),
    1700: Decimal,
    **dict.fromkeys((25, 1043, 1042, 2950, 1082, 1114, 1184), str),
}
"""By oid: int8, int2, int4; numeric; text, varchar, char, uuid, date, timestamp, timestamptz."""


def _key_types(relation: Relation) -> list[tuple[str, int]]:
    types = dict(relation.columns)
    return [(name, types[name]) for name in relation.key]


def _key_of(relation: Relation) -> tuple[tuple[str, Callable[[Any], Any], Callable[[Any], Any]], ...]:
    shown, types = dict(relation.converters), _key_types(relation)
    return tuple((name, _RANKS.get(oid, _unranked), shown.get(name, _same)) for name, oid in types)


def _unranked(_: Any) -> Any:
    raise TypeError


def _same(value: Any) -> Any:
    return value
