"""``pgevents tail``: events as they come, a line each, from a queue or straight from the database."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import orjson
import pika

from pgevents.assembly import pipeline_of
from pgevents.batch import Batch
from pgevents.errors import PluginRefused, SinkError, SinkRefused, SinkUnavailable
from pgevents.interfaces import Sink, SinkOptions
from pgevents.pipeline import Progress
from pgevents.session import Stream, open_stream
from pgevents.settings import Settings
from pgevents.sink import stdout
from pgevents.sink.amqp.blocking import dial
from pgevents.sink.amqp.fault import declare_fault
from pgevents.sink.amqp.url import AmqpUrl, parse
from pgevents.slot import PLUGINS
from pgevents.start import check_temporary
from pgevents.surprise import surprises_named
from pgevents.thread import in_thread
from pgevents.view import line_of, printable

PREFETCH = 500
"""Most events the broker hands over ahead of what was shown: without it, all that is in the queue."""

Say = Callable[[str], None]
"""Takes one line for the person at the terminal."""


class ViewSink:
    """Makes a readable line of each event, for a sink that writes lines."""

    def __init__(self, lines: Sink) -> None:
        self._lines = lines

    def publish(self, batch: Batch) -> Awaitable[None]:
        shown = [envelope._replace(body=readable(envelope.body)) for envelope in batch.envelopes]
        return self._lines.publish(Batch(shown, batch.end_lsn))

    async def close(self) -> None:
        await self._lines.close()


def readable(body: bytes) -> bytes:
    """A line for a person. A body that is no event of ours is shown as it is, without control characters."""
    try:
        return line_of(orjson.loads(body)).encode()
    except (ValueError, LookupError, TypeError, AttributeError):
        return printable(body.decode(errors="replace")).encode()


async def tail_database(settings: Settings, *, as_json: bool, say: Say) -> None:
    """Show what is committed from now on until a signal; the temporary slot goes with the connection.

    Raises PGEventsError; SinkRefused when standard output is closed.
    """
    with surprises_named():
        lines = await stdout.open("stdout:", SinkOptions())
        sink: Sink = lines if as_json else ViewSink(lines)
        try:
            await _show_commits(settings, sink, say)
        finally:
            await sink.close()


async def _show_commits(settings: Settings, sink: Sink, say: Say) -> None:
    stream, plugin = await _open_temporary(settings)
    try:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        say(f"Ready: plug-in {plugin}, temporary slot, nothing stays behind. Ctrl-C ends it.")
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


def tail_queue(settings: Settings, *, queue: str | None, bindings: tuple[str, ...], as_json: bool, say: Say) -> None:
    """Show what arrives in a queue until a signal, and acknowledge it.

    Without ``queue`` a temporary one is bound to the exchange of the sink URL by ``bindings``. A named queue is
    declared, durable, only when bindings are given with it; else it must exist. Raises PGEventsError.
    """
    url = parse(settings.sink)
    lines = stdout.standard_output()
    with surprises_named(), _broker_faults(url, queue), _channel(url) as channel:
        name = _queue(channel, url, queue, bindings)
        # Also SIGINT, which a shell hands to a background job ignored.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)
        try:
            say(f"Ready: queue {name}. Ctrl-C ends it.")
            for body in _bodies(channel, name):
                lines.append((_one_line(body) if as_json else readable(body)) + b"\n")
        except KeyboardInterrupt:
            channel.cancel()


def _bodies(channel: Any, queue: str) -> Iterator[bytes]:
    """What arrives, each acknowledged when the next is asked for. Raises SinkUnavailable when the queue goes away."""
    channel.basic_qos(prefetch_count=PREFETCH)
    for method, _properties, body in channel.consume(queue):
        yield body
        channel.basic_ack(method.delivery_tag)
    raise SinkUnavailable(
        f"RabbitMQ ended the reading of queue {queue}",
        hint="The queue was deleted, or the node that holds it went away.",
    )


def _one_line(body: bytes) -> bytes:
    # In JSON a line break can only be white space.
    return body.replace(b"\n", b" ")


@contextmanager
def _channel(url: AmqpUrl) -> Iterator[Any]:
    """A channel on the first address that answers."""
    connection = _connect(url)
    try:
        yield connection.channel()
    finally:
        # The broker that went away hears no goodbye.
        with suppress(pika.exceptions.AMQPError):
            connection.close()


def _connect(url: AmqpUrl) -> Any:
    faults: list[SinkError] = []
    for address in url.addresses:
        try:
            return dial(url, address)
        except SinkError as fault:
            faults.append(fault)
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
