"""The confirms of one channel: which envelopes a broker's acks, nacks and returns speak of. Pure.

The broker numbers what is published on a channel from 1, so a flight of envelopes owns a range of delivery tags. It
may confirm them in any order, one by one or all up to a tag; mostly the latter, and that case costs nothing per tag.
A returned message is acked like any other, after its return, which carries no tag: it is found by message id.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pgevents.event import Envelope

Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class Flight(Generic[Owner]):
    """Envelopes published together, with the tags ``first`` to ``last``.

    Every tag up to ``floor`` is confirmed, and those in ``early``. ``returned`` holds indexes into ``envelopes``.
    """

    owner: Owner
    envelopes: Sequence[Envelope]
    first: int
    last: int
    floor: int
    early: set[int] = field(default_factory=set)
    returned: set[int] = field(default_factory=set)
    index: dict[str, int] = field(default_factory=dict)

    @property
    def is_confirmed(self) -> bool:
        return self.floor == self.last

    def awaits(self, tag: int) -> bool:
        """Whether ``tag`` is of this flight and not confirmed yet."""
        return self.floor < tag <= self.last and tag not in self.early

    def confirm(self, tag: int, *, multiple: bool) -> None:
        if multiple:
            self.floor = max(self.floor, min(tag, self.last))
            self.early = {each for each in self.early if each > self.floor}
        elif tag > self.floor:
            self.early.add(tag)
        while self.floor + 1 in self.early:
            self.floor += 1
            self.early.remove(self.floor)

    def find(self, message_id: str) -> int | None:
        """Where in ``envelopes`` an unconfirmed message of that id is."""
        if not self.index:
            self.index = {envelope.message_id: at for at, envelope in enumerate(self.envelopes)}
        at = self.index.get(message_id)
        return at if at is not None and self.awaits(self.first + at) else None


class Confirms(Generic[Owner]):
    """Everything published on a channel in confirm mode and not confirmed yet."""

    def __init__(self) -> None:
        self._open: deque[Flight[Owner]] = deque()
        self._last = 0

    @property
    def is_idle(self) -> bool:
        return not self._open

    @property
    def open_flights(self) -> Sequence[Flight[Owner]]:
        return tuple(self._open)

    def published(self, envelopes: Sequence[Envelope], owner: Owner) -> Flight[Owner]:
        """Number ``envelopes``, at least one, in the order they were written."""
        first = self._last + 1
        self._last += len(envelopes)
        flight = Flight(owner, envelopes, first, self._last, floor=first - 1)
        self._open.append(flight)
        return flight

    def acked(self, tag: int, *, multiple: bool) -> list[Flight[Owner]]:
        """Count an ack; the flights that it completes, in the order of their tags. Each is reported once.

        Tag 0 counts for nothing: AMQP lets it mean everything outstanding, but what the broker has not read yet is
        outstanding to us alone.
        """
        for flight in self._reached(tag, multiple=multiple):
            flight.confirm(tag, multiple=multiple)
        return self._completed()

    def nacked(self, tag: int, *, multiple: bool) -> list[tuple[Flight[Owner], Envelope]]:
        """Count a nack; the flights it hits, each with its first refused envelope. They are forgotten.

        Tag 0 hits everything outstanding.
        """
        if tag == 0:
            tag, multiple = self._last, True
        refused = []
        for flight in self._reached(tag, multiple=multiple):
            first = self._first_hit(flight, tag, multiple=multiple)
            if first is not None:
                refused.append((flight, flight.envelopes[first - flight.first]))
                self._open.remove(flight)
        return refused

    def returned(self, message_id: str) -> Envelope | None:
        """Mark a message as not routed: its coming ack is no delivery. None when no such message is open.

        Of an optional one it is.
        """
        for flight in self._open:
            at = flight.find(message_id)
            if at is not None:
                if not flight.envelopes[at].address.is_optional:
                    flight.returned.add(at)
                return flight.envelopes[at]
        return None

    def _reached(self, tag: int, *, multiple: bool) -> Iterator[Flight[Owner]]:
        for flight in tuple(self._open):
            if flight.first > tag:
                return
            if multiple or flight.last >= tag:
                yield flight

    def _completed(self) -> list[Flight[Owner]]:
        done = [flight for flight in self._open if flight.is_confirmed]
        if done:
            self._open = deque(flight for flight in self._open if not flight.is_confirmed)
        return done

    @staticmethod
    def _first_hit(flight: Flight[Owner], tag: int, *, multiple: bool) -> int | None:
        tags = range(flight.first, min(tag, flight.last) + 1) if multiple else (tag,)
        return next((each for each in tags if flight.awaits(each)), None)
