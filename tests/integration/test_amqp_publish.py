"""The RabbitMQ sink in mid-stream: what the broker does to it, and what becomes of the batches."""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.errors import PublishRejected, SinkError, SinkUnavailable, Unroutable
from pgevents.event import Address
from pgevents.interfaces import Sink, SinkOptions
from pgevents.park import ParkFile
from pgevents.sink import amqp
from tests.contract.amqp import ITEMS, ORDERS, batch, bind, channel, largest_message, stored, stored_ids

DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def no_complaint_of_the_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No exception that nobody retrieved, none inside a callback of pika's."""
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"] == []


def with_sink(url: str, use: Callable[[Sink], Awaitable[None]], options: SinkOptions | None = None) -> None:
    async def run() -> None:
        async with asyncio.timeout(DEADLINE_S):
            sink = await amqp.open(url, options or SinkOptions())
            try:
                await use(sink)
            finally:
                await sink.close()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    """The deadline is that of ``with_sink``."""
    while not condition():
        await asyncio.sleep(0.02)


def ending(confirmation: Awaitable[None]) -> asyncio.Future[None]:
    return asyncio.ensure_future(confirmation)


def test_properties_and_routing_key_arrive(vhost: str) -> None:
    bind(vhost, "orders", "public.orders.*")

    async def use(sink: Sink) -> None:
        await sink.publish(batch(7, body='{"name":"Grüße"}'.encode()))

    with_sink(vhost, use)

    [(properties, body)] = stored(vhost, "orders")
    assert body.decode() == '{"name":"Grüße"}'
    assert (properties.message_id, properties.type, properties.app_id) == ("7", "insert", "pgevents")
    assert (properties.content_type, properties.delivery_mode) == ("application/json", 2)
    assert properties.timestamp == 1_790_000_000


def test_a_full_window_arrives_in_order(vhost: str) -> None:
    bind(vhost, "all", arguments={"x-queue-type": "quorum"})

    async def use(sink: Sink) -> None:
        for confirmation in [sink.publish(batch(at * 1000, 1000, body=b"x" * 440)) for at in range(8)]:
            await confirmation

    with_sink(vhost, use)

    assert stored_ids(vhost, "all") == list(range(8000))


def test_a_body_larger_than_a_frame_arrives_whole(vhost: str) -> None:
    bind(vhost, "all")
    large = bytes(range(256)) * 4000

    async def use(sink: Sink) -> None:
        await asyncio.gather(sink.publish(batch(1, body=large)), sink.publish(batch(2)))

    with_sink(vhost, use)

    assert [body for _, body in stored(vhost, "all")] == [large, b"{}"]


def test_an_idle_connection_is_kept_by_heartbeats(vhost: str) -> None:
    bind(vhost, "all")

    async def use(sink: Sink) -> None:
        assert isinstance(sink, amqp.sink.AmqpSink)
        # The broker closes a connection that is silent for two heartbeats.
        await asyncio.wait({sink._link.lost}, timeout=5)
        await sink.publish(batch(1))

    with_sink(f"{vhost}?heartbeat=1", use)

    assert stored_ids(vhost, "all") == [1]


@pytest.mark.fault("F79")
def test_a_nack_fails_its_batch_and_may_be_tried_again(vhost: str) -> None:
    bind(vhost, "full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})

    async def use(sink: Sink) -> None:
        await sink.publish(batch(1))
        with pytest.raises(PublishRejected, match="event 2 was rejected: nacked by the broker") as rejected:
            await sink.publish(batch(2, 3))
        assert rejected.value.transient
        assert "reject-publish" in rejected.value.hint

    with_sink(vhost, use)

    assert stored_ids(vhost, "full") == [1]


def test_a_routing_key_too_long_fails_its_batch_and_all_behind_it(vhost: str) -> None:
    bind(vhost, "all")
    long_key = Address("k" * 256, "insert", "application/json")

    async def use(sink: Sink) -> None:
        before, broken, after = (
            sink.publish(batch(1)),
            sink.publish(batch(2, address=long_key)),
            sink.publish(batch(3)),
        )
        with pytest.raises(PublishRejected, match=r"event 2 .* routing key is 256 bytes"):
            await broken
        await before
        with pytest.raises(PublishRejected, match="event 2 was rejected"):
            await after

    with_sink(vhost, use)

    assert stored_ids(vhost, "all") == [1]


@pytest.mark.fault("F65")
def test_an_exchange_deleted_in_mid_stream_is_transient_and_declared_again(vhost: str) -> None:
    bind(vhost, "all")

    async def use(sink: Sink) -> None:
        await sink.publish(batch(1))
        with channel(vhost) as broker:
            broker.exchange_delete("pgevents")
        lost, also_lost = ending(sink.publish(batch(2))), ending(sink.publish(batch(3)))
        for confirmation in (lost, also_lost):
            with pytest.raises(SinkUnavailable, match="exchange 'pgevents' is gone"):
                await confirmation
        late = ending(sink.publish(batch(4)))
        assert late.done(), "after the end every batch fails at once"
        with pytest.raises(SinkUnavailable, match="is gone"):
            await late

    with_sink(vhost, use)

    async def again(sink: Sink) -> None:
        bind(vhost, "all")
        await sink.publish(batch(2))

    with_sink(vhost, again)
    assert stored_ids(vhost, "all") == [1, 2]


@pytest.mark.fault("F62")
def test_a_connection_closed_by_the_broker_fails_what_is_in_flight(vhost: str, rabbitmq: RabbitMQ) -> None:
    bind(vhost, "all")

    async def use(sink: Sink) -> None:
        await sink.publish(batch(1))
        await asyncio.to_thread(rabbitmq.ctl, "close_all_connections", "-p", urlsplit(vhost).path[1:], "maintenance")
        with pytest.raises(SinkUnavailable, match=r"RabbitMQ closed the connection: .*maintenance"):
            await sink.publish(batch(2))

    with_sink(vhost, use)


def test_a_batch_published_as_the_connection_goes_fails_like_the_others(vhost: str) -> None:
    bind(vhost, "all")

    async def use(sink: Sink) -> None:
        assert isinstance(sink, amqp.sink.AmqpSink)
        late: asyncio.Future[Awaitable[None]] = asyncio.get_running_loop().create_future()
        connection = sink._link.connection
        connection.add_on_close_callback(lambda *_: late.set_result(sink.publish(batch(2))))
        connection.drop()
        with pytest.raises(SinkUnavailable, match="connection to RabbitMQ was lost"):
            await (await late)

    with_sink(vhost, use)


@pytest.mark.fault("F74")
def test_a_message_too_large_for_the_broker_is_rejected_for_good(vhost: str, rabbitmq: RabbitMQ) -> None:
    bind(vhost, "all")

    async def use(sink: Sink) -> None:
        await sink.publish(batch(1))
        with pytest.raises(PublishRejected, match=r"event 2 was rejected: .*larger than") as rejected:
            await sink.publish(batch(2, body=b"x" * 200_000))
        assert not rejected.value.transient
        assert rejected.value.max_bytes == 100_000
        assert "max_message_size" in rejected.value.hint

    with largest_message(rabbitmq, 100_000):
        with_sink(vhost, use)


@contextmanager
def memory_alarm(rabbitmq: RabbitMQ) -> Iterator[Callable[[], object]]:
    """The broker takes nothing until the yielded function, or the end of the block, stills the alarm."""

    def still() -> object:
        return rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1GB")

    rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
    try:
        yield still
    finally:
        still()


@pytest.mark.fault("F63")
def test_a_blocked_broker_is_said_and_waited_for(
    vhost: str, rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    bind(vhost, "all")

    async def use(sink: Sink) -> None:
        with memory_alarm(rabbitmq) as still:
            confirmations = [ending(sink.publish(batch(at * 1000, 1000))) for at in range(8)]
            await until(lambda: "publishing is blocked by the broker" in caplog.text)
            assert not confirmations[-1].done()
            await asyncio.to_thread(still)
            await asyncio.gather(*confirmations)

    with_sink(vhost, use)

    assert "no longer blocked" in caplog.text
    assert stored_ids(vhost, "all") == list(range(8000))


@pytest.mark.fault("F05")
def test_closing_while_the_broker_blocks_does_not_hang(
    vhost: str, rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    bind(vhost, "all")

    async def use(sink: Sink) -> None:
        confirmation = ending(sink.publish(batch(1, 1000, body=b"x" * 4000)))
        await until(lambda: "publishing is blocked by the broker" in caplog.text)
        async with asyncio.timeout(8):
            await sink.close()
        with pytest.raises(SinkUnavailable, match="closed"):
            await confirmation

    with memory_alarm(rabbitmq):
        with_sink(vhost, use)


def test_a_node_that_is_killed_fails_what_is_in_flight(
    tmp_path_factory: pytest.TempPathFactory, services: Path
) -> None:
    with RabbitMQ(services / "rabbitmq-to-kill") as node:
        bind(node.url(), "all")

        async def use(sink: Sink) -> None:
            await sink.publish(batch(1))
            await asyncio.to_thread(node.kill)
            with pytest.raises(SinkUnavailable, match="connection to RabbitMQ was lost"):
                await sink.publish(batch(2))

        with_sink(node.url(), use)


@pytest.mark.fault("F66", "I6", "I19")
def test_unroutable_events_wait_until_a_queue_is_bound_and_arrive_in_order(
    vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    bind(vhost, "items", "public.items.*")

    async def use(sink: Sink) -> None:
        first = ending(sink.publish(batch(1, 3, address=ORDERS)))
        second = ending(sink.publish(batch(10, 2, address=ITEMS)))
        await until(lambda: "no queue is bound" in caplog.text)
        third = ending(sink.publish(batch(4, 3, address=ORDERS)))
        assert not first.done()
        assert not third.done()
        bind(vhost, "orders", "public.orders.*")
        await asyncio.gather(first, second, third)

    with_sink(vhost, use)

    # The items went ahead of orders that may be of the same rows to whoever reads both: all go again, in order.
    assert stored_ids(vhost, "orders") == [1, 2, 3, 1, 2, 3, 4, 5, 6]
    assert stored_ids(vhost, "items") == [10, 11, 10, 11]
    loud = next(vars(record) for record in caplog.records if "no queue is bound" in record.message)
    assert loud["message"].endswith("waiting for one")
    assert (loud["exchange"], loud["routing_key"], loud["count"]) == ("pgevents", "public.orders.insert", 3)
    assert "a queue is bound now" in caplog.text


@pytest.mark.fault("F66", "I6")
def test_waiting_with_a_full_window_keeps_the_order(vhost: str, caplog: pytest.LogCaptureFixture) -> None:
    async def use(sink: Sink) -> None:
        confirmations = [ending(sink.publish(batch(at * 500, 500))) for at in range(8)]
        await until(lambda: "no queue is bound" in caplog.text)
        bind(vhost, "all")
        await asyncio.gather(*confirmations)

    with_sink(vhost, use)

    assert stored_ids(vhost, "all") == list(range(4000))


def test_a_queue_bound_in_mid_window_ends_with_the_newest_event(vhost: str) -> None:
    async def use(sink: Sink) -> None:
        returned = ending(sink.publish(batch(1)))
        for _ in range(2):  # one turn of the loop to find the socket writable, one to write
            await asyncio.sleep(0)
        # It comes back while the loop stands still, so the second one is written before the sink knows.
        bind(vhost, "all")
        await asyncio.gather(returned, sink.publish(batch(2)))

    with_sink(vhost, use)

    assert stored_ids(vhost, "all") == [2, 1, 2]


def test_a_wait_ends_when_its_time_is_over_and_the_retries_go_on(vhost: str) -> None:
    async def use(sink: Sink) -> None:
        async with asyncio.timeout(0.8):  # before the first retry
            with pytest.raises(Unroutable, match=r"bound for public\.orders\.insert") as unroutable:
                await sink.publish(batch(1, 3))
        bind(vhost, "all")
        await unroutable.value.routed

    with_sink(vhost, use, SinkOptions(hold_s=0.2))

    assert stored_ids(vhost, "all") == [1, 2, 3]


def test_a_retry_that_is_never_confirmed_is_let_go_of(vhost: str, rabbitmq: RabbitMQ) -> None:
    async def use(sink: Sink) -> None:
        with pytest.raises(Unroutable) as unroutable:
            await sink.publish(batch(1))
        with memory_alarm(rabbitmq):
            async with asyncio.timeout(20):
                await unroutable.value.routed

    with_sink(vhost, use, SinkOptions(hold_s=0.2))


def test_closing_while_waiting_leaves_the_events_unconfirmed(vhost: str, caplog: pytest.LogCaptureFixture) -> None:
    async def use(sink: Sink) -> None:
        returned = ending(sink.publish(batch(1)))
        await until(lambda: "no queue is bound" in caplog.text)
        held = ending(sink.publish(batch(2)))
        await sink.close()
        for confirmation in (returned, held):
            with pytest.raises(SinkError):
                await confirmation

    with_sink(vhost, use)


@pytest.mark.fault("F66", "I18", "I19")
def test_unroutable_events_are_parked_before_their_batch_is_confirmed(
    vhost: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bind(vhost, "items", "public.items.*")
    park_file = tmp_path / "parked.ndjson"
    park = ParkFile(park_file)

    async def use(sink: Sink) -> None:
        await asyncio.gather(sink.publish(batch(1, 3, body=b'{"id":1}')), sink.publish(batch(9, address=ITEMS)))
        assert [json.loads(line)["message_id"] for line in park_file.read_text().splitlines()] == ["1", "2", "3"]
        await sink.publish(batch(4))
        await park.close()

    with_sink(vhost, use, SinkOptions(on_unroutable="park", park=park))

    parked = [json.loads(line) for line in park_file.read_text().splitlines()]
    assert [line["message_id"] for line in parked] == ["1", "2", "3", "4"]
    assert parked[0]["routing_key"] == "public.orders.insert"
    assert parked[0]["body"] == '{"id":1}'
    assert stored_ids(vhost, "items") == [9]
    assert "parking them" in caplog.text


def test_a_park_file_that_cannot_be_written_fails_the_batch(vhost: str, tmp_path: Path) -> None:
    async def use(sink: Sink) -> None:
        with pytest.raises(SinkError, match="No such file or directory"):
            await sink.publish(batch(1))

    park = ParkFile(tmp_path / "missing" / "parked")
    with_sink(vhost, use, SinkOptions(on_unroutable="park", park=park))


def test_unroutable_events_are_dropped_where_that_is_asked_for(vhost: str, caplog: pytest.LogCaptureFixture) -> None:
    async def use(sink: Sink) -> None:
        await sink.publish(batch(1, 3))

    with_sink(vhost, use, SinkOptions(on_unroutable="drop"))

    [said] = (vars(record) for record in caplog.records)
    assert said["message"] == "no queue is bound for these events, dropping them"
    assert (said["exchange"], said["routing_key"], said["count"]) == ("pgevents", "public.orders.insert", 3)


def test_without_mandatory_unroutable_events_are_confirmed_in_silence(
    vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(sink: Sink) -> None:
        await sink.publish(batch(1, 3))

    with_sink(f"{vhost}?mandatory=false", use)

    assert "no queue is bound" not in caplog.text
