"""The broker of the fault suite is one: a plain client, over a real socket, can publish to it and be refused."""

import asyncio
import threading
from collections.abc import Iterator

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError

from tests.faults.broker import Broker
from tests.faults.schedule import End, Turn, Verdict


class Serving:
    """A broker on a loop and a thread of its own."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        server = await self._loop.create_server(self._answer, "127.0.0.1")
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        async with server:
            await self._stop.wait()

    def _answer(self) -> asyncio.Protocol:
        serve = self.broker.dial()
        assert serve
        return serve()

    def start(self) -> None:
        self._thread.start()
        assert self._listening.wait(10)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def serving() -> Iterator[Serving]:
    serving = Serving()
    serving.start()
    yield serving
    serving.end()


def publish(serving: Serving, *bodies: bytes) -> None:
    parameters = pika.ConnectionParameters("127.0.0.1", serving.port, blocked_connection_timeout=10)
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.exchange_declare("pgevents", "topic", durable=True)
        channel.confirm_delivery()
        for at, body in enumerate(bodies):
            properties = pika.BasicProperties(message_id=f"{at}")
            channel.basic_publish("pgevents", "key", body, properties, mandatory=True)


def test_a_plain_client_publishes_and_is_confirmed(serving: Serving) -> None:
    publish(serving, b"small", b"", b"large" * 100_000)

    assert [(each.id, each.key, len(each.body)) for each in serving.broker.durable] == [
        ("0", "key", 5),
        ("1", "key", 0),
        ("2", "key", 500_000),
    ]
    assert serving.broker.delivered == {"0", "1", "2"}


def test_a_small_frame_size_is_kept_to_and_a_trickle_is_read(serving: Serving) -> None:
    serving.broker.turns = (Turn(frame_max=4096, piece=3, verdicts=(Verdict.STORE, Verdict.RETURN)),)

    with pytest.raises(UnroutableError) as returned:
        publish(serving, b"stored", b"returned" * 2_000)

    assert [each.body for each in returned.value.messages] == [b"returned" * 2_000]
    assert [each.body for each in serving.broker.durable] == [b"stored"]


def test_a_nack_reaches_a_plain_client(serving: Serving) -> None:
    serving.broker.turns = (Turn(verdicts=(Verdict.STORE, Verdict.NACK)),)

    with pytest.raises(NackError):
        publish(serving, b"stored", b"refused")

    assert [each.body for each in serving.broker.durable] == [b"stored"]
    assert serving.broker.delivered == {"0"}


def test_a_closed_channel_reaches_a_plain_client(serving: Serving) -> None:
    serving.broker.turns = (Turn(end=End.TOO_LARGE),)

    with pytest.raises(ChannelClosedByBroker, match="larger than configured max size"):
        publish(serving, b"large")

    assert serving.broker.durable == []
