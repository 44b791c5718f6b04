"""A server that lets nobody in: each reason is told apart, and only what may pass is tried again."""

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually
from pgevents.start import Wish, create_slot
from tests.conftest import _with_wal2json
from tests.faults.evidence import DEADLINE_S, SOON, arrives, check
from tests.integration.command import Command, Shop, pgevents, stored
from tests.integration.streaming import ask, run

FAILED, REFUSED = 1, 4
TO_FILE = ("--sink", "file:events", *SOON)
ONCE = ("--start-timeout", "0")

SCARCE = {
    "max_connections": "12",
    "superuser_reserved_connections": "3",
    "max_wal_senders": "1",
    "max_replication_slots": "2",
}


@pytest.fixture(scope="module")
def server(services: Path) -> Iterator[Postgres]:
    """A server that wants passwords, and has little to give."""
    folder = services / f"scarce-{secrets.token_hex(4)}"
    with Postgres(folder, binaries=_with_wal2json(), auth="scram-sha-256", settings=SCARCE) as own:
        yield own


@pytest.fixture
def shop(server: Postgres) -> Iterator[Shop]:
    name = f"test_{secrets.token_hex(4)}"
    run(server.dsn(), f"CREATE DATABASE {name}")
    yield Shop(server.dsn(name))
    drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active"

    def is_free() -> bool:
        run(server.dsn(), drop)
        return not ask(server.dsn(), "SELECT count(*) FROM pg_replication_slots")

    assert eventually(is_free, deadline_s=DEADLINE_S)


@pytest.mark.fault("F36")
def test_no_replication_slot_is_left(shop: Shop, tmp_path: Path) -> None:
    create_slot(shop.role_dsn, Wish(f"{shop.slot}_b", "wal2json", ""))
    third = ("--dsn", shop.role_dsn, "--slot", f"{shop.slot}_c", "--create-slot", "--plugin", "wal2json")

    outcome = pgevents(tmp_path, "stream", *third, *TO_FILE)

    outcome.refused(REFUSED, error="all replication slots are in use", hint="max_replication_slots")
    assert "trying again" not in outcome.stderr


@pytest.mark.fault("F36", "I14")
def test_no_walsender_is_left_until_another_ends(shop: Shop, tmp_path: Path) -> None:
    create_slot(shop.role_dsn, Wish(f"{shop.slot}_b", "wal2json", ""))
    other = ("--dsn", shop.role_dsn, "--slot", f"{shop.slot}_b")
    with Command(tmp_path, "stream", *shop.options, "--sink", "null:") as first:
        first.ready()
        once = pgevents(tmp_path, "stream", *other, *TO_FILE, *ONCE)
        with Command(tmp_path, "stream", *other, *TO_FILE) as second:
            second.says(
                "error trying again .*exceeds max_wal_senders.* hint=.*raise max_connections, max_wal_senders"
            )
            assert first.stopped().code == 0
            second.ready()
            assert second.stopped().code == 0

    once.refused(FAILED, error="exceeds max_wal_senders", hint="max_wal_senders")


@pytest.mark.fault("F36", "I14")
def test_no_connection_is_left_until_others_end(shop: Shop, tmp_path: Path) -> None:
    with ExitStack() as others:
        while occupied(shop, others):
            pass
        once = pgevents(tmp_path, "stream", *shop.options, *TO_FILE, *ONCE)
        with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream:
            stream.says("error trying again .*(too many clients|connection slots are reserved)")
            others.close()
            stream.ready()
            assert stream.stopped().code == 0

    once.refused(FAILED, error="too many clients|connection slots are reserved", hint="max_connections")


def occupied(shop: Shop, others: ExitStack) -> bool:
    """Whether there was one more connection to be had."""
    try:
        others.enter_context(closing(psycopg2.connect(shop.role_dsn)))
    except psycopg2.OperationalError:
        return False
    return True


@contextmanager
def changed(dsn: str, change: str, undo: str) -> Iterator[None]:
    run(dsn, change)
    try:
        yield
    finally:
        run(dsn, undo)


@pytest.mark.fault("F36", "I14")
def test_the_role_may_have_no_more_connections(shop: Shop, tmp_path: Path) -> None:
    limit = "ALTER ROLE pgevents CONNECTION LIMIT"
    with changed(shop.dsn, f"{limit} 0", f"{limit} -1"):
        outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE, *ONCE)

    outcome.refused(FAILED, error='too many connections for role "pgevents"', hint="the role's limit")


@pytest.mark.fault("F36")
def test_a_password_that_has_expired(shop: Shop, tmp_path: Path) -> None:
    until = "ALTER ROLE pgevents VALID UNTIL"
    with changed(shop.dsn, f"{until} '2001-01-01'", f"{until} 'infinity'"):
        outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE)

    outcome.refused(REFUSED, error='password authentication failed for user "pgevents"', hint="password")
    assert "trying again" not in outcome.stderr


@pytest.mark.fault("F36")
def test_an_address_that_pg_hba_conf_rejects(server: Postgres, shop: Shop, tmp_path: Path) -> None:
    rules = server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all pgevents all reject\n{before}")
    try:
        reload(shop)
        outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE)
    finally:
        rules.write_text(before)
        reload(shop)

    outcome.refused(REFUSED, error=r"pg_hba\.conf rejects", hint=r"pg_hba\.conf")


def reload(shop: Shop) -> None:
    """Returns when the server goes by its files again."""
    before = ask(shop.dsn, "SELECT pg_conf_load_time()")
    run(shop.dsn, "SELECT pg_reload_conf()")
    assert eventually(lambda: bool(ask(shop.dsn, "SELECT pg_conf_load_time()") > before), deadline_s=DEADLINE_S)


@pytest.mark.fault("F36", "F25", "I14")
def test_a_server_that_is_not_ready_yet_is_waited_for(shop: Shop, tmp_path: Path) -> None:
    """After a crash it waits for its last backend to end, which is frozen, and lets nobody in."""
    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream:
        stream.ready()
        shop.add(1)
        arrives(stream, tmp_path / "events", [1])
        with closing(psycopg2.connect(shop.dsn)) as frozen, closing(psycopg2.connect(shop.dsn)) as killed:
            os.kill(backend(frozen), signal.SIGSTOP)
            try:
                os.kill(backend(killed), signal.SIGKILL)
                stream.says("trying again .*the database system is (in recovery mode|starting up|shutting down)")
            finally:
                os.kill(backend(frozen), signal.SIGCONT)
        stream.says("streaming again")
        shop.add(2)
        arrives(stream, tmp_path / "events", [2])
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    check(stored(tmp_path / "events"), [1, 2])


def backend(connection: Any) -> int:
    return int(connection.get_backend_pid())
