"""A connection to one of the brokers, and a channel in confirm mode on it. pika's callbacks end here."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import ConnectionClosedByClient, ConnectionWrongStateError

from pgevents.errors import SinkError, SinkUnavailable
from pgevents.sink.amqp import tls
from pgevents.sink.amqp.fault import connect_fault, declare_fault
from pgevents.sink.amqp.url import AmqpUrl, BrokerAddress

logger = logging.getLogger(__name__)

CONNECTION_NAME = "pgevents"
# Time for declaring the exchange and such; a broker that is up answers in milliseconds.
_ANSWER_TIMEOUT_S = 30.0
_CLOSE_TIMEOUT_S = 3.0


class Connection(AsyncioConnection):  # type: ignore[misc]  # pika has no types
    """pika's connection, which also takes frames that are marshalled already, and can be dropped."""

    def write(self, frames: bytes) -> None:
        # A view, because pika cuts what the socket took off the front: of bytes that copies the rest each time.
        self._output_marshaled_frames([memoryview(frames)])

    def drop(self) -> None:
        """Close the socket without a word to the broker."""
        self._terminate_stream(ConnectionClosedByClient(320, "dropped"))


class Link:
    """An open connection with one channel. ``lost`` resolves, with pika's error, when either ends.

    ``on_confirm`` gets the frame of each ack and nack once confirms are on.
    """

    on_confirm: Callable[[Any], None]

    def __init__(self, connection: Connection, lost: asyncio.Future[BaseException]) -> None:
        self.connection = connection
        self.lost = lost
        self.channel: Any = None
        self.is_blocked = False
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)

    @property
    def frame_max(self) -> int:
        return int(self.connection.params.frame_max)

    async def open_channel(self) -> None:
        self.channel = await self._answer(lambda done: self.connection.channel(on_open_callback=done))
        self.channel.add_on_close_callback(lambda _channel, error: _resolve(self.lost, error))

    async def declare(self, exchange: str, *, passive: bool) -> None:
        await self._answer(
            lambda done: self.channel.exchange_declare(
                exchange, exchange_type="topic", durable=True, passive=passive, callback=done
            )
        )

    async def start_confirms(self) -> None:
        await self._answer(lambda done: self.channel.confirm_delivery(self._on_confirm, callback=done))

    async def close(self) -> None:
        """Say goodbye, or after a few seconds leave without."""
        if not self.connection.is_closed:
            # While it blocks us the broker does not read, so it would not hear a goodbye.
            if not self.is_blocked:
                await self._say_goodbye()
            await self._drop()

    async def _say_goodbye(self) -> None:
        try:
            self.connection.close()
        except ConnectionWrongStateError:  # it is closing already
            return
        await _until_closed(self.connection, _CLOSE_TIMEOUT_S)

    async def _drop(self) -> None:
        if not self.connection.is_closed:
            self.connection.drop()
            await _until_closed(self.connection, _CLOSE_TIMEOUT_S)

    async def _answer(self, ask: Callable[[Callable[[Any], None]], object]) -> Any:
        """What the broker answers. Raises pika's error when it closes the channel instead."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ask(lambda value: _resolve(answer, value))
        await asyncio.wait({answer, self.lost}, timeout=_ANSWER_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if self.lost.done():
            raise self.lost.result()
        raise SinkUnavailable(f"RabbitMQ did not answer within {_ANSWER_TIMEOUT_S:g} s")

    def _on_confirm(self, frame: Any) -> None:
        self.on_confirm(frame)

    def _on_blocked(self, _connection: object, frame: Any) -> None:
        self.is_blocked = True
        logger.warning(
            "publishing is blocked by the broker until its alarm ends", extra={"reason": frame.method.reason}
        )

    def _on_unblocked(self, _connection: object, _frame: object) -> None:
        self.is_blocked = False
        logger.warning("publishing is no longer blocked by the broker")


async def open_link(url: AmqpUrl, *, declare: bool, exchanges: Iterable[str] = ()) -> Link:
    """A channel in confirm mode, beside exchanges that exist: the URL's and ``exchanges``.

    Raises SinkUnavailable or SinkRefused.
    """
    link = await _connect(url)
    try:
        await link.open_channel()
        for exchange in dict.fromkeys((url.exchange, *exchanges)):
            await link.declare(exchange, passive=not declare)
        await link.start_confirms()
    except (pika.exceptions.AMQPError, OSError) as error:
        await link.close()
        raise declare_fault(error, url) from error
    except (SinkError, asyncio.CancelledError):
        await link.close()
        raise
    return link


async def _connect(url: AmqpUrl) -> Link:
    """One of the brokers, tried in order from a random one. Raises the last one's error, naming all."""
    first = secrets.randbelow(len(url.addresses))
    faults: list[SinkError] = []
    for address in url.addresses[first:] + url.addresses[:first]:
        try:
            return await _dial(url, address)
        except SinkError as fault:
            faults.append(fault)
    if len(faults) == 1:
        raise faults[0]
    raise type(faults[-1])("; ".join(map(str, faults)), hint=faults[-1].hint) from faults[-1]


async def _dial(url: AmqpUrl, address: BrokerAddress) -> Link:
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[BaseException | None] = loop.create_future()
    lost: asyncio.Future[BaseException] = loop.create_future()
    connection = Connection(
        connection_parameters(url, address),
        on_open_callback=lambda _connection: _resolve(opened, None),
        on_open_error_callback=lambda _connection, error: _resolve(opened, error),
        on_close_callback=lambda _connection, error: _resolve(lost, error),
        custom_ioloop=loop,
    )
    try:
        async with asyncio.timeout(url.connection_timeout_s):
            error = await opened
    except TimeoutError as timeout:
        # Not close(), nor pika's own timeout: in mid-handshake both end in an assertion of pika's.
        connection.drop()
        raise connect_fault(timeout, url, address) from timeout
    except asyncio.CancelledError:
        connection.drop()
        raise
    if error is not None:
        raise connect_fault(error, url, address) from error
    return Link(connection, lost)


def connection_parameters(url: AmqpUrl, address: BrokerAddress) -> pika.ConnectionParameters:
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=url.vhost,
        credentials=pika.PlainCredentials(url.user, url.password),
        heartbeat=url.heartbeat_s,
        # The supervisor tries again; pika must not.
        connection_attempts=1,
        socket_timeout=None,
        stack_timeout=None,
        client_properties={"connection_name": CONNECTION_NAME},
        ssl_options=_ssl_options(url, address),
    )


def _ssl_options(url: AmqpUrl, address: BrokerAddress) -> pika.SSLOptions | None:
    if url.tls is None:
        return None
    return pika.SSLOptions(tls.context(url.tls), url.tls.server_name or address.host)


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


async def _until_closed(connection: Connection, timeout_s: float) -> None:
    """Wait for the socket to be closed; pika tells it by a callback, at once where it already is."""
    closed: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    connection.add_on_close_callback(lambda _connection, error: _resolve(closed, error))
    if not connection.is_closed:
        await asyncio.wait({closed}, timeout=timeout_s)
