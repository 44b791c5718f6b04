"""What logical replication delivers, in words that no output plug-in owns."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from pgevents.lsn import Lsn

made = tuple.__new__
"""What the constructor of a NamedTuple does, in half its time. All fields must be given, in their order."""


class RawMessage(NamedTuple):
    """One message of the output plug-in, untouched. ``lsn`` is its ``dataStart``."""

    lsn: int
    payload: bytes


class Keepalive(NamedTuple):
    """The server has decoded everything before ``wal_end`` and had nothing more to send."""

    wal_end: int


class Outline(NamedTuple):
    """What can be told of a row change without parsing it."""

    op: str
    schema: str
    table: str


class Passed(NamedTuple):
    """So many row changes that were counted before their transaction committed, and thrown away."""

    outline: Outline
    rows: int


WalMessage = RawMessage | Keepalive | Passed
"""What a source hands over."""


class _Unchanged(Enum):
    TOAST = "unchanged TOAST"


UNCHANGED_TOAST: Final = _Unchanged.TOAST
"""A value PostgreSQL did not send because an UPDATE left it in its TOAST table. It is not NULL."""

Row = dict[str, Any]
"""Column name → value. Raw rows hold what the plug-in printed; an event's rows are converted."""

Converter = Callable[[Any], Any]
"""From what the plug-in printed, never None, to the value of an event."""


class Column(NamedTuple):
    name: str
    type_oid: int


IDENTITY_DEFAULT, IDENTITY_NOTHING, IDENTITY_FULL, IDENTITY_INDEX = "d", "n", "f", "i"


@dataclass(frozen=True, slots=True, eq=False)
class Relation:
    """A table as it was when a change was decoded. A new object for every change of its shape.

    ``identity`` is ``pg_class.relreplident``; ``key`` names the columns that identify a row: those of the
    replica identity, under FULL or NOTHING the primary key; empty where the table has neither.
    ``converters`` holds the columns whose printed value is not yet the value of an event.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    identity: str
    key: tuple[str, ...]
    converters: tuple[tuple[str, Converter], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class Begin(NamedTuple):
    """The start of a committed transaction. Sent again, with ``origin``, where the plug-in names it later.

    ``commit_lsn`` is the start of the commit record; ``committed_at`` is ISO 8601 in UTC, microseconds.
    """

    xid: int
    commit_lsn: Lsn
    committed_at: str
    origin: str | None = None


class Change(NamedTuple):
    """One row. ``op`` is ``insert``, ``update`` or ``delete``; rows are raw.

    A column of ``new`` that PostgreSQL did not send is absent. ``old`` holds every column under REPLICA
    IDENTITY FULL, else the key or, where the plug-in sends no key because it did not change, None.
    """

    op: str
    relation: Relation
    new: Row | None
    old: Row | None


class Truncate(NamedTuple):
    """One TRUNCATE of one or more tables."""

    relations: tuple[Relation, ...]


class LogicalMessage(NamedTuple):
    """A call of ``pg_logical_emit_message``. A non-transactional one stands outside any transaction.

    ``lsn`` is the end of the message's WAL record; acknowledging it is enough for a non-transactional one.
    """

    lsn: Lsn
    transactional: bool
    prefix: str
    content: bytes


class Commit(NamedTuple):
    """The end of a transaction. ``end_lsn`` is its only LSN that may be acknowledged."""

    end_lsn: Lsn


WalItem = Begin | Change | Truncate | LogicalMessage | Commit


class PgType(NamedTuple):
    """What must be known of a type: ``base`` of a domain, ``element`` of an array; 0 where it is neither."""

    base: int = 0
    element: int = 0
    delimiter: str = ","
    is_enum: bool = False


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What the catalog says of a table now, which may be later than the change being decoded.

    ``published`` is false for what pgoutput never sends: a materialized view, and a partitioned table, whose
    partitions hold the rows. ``inline`` names the columns that are never stored in the TOAST table; ``dropped``
    counts the columns that it had once.
    """

    columns: tuple[Column, ...]
    generated: frozenset[str]
    identity: str
    primary_key: tuple[str, ...]
    index_key: tuple[str, ...]
    published: bool = True
    inline: frozenset[str] = frozenset()
    dropped: int = 0
