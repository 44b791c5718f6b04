"""The server crashes, freezes, panics and is restarted, and transactions stay open: nothing is lost."""

import asyncio
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from pgevents import slot
from pgevents.assembly import pipeline_of
from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually
from pgevents.errors import SourceRefused, SourceUnavailable
from pgevents.pipeline import Progress
from pgevents.session import open_stream
from pgevents.settings import Settings
from pgevents.source import catalog, replication
from pgevents.source.catalog import SqlCatalog
from pgevents.start import Wish, create_slot
from tests.conftest import _with_wal2json
from tests.faults.evidence import DEADLINE_S, SHORT_TIMEOUT, SOON, arrives, check, is_acknowledged, walsender
from tests.integration.command import Command, Shop, stored
from tests.integration.role import as_role
from tests.integration.streaming import CollectingSink, ask, event_of, run

TO_FILE = ("--sink", "file:events", *SOON)


@pytest.fixture
def server(services: Path) -> Iterator[Postgres]:
    """A server that a test may break."""
    with Postgres(services / f"broken-{secrets.token_hex(4)}", binaries=_with_wal2json()) as own:
        yield own


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.fault("F25", "F42", "I1", "I14")
def test_backends_that_are_killed_and_a_server_that_is_restarted_over_and_over(
    server: Postgres, tmp_path: Path
) -> None:
    """After a kill PostgreSQL ends every other process, too, and recovers."""
    shop, rows, file = Shop(server.dsn()), 0, tmp_path / "events"
    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream:
        stream.ready()
        for turn in range(20):
            shop.add(rows, rows + 1)
            rows += 2
            if turn % 4:
                kill_a_backend(server)
            else:
                server.restart("immediate")
            if turn % 2:
                arrives(stream, file, range(rows))
        shop.add(rows)
        arrives(stream, file, range(rows + 1))
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert ended.stderr.count("streaming again") >= 10
    assert "Traceback" not in ended.stderr
    check(stored(file), range(rows + 1))


def kill_a_backend(server: Postgres) -> None:
    with closing(psycopg2.connect(server.dsn())) as victim:
        os.kill(victim.get_backend_pid(), signal.SIGKILL)
        assert eventually(lambda: is_lost(victim), deadline_s=DEADLINE_S)
    assert eventually(lambda: is_serving(server.dsn()), deadline_s=DEADLINE_S)


def is_lost(connection: "psycopg2.extensions.connection") -> bool:
    try:
        connection.cursor().execute("SELECT 1")
    except psycopg2.Error:
        return True
    return False


def is_serving(dsn: str) -> bool:
    try:
        run(dsn, "SELECT 1")
    except psycopg2.OperationalError:
        return False
    return True


@pytest.mark.fault("F26", "I1", "I14")
def test_a_walsender_frozen_for_longer_than_its_own_time_out(database15: str, tmp_path: Path) -> None:
    shop, file = Shop(database15), tmp_path / "events"
    with Command(tmp_path, "stream", *shop.with_dsn(options=SHORT_TIMEOUT), *TO_FILE) as stream:
        stream.ready()
        shop.add(1)
        arrives(stream, file, [1])
        with stopped(walsender(shop)):
            shop.add(2, 3)
            assert not eventually(lambda: stream.has_ended or len(stored(file)) > 1, deadline_s=1.5)
        arrives(stream, file, [2, 3])
        assert is_acknowledged(shop, shop.lsn)
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    check(stored(file), [1, 2, 3])


@pytest.mark.fault("F26", "I25")
def test_a_server_that_falls_silent_is_told_of_and_waited_for(
    database15: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replication, "SILENCE_S", 0.5)
    shop, sink = Shop(database15), CollectingSink()

    async def scenario() -> None:
        # A quarter of it is how often we look.
        dsn = make_dsn(shop.role_dsn, options="-c wal_sender_timeout=4s")
        stream = await open_stream(dsn, slot=shop.slot, plugin="wal2json", publication="")
        stop = asyncio.Event()
        running = asyncio.ensure_future(pipeline_of(Settings(), stream, sink, Progress()).run(stop))
        with stopped(walsender(shop)):
            shop.add(1)
            await until(lambda: "the server has not answered" in caplog.text)
            assert sink.envelopes == []
        await until(lambda: len(sink.envelopes) == 1)
        stop.set()
        await running
        await stream.close()

    asyncio.run(scenario())

    check([event_of(envelope) for envelope in sink.envelopes], [1])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.fault("F26", "I14")
def test_a_catalog_that_does_not_answer_is_given_up(database15: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "ANSWER_TIMEOUT_S", 0.3)
    shop = Shop(database15)
    asked = SqlCatalog(make_dsn(shop.role_dsn, application_name="asked"))
    assert asked.table("public", "orders") is not None
    pid = ask(database15, "SELECT pid FROM pg_stat_activity WHERE application_name = 'asked'")

    with stopped(pid), pytest.raises(SourceUnavailable):
        asked.table("public", "orders")

    assert asked.table("public", "orders") is not None
    asked.close()


@pytest.mark.fault("F27", "I1")
def test_a_server_that_can_write_no_more_wal_panics_and_is_waited_for(server: Postgres, tmp_path: Path) -> None:
    """The folder of the WAL takes no new file, as on a disk that is full."""
    shop, file, wal = Shop(server.dsn()), tmp_path / "events", server.folder / "data" / "pg_wal"
    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream:
        stream.ready()
        shop.add(1)
        arrives(stream, file, [1])

        wal.chmod(0o500)
        rows = fill(shop)
        stream.says("trying again", times=3)
        wal.chmod(0o700)
        server.stop("immediate")
        server.start()
        shop.add(1_000_000)
        arrives(stream, file, [1_000_000])
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "PANIC" in server.log_path.read_text()
    check(stored(file), [1, *range(2, 2 + rows), 1_000_000])


def fill(shop: Shop) -> int:
    """Commit rows until the server breaks down; how many there were. What broke it down was not committed."""
    rows = 0
    try:
        with closing(psycopg2.connect(shop.dsn)) as connection:
            connection.autocommit = True
            while rows < 10_000:
                text = "SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 3000)"
                connection.cursor().execute(f"INSERT INTO orders VALUES ({rows + 2}, ({text}))")
                rows += 1
    except psycopg2.Error:
        return rows
    raise AssertionError("it took all of it")


@pytest.mark.fault("F34", "I22")
def test_a_slot_that_waits_for_an_open_transaction_is_given_up_with_the_reason(
    database15: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "CREATE_TIMEOUT", "1s")
    shop = Shop(database15)
    other = f"{shop.slot}_b"
    with closing(psycopg2.connect(database15)) as open_transaction:
        open_transaction.cursor().execute("INSERT INTO orders VALUES (1)")
        with pytest.raises(SourceRefused, match="statement timeout") as refusal:
            create_slot(as_role(database15), Wish(other, "wal2json", "pgevents"))

    assert "waits for every transaction that was running" in refusal.value.hint
    assert ask(database15, f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{other}'") == 0


@pytest.mark.fault("F35", "I1", "I25")
def test_a_transaction_that_stays_open_holds_up_no_other(database15: str, tmp_path: Path) -> None:
    shop, file = Shop(database15), tmp_path / "events"
    with (
        closing(psycopg2.connect(database15)) as late,
        Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream,
    ):
        stream.ready()
        late.cursor().execute("INSERT INTO orders VALUES (1)")
        began = shop.lsn
        shop.add(2, 3)
        run(shop.dsn, "CHECKPOINT")
        shop.add(4)
        arrives(stream, file, [2, 3, 4])
        assert is_acknowledged(shop, shop.lsn)
        restart = ask(
            shop.dsn, f"SELECT restart_lsn < '{began}' FROM pg_replication_slots WHERE slot_name = '{shop.slot}'"
        )
        late.commit()
        arrives(stream, file, [1])
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert restart
    check(stored(file), [2, 3, 4, 1])
