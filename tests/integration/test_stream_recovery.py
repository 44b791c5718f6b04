"""A stream that goes on: while there is nothing for it, and after its server or its walsender went away."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgevents.demo.postgres import Postgres
from pgevents.demo.postgres_binaries import find_binaries, wheel_binaries
from pgevents.demo.process import eventually
from pgevents.lsn import Lsn
from tests.integration.command import Command, Shop, ids_of, pgevents, stored
from tests.integration.streaming import BOTH, ask, run

GAP = 3
DEADLINE_S = 20.0
TO_FILE = ("--sink", "file:events.ndjson", "--retry-max", "0.2")


@pytest.fixture(params=BOTH)
def own_shop(request: pytest.FixtureRequest, services: Path) -> Iterator[tuple[Postgres, Shop]]:
    """A server that a test may stop: PostgreSQL 18 for pgoutput, the system's for wal2json."""
    binaries = next(wheel_binaries()) if request.param == "pgoutput" else find_binaries()
    with Postgres(services / f"own-{secrets.token_hex(4)}", binaries=binaries) as server:
        yield server, Shop(server.dsn(), plugin=request.param)


def same_ids(file: Path, ids: list[int]) -> bool:
    """Whether the file holds these, in order; a repeated one counts once."""
    return list(dict.fromkeys(ids_of(stored(file)))) == ids


def last_lsn(file: Path) -> Lsn:
    """The commit LSN of the last event."""
    return Lsn.parse(stored(file)[-1]["tx"]["lsn"])


@pytest.mark.parametrize("plugin", BOTH)
@pytest.mark.fault("F46", "I5")
def test_an_idle_slot_follows_what_happens_in_another_database(database15: str, plugin: str, tmp_path: Path) -> None:
    shop = Shop(database15, plugin=plugin)
    # The server asks for a sign of life, and we give one, four times in this.
    with Command(tmp_path, "stream", *shop.with_dsn(options="-c wal_sender_timeout=2s"), *TO_FILE) as stream:
        stream.ready()
        elsewhere = shop.with_dsn(dbname="postgres")[1]
        run(elsewhere, "SELECT pg_logical_emit_message(true, 'elsewhere', repeat('x', 100000))")
        lsn = shop.lsn

        assert eventually(lambda: shop.confirmed >= lsn, deadline_s=5), f"{shop.confirmed} < {lsn}"
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "events=0 confirmed=0" in ended.stderr
    assert stored(tmp_path / "events.ndjson") == []


@pytest.mark.parametrize("plugin", BOTH)
@pytest.mark.fault("F109", "I5", "I20")
def test_a_slot_whose_tables_are_all_left_out_is_still_acknowledged(
    database15: str, plugin: str, tmp_path: Path
) -> None:
    shop = Shop(database15, plugin=plugin)
    run(shop.dsn, "CREATE TABLE quiet (id int PRIMARY KEY)")
    with Command(tmp_path, "stream", *shop.options, "--table", "public.quiet", *TO_FILE) as stream:
        stream.ready()
        before = shop.confirmed
        shop.add(1, 2, 3)

        assert eventually(lambda: shop.confirmed > before, deadline_s=5)
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert stored(tmp_path / "events.ndjson") == []


@pytest.mark.fault("F22", "F24", "I9", "I14", "I16")
def test_a_fast_shutdown_does_not_wait_for_us_and_the_stream_goes_on_after_it(
    own_shop: tuple[Postgres, Shop], tmp_path: Path
) -> None:
    server, shop = own_shop
    file = tmp_path / "events.ndjson"
    with Command(tmp_path, "stream", *shop.options, *TO_FILE, "--start-timeout", "0") as stream:
        stream.ready()
        shop.add(1, 2)
        assert eventually(lambda: same_ids(file, [1, 2]) and shop.confirmed > last_lsn(file), deadline_s=DEADLINE_S)

        began = time.monotonic()
        server.stop("fast")
        took_s = time.monotonic() - began
        stream.says("trying again", times=2)
        server.start()
        shop.add(3)
        stream.says("streaming again")
        shop.add(4)
        assert eventually(lambda: same_ids(file, [1, 2, 3, 4]), deadline_s=DEADLINE_S), stream.stderr
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert took_s < 3
    assert "Traceback" not in ended.stderr
    # Before 17 a server does not write a confirmed flush LSN to disk when it shuts down, and sends some again.
    assert ids_of(stored(file)) == [1, 2, 3, 4]


@pytest.mark.fault("F21", "I1", "I14")
def test_a_server_that_crashes_loses_nothing(own_shop: tuple[Postgres, Shop], tmp_path: Path) -> None:
    server, shop = own_shop
    file = tmp_path / "events.ndjson"
    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream:
        stream.ready()
        shop.add(*range(100))

        server.restart("immediate")
        shop.add(*range(100, 110))
        assert eventually(lambda: same_ids(file, list(range(110))), deadline_s=DEADLINE_S), stream.stderr
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "trying again" in ended.stderr


@pytest.mark.parametrize("plugin", BOTH)
@pytest.mark.fault("F20", "I1", "I14")
def test_a_walsender_that_is_terminated_is_replaced(database15: str, plugin: str, tmp_path: Path) -> None:
    shop = Shop(database15, plugin=plugin)
    file = tmp_path / "events.ndjson"
    terminate = f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{shop.slot}'"
    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream:
        stream.ready()
        shop.add(1)
        for more in (2, 3, 4):
            assert ask(shop.dsn, terminate)
            shop.add(more)
            stream.says("streaming again", times=more - 1)
        assert eventually(lambda: same_ids(file, [1, 2, 3, 4]), deadline_s=DEADLINE_S), stream.stderr
        ended = stream.stopped()
    again = pgevents(tmp_path, "stream", *shop.options, "--sink", "stdout:", "--until-lsn", "now")

    assert ended.code == 0, ended.stderr
    assert "trying again" in ended.stderr
    assert again.stdout == ""
    assert shop.confirmed > last_lsn(file)


@pytest.mark.fault("F28", "I12")
def test_a_slot_whose_wal_is_gone_is_a_gap(own_shop: tuple[Postgres, Shop], tmp_path: Path) -> None:
    _, shop = own_shop
    run(shop.dsn, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
    assert eventually(lambda: ask(shop.dsn, "SHOW max_slot_wal_keep_size") == "1MB", deadline_s=DEADLINE_S)
    shop.add(1)
    run(shop.dsn, *["SELECT pg_logical_emit_message(false, '', repeat('x', 1000000))"] * 5, "CHECKPOINT")

    outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE)
    status = pgevents(tmp_path, "slot", "status", *shop.options)

    outcome.refused(GAP, error=f"slot {shop.slot} is lost: the server removed WAL", hint="drop the slot")
    assert "status lost" in status.stdout
    assert stored(tmp_path / "events.ndjson") == []
