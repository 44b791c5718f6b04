"""Tables change and are rewritten while they are written to: every event holds the row as it was committed."""

import json
import signal
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import psycopg2
import pytest

from tests.faults.evidence import SOON, arrives, rows_of
from tests.integration.command import Command, Json, Shop, stored
from tests.integration.streaming import BOTH, Recording, run

TO_FILE = ("--sink", "file:events", *SOON)

# Each is followed by a row, and what RETURNING shows of it must be what the event holds.
STORM = (
    "ALTER TABLE t ADD COLUMN extra int DEFAULT 7",
    "ALTER TABLE t RENAME COLUMN note TO remark",
    "ALTER TABLE t ALTER COLUMN extra TYPE text USING 'x' || extra",
    "ALTER TABLE t ADD COLUMN more text DEFAULT 'volatile' || clock_timestamp()",
    "ALTER TABLE t DROP COLUMN extra",
    "ALTER TABLE t RENAME COLUMN remark TO note",
    "ALTER TABLE t DROP COLUMN more",
    "CREATE TABLE passing (id int PRIMARY KEY); INSERT INTO passing VALUES (1); DROP TABLE passing",
    "ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME TO t",
    "ALTER TABLE t REPLICA IDENTITY FULL",
    "ALTER TABLE t REPLICA IDENTITY DEFAULT",
    "BEGIN; ALTER TABLE t ADD COLUMN never int; INSERT INTO t VALUES (-1); ROLLBACK",
)
ROUNDS = 6


def storm(dsn: str) -> list[Json]:
    """The rows as they were when they were committed."""
    rows: list[Json] = []
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        for at, change in enumerate(STORM * ROUNDS):
            cursor = connection.cursor()
            cursor.execute(change)
            cursor.execute(f"INSERT INTO t (id) VALUES ({at}) RETURNING to_jsonb(t)::text")
            rows += [json.loads(row) for (row,) in cursor.fetchall()]
    return rows


class Others(Thread):
    """Transactions on another table meanwhile."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(daemon=True)
        self._shop = shop
        self.enough = Event()
        self.rows = 0

    def run(self) -> None:
        with closing(psycopg2.connect(self._shop.dsn)) as connection:
            connection.autocommit = True
            while not self.enough.is_set():
                connection.cursor().execute(f"INSERT INTO orders VALUES ({self.rows})")
                self.rows += 1


@pytest.mark.fault("F47", "I1", "I10")
@pytest.mark.parametrize("plugin", BOTH)
@pytest.mark.parametrize("later", [False, True], ids=["read at once", "read later"])
def test_a_storm_of_changes_to_a_table_spoils_no_row(
    database15: str, plugin: str, tmp_path: Path, *, later: bool
) -> None:
    run(database15, "CREATE TABLE t (id int PRIMARY KEY, note text DEFAULT 'n')")
    shop, file = Shop(database15, plugin=plugin), tmp_path / "events"
    others = Others(shop)
    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream:
        stream.ready()
        others.start()
        if later:
            stream.send(signal.SIGSTOP)
        expected = storm(shop.dsn)
        others.enough.set()
        others.join()
        stream.send(signal.SIGCONT)
        arrives(stream, file, range(others.rows))
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "trying again" not in ended.stderr
    events = stored(file)
    assert [event["new"] for event in events if event["table"] == "t"] == expected
    assert rows_of(events) == list(range(others.rows))


# Each writes as much as the table holds, and changes nothing.
REWRITES = (
    "VACUUM FULL t",
    "CLUSTER t USING t_pkey",
    "REINDEX TABLE t",
    "REINDEX TABLE CONCURRENTLY t",
    "CREATE INDEX CONCURRENTLY t_note ON t (note)",
    "REFRESH MATERIALIZED VIEW seen",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY seen",
    "VACUUM FREEZE ANALYZE t",
    "ALTER TABLE t SET LOGGED",
)


@pytest.mark.fault("F48", "I8")
def test_what_rewrites_a_table_or_a_view_gives_no_event(database15: str) -> None:
    run(
        database15,
        "CREATE TABLE t (id int PRIMARY KEY, note text)",
        "INSERT INTO t SELECT n, 'n' FROM generate_series(1, 100) n",
        "CREATE MATERIALIZED VIEW seen AS SELECT id, note FROM t",
        "CREATE UNIQUE INDEX ON seen (id)",
    )
    recording = Recording(database15)

    for row, rewrite in enumerate(REWRITES, 101):
        recording.run(rewrite, f"INSERT INTO t VALUES ({row}, 'n')")

    assert rows_of(recording.equal_events(), "t") == list(range(101, 101 + len(REWRITES)))
    assert {event["table"] for event in recording.equal_events()} == {"t"}


@pytest.mark.fault("F47", "I1")
@pytest.mark.parametrize("plugin", BOTH)
def test_partitions_that_are_attached_and_detached_lose_no_row(database15: str, plugin: str, tmp_path: Path) -> None:
    """The rows of a leaf are streamed under its own name, whatever it belongs to."""
    run(database15, "CREATE TABLE parent (id int PRIMARY KEY, note text) PARTITION BY RANGE (id)")
    shop, file = Shop(database15, plugin=plugin), tmp_path / "events"
    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream:
        stream.ready()
        for part in range(20):
            run(shop.dsn, *part_of(part))
        shop.add(1)
        arrives(stream, file, [1])
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "trying again" not in ended.stderr
    for part in range(20):
        assert rows_of(stored(file), f"part_{part}") == [part * 10, part * 10 + 1, part * 10 + 2]


def part_of(part: int) -> Sequence[str]:
    """A partition that is written to before, while and after it is one."""
    row = part * 10
    return (
        f"CREATE TABLE part_{part} (id int PRIMARY KEY, note text)",
        f"INSERT INTO part_{part} VALUES ({row})",
        f"ALTER TABLE parent ATTACH PARTITION part_{part} FOR VALUES FROM ({row}) TO ({row + 10})",
        f"INSERT INTO parent VALUES ({row + 1})",
        f"ALTER TABLE parent DETACH PARTITION part_{part}",
        f"INSERT INTO part_{part} VALUES ({row + 2})",
    )
