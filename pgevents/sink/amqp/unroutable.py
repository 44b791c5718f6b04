"""Events that no queue is bound for: said loudly, kept in order, or parked in a file."""

import logging
from collections.abc import Awaitable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import orjson

from pgevents.errors import Unroutable
from pgevents.event import Envelope
from pgevents.sink._lines import open_lines
from pgevents.sink._writer import Writer
from pgevents.sink.amqp.confirm import Flight, Owner

logger = logging.getLogger(__name__)

REPEAT_S = 10.0
FIRST_DELAY_S, LAST_DELAY_S = 1.0, 5.0
REASON = "NO_ROUTE"
_PARKED_START = b'{"parked_at":'


def still_unrouted(flights: Iterable[Flight[Owner]]) -> list[tuple[Flight[Owner], list[Envelope]]]:
    """What must be published again of ``flights``, in order: for each flight its envelopes, none if it is done.

    Behind a returned envelope all others of its routing key go again too, though they may have been routed: a
    queue that was bound in between would otherwise keep the older event as the last one.
    """
    stuck: set[str] = set()
    unrouted = []
    for flight in sorted(flights, key=lambda flight: flight.first):
        again = []
        for at, envelope in enumerate(flight.envelopes):
            if at in flight.returned:
                stuck.add(envelope.address.topic)
            if envelope.address.topic in stuck:
                again.append(envelope)
        unrouted.append((flight, again))
    return unrouted


class Warnings:
    """Says at once, and then every ten seconds, what is not routed."""

    def __init__(self, exchange: str, outcome: str) -> None:
        self._exchange = exchange
        self._outcome = outcome
        self._count = 0
        self._said_at = 0.0

    def add(self, envelopes: Sequence[Envelope], *, now: float) -> None:
        """Count ``envelopes``, at least one; ``now`` by a monotonic clock in seconds."""
        self._count += len(envelopes)
        self.say(envelopes, self._count, now=now)

    def say(self, envelopes: Sequence[Envelope], count: int, *, now: float) -> None:
        if self._said_at and now - self._said_at < REPEAT_S:
            return
        self._said_at = now
        topics = sorted({envelope.address.topic for envelope in envelopes})
        others = {"other_routing_keys": len(topics) - 1} if topics[1:] else {}
        logger.warning(
            "no queue is bound for these events, %s",
            self._outcome,
            extra={"exchange": self._exchange, "routing_key": topics[0], **others, "count": count},
        )

    def error(self, envelopes: Sequence[Envelope], *, routed: Awaitable[None]) -> Unroutable:
        topics = sorted({envelope.address.topic for envelope in envelopes})
        return Unroutable(
            f"no queue of exchange {self._exchange} is bound for {topics[0]}"
            + (f" and {len(topics) - 1} more routing keys" if topics[1:] else ""),
            hint="Bind a queue, leave the table out, or choose --on-unroutable park or drop.",
            routed=routed,
        )

    def routed(self, count: int) -> None:
        """Say that waiting is over; the next warning comes at once."""
        self._said_at = 0.0
        logger.warning("a queue is bound now, publishing goes on", extra={"exchange": self._exchange, "count": count})


class Park:
    """A file of unroutable events, one JSON object a line, synced before ``add`` returns."""

    def __init__(self, path: Path, exchange: str) -> None:
        self._exchange = exchange
        self._writer = Writer(partial(open_lines, path, start=_PARKED_START), str(path))

    async def add(self, envelopes: Sequence[Envelope]) -> None:
        """Raises SinkError when the file cannot be written."""
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        await self._writer.append(b"".join([self._line(envelope, now) for envelope in envelopes]))

    async def close(self) -> None:
        """Let what is being written end; a disk that hangs for seconds keeps the file open, until it answers."""
        await self._writer.close()

    def _line(self, envelope: Envelope, now: str) -> bytes:
        return orjson.dumps(
            {
                "parked_at": now,
                "reason": REASON,
                "exchange": self._exchange,
                "routing_key": envelope.address.topic,
                "message_id": envelope.message_id,
                "content_type": envelope.address.content_type,
                "body": envelope.body.decode(errors="backslashreplace"),
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
