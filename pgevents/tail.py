"""``pgevents tail``: events as they come, a line each, from a queue or straight from the database."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pika

from pgevents.app import pipeline_of
from pgevents.batch import Batch
from pgevents.errors import PluginRefused, SinkError, SinkRefused, SinkUnavailable
from pgevents.pipeline import Progress
from pgevents.postgres import in_thread
from pgevents.session import Stream, open_stream
from pgevents.settings import Settings
from pgevents.sink.amqp.connection import connection_parameters
from pgevents.sink.amqp.fault import connect_fault, declare_fault
from pgevents.sink.amqp.url import AmqpUrl, parse
from pgevents.slot import PLUGINS, check_temporary
from pgevents.view import line_of

Write = Callable[[str], None]
"""Takes one line for standard output."""


class ViewSink:
    """Shows each event and confirms it at once."""

    def __init__(self, write: Write, *, as_json: bool) -> None:
        self._write = write
        self._as_json = as_json

    def publish(self, batch: Batch) -> Awaitable[None]:
        for envelope in batch.envelopes:
            self._write(shown(envelope.body, as_json=self._as_json))
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        confirmed.set_result(None)
        return confirmed

    async def close(self) -> None:
        """There is nothing to let go of."""


def shown(body: bytes, *, as_json: bool) -> str:
    """The body itself, or a line for a person. A body that is no event of ours is shown as it is."""
    text = body.decode(errors="replace")
    if as_json:
        return text
    try:
        return line_of(orjson.loads(body))
    except (ValueError, KeyError, TypeError):
        return text


async def tail_database(settings: Settings, *, as_json: bool, write: Write) -> None:
    """Show what is committed from now on until a signal; the temporary slot goes with the connection."""
    stream, plugin = await _open_temporary(settings)
    try:
        write_hint = f"Ready: plug-in {plugin}, temporary slot, nothing stays behind. Ctrl-C ends it."
        os.write(2, (write_hint + "\n").encode())
        sink = ViewSink(write, as_json=as_json)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await pipeline_of(settings, stream, sink, Progress()).run(stop)
    finally:
        await stream.close()


async def _open_temporary(settings: Settings) -> tuple[Stream, str]:
    """A stream on a slot of its own, by the first plug-in that the server lets us use."""
    plugins = PLUGINS if settings.plugin == "auto" else (settings.plugin,)
    for plugin in plugins:
        try:
            return await _open(settings, plugin), plugin
        except PluginRefused:
            if plugin == plugins[-1]:
                raise
    raise AssertionError(plugins)


async def _open(settings: Settings, plugin: str) -> Stream:
    await in_thread(
        check_temporary, settings.dsn, plugin=plugin, publication=settings.publication, tables=settings.tables
    )
    return await open_stream(
        settings.dsn,
        slot=f"pgevents_tail_{os.getpid()}",
        plugin=plugin,
        publication=settings.publication,
        temporary=True,
    )


def tail_queue(
    settings: Settings, *, queue: str | None, bindings: tuple[str, ...], as_json: bool, write: Write
) -> None:
    """Show what arrives in a queue until a signal, and acknowledge it.

    Without ``queue`` a temporary one is bound to the exchange of the sink URL by ``bindings``. A named queue is
    declared, durable, only when bindings are given with it; else it must exist. Raises SinkError.
    """
    url = parse(settings.sink)
    with _channel(url) as channel, _broker_faults(url, queue):
        name = _queue(channel, url, queue, bindings)
        os.write(2, f"Ready: queue {name}. Ctrl-C ends it.\n".encode())
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            for method, _properties, body in channel.consume(name):
                write(shown(body, as_json=as_json))
                channel.basic_ack(method.delivery_tag)
        except KeyboardInterrupt:
            channel.cancel()
        else:
            raise SinkUnavailable(
                f"RabbitMQ ended the reading of queue {name}",
                hint="The queue was deleted, or the node that holds it went away.",
            )


@contextmanager
def _channel(url: AmqpUrl) -> Iterator[Any]:
    """A channel on the first address that answers."""
    faults: list[SinkError] = []
    for address in url.addresses:
        try:
            connection = pika.BlockingConnection(connection_parameters(url, address))
        except pika.exceptions.AMQPError as error:
            faults.append(connect_fault(error, url, address))
            continue
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()
        return
    raise faults[-1]


@contextmanager
def _broker_faults(url: AmqpUrl, queue: str | None) -> Iterator[None]:
    try:
        yield
    except pika.exceptions.ChannelClosedByBroker as error:
        if queue and f"queue '{queue}'" in error.reply_text:
            raise SinkRefused(
                f"cannot consume queue {queue}: {error.reply_text}",
                hint="Give --bind PATTERN with it to have it declared and bound, or name a queue that exists.",
            ) from error
        raise declare_fault(error, url) from error
    except pika.exceptions.AMQPError as error:
        raise declare_fault(error, url) from error


def _queue(channel: Any, url: AmqpUrl, queue: str | None, bindings: tuple[str, ...]) -> str:
    if queue and not bindings:
        channel.queue_declare(queue, passive=True)
        return queue
    channel.exchange_declare(url.exchange, exchange_type="topic", durable=True)
    declared = channel.queue_declare(queue or "", durable=bool(queue), exclusive=not queue, auto_delete=not queue)
    name: str = declared.method.queue
    for binding in bindings:
        channel.queue_bind(name, url.exchange, binding)
    return name
