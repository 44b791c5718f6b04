"""A broker that takes nothing: nothing is lost, both ends stay alive, and it goes on by itself."""

import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos.proxy import PASS, Direction, Proxy, half_open
from pgevents.demo.postgres import Postgres
from pgevents.demo.postgres_binaries import find_binaries
from pgevents.demo.process import eventually
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.lsn import Lsn
from tests.contract.amqp import bind, channel
from tests.contract.amqp import stored as taken
from tests.integration.command import Command, Json, Shop, ids_of, stored, through
from tests.integration.streaming import ask, run

DEADLINE_S = 20.0

# A disk of which so much must be free is always full.
ALARMS = {
    "memory": (("set_vm_memory_high_watermark", "0.00001"), ("set_vm_memory_high_watermark", "absolute", "1GB")),
    "disk": (("set_disk_free_limit", "99999GB"), ("set_disk_free_limit", "50MB")),
}


@pytest.fixture
def shop(database15: str) -> Shop:
    return Shop(database15)


@contextmanager
def alarm(rabbitmq: RabbitMQ, kind: str = "memory") -> Iterator[Callable[[], object]]:
    """The broker takes nothing until the yielded function, or the end of the block, stills the alarm."""
    sound, silence = ALARMS[kind]
    rabbitmq.ctl(*sound)
    try:
        yield lambda: rabbitmq.ctl(*silence)
    finally:
        rabbitmq.ctl(*silence)


def in_queue(url: str, queue: str = "all") -> list[Json]:
    return [json.loads(body) for _, body in taken(url, queue)]


def depth(url: str, queue: str = "all") -> int:
    with channel(url) as broker:
        count: int = broker.queue_declare(queue, passive=True).method.message_count
        return count


def walsender(shop: Shop) -> int | None:
    pid: int | None = ask(shop.dsn, f"SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{shop.slot}'")
    return pid


@pytest.mark.parametrize("kind", ALARMS)
@pytest.mark.fault("F63", "F64", "I2", "I15")
def test_an_alarm_holds_everything_and_ends_nothing(
    shop: Shop, rabbitmq: RabbitMQ, vhost: str, tmp_path: Path, kind: str
) -> None:
    """For three times wal_sender_timeout; more than the window holds is committed meanwhile."""
    bind(vhost, "all")
    small = ("--batch-events", "10", "--window", "4")
    options = shop.with_dsn(options="-c wal_sender_timeout=1s")
    with Command(tmp_path, "stream", *options, "--sink", vhost, *small) as stream:
        stream.ready()
        shop.add(1)
        assert eventually(lambda: depth(vhost) == 1, deadline_s=DEADLINE_S)
        before = walsender(shop)

        with alarm(rabbitmq, kind):
            confirmed = shop.confirmed
            run(shop.dsn, "INSERT INTO orders SELECT n, 'x' FROM generate_series(2, 2000) n")
            stream.says("publishing is blocked by the broker")
            assert not eventually(lambda: walsender(shop) != before, deadline_s=3)
            held = shop.confirmed

        stream.says("no longer blocked")
        assert eventually(lambda: depth(vhost) == 2000, deadline_s=DEADLINE_S)
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "trying again" not in ended.stderr
    assert ids_of(in_queue(vhost)) == list(range(1, 2001))
    # What was sent before the alarm may be acknowledged in it, and none of what came after.
    lsn = ask(shop.dsn, "SELECT pg_current_wal_lsn()::text")
    assert confirmed <= held
    assert str(held) != lsn


@pytest.mark.parametrize("state", ["state.json", "postgres"])
@pytest.mark.fault("F23", "I1", "I16")
def test_a_server_can_be_shut_down_while_the_broker_is_blocked(
    services: Path, rabbitmq: RabbitMQ, vhost: str, tmp_path: Path, state: str
) -> None:
    folder = services / f"blocked-{secrets.token_hex(4)}"
    bind(vhost, "all")
    stall_s = 2.0
    with Postgres(folder, binaries=find_binaries()) as server:
        shop = Shop(server.dsn())
        impatient = ("--stall-timeout", str(stall_s), "--retry-max", "0.5", "--state", state)
        with Command(tmp_path, "stream", *shop.options, "--sink", vhost, *impatient) as stream:
            stream.ready()
            with alarm(rabbitmq) as still:
                shop.add(*range(1, 20))
                stream.says("publishing is blocked by the broker")

                began = time.monotonic()
                server.stop("fast")
                took_s = time.monotonic() - began
                server.start()
                still()
                assert eventually(lambda: depth(vhost) >= 19, deadline_s=DEADLINE_S), stream.stderr
            ended = stream.stopped()

    shutil.rmtree(folder, ignore_errors=True)
    assert ended.code == 0, ended.stderr
    assert took_s < stall_s + 5
    assert list(dict.fromkeys(ids_of(in_queue(vhost)))) == list(range(1, 20))


@pytest.mark.parametrize("state", ["state.json", "postgres"])
@pytest.mark.fault("F22", "I16")
def test_a_server_can_be_shut_down_while_nothing_happens(services: Path, tmp_path: Path, state: str) -> None:
    folder = services / f"idle-{secrets.token_hex(4)}"
    with Postgres(folder, binaries=find_binaries()) as server:
        shop = Shop(server.dsn())
        with Command(tmp_path, "stream", *shop.options, "--sink", "file:events", "--state", state) as stream:
            stream.ready()
            shop.add(1)
            assert eventually(lambda: len(stored(tmp_path / "events")) == 1, deadline_s=DEADLINE_S)

            began = time.monotonic()
            server.stop("fast")
            took_s = time.monotonic() - began

    shutil.rmtree(folder, ignore_errors=True)
    assert took_s < 5


@pytest.mark.fault("F05", "I1", "I2")
def test_a_stop_while_the_broker_is_blocked_ends_in_time_and_loses_nothing(
    shop: Shop, rabbitmq: RabbitMQ, vhost: str, tmp_path: Path
) -> None:
    bind(vhost, "all")
    arguments = ("stream", *shop.options, "--sink", vhost, "--drain-timeout", "1")
    with Command(tmp_path, *arguments) as stream:
        stream.ready()
        with alarm(rabbitmq):
            shop.add(*range(1, 20))
            stream.says("publishing is blocked by the broker")
            began = time.monotonic()
            ended = stream.stopped()
            took_s = time.monotonic() - began
    after = shop.confirmed

    with Command(tmp_path, *arguments, "--until-lsn", "now") as again:
        assert again.ended().code == 0

    assert ended.code == 1
    assert "unconfirmed 1 s after the stop" in ended.stderr
    assert took_s < 6
    events = in_queue(vhost)
    assert after <= Lsn.parse(events[0]["tx"]["lsn"])
    assert list(dict.fromkeys(ids_of(events))) == list(range(1, 20))


@pytest.mark.fault("F70", "I6", "I14")
def test_a_transaction_larger_than_a_full_queue_passes_as_it_is_emptied(
    shop: Shop, vhost: str, tmp_path: Path
) -> None:
    """The queue beside it, which has room, sees the same events in the same order, some of them again."""
    bind(vhost, "beside")
    bind(vhost, "all", arguments={"x-max-length": 5, "x-overflow": "reject-publish"})
    got: list[int] = []
    with Command(tmp_path, "stream", *shop.options, "--sink", vhost, "--retry-max", "0.3") as stream:
        stream.ready()
        confirmed = shop.confirmed
        run(shop.dsn, "INSERT INTO orders SELECT n, 'x' FROM generate_series(1, 60) n")
        stream.says("trying again .*nacked by the broker")
        held = shop.confirmed

        def drained() -> bool:
            got.extend(ids_of(in_queue(vhost)))
            return set(got) == set(range(1, 61))

        assert eventually(drained, deadline_s=DEADLINE_S)
        assert eventually(lambda: shop.confirmed > confirmed, deadline_s=DEADLINE_S)
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    events = in_queue(vhost, "beside")
    beside = ids_of(events)
    # An idle slot may have moved on up to the transaction, and not into it.
    assert held <= Lsn.parse(events[0]["tx"]["lsn"])
    assert list(dict.fromkeys(beside)) == list(range(1, 61))
    # Once the first nack has told that the queue is full, it gets each event once and in order.
    assert got[-55:] == list(range(6, 61))


@pytest.mark.fault("F70", "I14")
def test_a_consumer_slower_than_the_stall_timeout_gets_a_transaction_all_the_same(
    shop: Shop, vhost: str, tmp_path: Path
) -> None:
    """No event waits for as long as that, but the transaction does."""
    bind(vhost, "all", arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    got: list[int] = []
    arguments = ("--sink", vhost, "--retry-max", "0.3", "--stall-timeout", "3")
    with Command(tmp_path, "stream", *shop.options, *arguments) as stream:
        stream.ready()
        run(shop.dsn, "INSERT INTO orders SELECT n, 'x' FROM generate_series(1, 30) n")
        lsn = shop.lsn

        def is_taken() -> bool:
            time.sleep(0.3)  # what makes it slow
            with channel(vhost) as broker:
                method, _, body = broker.basic_get("all", auto_ack=True)
            if method is not None:
                got.append(json.loads(body)["new"]["id"])
            return shop.confirmed >= lsn

        assert eventually(is_taken, deadline_s=60), stream.stderr
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "unconfirmed for" not in ended.stderr
    assert set(got) | set(ids_of(in_queue(vhost))) == set(range(1, 31))


@pytest.mark.fault("F52", "F77", "I2", "I8")
def test_confirms_that_do_not_come_back_are_no_confirms(
    shop: Shop, rabbitmq: RabbitMQ, vhost: str, tmp_path: Path
) -> None:
    """The broker has every event; only its word of that is held up."""
    bind(vhost, "all")
    with Proxy(rabbitmq.port) as link:
        sink = through(vhost, link.port)
        impatient = ("--stall-timeout", "1", "--retry-max", "0.3")
        with Command(tmp_path, "stream", *shop.options, "--sink", sink, *impatient) as stream:
            stream.ready()
            link.switch(half_open(Direction.TO_CLIENT))
            shop.add(1, 2, 3)
            assert eventually(lambda: depth(vhost) >= 3, deadline_s=DEADLINE_S)

            stream.says("trying again .*left 3 events unconfirmed")
            during = shop.confirmed
            link.switch(PASS)
            lsn = shop.lsn
            assert eventually(lambda: shop.confirmed >= lsn, deadline_s=DEADLINE_S)
            ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    events = in_queue(vhost)
    assert during <= Lsn.parse(events[0]["tx"]["lsn"])
    assert list(dict.fromkeys(ids_of(events))) == [1, 2, 3]
    assert len({event["id"] for event in events}) == 3
