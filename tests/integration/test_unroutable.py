"""A stream whose events no queue is bound for: it holds them, lets go of the slot, and goes on by itself."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import orjson
import psycopg2
import pytest

from pgevents import slot
from pgevents.app import supervise
from pgevents.batch import Batch
from pgevents.errors import Unroutable
from pgevents.event import Address, Envelope
from pgevents.interfaces import SinkOptions
from pgevents.lsn import Lsn
from pgevents.session import open_url
from pgevents.settings import Settings
from pgevents.streaming import Streaming
from tests.contract.amqp import bind, stored
from tests.integration.role import as_role

DEADLINE_S = 30.0


async def until(condition: Callable[[], bool], running: asyncio.Future[None]) -> None:
    ends_at = time.monotonic() + DEADLINE_S
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < ends_at
        if running.done():
            running.result()
        await asyncio.sleep(0.05)


@pytest.mark.fault("F66", "I16", "I19")
def test_the_slot_is_let_go_of_while_no_queue_is_bound(
    database15: str, vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With one routed table and one unrouted, the routed events are not sent again and again."""
    name = str(psycopg2.extensions.parse_dsn(database15)["dbname"])
    bind(vhost, "bound", "public.bound.*")
    settings = Settings(
        dsn=as_role(database15), slot=name, create_slot=True, sink=vhost, retry_max_s=0.5, stall_timeout_s=2
    )
    streaming = Streaming(settings, until=None, dry_run=False, say=lambda _line: None)

    def is_read() -> bool:
        return slot.status(as_role(database15), name).active

    async def scenario() -> None:
        running = asyncio.ensure_future(supervise(streaming))
        await until(lambda: streaming.is_open, running)
        with closing(psycopg2.connect(database15)) as connection:
            connection.autocommit = True
            connection.cursor().execute(
                "create table bound (id int primary key); create table unbound (id int primary key)"
            )
            connection.cursor().execute("insert into unbound values (1); insert into bound values (2)")
        await until(lambda: not streaming.is_open and not is_read(), running)
        bind(vhost, "late", "public.unbound.*")
        before = streaming.progress.acknowledged
        await until(lambda: streaming.is_open and streaming.progress.acknowledged > before, running)
        streaming.stop.set()
        await running

    asyncio.run(scenario())

    assert "the slot is left until a queue is bound" in caplog.text
    assert {event["table"] for event in map(event_of, stored(vhost, "late"))} == {"unbound"}
    assert 1 <= len(stored(vhost, "bound")) <= 2


def test_a_stop_is_not_held_up_by_an_event_that_no_queue_is_bound_for(database15: str, vhost: str) -> None:
    """Told to stop while it holds the event, it does not begin to wait for the queue."""
    name = str(psycopg2.extensions.parse_dsn(database15)["dbname"])
    settings = Settings(
        dsn=as_role(database15), slot=name, create_slot=True, sink=vhost, stall_timeout_s=4, drain_timeout_s=20
    )
    streaming = Streaming(settings, until=None, dry_run=False, say=lambda _line: None)

    async def scenario() -> None:
        running = asyncio.ensure_future(supervise(streaming))
        await until(lambda: streaming.is_open, running)
        with closing(psycopg2.connect(database15)) as connection:
            connection.autocommit = True
            connection.cursor().execute("create table unbound (id int primary key); insert into unbound values (1)")
        await until(lambda: streaming.progress.published == 1, running)
        streaming.stop.set()
        with pytest.raises(Unroutable):
            await asyncio.wait_for(running, 10)

    asyncio.run(scenario())

    assert streaming.progress.confirmed == 0


def event_of(message: tuple[object, bytes]) -> dict[str, Any]:
    event: dict[str, Any] = orjson.loads(message[1])
    return event


def test_a_record_of_what_was_skipped_that_nobody_asked_for_holds_nothing_up(
    vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    bind(vhost, "orders", "public.orders.*")
    record = Address("_.transaction.skipped", "pgevents.transaction.skipped", "application/json", is_optional=True)
    order = Address("public.orders.insert", "pgevents.insert", "application/json")

    async def scenario() -> None:
        sink = await open_url(vhost, SinkOptions())
        try:
            batch = Batch([Envelope("1-skip", record, 0, b"{}"), Envelope("1-1", order, 0, b"{}")], Lsn(1))
            await asyncio.wait_for(sink.publish(batch), 10)
        finally:
            await sink.close()

    asyncio.run(scenario())

    assert len(stored(vhost, "orders")) == 1
    assert "no queue is bound for the record of what was skipped" in caplog.text
