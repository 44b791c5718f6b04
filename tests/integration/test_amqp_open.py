"""Opening the RabbitMQ sink: every way it is refused is one line that says what to do."""

import asyncio
import gc
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.errors import ConfigError, SinkError, SinkRefused, SinkUnavailable
from pgevents.interfaces import SinkOptions
from pgevents.sink import amqp
from tests.contract.amqp import batch, bind, channel, stored_ids

DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def no_complaint_of_the_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No exception that nobody retrieved, none inside a callback of pika's."""
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"] == []


async def publish_one(url: str, options: SinkOptions | None = None) -> None:
    async with asyncio.timeout(DEADLINE_S):
        sink = await amqp.open(url, options or SinkOptions())
        try:
            await sink.publish(batch(1))
        finally:
            await sink.close()


def refusal(url: str, options: SinkOptions | None = None) -> SinkError:
    with pytest.raises(SinkError) as refused:
        asyncio.run(publish_one(url, options))
    assert "\n" not in str(refused.value)
    return refused.value


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def user(rabbitmq: RabbitMQ, vhost: str, **permissions: str) -> Iterator[str]:
    """The URL of a user without a tag who has ``permissions`` in the virtual host, none if none is given."""
    name = urlsplit(vhost).path.lstrip("/")
    rabbitmq.api("PUT", "/api/users/clerk", {"password": "sesame", "tags": ""})
    if permissions:
        granted = {"configure": "", "write": "", "read": "", **permissions}
        rabbitmq.api("PUT", f"/api/permissions/{name}/clerk", granted)
    yield f"amqp://clerk:sesame@127.0.0.1:{rabbitmq.port}/{name}"
    rabbitmq.api("DELETE", "/api/users/clerk")


def test_the_exchange_is_declared_durable_and_topic(vhost: str, rabbitmq: RabbitMQ) -> None:
    bind(vhost, "all")

    asyncio.run(publish_one(f"{vhost}?exchange=fresh", SinkOptions(on_unroutable="drop")))

    fresh = rabbitmq.api("GET", f"/api/exchanges{urlsplit(vhost).path}/fresh")
    assert (fresh["type"], fresh["durable"], fresh["auto_delete"]) == ("topic", True, False)


def test_a_wrong_password_names_the_user_and_not_the_password(vhost: str) -> None:
    password = urlsplit(vhost).password or ""

    error = refusal(vhost.replace(password, "wrong-word"))

    assert isinstance(error, SinkRefused)
    assert "user 'pgevents' was refused" in str(error)
    assert "wrong-word" not in f"{error}{error.hint}"
    assert error.hint


def test_a_virtual_host_that_is_not_there_is_named(rabbitmq: RabbitMQ) -> None:
    error = refusal(rabbitmq.url("elsewhere"))

    assert isinstance(error, SinkRefused)
    assert "virtual host 'elsewhere' was refused" in str(error)
    assert "add_vhost" in error.hint


def test_a_user_without_access_to_the_virtual_host_is_refused(vhost: str, rabbitmq: RabbitMQ) -> None:
    with user(rabbitmq, vhost) as url:
        error = refusal(url)

    assert isinstance(error, SinkRefused)
    assert "virtual host" in str(error)


def test_a_user_who_may_not_declare_is_told_about_no_declare(vhost: str, rabbitmq: RabbitMQ) -> None:
    with user(rabbitmq, vhost, write=".*") as url:
        error = refusal(url)

    assert isinstance(error, SinkRefused)
    assert "user 'clerk' has no permission on exchange 'pgevents'" in str(error)
    assert "--no-declare" in error.hint


def test_an_exchange_whose_name_the_broker_reserves_is_named(vhost: str) -> None:
    error = refusal(vhost, SinkOptions(exchanges=("amq.nope",)))

    assert isinstance(error, SinkRefused)
    assert "on exchange 'amq.nope': ACCESS_REFUSED - exchange name 'amq.nope' contains reserved prefix" in str(error)


def test_a_user_who_may_not_write_is_refused_in_mid_stream(vhost: str, rabbitmq: RabbitMQ) -> None:
    bind(vhost, "all")

    with user(rabbitmq, vhost, read=".*") as url:
        error = refusal(url, SinkOptions(declare=False))

    assert isinstance(error, SinkRefused)
    assert "no permission on exchange" in str(error)


@pytest.mark.parametrize("declaration", [{"exchange_type": "fanout", "durable": True}, {"exchange_type": "topic"}])
@pytest.mark.fault("F67")
def test_an_exchange_of_another_kind_is_refused(vhost: str, declaration: dict[str, object]) -> None:
    with channel(vhost) as broker:
        broker.exchange_declare("pgevents", **declaration)

    error = refusal(vhost)

    assert isinstance(error, SinkRefused)
    assert "exchange 'pgevents' exists, but" in str(error)
    assert "inequivalent arg" in str(error), "the broker's own words"
    assert error.hint


def test_an_exchange_of_another_kind_serves_undeclared(vhost: str) -> None:
    with channel(vhost) as broker:
        broker.exchange_declare("pgevents", "fanout", durable=True)
        broker.queue_declare("all", durable=True)
        broker.queue_bind("all", "pgevents")

    asyncio.run(publish_one(vhost, SinkOptions(declare=False)))

    assert stored_ids(vhost, "all") == [1]


def test_a_missing_exchange_is_refused_when_it_may_not_be_declared(vhost: str) -> None:
    error = refusal(vhost, SinkOptions(declare=False))

    assert isinstance(error, SinkRefused)
    assert "there is no exchange 'pgevents'" in str(error)
    assert "--no-declare" in error.hint


def test_a_broker_that_is_down_is_unavailable() -> None:
    port = unused_port()

    error = refusal(f"amqp://127.0.0.1:{port}")

    assert isinstance(error, SinkUnavailable)
    assert str(error) == f"cannot reach RabbitMQ at 127.0.0.1:{port}: Connection refused"


@pytest.mark.fault("F57")
def test_an_unknown_host_is_unavailable() -> None:
    error = refusal("amqp://broker.invalid")

    assert isinstance(error, SinkUnavailable)
    assert "cannot reach RabbitMQ at broker.invalid:5672: " in str(error)


def test_a_broker_that_never_answers_is_given_up_after_the_timeout(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        error = refusal(f"amqp://127.0.0.1:{deaf.getsockname()[1]}?connection_timeout=300")

    assert isinstance(error, SinkUnavailable)
    assert str(error).endswith("no answer within 0.3 s")
    assert caplog.messages == []


def test_a_host_that_takes_no_connection_is_given_up_after_the_timeout(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())  # the queue of connections is full now, and further ones are not answered
        error = refusal(f"amqp://127.0.0.1:{full.getsockname()[1]}?connection_timeout=300")

    assert isinstance(error, SinkUnavailable)
    assert str(error).endswith("no answer within 0.3 s")
    assert caplog.messages == []


def test_opening_can_be_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def give_up() -> None:
        async with asyncio.timeout(0.2):
            await amqp.open(f"amqp://127.0.0.1:{deaf.getsockname()[1]}", SinkOptions())

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        with pytest.raises(TimeoutError):
            asyncio.run(give_up())
        peer, _ = deaf.accept()
        with peer:
            peer.settimeout(DEADLINE_S)
            assert peer.recv(100).startswith(b"AMQP")
            assert peer.recv(100) == b"", "our end is closed"

    assert caplog.messages == []


def test_the_next_address_is_tried_until_one_answers(vhost: str, rabbitmq: RabbitMQ) -> None:
    bind(vhost, "all")
    own = f"127.0.0.1:{rabbitmq.port}"
    several = vhost.replace(own, f"127.0.0.1:{unused_port()},{own},127.0.0.1:{unused_port()}")

    for _ in range(6):  # the first one is taken at random
        asyncio.run(publish_one(several))

    assert stored_ids(vhost, "all") == [1] * 6


def test_when_no_address_answers_all_are_named() -> None:
    ports = [unused_port(), unused_port()]

    error = refusal(f"amqp://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}")

    assert isinstance(error, SinkUnavailable)
    assert all(f"127.0.0.1:{port}: Connection refused" in str(error) for port in ports)


def test_an_unknown_way_with_unroutable_events_is_a_configuration_error(vhost: str) -> None:
    with pytest.raises(ConfigError, match="wait, park, drop"):
        asyncio.run(amqp.open(vhost, SinkOptions(on_unroutable="shrug")))


@pytest.mark.parametrize("parameter", ["cacertfile", "certfile"])
def test_a_certificate_file_that_is_not_there_is_a_configuration_error(parameter: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{parameter} in the RabbitMQ URL"):
        asyncio.run(amqp.open(f"amqps://127.0.0.1?{parameter}={tmp_path / 'missing.pem'}", SinkOptions()))
