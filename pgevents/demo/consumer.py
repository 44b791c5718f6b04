"""The other end of the stream: what arrives in a queue, or in a file where there is no RabbitMQ."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pika
from pika.exceptions import AMQPError

from pgevents.demo.ledger import ChangeKey
from pgevents.demo.process import LaunchError

EXCHANGE = "pgevents"
QUEUE = "pgevents-demo"
IDLE_S = 0.05
PREFETCH = 500
ACKNOWLEDGE_AFTER = 100

Source = Callable[[threading.Event], Iterator[bytes]]
"""Yields bodies as they arrive; once the event is set it ends when nothing more is there."""


@dataclass(frozen=True, slots=True)
class Arrival:
    event: dict[str, Any]
    latency_s: float


@dataclass(slots=True)
class Arrivals:
    """All that arrived. Each event is counted once by its id; what came again is a duplicate."""

    total: int = 0
    changes: Counter[ChangeKey] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)

    @property
    def unique(self) -> int:
        return len(self._ids)

    @property
    def duplicated(self) -> int:
        return self.total - self.unique

    def add(self, body: bytes, *, received_at: float) -> Arrival:
        event = orjson.loads(body)
        arrival = Arrival(event, received_at - _committed_at(event))
        self.total += 1
        if event["id"] not in self._ids:
            self._ids.add(event["id"])
            self.changes[event["table"], event["op"], str((event["key"] or {}).get("id"))] += 1
            self.latencies_s.append(arrival.latency_s)
        return arrival


def consume(source: Source, arrivals: Arrivals, *, stop: threading.Event, show: Callable[[Arrival], None]) -> None:
    """Take in what arrives until ``stop`` is set and nothing more comes."""
    for body in source(stop):
        show(arrivals.add(body, received_at=time.time()))


def bind_queue(url: str) -> None:
    """Declare the exchange and a durable quorum queue that gets every event, as a consumer would beforehand."""
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        channel = connection.channel()
        channel.exchange_declare(EXCHANGE, "topic", durable=True)
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind(QUEUE, EXCHANGE, "#")


def queue_source(url: str) -> Source:
    """What arrives in the demo's queue, acknowledged as it is taken in."""

    def bodies(stop: threading.Event) -> Iterator[bytes]:
        try:
            with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
                yield from _deliveries(connection, stop)
        except AMQPError as error:
            raise LaunchError(f"the demo's consumer lost RabbitMQ: {error!r}") from error

    return bodies


def _deliveries(connection: pika.BlockingConnection, stop: threading.Event) -> Iterator[bytes]:
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    unacknowledged = last = 0
    for method, _properties, body in channel.consume(QUEUE, inactivity_timeout=IDLE_S):
        if method is not None:
            yield body
            unacknowledged, last = unacknowledged + 1, method.delivery_tag
        if unacknowledged >= ACKNOWLEDGE_AFTER or (unacknowledged and method is None):
            # Not tag 0, which would be everything that was sent to us, read or not.
            channel.basic_ack(last, multiple=True)
            unacknowledged = 0
        elif method is None and stop.is_set():
            return


def file_source(path: Path) -> Source:
    """The lines of a file that is being appended to."""

    def bodies(stop: threading.Event) -> Iterator[bytes]:
        path.touch()
        with path.open("rb") as file:
            yield from _lines(file, stop)

    return bodies


def _lines(file: BinaryIO, stop: threading.Event) -> Iterator[bytes]:
    partial = b""
    while True:
        ending = stop.is_set()
        partial += file.readline()
        if partial.endswith(b"\n"):
            yield partial
            partial = b""
        elif ending:
            return
        else:
            stop.wait(IDLE_S)


def _committed_at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["tx"]["committed_at"]).timestamp()
