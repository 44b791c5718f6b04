"""The broker's side of a test: queues bound, read and counted with a plain blocking client."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pika

from pgevents.batch import Batch
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.event import Address, Envelope
from pgevents.lsn import Lsn

EXCHANGE = "pgevents"
ORDERS = Address("public.orders.insert", "insert", "application/json")
ITEMS = Address("public.items.insert", "insert", "application/json")


def batch(first: int, size: int = 1, *, address: Address = ORDERS, body: bytes = b"{}") -> Batch:
    """Envelopes with the message ids ``first``, ``first + 1`` and so on."""
    return Batch([Envelope(str(at), address, 1_790_000_000, body) for at in range(first, first + size)], Lsn(1))


@contextmanager
def largest_message(rabbitmq: RabbitMQ, size: int) -> Iterator[None]:
    """Until the end of the block the broker takes no body of more than ``size`` bytes on channels opened in it."""
    before = rabbitmq.ctl("eval", "application:get_env(rabbit, max_message_size, 134217728).").strip()
    rabbitmq.ctl("eval", f"application:set_env(rabbit, max_message_size, {size}).")
    try:
        yield
    finally:
        rabbitmq.ctl("eval", f"application:set_env(rabbit, max_message_size, {before}).")


@contextmanager
def channel(url: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        connection.close()


def bind(url: str, queue: str, key: str = "#", *, arguments: Mapping[str, object] | None = None) -> None:
    """Declare exchange and queue, and bind them."""
    with channel(url) as broker:
        broker.exchange_declare(EXCHANGE, "topic", durable=True)
        broker.queue_declare(queue, durable=True, arguments=dict(arguments or {}))
        broker.queue_bind(queue, EXCHANGE, key)


def stored(url: str, queue: str) -> list[tuple[pika.BasicProperties, bytes]]:
    """What is in the queue, in order; it is taken out."""
    with channel(url) as broker:
        got: list[tuple[pika.BasicProperties, bytes]] = []
        while True:
            method, properties, body = broker.basic_get(queue, auto_ack=True)
            if method is None:
                return got
            got.append((properties, body))


def stored_ids(url: str, queue: str) -> Sequence[int]:
    return [int(properties.message_id) for properties, _ in stored(url, queue)]
