"""The other end: a durable queue that gets every event, drained by a consumer that outlives the broker's restarts."""

import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pika
from pika.exceptions import AMQPError

from chaos.arrival import Arrival, Kind
from chaos.fault import BrokenRig

EXCHANGE = "pgevents"
QUEUE = "chaos"
MARK = "chaos.mark"
"""AMQP ``type`` of a message that is a mark."""

# One consumer at a time: otherwise the next one could be given later events before what the last one had in hand.
_ARGUMENTS = {"x-single-active-consumer": True}

_PREFETCH = 500
_ACKNOWLEDGE_AFTER = 200
_IDLE_S = 0.05
_AGAIN_S = 0.2
_DRAIN_DEADLINE_S = 300.0


def declare(url: str, queue_type: str) -> None:
    """Declare the exchange and the queue that gets every event."""
    with closing(_connect(url)) as connection:
        channel = connection.channel()
        channel.exchange_declare(EXCHANGE, "topic", durable=True)
        channel.queue_declare(QUEUE, durable=True, arguments=_ARGUMENTS | {"x-queue-type": queue_type})
        channel.queue_bind(QUEUE, EXCHANGE, "#")


class Consumer:
    """Writes each arrival to ``path`` before it acknowledges it."""

    def __init__(self, url: str, path: Path) -> None:
        self._url = url
        self._path = path
        self._running = threading.Event()
        self._paused = threading.Event()
        self._is_away = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="consumer", daemon=True)
        self._failure: BaseException | None = None
        self._idle_since = time.monotonic()
        self.taken = 0

    def start(self) -> None:
        self._running.set()
        self._thread.start()

    def pause(self) -> None:
        """Leave the queue alone; returns once it is left."""
        self._running.clear()
        if not self._is_away.wait(_DRAIN_DEADLINE_S):
            raise BrokenRig("the consumer does not pause")

    def resume(self) -> None:
        self._is_away.clear()
        self._running.set()

    def drain(self, *, idle_s: float = 1.5) -> None:
        """Returns when the queue was empty for ``idle_s``."""
        began = time.monotonic()
        while time.monotonic() - max(self._idle_since, began) < idle_s:
            self._check()
            if time.monotonic() - began > _DRAIN_DEADLINE_S:
                raise BrokenRig("the queue does not become empty")
            time.sleep(_IDLE_S)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_DRAIN_DEADLINE_S)
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with self._path.open("ab") as file:
                while not self._stopping.is_set():
                    if self._running.is_set():
                        self._session(file)
                    else:
                        self._is_away.set()
                    self._idle_since = time.monotonic()
                    self._stopping.wait(_AGAIN_S)
        except BaseException as error:  # noqa: BLE001  # raised again by whoever waits for the consumer
            self._failure = error

    def _session(self, file: BinaryIO) -> None:
        with suppress(AMQPError, OSError), closing(_connect(self._url)) as connection:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=_PREFETCH)
            self._consume(channel, file)

    def _consume(self, channel: Any, file: BinaryIO) -> None:
        last = unacknowledged = 0
        for method, properties, body in channel.consume(QUEUE, inactivity_timeout=_IDLE_S):
            if method is not None:
                file.write(self._arrival(method, properties, body).line())
                last = method.delivery_tag
                unacknowledged += 1
                self._idle_since = time.monotonic()
            if unacknowledged >= _ACKNOWLEDGE_AFTER or (unacknowledged and method is None):
                file.flush()
                # By its tag: 0 would mean all that the broker has sent, of which much is still on its way here.
                channel.basic_ack(last, multiple=True)
                unacknowledged = 0
            if self._stopping.is_set() or not self._running.is_set():
                break
        file.flush()

    def _arrival(self, method: Any, properties: Any, body: bytes) -> Arrival:
        if properties.type == MARK:
            return Arrival(Kind.MARK, body)
        self.taken += 1
        if f'"id":"{properties.message_id}"'.encode() not in body[:100]:
            raise BrokenRig(f"a message with id {properties.message_id} holds another event")
        return Arrival(Kind.AGAIN if method.redelivered else Kind.FIRST, body)


def _connect(url: str) -> pika.BlockingConnection:
    parameters = pika.URLParameters(url)
    parameters.heartbeat = 10
    parameters.blocked_connection_timeout = 60
    parameters.socket_timeout = parameters.stack_timeout = 5
    return pika.BlockingConnection(parameters)
