"""Publishing into a queue that is full now and then: one event at a time, each until it is taken.

A queue with ``overflow=reject-publish`` nacks what it has no room for. At full speed a nack ends the session, and
everything in flight is published again, so that a batch larger than the room in the queue would never pass. One by
one the order is kept, and however large a transaction is, it passes as fast as the queue is emptied.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from pgevents.batch import Batch
from pgevents.errors import PGEventsError, PublishRejected, SinkUnavailable
from pgevents.event import Envelope
from pgevents.lsn import NOWHERE
from pgevents.sink.amqp.sink import AmqpSink

FIRST_PAUSE_S, LAST_PAUSE_S = 0.02, 0.5

# So many in a row that were taken at once, and it goes on at full speed.
CALM = 500


class CarefulSink:
    """Publishes events one by one until ``CALM`` were taken at once, and then calls ``on_calm``.

    One that is not taken for ``hold_s`` is given up.
    """

    def __init__(self, sink: AmqpSink, *, hold_s: float, on_calm: Callable[[], None]) -> None:
        self._sink = sink
        self._hold_s = hold_s
        self._on_calm = on_calm
        self._calm = 0
        self._waiting: deque[tuple[Batch, asyncio.Future[None]]] = deque()
        self._publishing: asyncio.Task[None] | None = None
        self._failure: PGEventsError | None = None

    def publish(self, batch: Batch) -> Awaitable[None]:
        if self._calm >= CALM and self._publishing is None and self._failure is None:
            return self._sink.publish(batch)
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._failure is not None:
            _fail(confirmed, self._failure)
            return confirmed
        self._waiting.append((batch, confirmed))
        if self._publishing is None:
            self._publishing = asyncio.ensure_future(self._publish_waiting())
        return confirmed

    async def close(self) -> None:
        self._stop(SinkUnavailable("the RabbitMQ sink was closed"))
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.wait({self._publishing})
        await self._sink.close()

    def __str__(self) -> str:
        return str(self._sink)

    async def _publish_waiting(self) -> None:
        try:
            while self._waiting:
                batch, confirmed = self._waiting[0]
                await self._publish_each(batch.envelopes)
                self._waiting.popleft()
                if not confirmed.done():
                    confirmed.set_result(None)
        except PGEventsError as error:
            self._stop(error)
        finally:
            self._publishing = None

    async def _publish_each(self, envelopes: Sequence[Envelope]) -> None:
        for envelope in envelopes:
            await self._publish_until_taken(Batch([envelope], NOWHERE))

    async def _publish_until_taken(self, batch: Batch) -> None:
        loop = asyncio.get_running_loop()
        ends_at, pause_s = loop.time() + self._hold_s, FIRST_PAUSE_S
        while True:
            try:
                await self._sink.publish(batch)
            except PublishRejected as rejection:
                if not rejection.transient or loop.time() >= ends_at:
                    raise
                self._calm = 0
                self._sink.forgive()
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 1.5, LAST_PAUSE_S)
            else:
                self._calm += 1
                if self._calm == CALM:
                    self._on_calm()
                return

    def _stop(self, failure: PGEventsError) -> None:
        self._failure = self._failure or failure
        while self._waiting:
            _fail(self._waiting.popleft()[1], self._failure)


def _fail(confirmed: asyncio.Future[None], error: PGEventsError) -> None:
    if not confirmed.done():
        confirmed.set_exception(error)
        confirmed.exception()  # marks it as seen: nobody need await a batch once the stream has ended
