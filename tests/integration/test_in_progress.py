"""Large transactions that are read while they run, ``streaming``: the same events, in the same order, none lost."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from pgevents.demo.process import eventually
from pgevents.errors import EXIT_REFUSED
from pgevents.mark import PREFIX
from pgevents.rule import Action, Rules, SkipRule
from tests.integration.command import DEADLINE_S, KILL, Command, Shop, ids_of, pgevents, stored
from tests.integration.streaming import Recording, ask, run

# Of some 300 bytes each in the server's memory, so that a transaction outgrows what it holds several times.
ROWS = 1000

MARK = f"""SELECT pg_logical_emit_message(true, '{PREFIX}', '{{"v": 1, "reason": "a test"}}')"""
STREAMED = "SELECT coalesce(sum(stream_txns), 0)::int FROM pg_stat_replication_slots WHERE slot_name = '{}'"
TO_FILE = ("--streaming", "--sink", "file:events")


@contextmanager
def connected(dsn: str) -> Iterator[Any]:
    """Its own connection, whose transaction lasts until it is ended."""
    with closing(psycopg2.connect(dsn)) as connection:
        yield connection.cursor()


def filled(table: str, first: int, rows: int = ROWS) -> str:
    """Statements whose rows come in this order."""
    return f"INSERT INTO {table} SELECT n, repeat('x', 100) FROM generate_series({first}, {first + rows - 1}) n"


@pytest.fixture
def recording(database15: str) -> Recording:
    made = Recording(database15, plugins=("pgoutput",))
    made.run(
        "CREATE TABLE items (id int PRIMARY KEY, note text)",
        "CREATE TABLE orders (id int PRIMARY KEY, note text)",
        "ALTER TABLE items REPLICA IDENTITY FULL",
    )
    return made


def a_busy_day(recording: Recording, beginning: str) -> None:
    """Two large transactions at a time, one that is rolled back, small ones between, and what may happen in one."""
    dsn = recording.dsn
    with connected(dsn) as one, connected(dsn) as other, connected(dsn) as lost:
        one.execute(beginning)
        one.execute(filled("items", 1))
        other.execute(filled("orders", 1))
        lost.execute(filled("orders", 100_000))
        recording.run("INSERT INTO items VALUES (-1, 'small')")
        one.execute("SAVEPOINT a")
        one.execute(filled("items", 10_000))
        one.execute("SAVEPOINT b")
        one.execute(filled("items", 20_000))
        one.execute("ROLLBACK TO SAVEPOINT b")
        one.execute("UPDATE items SET note = note || '!' WHERE id <= 50")
        one.execute("RELEASE SAVEPOINT a")
        one.execute("SELECT pg_logical_emit_message(true, 'note', 'within')")
        # A table's shape that is rolled back, and another that is not.
        other.execute("SAVEPOINT c")
        other.execute("CREATE TABLE later (id int PRIMARY KEY, note text)")
        other.execute(filled("later", 1))
        other.execute("ROLLBACK TO SAVEPOINT c")
        other.execute("CREATE TABLE later (id int PRIMARY KEY, other text, note text)")
        other.execute("INSERT INTO later SELECT n, 'y', repeat('x', 100) FROM generate_series(1, 1000) n")
        other.execute("ALTER TABLE later DROP other")
        other.execute(filled("later", 4000))
        lost.execute(filled("orders", 200_000))
        lost.connection.rollback()
        recording.run(
            "INSERT INTO items VALUES (-2, 'small')", "SELECT pg_logical_emit_message(false, 'lone', 'one')"
        )
        one.execute("TRUNCATE items")
        one.execute(filled("items", 30_000))
        one.connection.commit()
        other.execute(filled("orders", 30_000))
        other.connection.commit()
        recording.run("INSERT INTO later VALUES (-1, 'small')")


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param("SELECT 1", id="unmarked"),
        pytest.param(MARK, id="marked"),
        pytest.param(f"SAVEPOINT s; {MARK}; RELEASE s", id="marked in a savepoint"),
        pytest.param(f"SAVEPOINT s; {MARK}; ROLLBACK TO SAVEPOINT s", id="marked in one that is rolled back"),
    ],
)
@pytest.mark.parametrize(
    "rules",
    [
        pytest.param((), id="no rule"),
        pytest.param((SkipRule("marked", marked=True),), id="marks"),
        pytest.param((SkipRule("large", rows=1000), SkipRule("marked", marked=True)), id="marks and sizes"),
        pytest.param((SkipRule("large", Action.SUMMARISE, rows=1000),), id="summaries"),
    ],
)
def test_events_are_the_same_whenever_a_transaction_is_read(
    recording: Recording, rules: tuple[SkipRule, ...], beginning: str
) -> None:
    a_busy_day(recording, beginning)

    at_the_commit = recording.envelopes("pgoutput", rules=Rules(skip=rules))
    while_it_runs = recording.envelopes("pgoutput", rules=Rules(skip=rules), streaming=True)

    assert while_it_runs == at_the_commit
    streamed = STREAMED.format(recording.slot("pgoutput"))
    assert eventually(lambda: ask(recording.dsn, streamed) >= len(("one", "other", "lost")), deadline_s=DEADLINE_S)


@pytest.fixture
def shop(database15: str) -> Shop:
    return Shop(database15, plugin="pgoutput")


def has_streamed(shop: Shop) -> None:
    assert eventually(lambda: ask(shop.dsn, STREAMED.format(shop.slot)) > 0, deadline_s=DEADLINE_S)


def has_arrived(folder: Path, *ids: int) -> None:
    """Wait for just these events."""
    arrived = eventually(
        lambda: [each.get("new", {}).get("id") for each in stored(folder / "events")] == [*ids], deadline_s=DEADLINE_S
    )
    assert arrived, stored(folder / "events")[-3:]


def test_a_transaction_that_never_commits_leaves_no_event_and_holds_nobody_up(shop: Shop, tmp_path: Path) -> None:
    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream, connected(shop.dsn) as cursor:
        stream.ready()
        cursor.execute(filled("orders", 100))
        has_streamed(shop)
        run(shop.dsn, "INSERT INTO orders VALUES (1)")
        has_arrived(tmp_path, 1)
        cursor.connection.rollback()
        run(shop.dsn, "INSERT INTO orders VALUES (2)")

        has_arrived(tmp_path, 1, 2)
        assert stream.stopped().code == 0


def test_a_stream_killed_while_a_transaction_runs_has_all_of_it_in_the_next(shop: Shop, tmp_path: Path) -> None:
    with connected(shop.dsn) as cursor:
        with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream:
            stream.ready()
            cursor.execute(filled("orders", 100))
            run(shop.dsn, "INSERT INTO orders VALUES (1)")
            before = shop.lsn
            has_streamed(shop)
            assert eventually(lambda: shop.confirmed >= before, deadline_s=DEADLINE_S)
            stream.send(KILL)
            stream.ended()
        cursor.connection.commit()

    assert pgevents(tmp_path, "stream", *shop.options, *TO_FILE, "--until-lsn", "now").code == 0
    assert ids_of(stored(tmp_path / "events")) == [1, *range(100, 100 + ROWS)]


def test_a_window_spares_the_rest_of_a_transaction_before_it_commits(shop: Shop, tmp_path: Path) -> None:
    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream, connected(shop.dsn) as cursor:
        stream.ready()
        cursor.execute(filled("orders", 100))
        cursor.execute("SELECT pg_current_xact_id()::text")
        (xid,) = cursor.fetchone()
        window = ("skip", "add", "--slot", shop.slot, "--xid", xid, "--reason", "flood")
        name = pgevents(tmp_path, *window).stdout.strip()
        stream.says("windows taken up")
        cursor.execute(filled("orders", 10_000))
        cursor.connection.commit()
        run(shop.dsn, "INSERT INTO orders VALUES (1)")

        assert eventually(lambda: len(stored(tmp_path / "events")) == 2, deadline_s=DEADLINE_S)
        assert stream.stopped().code == 0

    record, order = stored(tmp_path / "events")
    assert order["new"]["id"] == 1
    assert record["skip"]["rule"] == name
    assert record["skip"]["rows"] == [{"schema": "public", "table": "orders", "insert": 2 * ROWS}]


def test_what_a_window_spared_is_published_where_it_is_taken_back_in_time(shop: Shop, tmp_path: Path) -> None:
    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream, connected(shop.dsn) as cursor:
        stream.ready()
        cursor.execute("SELECT pg_current_xact_id()::text")
        (xid,) = cursor.fetchone()
        slot = ("--slot", shop.slot)
        name = pgevents(tmp_path, "skip", "add", *slot, "--xid", xid, "--reason", "flood").stdout.strip()
        stream.says("windows taken up")
        cursor.execute(filled("orders", 100))
        has_streamed(shop)
        pgevents(tmp_path, "skip", "remove", *slot, name)
        stream.says("windows taken up", times=2)
        cursor.connection.commit()

        stream.says("are not to be left out any more")
        has_arrived(tmp_path, *range(100, 100 + ROWS))
        assert stream.stopped().code == 0


def test_a_transaction_that_the_disk_cannot_hold_is_read_at_its_commit_and_holds_nobody_up(
    shop: Shop, tmp_path: Path
) -> None:
    options = ("stream", *shop.options, "--streaming", "--sink", "null:")
    limit = ("prlimit", "--fsize=1100000")
    with Command(tmp_path, *options, prefix=limit) as stream, connected(shop.dsn) as cursor:
        stream.ready()
        cursor.execute(filled("orders", 10, 20 * ROWS))
        run(shop.dsn, "INSERT INTO orders VALUES (1)")
        before = shop.lsn
        assert eventually(lambda: shop.confirmed >= before, deadline_s=DEADLINE_S)
        cursor.connection.commit()

        stream.says("until then every transaction is read at its commit.*File too large.*ulimit -f.*TMPDIR")
        stream.says("large transactions are read while they run again")
        outcome = stream.stopped()

    assert outcome.code == 0
    assert f"events={20 * ROWS + 1}" in outcome.stderr


def test_a_plug_in_that_cannot_is_refused(database15: str, tmp_path: Path) -> None:
    shop = Shop(database15, plugin="wal2json")

    outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE)

    outcome.refused(2, error="streaming: the slot's plug-in is wal2json", hint="pgoutput")


def test_a_rule_by_origin_is_refused(shop: Shop, tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE, "--skip-origin", "bulk")

    outcome.refused(2, error="streaming and a skip rule by origin, 'bulk', exclude each other", hint="Leave one")


def test_a_plug_in_that_is_asked_for_and_cannot_is_refused_at_once(shop: Shop, tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE, "--plugin", "wal2json", "--create-slot")

    outcome.refused(2, error=r"streaming .* and plugin .* exclude each other", hint="pgoutput")


def test_slot_create_makes_one_for_it_too(shop: Shop, tmp_path: Path) -> None:
    other = f"{shop.slot}_other"

    outcome = pgevents(tmp_path, "slot", "create", "--dsn", shop.dsn, "--slot", other, "--streaming", "--json")

    assert outcome.code == 0, outcome.stderr
    assert '"plugin": "pgoutput"' in outcome.stdout or '"plugin":"pgoutput"' in outcome.stdout


def test_doctor_names_a_slot_that_cannot(database15: str, tmp_path: Path) -> None:
    shop = Shop(database15, plugin="wal2json")
    doctor = ("doctor", *shop.options, "--sink", "null:")

    named = pgevents(tmp_path, *doctor, env={"PGEVENTS_STREAMING": "true"})

    assert named.code == EXIT_REFUSED
    assert "streaming: slot" in named.stdout
    assert "streaming: slot" not in pgevents(tmp_path, *doctor).stdout


def test_a_slot_that_is_made_for_it_has_the_plug_in_that_can(shop: Shop, tmp_path: Path) -> None:
    other = f"{shop.slot}_other"
    arguments = ("stream", "--dsn", shop.dsn, "--slot", other, *TO_FILE, "--create-slot", "--until-lsn", "now")

    assert pgevents(tmp_path, *arguments).code == 0

    assert ask(shop.dsn, f"SELECT plugin FROM pg_replication_slots WHERE slot_name = '{other}'") == "pgoutput"
