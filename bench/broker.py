"""A quorum queue that gets every event, new for each run so that all runs start alike."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pika

from bench.fault import WrongRun
from pgevents.demo.process import eventually

EXCHANGE = "pgevents"
QUEUE = "bench"
# The queue's own count of its messages trails the confirms a little.
COUNT_DEADLINE_S = 10.0


class Queue:
    """The queue ``bench``, bound to all of the exchange."""

    def __init__(self, broker: str) -> None:
        self.broker = broker

    @property
    def sink(self) -> str:
        """The URL of a sink that publishes into it."""
        return f"{self.broker}?exchange={EXCHANGE}"

    def renew(self) -> None:
        """Have it exist and empty."""
        with self.channel() as channel:
            channel.exchange_declare(EXCHANGE, "topic", durable=True)
            channel.queue_delete(QUEUE)
            channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind(QUEUE, EXCHANGE, "#")

    def check_count(self, expected: int) -> None:
        """Raises WrongRun unless exactly ``expected`` messages are in the queue."""
        with self.channel() as channel:

            def count() -> int:
                return int(channel.queue_declare(QUEUE, passive=True).method.message_count)

            if not eventually(lambda: count() == expected, deadline_s=COUNT_DEADLINE_S):
                raise WrongRun(f"the queue holds {count()} messages, not {expected}")

    @contextmanager
    def channel(self) -> Iterator[Any]:
        with closing(pika.BlockingConnection(pika.URLParameters(self.broker))) as connection:
            yield connection.channel()
