"""What formats need of an event's rows and its commit."""

from functools import lru_cache
from typing import Any, NamedTuple

from orjson import Fragment, dumps

from pgevents.event import Event, Transaction
from pgevents.lsn import Lsn
from pgevents.wal import Row

_INT64_END = 1 << 63
_MAY_HOLD_JSON = frozenset({Fragment, list})


class Commit(NamedTuple):
    """When a transaction was committed: its LSN as a number, and the time since 1970, None where it is unknown."""

    lsn: int
    time_ms: int | None = None
    time_us: int | None = None
    time_ns: int | None = None


# Events of one transaction come one after the other.
@lru_cache(maxsize=4)
def commit_of(transaction: Transaction) -> Commit:
    """A time in nanoseconds after the year 2262 has no 64 bits, and is unknown."""
    lsn, committed_at = int(Lsn.parse(transaction.lsn)), transaction.committed_at
    if committed_at is None:
        return Commit(lsn)
    # ISO 8601 in UTC, always with six digits of the second and Z.
    time_us = transaction.timestamp * 1_000_000 + int(committed_at[-7:-1])
    time_ns = time_us * 1000
    return Commit(lsn, time_us // 1000, time_us, time_ns if time_ns < _INT64_END else None)


def json_as_text(row: Row) -> Row:
    """``row`` with each JSON document as the text of it, also inside arrays; the row itself where it has none."""
    if _MAY_HOLD_JSON.isdisjoint(map(type, row.values())):
        return row
    return {name: _text(value) for name, value in row.items()}


def _text(value: Any) -> Any:
    if type(value) is Fragment:
        return dumps(value).decode()
    if type(value) is list:
        return [_text(each) for each in value]
    return value


def is_same(one: Any, other: Any) -> bool:
    """Whether two values of one column are equal. An embedded JSON document has no equality of its own."""
    return bool(one == other) or (
        type(one) in _MAY_HOLD_JSON and type(other) in _MAY_HOLD_JSON and dumps(one) == dumps(other)
    )


def changes(event: Event) -> Row:
    """The old values of what an update changed, as far as PostgreSQL sent them: without FULL those of its key."""
    old, new = event.old or {}, event.new or {}
    if event.changed is not None:
        return {name: old[name] for name in event.changed if name in old}
    return {name: value for name, value in old.items() if name in new and not is_same(value, new[name])}


def old_key(event: Event) -> Row | None:
    """The key of an update's row before it, where the update changed it, else None."""
    key, old = event.key, event.old
    if not key or not old:
        return None
    before = {name: old.get(name, value) for name, value in key.items()}
    return None if all(is_same(value, key[name]) for name, value in before.items()) else before
