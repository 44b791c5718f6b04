"""Routes on a real RabbitMQ: exchanges, headers and properties, and what becomes of what is not routed there."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pgevents.batch import Batch
from pgevents.demo.process import eventually
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.errors import EXIT_REFUSED, ExchangeMissing, SinkUnavailable, Unroutable
from pgevents.event import Address, Envelope, Headers
from pgevents.interfaces import Sink, SinkOptions
from pgevents.lsn import Lsn
from pgevents.park import ParkFile, parse
from pgevents.sink import amqp
from tests.contract.amqp import ORDERS, batch, bind, channel, stored, stored_ids
from tests.integration.command import Shop, pgevents
from tests.integration.streaming import run

DEADLINE_S = 60.0
ELSEWHERE = ORDERS._replace(exchange="elsewhere")
SECOND = SinkOptions(exchanges=("elsewhere",))

LOW, HIGH = ORDERS._replace(priority=1), ORDERS._replace(priority=9)

ROUTES = """
[[route]]
name = "large"
tables = ["public.orders"]
when = "new.note LIKE 'large%'"
exchange = "elsewhere"
routing_key = "large.{table}"
priority = 7
expiration = 600
headers = { tenant = "größer" }
compression = "gzip"
"""


@pytest.fixture
def shop(database15: str) -> Shop:
    return Shop(database15)


def bind_elsewhere(url: str, queue: str = "there", key: str = "#") -> None:
    with channel(url) as broker:
        broker.exchange_declare("elsewhere", "topic", durable=True)
        broker.queue_declare(queue, durable=True)
        broker.queue_bind(queue, "elsewhere", key)


def with_sink(url: str, use: Callable[[Sink], Awaitable[None]], options: SinkOptions = SECOND) -> None:
    async def run() -> None:
        async with asyncio.timeout(DEADLINE_S):
            sink = await amqp.open(url, options)
            try:
                await use(sink)
            finally:
                await sink.close()

    asyncio.run(run())


def publish(url: str, *batches: Batch, options: SinkOptions = SECOND) -> None:
    async def use(sink: Sink) -> None:
        for each in batches:
            await sink.publish(each)

    with_sink(url, use, options)


def envelope(message_id: str, address: Address = ORDERS, headers: Headers = ()) -> Envelope:
    return Envelope(message_id, address, 1_790_000_000, b"{}", headers)


def test_each_event_goes_to_the_exchange_of_its_address(vhost: str) -> None:
    bind(vhost, "here")
    bind_elsewhere(vhost)

    publish(vhost, batch(1), batch(2, address=ELSEWHERE), batch(3))

    assert stored_ids(vhost, "here") == [1, 3]
    assert stored_ids(vhost, "there") == [2]


def test_the_exchanges_of_routes_are_declared_durable_and_topic(vhost: str, rabbitmq: RabbitMQ) -> None:
    publish(vhost)

    declared = rabbitmq.api("GET", f"/api/exchanges{urlsplit(vhost).path}/elsewhere")
    assert (declared["type"], declared["durable"], declared["auto_delete"]) == ("topic", True, False)


def test_properties_of_an_address_arrive(vhost: str) -> None:
    bind(vhost, "all")
    address = ORDERS._replace(
        headers=(("tenant", "größer ✓"), ("long", "x" * 20_000)),
        priority=5,
        expiration="600000",
        content_encoding="gzip",
    )

    publish(vhost, batch(1, address=address))

    [(properties, body)] = stored(vhost, "all")
    assert properties.headers == {"tenant": "größer ✓", "long": "x" * 20_000}
    assert (properties.priority, properties.expiration) == (5, "600000")
    assert properties.content_encoding == "gzip"
    assert (properties.message_id, properties.type, properties.delivery_mode, body) == ("1", "insert", 2, b"{}")


def test_headers_of_a_message_arrive_beside_those_of_its_address(vhost: str) -> None:
    bind(vhost, "all")
    address = ORDERS._replace(headers=(("tenant", "a"), ("cloudEvents:source", "hidden")))
    own = (("cloudEvents:id", "7-1-A-1"), ("cloudEvents:source", "/größe/✓"), ("cloudEvents:subject", ""))

    publish(vhost, Batch([envelope("1", address, own), envelope("2", address)], Lsn(1)))

    [(first, _), (second, _)] = stored(vhost, "all")
    assert first.headers == {
        "tenant": "a",
        "cloudEvents:id": "7-1-A-1",
        "cloudEvents:source": "/größe/✓",
        "cloudEvents:subject": "",
    }
    assert second.headers == {"tenant": "a", "cloudEvents:source": "hidden"}


def test_a_queue_with_priorities_hands_out_the_higher_first(vhost: str) -> None:
    bind(vhost, "ordered", arguments={"x-max-priority": 9})

    publish(vhost, batch(1, 2, address=LOW), batch(3), batch(4, 2, address=HIGH))

    assert stored_ids(vhost, "ordered") == [4, 5, 1, 2, 3]


def test_an_event_that_expires_is_dead_lettered_and_others_stay(vhost: str) -> None:
    with channel(vhost) as broker:
        broker.queue_declare("expired", durable=True)
    bind(
        vhost,
        "all",
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "expired"},
    )

    publish(vhost, batch(1, address=ORDERS._replace(expiration="50")), batch(2))

    assert eventually(lambda: depth(vhost, "expired") == 1, deadline_s=20)
    assert stored_ids(vhost, "expired") == [1]
    assert stored_ids(vhost, "all") == [2]


def depth(url: str, queue: str) -> int:
    with channel(url) as broker:
        count: int = broker.queue_declare(queue, passive=True).method.message_count
        return count


def test_an_exchange_that_is_missing_is_named_where_it_may_not_be_declared(vhost: str) -> None:
    bind(vhost, "all")

    with pytest.raises(ExchangeMissing, match="there is no exchange 'elsewhere'") as missing:
        publish(vhost, options=SinkOptions(declare=False, exchanges=("elsewhere",)))

    assert missing.value.exit_code == EXIT_REFUSED
    assert "--no-declare" in missing.value.hint


def test_an_exchange_that_nobody_announced_is_named_as_missing(vhost: str) -> None:
    bind(vhost, "all")

    with pytest.raises(ExchangeMissing, match="there is no exchange 'elsewhere'"):
        publish(vhost, batch(1, address=ELSEWHERE), options=SinkOptions())


def test_a_routes_exchange_deleted_in_mid_stream_is_gone_and_declared_again(vhost: str) -> None:
    bind(vhost, "all")

    async def use(sink: Sink) -> None:
        await sink.publish(batch(1))
        with channel(vhost) as broker:
            broker.exchange_delete("elsewhere")
        with pytest.raises(SinkUnavailable, match="exchange 'elsewhere' is gone"):
            await sink.publish(batch(2, address=ELSEWHERE))

    with_sink(vhost, use)
    bind_elsewhere(vhost)
    publish(vhost, batch(2, address=ELSEWHERE))

    assert stored_ids(vhost, "there") == [2]


def test_unroutable_events_of_a_second_exchange_wait_and_arrive_in_order(
    vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    bind(vhost, "here")

    async def use(sink: Sink) -> None:
        waiting = asyncio.ensure_future(sink.publish(batch(1, 3, address=ELSEWHERE)))
        # Of the same routing key, on the exchange that has a queue.
        routed = asyncio.ensure_future(sink.publish(batch(10, 2)))
        while "no queue is bound" not in caplog.text:
            await asyncio.sleep(0.02)
        assert not waiting.done()
        bind_elsewhere(vhost)
        await asyncio.gather(waiting, routed)

    with_sink(vhost, use)

    assert stored_ids(vhost, "there")[-3:] == [1, 2, 3]
    assert stored_ids(vhost, "here")[-2:] == [10, 11]
    said = next(vars(record) for record in caplog.records if "no queue is bound" in record.message)
    assert (said["exchange"], said["routing_key"], said["count"]) == ("elsewhere", "public.orders.insert", 3)


def test_waiting_for_a_queue_of_a_second_exchange_ends_by_naming_it(vhost: str) -> None:
    bind(vhost, "here")

    with pytest.raises(Unroutable, match=r"no queue of exchange elsewhere is bound for public\.orders\.insert"):
        publish(vhost, batch(1, address=ELSEWHERE), options=SinkOptions(exchanges=("elsewhere",), hold_s=0.2))


def test_unroutable_events_of_a_second_exchange_are_dropped_where_that_is_asked_for(
    vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    bind(vhost, "here")

    publish(
        vhost,
        Batch([envelope("1"), envelope("2", ELSEWHERE), envelope("3")], Lsn(1)),
        options=SinkOptions(on_unroutable="drop", exchanges=("elsewhere",)),
    )

    assert stored_ids(vhost, "here") == [1, 3]
    [said] = (vars(record) for record in caplog.records)
    assert (said["exchange"], said["count"]) == ("elsewhere", 1)


def test_what_is_parked_of_a_second_exchange_is_retried_there_with_all_it_had(vhost: str, tmp_path: Path) -> None:
    bind(vhost, "here")
    full = ELSEWHERE._replace(headers=(("tenant", "größer"),), priority=3, expiration="600000", content_encoding="br")
    event = envelope("7-1-A-1", full, (("cloudEvents:id", "7"),))
    path = tmp_path / "parked.ndjson"
    park = ParkFile(path)

    async def use(sink: Sink) -> None:
        await sink.publish(Batch([event], Lsn(1)))
        await park.close()

    with_sink(vhost, use, SinkOptions(on_unroutable="park", park=park, exchanges=("elsewhere",)))
    [line] = path.read_bytes().splitlines()
    retry = ("parked", "retry", "--all", "--park-file", str(path), "--sink", vhost)
    refused = pgevents(tmp_path, *retry)
    bind_elsewhere(vhost)
    retried = pgevents(tmp_path, *retry)

    assert parse(line).envelope == event
    assert parse(line).detail == "no queue of exchange elsewhere was bound for it"
    assert refused.code == 1
    assert "no queue of exchange elsewhere is bound" in refused.stderr
    assert retried.code == 0, retried.stderr
    [(properties, _)] = stored(vhost, "there")
    assert properties.headers == {"tenant": "größer", "cloudEvents:id": "7"}
    assert (properties.priority, properties.expiration, properties.content_encoding) == (3, "600000", "br")
    assert stored(vhost, "here") == []


def test_a_stream_routes_each_row_by_its_values(shop: Shop, vhost: str, tmp_path: Path) -> None:
    bind(vhost, "here")
    bind_elsewhere(vhost, key="large.#")
    (tmp_path / "pgevents.toml").write_text(ROUTES)
    insert(shop, {1: "small", 2: "large one", 3: "large two", 4: "small"})

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", vhost, "--until-lsn", "now")

    assert outcome.code == 0, outcome.stderr
    assert [json.loads(body)["new"]["id"] for _, body in stored(vhost, "here")] == [1, 4]
    large = stored(vhost, "there")
    assert [json.loads(gzip.decompress(body))["new"]["id"] for _, body in large] == [2, 3]
    for properties, _ in large:
        assert properties.headers == {"tenant": "größer"}
        assert (properties.priority, properties.expiration, properties.content_encoding) == (7, "600000", "gzip")


def test_a_stream_without_the_exchange_of_a_route_is_refused_where_it_may_not_declare(
    shop: Shop, vhost: str, tmp_path: Path
) -> None:
    bind(vhost, "here")
    (tmp_path / "pgevents.toml").write_text(ROUTES)
    before = shop.confirmed

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", vhost, "--no-declare")

    outcome.refused(EXIT_REFUSED, error="there is no exchange 'elsewhere'", hint="--no-declare")
    assert shop.confirmed == before


def insert(shop: Shop, notes: Mapping[int, str]) -> None:
    run(shop.dsn, *(f"INSERT INTO orders VALUES ({id}, '{note}')" for id, note in notes.items()))
