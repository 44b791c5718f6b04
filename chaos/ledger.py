"""What the database says was committed: the ledger that triggers fill, and the tables as they are."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2

SCHEMA = Path(__file__).with_name("ledger.sql")
EXCLUDED = "audit.*"
"""The pattern that keeps the ledger itself out of the stream."""

TABLES = ("account", "document", "bulk", "scratch", "side")
DEFAULT_TABLES = ("account", "document", "side")
COLUMNS = ("id", "op", "version", "amount", "note", "tags", "at", "body")
_READ_ROWS = 5000

Row = dict[str, Any]
Tables = dict[str, dict[int, Row]]
"""Each table's rows by their key."""


class Entry(NamedTuple):
    """One committed change. ``key`` is that of the row afterwards, ``old_key`` the one before.

    ``op_id`` is a number that no other written row has; a deleted row, a truncate and a message have none.
    """

    seq: int
    xid: int
    table: str
    op: str
    key: int | None = None
    old_key: int | None = None
    op_id: int | None = None


def install(dsn: str) -> None:
    """Create the tables and their ledger in an empty database."""
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(SCHEMA.read_text())


def entries(dsn: str) -> Iterator[Entry]:
    """The whole ledger in its order."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor("ledger") as cursor:
        cursor.itersize = _READ_ROWS
        cursor.execute("SELECT seq, xid, tab, op, key, old_key, op_id FROM audit.ledger ORDER BY seq")
        yield from map(Entry._make, cursor)


def committed_tokens(dsn: str) -> set[int]:
    """The tokens of all transactions that committed."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT token FROM audit.transaction")
        return {token for (token,) in cursor}


def tables(dsn: str) -> Tables:
    """Every row, its values in the form that an event has them in."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        return {table: _rows(cursor, table) for table in TABLES}


def _rows(cursor: Any, table: str) -> dict[int, Row]:
    at = """rtrim(rtrim(to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '0'), '.') || 'Z'"""
    cursor.execute(f"SELECT id, op, version, amount::text, note, tags, {at}, body FROM {table}")
    return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in cursor}
