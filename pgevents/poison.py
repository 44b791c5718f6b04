"""Events that can never be published: known once they were refused, then taken out of what is published, and parked.

A refusal ends the loop like every error. What it teaches outlives the session: the next one parks such events
instead of publishing them, and everything else keeps its order.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from pgevents.batch import Batch
from pgevents.errors import PublishRejected
from pgevents.event import Envelope
from pgevents.interfaces import Park, Reason, Sink, Unpublished
from pgevents.park import ParkFile

logger = logging.getLogger(__name__)

T = TypeVar("T")

REPEAT_S = 10.0
# Well above what is in flight. An id that is forgotten is refused, or parked, once more: so are the first events of a
# larger transaction that a rule parks, when it is sent again. They are listed once.
_MOST_IDS = 10_000
# A broker's limit may be raised meanwhile: asking again costs one reconnect.
_LIMIT_KEPT_S = 600.0

_OR_PARK = "Or choose --on-poison park, which puts such events into a file and goes on."


class Poison:
    """What is known of events that can never be published, over all sessions; ``parked`` counts those put aside.

    ``nack_limit`` is how many nacks make an event poison, None where nothing ever is parked as such. ``by_rule``:
    there are skip rules that park.
    """

    def __init__(
        self, *, nack_limit: int | None, by_rule: bool = False, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.parked = 0
        self._by_rule = by_rule
        self.nacks: dict[str, int] = {}
        self._nack_limit = nack_limit
        self._now = now
        self._ids: dict[str, tuple[Reason, str]] = {}
        self._routing_keys: dict[str, str] = {}
        self._max_bytes: int | None = None
        self._asked_at = 0.0
        self._parked_ids: dict[str, None] = {}
        self._said_at: float | None = None

    def judge(self, rejection: PublishRejected) -> None:
        """Return when the event is parked from now on; else raise the rejection, to be tried again or to stop."""
        if self._nack_limit is None:
            if not rejection.transient:
                rejection.hint = f"{rejection.hint} {_OR_PARK}".strip()
            raise rejection
        message_id, reason, detail = rejection.message_id, Reason.UNPUBLISHABLE, rejection.reason
        if message_id in self._ids:  # it was not published: this is about another, and which one is not known
            raise rejection
        if rejection.transient:
            count = self.nacks[message_id] = self.nacks.get(message_id, 0) + 1
            if count < self._nack_limit:
                raise rejection
            reason, detail = Reason.NACKED, f"nacked {count} times in a row"
        elif rejection.max_bytes is not None:
            self._max_bytes, self._asked_at = rejection.max_bytes, self._now()
            reason = Reason.TOO_LARGE
        elif rejection.routing_key is not None:
            _remember(self._routing_keys, rejection.routing_key, detail)
        _remember(self._ids, message_id, (reason, detail))

    def found_in(self, envelopes: Iterable[Envelope]) -> list[Unpublished]:
        """Those of ``envelopes`` that are known to be poison, in order."""
        max_bytes = self._limit()
        if not (self._ids or self._routing_keys or self._by_rule or max_bytes is not None):
            return []
        most = float("inf") if max_bytes is None else max_bytes
        ids, keys = self._ids, self._routing_keys
        return [
            self._verdict(each)
            for each in envelopes
            if each.address.parked_by or len(each.body) > most or each.message_id in ids or each.address.topic in keys
        ]

    def confirmed(self, envelopes: Iterable[Envelope]) -> None:
        """Nacks in a row are counted from here again."""
        for envelope in envelopes:
            self.nacks.pop(envelope.message_id, None)

    def unparked(self, events: Sequence[Unpublished]) -> list[Unpublished]:
        """Without those that were parked before: what is not acknowledged yet is sent again."""
        return [event for event in events if event.envelope.message_id not in self._parked_ids]

    def has_parked(self, events: Sequence[Unpublished], *, file: str) -> None:
        """Count ``events``, at least one, and say so at once and then every ten seconds."""
        self.parked += len(events)
        for event in events:
            _remember(self._parked_ids, event.envelope.message_id, None)
        now = self._now()
        if self._said_at is not None and now - self._said_at < REPEAT_S:
            return
        self._said_at = now
        envelope, reason, _ = events[-1]
        last = {"reason": reason, "message_id": envelope.message_id, "routing_key": envelope.address.topic}
        logger.warning("parked", extra={"file": file, "count": self.parked, **last})

    def _limit(self) -> int | None:
        if self._max_bytes is not None and self._now() - self._asked_at >= _LIMIT_KEPT_S:
            self._max_bytes = None
        return self._max_bytes

    def _verdict(self, envelope: Envelope) -> Unpublished:
        if envelope.address.parked_by:
            return Unpublished(envelope, Reason.RULE, f"skip rule {envelope.address.parked_by}")
        if envelope.message_id in self._ids:
            return Unpublished(envelope, *self._ids[envelope.message_id])
        topic = envelope.address.topic
        if topic in self._routing_keys:
            return Unpublished(envelope, Reason.UNPUBLISHABLE, self._routing_keys[topic])
        size = f"{len(envelope.body)} bytes; the sink takes {self._max_bytes}"
        return Unpublished(envelope, Reason.TOO_LARGE, size)


class OwnPark(Park, Protocol):
    """A park that is closed with the sink."""

    async def close(self) -> None: ...


class Parking:
    """The park of one session: an event is not parked again while its id is remembered."""

    def __init__(self, file: ParkFile, poison: Poison) -> None:
        self._file = file
        self._poison = poison

    async def add(self, events: Sequence[Unpublished], *, sink: str) -> None:
        new = self._poison.unparked(events)
        if new:
            await self._file.add(new, sink=sink)
            self._poison.has_parked(new, file=str(self._file.path))

    async def close(self) -> None:
        await self._file.close()


class Sieve:
    """A sink that parks known poison and publishes the rest. A batch is confirmed when both are done."""

    def __init__(self, sink: Sink, park: OwnPark, poison: Poison) -> None:
        self._sink = sink
        self._park = park
        self._poison = poison
        self._settling: set[asyncio.Task[None]] = set()

    def publish(self, batch: Batch) -> Awaitable[None]:
        poison = self._poison.found_in(batch.envelopes)
        if not poison and not self._poison.nacks:
            return self._sink.publish(batch)
        refused = {event.envelope.message_id for event in poison}
        rest = [envelope for envelope in batch.envelopes if envelope.message_id not in refused]
        published = self._sink.publish(Batch(rest, batch.end_lsn)) if rest else None
        task = asyncio.ensure_future(self._settle(batch, published, poison))
        self._settling.add(task)
        task.add_done_callback(self._settled)
        return task

    async def close(self) -> None:
        """Close the sink, then the park, which the sink may still be using."""
        await self._sink.close()
        await self._park.close()
        for task in tuple(self._settling):
            task.cancel()

    def __str__(self) -> str:
        return str(self._sink)

    async def _settle(self, batch: Batch, published: Awaitable[None] | None, poison: Sequence[Unpublished]) -> None:
        if poison:
            await self._park.add(poison, sink=str(self._sink))
        if published is not None:
            await published
        self._poison.confirmed(batch.envelopes)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._settling.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen: nobody need await a batch once the stream has ended


def _remember(known: dict[str, T], name: str, value: T) -> None:
    known[name] = value
    if len(known) > _MOST_IDS:
        del known[next(iter(known))]
