"""Events that no queue is bound for: said loudly, and kept in order."""

import logging
from collections.abc import Awaitable, Iterable, Sequence

from pgevents.errors import Unroutable
from pgevents.event import Envelope
from pgevents.sink.amqp.confirm import Flight, Owner

logger = logging.getLogger(__name__)

REPEAT_S = 10.0
FIRST_DELAY_S, LAST_DELAY_S = 1.0, 5.0


Target = tuple[str, str]


def target(envelope: Envelope) -> Target:
    """Its exchange, empty for the sink's own, and its routing key."""
    return envelope.address.exchange, envelope.address.topic


def still_unrouted(flights: Iterable[Flight[Owner]]) -> list[tuple[Flight[Owner], list[Envelope]]]:
    """What of ``flights``, given in order, is to be tried again, by flight: what came back, and what follows it.

    That is, all others of its exchange and routing key. Most of those came back too.
    """
    stuck: set[Target] = set()
    unrouted = []
    for flight in flights:
        again = []
        for at, envelope in enumerate(flight.envelopes):
            if at in flight.returned:
                stuck.add(target(envelope))
            if target(envelope) in stuck:
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
    """Says at once, and then every ten seconds, what is not routed. ``exchange`` is the sink's own."""

    def __init__(self, exchange: str, outcome: str) -> None:
        self._exchange = exchange
        self._outcome = outcome
        self._count = 0
        self._said_at = 0.0
        self._optional_at = 0.0

    def add(self, envelopes: Sequence[Envelope], *, now: float) -> None:
        """Count ``envelopes``, at least one; ``now`` by a monotonic clock in seconds."""
        self._count += len(envelopes)
        self.say(envelopes, self._count, now=now)

    def say(self, envelopes: Sequence[Envelope], count: int, *, now: float) -> None:
        if self._said_at and now - self._said_at < REPEAT_S:
            return
        self._said_at = now
        (exchange, topic), others = self._first(envelopes)
        more = {"other_routing_keys": others} if others else {}
        logger.warning(
            "no queue is bound for these events, %s",
            self._outcome,
            extra={"exchange": exchange, "routing_key": topic, **more, "count": count},
        )

    def optional(self, envelope: Envelope, *, now: float) -> None:
        """Say that an event which nobody need have asked for went nowhere."""
        if self._optional_at and now - self._optional_at < REPEAT_S:
            return
        self._optional_at = now
        (exchange, topic), _ = self._first((envelope,))
        logger.warning(
            "no queue is bound for the record of what was skipped; this log is all there is of it",
            extra={"exchange": exchange, "routing_key": topic, "message_id": envelope.message_id},
        )

    def error(self, envelopes: Sequence[Envelope], *, routed: Awaitable[None]) -> Unroutable:
        (exchange, topic), others = self._first(envelopes)
        return Unroutable(
            f"no queue of exchange {exchange} is bound for {topic}"
            + (f" and {others} more routing keys" if others else ""),
            hint="Bind a queue, leave the table out, or choose --on-unroutable park or drop.",
            routed=routed,
        )

    def routed(self, envelopes: Sequence[Envelope]) -> None:
        """Say that waiting is over; the next warning comes at once."""
        self._said_at = 0.0
        exchange = (envelopes and envelopes[0].address.exchange) or self._exchange
        logger.warning(
            "a queue is bound now, publishing goes on", extra={"exchange": exchange, "count": len(envelopes)}
        )

    def _first(self, envelopes: Sequence[Envelope]) -> tuple[Target, int]:
        """Exchange and routing key of one of ``envelopes``, and how many others there are."""
        targets = sorted({target(envelope) for envelope in envelopes})
        exchange, topic = targets[0]
        return (exchange or self._exchange, topic), len(targets) - 1
