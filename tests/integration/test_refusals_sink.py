"""A sink that cannot be written to: said in one line, tried again where that may help, and nothing is lost."""

import json
from pathlib import Path

import pytest

from chaos.proxy import Proxy
from pgevents.demo.process import eventually, free_ports
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.lsn import Lsn
from tests.contract.amqp import bind, channel
from tests.contract.amqp import stored as stored_in_queue
from tests.integration.command import Command, Json, Shop, ids_of, pgevents, stored, through
from tests.integration.streaming import run

FAILED, REFUSED = 1, 4
DEADLINE_S = 10.0
SOON = ("--start-timeout", "0.5", "--retry-max", "0.2")
IMPATIENT = ("--start-timeout", "0", "--retry-max", "0.2")

PASSWORD = "hunter2-of-nobody"


@pytest.fixture
def shop(database15: str) -> Shop:
    return Shop(database15)


def depth(url: str) -> int:
    with channel(url) as broker:
        count: int = broker.queue_declare("all", passive=True).method.message_count
        return count


def in_queue(url: str) -> list[Json]:
    return [json.loads(body) for _, body in stored_in_queue(url, "all")]


def test_a_broker_that_is_down_is_tried_again_and_then_given_up(shop: Shop, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    shop.add(1)
    before = shop.confirmed

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", f"amqp://app:{PASSWORD}@127.0.0.1:{port}/", *SOON)

    outcome.refused(FAILED, error=f"cannot reach RabbitMQ at 127.0.0.1:{port}: Connection refused", hint="broker")
    assert "trying again" in outcome.stderr
    assert PASSWORD not in outcome.stderr
    assert shop.confirmed == before


@pytest.mark.fault("F69", "I21")
def test_wrong_credentials_are_refused(shop: Shop, vhost: str, tmp_path: Path) -> None:
    before = shop.confirmed
    user, rest = vhost.removeprefix("amqp://").split(":", 1)
    sink = f"amqp://{user}:{PASSWORD}@{rest.partition('@')[2]}"

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", sink)

    outcome.refused(REFUSED, error=f"user '{user}' was refused by 127.0.0.1", hint="Check user and password")
    assert PASSWORD not in outcome.stderr
    assert shop.confirmed == before


def test_an_unknown_virtual_host_is_refused(shop: Shop, rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    before = shop.confirmed

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", rabbitmq.url("no-such"))

    outcome.refused(REFUSED, error="virtual host 'no-such' was refused", hint="add_vhost")
    assert rabbitmq.settings.password not in outcome.stderr
    assert shop.confirmed == before


@pytest.mark.fault("F67")
def test_an_exchange_of_another_type_is_refused(shop: Shop, vhost: str, tmp_path: Path) -> None:
    before = shop.confirmed
    with channel(vhost) as broker:
        broker.exchange_declare("pgevents", "fanout", durable=True)

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", vhost)

    outcome.refused(
        REFUSED, error="exchange 'pgevents' exists, but is no durable topic exchange", hint="--no-declare"
    )
    assert shop.confirmed == before


def test_an_exchange_that_is_missing_is_refused_where_we_may_not_declare(
    shop: Shop, vhost: str, tmp_path: Path
) -> None:
    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", vhost, "--no-declare")

    outcome.refused(REFUSED, error="there is no exchange 'pgevents'", hint="--no-declare")


@pytest.mark.fault("F75", "I18")
def test_a_routing_key_that_is_too_long_stops_the_stream_until_it_is_shortened(
    shop: Shop, vhost: str, tmp_path: Path
) -> None:
    bind(vhost, "all")
    longest = "€" * 21  # 63 bytes, the most PostgreSQL allows; each € is escaped to nine
    run(shop.dsn, f'CREATE SCHEMA "{longest}" CREATE TABLE "{longest}" (id int PRIMARY KEY)')
    before = shop.confirmed
    shop.add(1)
    run(shop.dsn, f'INSERT INTO "{longest}"."{longest}" VALUES (2)')
    options = ("stream", *shop.options, "--until-lsn", "now", "--sink")

    outcome = pgevents(tmp_path, *options, vhost)
    confirmed = shop.confirmed
    again = pgevents(tmp_path, *options, f"{vhost}?routing_key={{op}}")

    said = r"event \S+ was rejected: .*routing key is \d+ bytes"
    outcome.refused(FAILED, error=said, hint="Shorten what the routing key is made of")
    assert again.code == 0, again.stderr
    events = in_queue(vhost)
    assert list(dict.fromkeys(ids_of(events))) == [1, 2]
    assert before <= confirmed < Lsn.parse(events[-1]["tx"]["lsn"])


@pytest.mark.fault("F50", "F56", "I14")
def test_a_broker_that_goes_away_in_mid_stream_is_waited_for(
    shop: Shop, rabbitmq: RabbitMQ, vhost: str, tmp_path: Path
) -> None:
    bind(vhost, "all")
    with Proxy(rabbitmq.port) as way:
        sink = through(vhost, way.port)
        with Command(tmp_path, "stream", *shop.options, "--sink", sink, *IMPATIENT) as stream:
            stream.ready()
            shop.add(1, 2)
            way.cut()
            shop.add(3, 4)
            stream.says(f"trying again .*cannot reach RabbitMQ at 127.0.0.1:{way.port}", times=2)
            way.mend()
            stream.says("streaming again")
            shop.add(5)
            written = shop.lsn
            assert eventually(lambda: shop.confirmed >= written, deadline_s=20), stream.stderr
            ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert rabbitmq.settings.password not in ended.stderr
    events = in_queue(vhost)
    assert list(dict.fromkeys(ids_of(events))) == [1, 2, 3, 4, 5]
    assert shop.confirmed > Lsn.parse(events[-1]["tx"]["lsn"])


@pytest.mark.fault("F65", "I14")
def test_an_exchange_that_is_deleted_in_mid_stream_is_declared_again(shop: Shop, vhost: str, tmp_path: Path) -> None:
    bind(vhost, "all")
    with Command(tmp_path, "stream", *shop.options, "--sink", vhost, "--retry-max", "0.2") as stream:
        stream.ready()
        shop.add(1)
        assert eventually(lambda: depth(vhost) == 1, deadline_s=10)
        with channel(vhost) as broker:
            broker.exchange_delete("pgevents")
        shop.add(2)
        stream.says("trying again .*exchange 'pgevents' is gone")
        stream.says("no queue is bound")
        bind(vhost, "all")
        assert eventually(lambda: depth(vhost) == 2, deadline_s=10)
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert ids_of(in_queue(vhost)) == [1, 2]


# Files.


@pytest.mark.fault("F13", "I2")
def test_a_full_disk_is_waited_for(shop: Shop, tmp_path: Path) -> None:
    shop.add(1)
    before = shop.confirmed
    full = (*shop.options, "--sink", "file:/dev/full", *IMPATIENT)

    with Command(tmp_path, "stream", *full) as stream:
        stream.says("trying again .*cannot write /dev/full: No space left on device", times=2)
        ended = stream.stopped()
    after = shop.confirmed
    again = pgevents(tmp_path, "stream", *shop.options, "--sink", "stdout:", "--until-lsn", "now")

    assert ended.code == 0, ended.stderr
    assert "confirmed=0" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert before <= after <= Lsn.parse(again.events[0]["tx"]["lsn"])
    assert ids_of(again.events) == [1]


@pytest.mark.fault("F13", "I2")
def test_a_file_that_may_not_grow_ends_the_stream_and_keeps_whole_lines(shop: Shop, tmp_path: Path) -> None:
    run(shop.dsn, "INSERT INTO orders SELECT n, repeat('x', 200) FROM generate_series(1, 500) n")
    before = shop.confirmed
    options = ("stream", *shop.options, "--sink", "file:events.ndjson", "--batch-events", "10")

    outcome = pgevents(tmp_path, *options, prefix=("prlimit", "--fsize=65000"))
    written, confirmed = stored(tmp_path / "events.ndjson"), shop.confirmed
    again = pgevents(tmp_path, *options, "--until-lsn", "now")

    outcome.refused(REFUSED, error=r"cannot write events\.ndjson: File too large", hint="Raise the limit")
    assert 0 < len(written) < 500
    assert confirmed < Lsn.parse(written[0]["tx"]["lsn"])
    assert confirmed >= before
    assert again.code == 0, again.stderr
    assert len({event["id"] for event in stored(tmp_path / "events.ndjson")}) == 500


def test_a_file_in_a_folder_that_is_missing(shop: Shop, tmp_path: Path) -> None:
    before = shop.confirmed

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", "file:none/events.ndjson")

    outcome.refused(REFUSED, error="cannot write none/events.ndjson: No such file", hint="Create the folder")
    assert shop.confirmed == before


def test_a_file_that_another_stream_writes(shop: Shop, tmp_path: Path) -> None:
    sink = ("--sink", "file:events.ndjson")
    with Command(tmp_path, "stream", *shop.options, *sink) as first:
        first.ready()
        second = pgevents(tmp_path, "stream", "--dsn", shop.role_dsn, "--slot", "another", *sink)

    second.refused(REFUSED, error="another process is writing events.ndjson", hint="a file of its own")
