"""The changes that are replayed: a table of nine columns, filled in small transactions or one big one.

Every run reads a copy of one slot, so all of them replay the very same WAL.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files

from psycopg2.extensions import connection, cursor

from pgevents.lsn import Lsn

PUBLICATION = "pgevents"

_ORDER = """
    n, mod(n, 9973), 'new', mod(n, 100000) / 100.0, clock_timestamp(), false, mod(n, 977) / 8.0::float8,
    '{"src": "web"}'::jsonb, CASE mod(n, 4) WHEN 0 THEN 'ring twice' END
"""
_SCHEMA = f"""
CREATE SCHEMA bench;
CREATE TABLE bench.orders (
    id bigint PRIMARY KEY, buyer int NOT NULL, status text NOT NULL, amount numeric(12,2) NOT NULL,
    placed_at timestamptz NOT NULL, paid boolean NOT NULL, weight float8, tags jsonb, note text);
ALTER TABLE bench.orders REPLICA IDENTITY FULL;
CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES;

-- Three inserts and an update, in two transactions of two changes.
CREATE PROCEDURE bench.fill(changes int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. changes / 4 LOOP
        INSERT INTO bench.orders SELECT {_ORDER} FROM generate_series(3 * i - 2, 3 * i - 1) n;
        COMMIT;
        INSERT INTO bench.orders SELECT {_ORDER} FROM generate_series(3 * i, 3 * i) n;
        UPDATE bench.orders SET status = 'paid', paid = true WHERE id = 3 * i - 2;
        COMMIT;
    END LOOP;
END $$;

-- One row a transaction, each at its time; a late one does not delay those after it.
CREATE PROCEDURE bench.pace(first bigint, changes int, per_second int) LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz := clock_timestamp();
    n bigint;
    early_s float8;
BEGIN
    FOR done IN 0 .. changes - 1 LOOP
        n := first + done;
        INSERT INTO bench.orders SELECT {_ORDER};
        COMMIT;
        early_s := (done + 1)::float8 / per_second - extract(epoch FROM clock_timestamp() - began);
        IF early_s > 0 THEN
            PERFORM pg_sleep(early_s);
        END IF;
    END LOOP;
END $$;
"""
# As partitions of one table, because one INSERT then reaches all of them in turn.
_SHARDS = """
CREATE TABLE bench.shards (id bigint NOT NULL, shard int NOT NULL, status text NOT NULL) PARTITION BY LIST (shard);

DO $$
BEGIN
    FOR i IN 0 .. %(tables)s - 1 LOOP
        EXECUTE format('CREATE TABLE bench.%%I PARTITION OF bench.shards FOR VALUES IN (%%s)', 'shard_' || i, i);
    END LOOP;
END $$;

CREATE PROCEDURE bench.visit(first int, last int, tables int) LANGUAGE plpgsql AS $$
BEGIN
    FOR round IN first .. last LOOP
        INSERT INTO bench.shards SELECT round, shard, 'new' FROM generate_series(0, tables - 1) shard;
        COMMIT;
    END LOOP;
END $$;
"""
# Far above the ids of the backlog.
_BULK_FIRST = 10**9
_MARKED_FIRST = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Backlog:
    """``changes`` in the WAL between where ``slot`` stands and ``until``."""

    slot: str
    changes: int
    until: Lsn


def create_tables(database: connection) -> None:
    with database.cursor() as sql:
        sql.execute(_SCHEMA)


def record_small_transactions(database: connection, changes: int) -> Backlog:
    """Record ``changes``, three quarters of them inserts, in transactions of two."""
    with database.cursor() as sql:
        slot = _create_slot(sql, "bench_small")
        # Only the recording is hurried; nothing is measured meanwhile.
        sql.execute("SET synchronous_commit = off")
        sql.execute("CALL bench.fill(%s)", (changes,))
        sql.execute("RESET synchronous_commit")
        return Backlog(slot, changes, _flushed_lsn(sql))


def record_one_transaction(database: connection, rows: int) -> Backlog:
    """Record one INSERT of so many rows."""
    with database.cursor() as sql:
        slot = _create_slot(sql, "bench_bulk")
        numbers = (_BULK_FIRST, _BULK_FIRST + rows - 1)
        sql.execute(f"INSERT INTO bench.orders SELECT {_ORDER} FROM generate_series(%s, %s) n", numbers)
        return Backlog(slot, rows, _flushed_lsn(sql))


def record_marked_transaction(database: connection, rows: int) -> Backlog:
    """Record one INSERT of so many rows, of the same table, in a transaction that is marked to be skipped."""
    with database.cursor() as sql:
        sql.execute(files("pgevents.migrations").joinpath("0002_skip.sql").read_text("utf-8"))
        slot = _create_slot(sql, "bench_marked")
        numbers = (_MARKED_FIRST, _MARKED_FIRST + rows - 1)
        insert = f"INSERT INTO bench.orders SELECT {_ORDER} FROM generate_series(%s, %s) n"
        sql.execute(f"BEGIN; SELECT pgevents.skip('a benchmark'); {insert}; COMMIT", numbers)
        return Backlog(slot, rows, _flushed_lsn(sql))


def record_narrow_transaction(database: connection, rows: int) -> Backlog:
    """Record one INSERT of so many rows of two columns."""
    with database.cursor() as sql:
        sql.execute("CREATE TABLE bench.ticks (id bigint PRIMARY KEY, n int NOT NULL)")
        slot = _create_slot(sql, "bench_narrow")
        sql.execute("INSERT INTO bench.ticks SELECT n, mod(n, 9973) FROM generate_series(1, %s) n", (rows,))
        return Backlog(slot, rows, _flushed_lsn(sql))


def record_many_tables(database: connection, tables: int, rounds: int) -> tuple[Backlog, Backlog]:
    """Record rounds that each insert one row into each of ``bench.shard_0`` and so on: the first, and all of them."""
    with database.cursor() as sql:
        sql.execute(_SHARDS, {"tables": tables})
        slot = _create_slot(sql, "bench_tables")
        sql.execute("CALL bench.visit(1, 1, %s)", (tables,))
        first = Backlog(slot, tables, _flushed_lsn(sql))
        sql.execute("CALL bench.visit(2, %s, %s)", (rounds, tables))
        return first, Backlog(slot, tables * rounds, _flushed_lsn(sql))


def _create_slot(sql: cursor, name: str) -> str:
    sql.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
    return name


def _flushed_lsn(sql: cursor) -> Lsn:
    """The end of everything committed so far, once it is flushed: replaying may then reach it."""
    sql.execute("SELECT pg_current_wal_insert_lsn()")
    (end,) = sql.fetchone() or ("",)
    # A commit with synchronous_commit on flushes all WAL before it.
    sql.execute("BEGIN; SELECT txid_current(); COMMIT")
    return Lsn.parse(end)


@contextmanager
def copied_slot(database: connection, backlog: Backlog, plugin: str) -> Iterator[str]:
    """A slot of ``plugin`` that stands where the backlog begins, for one run."""
    name = f"{backlog.slot}_{plugin}"
    with database.cursor() as sql:
        sql.execute("SELECT pg_copy_logical_replication_slot(%s, %s, false, %s)", (backlog.slot, name, plugin))
        yield name
        sql.execute("SELECT pg_drop_replication_slot(%s)", (name,))


def confirmed_flush(database: connection, slot: str) -> Lsn:
    with database.cursor() as sql:
        sql.execute("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s", (slot,))
        (lsn,) = sql.fetchone() or ("0/0",)
        return Lsn.parse(lsn)
