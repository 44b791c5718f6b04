"""Packets are lost on the way, some or all of them, and names lead nowhere or elsewhere."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgevents.demo.postgres import Postgres
from pgevents.demo.rabbitmq import RabbitMQ
from tests.contract.amqp import bind
from tests.faults.evidence import (
    SHORT_TIMEOUT,
    SOON,
    arrives,
    check,
    in_queue,
    is_acknowledged,
)
from tests.faults.wire import Wire
from tests.integration.command import Command, Shop, stored, through

Links = tuple[Wire, Wire]
"""To PostgreSQL and to RabbitMQ."""


@pytest.fixture
def links(postgres15: Postgres, rabbitmq: RabbitMQ) -> Iterator[Links]:
    with Wire(postgres15.port) as to_postgres, Wire(rabbitmq.port) as to_rabbitmq:
        yield to_postgres, to_rabbitmq


@pytest.fixture
def shop(database15: str, vhost: str) -> Shop:
    bind(vhost, "all")
    return Shop(database15)


def arguments(shop: Shop, vhost: str, links: Links) -> tuple[str, ...]:
    """A dead network is noticed in a second: at one end by TCP, at the other by a confirm that does not come."""
    dsn = shop.with_dsn(port=str(links[0].port), options=SHORT_TIMEOUT, tcp_user_timeout="1000", connect_timeout="2")
    return ("stream", *dsn, "--sink", f"{through(vhost, links[1].port)}", "--stall-timeout", "1", *SOON)


@pytest.mark.fault("F51", "I1", "I14")
@pytest.mark.parametrize("dead", [0, 1], ids=["postgres", "amqp"])
def test_a_network_that_is_dead_is_noticed_and_left(
    shop: Shop, vhost: str, links: Links, dead: int, tmp_path: Path
) -> None:
    """The connections stay dead; new ones find another way."""
    with Command(tmp_path, *arguments(shop, vhost, links)) as stream:
        stream.ready()
        shop.add(1)
        assert is_acknowledged(shop, shop.lsn)
        links[dead].lose(100)
        shop.add(2, 3)
        stream.says("streaming again")
        assert is_acknowledged(shop, shop.lsn), stream.stderr
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    check(in_queue(vhost), [1, 2, 3])


@pytest.mark.fault("F51", "I14")
def test_a_stop_while_the_network_is_dead_ends_in_time(shop: Shop, vhost: str, links: Links, tmp_path: Path) -> None:
    """Nobody waits for an answer that cannot come."""
    with Command(tmp_path, *arguments(shop, vhost, links), "--drain-timeout", "1") as stream:
        stream.ready()
        for link in links:
            link.lose(100)
        began = time.monotonic()
        ended = stream.stopped()
        took_s = time.monotonic() - began

    assert "Traceback" not in ended.stderr
    assert took_s < 10


@pytest.mark.fault("F53", "I14")
def test_a_network_that_loses_some_packets_ends_nothing(shop: Shop, vhost: str, links: Links, tmp_path: Path) -> None:
    patient = shop.with_dsn(port=str(links[0].port))
    with Command(tmp_path, "stream", *patient, "--sink", through(vhost, links[1].port), *SOON) as stream:
        stream.ready()
        for link in links:
            link.lose(5)
        shop.add(*range(300))
        assert is_acknowledged(shop, shop.lsn), stream.stderr
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "trying again" not in ended.stderr
    check(in_queue(vhost), range(300))


@pytest.mark.fault("F57", "I14")
def test_a_host_without_an_address_is_passed_over(shop: Shop, tmp_path: Path) -> None:
    several = shop.with_dsn(host="no-such-host.invalid,127.0.0.1")
    shop.add(1)

    with Command(tmp_path, "stream", *several, "--sink", "file:events", "--until-lsn", "now") as stream:
        ended = stream.ended()

    assert ended.code == 0, ended.stderr
    check(stored(tmp_path / "events"), [1])


@pytest.mark.fault("F57", "I1", "I14")
def test_a_server_that_moves_to_another_address_is_found_there(
    shop: Shop, links: Links, postgres15: Postgres, tmp_path: Path
) -> None:
    """The name is a service of libpq, which is looked up at each connection; for a while it leads nowhere."""
    services, file = tmp_path / "services", tmp_path / "events"

    def move_to(host: str, port: int) -> None:
        services.write_text(f"[shop]\nhost={host}\nport={port}\ndbname={shop.database}\nuser=pgevents\n")

    move_to("127.0.0.1", links[0].port)
    named = ("stream", "--dsn", "service=shop", "--slot", shop.slot, "--sink", "file:events", *SOON)
    with Command(tmp_path, *named, env={"PGSERVICEFILE": str(services)}) as stream:
        stream.ready()
        shop.add(1)
        arrives(stream, file, [1])
        move_to("no-such-host.invalid", links[0].port)
        links[0].cut()
        shop.add(2)
        stream.says("trying again .*host name .*no-such-host.invalid", times=2)
        move_to("127.0.0.1", postgres15.port)
        arrives(stream, file, [2])
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    check(stored(file), [1, 2])
