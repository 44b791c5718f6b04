"""Transactions that are huge, tiny, silent, or full of DDL: they pass, in bounded memory, and the slot moves on."""

from pathlib import Path

import pytest

from pgevents.demo.process import eventually
from tests.faults.evidence import SHORT_TIMEOUT, SOON, arrives, check, is_acknowledged, peak_mb
from tests.integration.command import Command, Shop, stored
from tests.integration.streaming import BOTH, ask, run

TO_FILE = ("--sink", "file:events", *SOON)


# Each with the version that brought it.
TIMEOUTS = {
    "statement_timeout = '300ms'": 0,
    "lock_timeout = '300ms'": 0,
    "idle_in_transaction_session_timeout = '300ms'": 0,
    "idle_session_timeout = '300ms'": 14,
    "transaction_timeout = '50ms'": 17,
}


@pytest.mark.fault("F41", "I14")
@pytest.mark.parametrize(
    ("database", "plugin", "state"),
    [("database15", "wal2json", "postgres"), ("database18", "pgoutput", "state.json")],
)
def test_time_outs_of_the_role_do_not_end_a_stream(
    request: pytest.FixtureRequest, database: str, plugin: str, state: str, tmp_path: Path
) -> None:
    """Each is shorter than the pauses, and than the decoding of the large transaction."""
    dsn: str = request.getfixturevalue(database)
    shop, file = Shop(dsn, plugin=plugin), tmp_path / "events"
    version = int(ask(dsn, "SHOW server_version_num")) // 10_000
    for setting, since in TIMEOUTS.items():
        if version >= since:
            run(dsn, f"ALTER ROLE pgevents IN DATABASE {shop.database} SET {setting}")
    with Command(tmp_path, "stream", *shop.options, *TO_FILE, "--state", state) as stream:
        stream.ready()
        for row in (1, 2, 3):
            assert not eventually(lambda: stream.has_ended, deadline_s=0.5)
            # A shape that has not been seen: wal2json's decoder asks the catalog for it.
            run(dsn, f"ALTER TABLE orders ADD COLUMN c{row} int")
            run(dsn, f"INSERT INTO orders (id) VALUES ({row})")
            arrives(stream, file, [row])
        run(dsn, "INSERT INTO orders (id) SELECT n FROM generate_series(4, 30000) n")
        arrives(stream, file, [30_000])
        assert is_acknowledged(shop, shop.lsn)
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "trying again" not in ended.stderr
    check(stored(file), range(1, 30_001))


@pytest.mark.fault("F43", "I15")
@pytest.mark.parametrize("plugin", BOTH)
def test_a_transaction_that_the_server_spills_passes_in_bounded_memory(
    database15: str, plugin: str, tmp_path: Path
) -> None:
    shop, size, mb = Shop(database15, plugin=plugin), 100_000, 100
    options = shop.with_dsn(options="-c logical_decoding_work_mem=64kB")
    with Command(tmp_path, "stream", *options, "--sink", "null:") as stream:
        stream.ready()
        before = peak_mb(stream.pid)
        run(shop.dsn, f"INSERT INTO orders SELECT n, repeat('x', {mb * 10}) FROM generate_series(1, {size}) n")
        assert is_acknowledged(shop, shop.lsn)
        grown = peak_mb(stream.pid) - before
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert f"events={size} confirmed={size} " in ended.stderr
    spilled = f"SELECT spill_count FROM pg_stat_replication_slots WHERE slot_name = '{shop.slot}'"
    assert ask(shop.dsn, spilled) > 0
    assert grown < mb * 0.75


@pytest.mark.fault("F44", "I14")
def test_a_huge_transaction_that_the_server_says_nothing_of_ends_no_connection(
    database15: str, tmp_path: Path
) -> None:
    """The copying of a rewrite is decoded and left out: for longer than wal_sender_timeout there is no word."""
    run(database15, "CREATE TABLE wide (id int, pad text)")
    run(database15, "INSERT INTO wide SELECT n, repeat('x', 100) FROM generate_series(1, 600000) n")
    shop, file = Shop(database15), tmp_path / "events"
    with Command(tmp_path, "stream", *shop.with_dsn(options=SHORT_TIMEOUT), *TO_FILE) as stream:
        stream.ready()
        run(shop.dsn, "ALTER TABLE wide ALTER id TYPE bigint")

        shop.add(1)
        arrives(stream, file, [1])
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "trying again" not in ended.stderr
    check(stored(file), [1])


@pytest.mark.fault("F45", "I5")
@pytest.mark.parametrize("plugin", BOTH)
def test_a_slot_follows_thousands_of_transactions_on_a_table_that_is_left_out(
    database15: str, plugin: str, tmp_path: Path
) -> None:
    run(database15, "CREATE TABLE quiet (id int PRIMARY KEY)")
    shop, file, size = Shop(database15, plugin=plugin), tmp_path / "events", 10_000
    with Command(tmp_path, "stream", *shop.options, "--table", "public.orders", *TO_FILE) as stream:
        stream.ready()
        before = cpu_s(stream.pid)
        run(shop.dsn, f"DO $$ BEGIN FOR n IN 1..{size} LOOP INSERT INTO quiet VALUES (n); COMMIT; END LOOP; END $$")
        assert is_acknowledged(shop, shop.lsn)
        spent_s = cpu_s(stream.pid) - before
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "events=0 confirmed=0 " in ended.stderr
    assert stored(file) == []
    assert spent_s < 5


def cpu_s(pid: int) -> float:
    """What a process has used of the processors' time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
