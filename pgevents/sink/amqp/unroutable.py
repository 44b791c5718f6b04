"""Events that no queue is bound for: said loudly, and kept in order."""

import logging
from collections.abc import Awaitable, Iterable, Sequence

from pgevents.errors import Unroutable
from pgevents.event import Envelope
from pgevents.sink.amqp.confirm import Flight, Owner

logger = logging.getLogger(__name__)

REPEAT_S = 10.0
FIRST_DELAY_S, LAST_DELAY_S = 1.0, 5.0


def still_unrouted(flights: Iterable[Flight[Owner]]) -> list[tuple[Flight[Owner], list[Envelope]]]:
    """What of ``flights``, given in order, is to be tried again, by flight: what came back, and what follows it.

    That is, all others of its routing key. Most of those came back too.
    """
    stuck: set[str] = set()
    unrouted = []
    for flight in flights:
        again = []
        for at, envelope in enumerate(flight.envelopes):
            if at in flight.returned:
                stuck.add(envelope.address.topic)
            if envelope.address.topic in stuck:
                again.append(envelope)
        if again:
            unrouted.append((flight, again))
    return unrouted


def behind_return(flights: Iterable[Flight[Owner]]) -> list[tuple[Flight[Owner], Sequence[Envelope]]]:
    """The first that came back of ``flights``, and everything after it, by flight.

    When all is routed, all of it goes once more: a queue that was bound in between has some of it already, and would
    otherwise keep the older event of a row as the last one, whatever their routing keys.
    """
    following: list[tuple[Flight[Owner], Sequence[Envelope]]] = []
    for flight in flights:
        if following:
            following.append((flight, flight.envelopes))
        elif flight.returned:
            following.append((flight, flight.envelopes[min(flight.returned) :]))
    return following


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
