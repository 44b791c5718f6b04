"""What a person sees of the demo: now and then an event while it runs, and the figures at its end."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click

from pgevents.demo.consumer import Arrival
from pgevents.demo.ledger import ChangeKey
from pgevents.view import line_of

SHOWN_EVERY_S = 0.4

Say = Callable[[str], object]


class LiveView:
    """One line for an event, and at most one every ``SHOWN_EVERY_S``; it says how many it left out."""

    def __init__(self, say: Say, *, now: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now = now
        self._next = 0.0
        self._left_out = 0

    def __call__(self, arrival: Arrival) -> None:
        if self._now() < self._next:
            self._left_out += 1
            return
        self._next = self._now() + SHOWN_EVERY_S
        more = click.style(f"  (+{self._left_out} more)", dim=True) if self._left_out else ""
        self._left_out = 0
        self._say(one_line(arrival) + more)


def one_line(arrival: Arrival) -> str:
    """An event as ``pgevents tail`` shows it, and how long it took."""
    return f"{line_of(arrival.event)}  {arrival.latency_s * 1000:.1f} ms"


@dataclass(frozen=True, slots=True)
class Summary:
    """What the demo claims, from four sides: the database, the stream, the consumer and the clock."""

    committed: Counter[ChangeKey]
    consumed: Counter[ChangeKey]
    rolled_back: int
    confirmed: int
    duplicated: int
    latencies_s: list[float]
    destination: str

    @property
    def lost(self) -> int:
        return (self.committed - self.consumed).total()

    @property
    def never_committed(self) -> int:
        return (self.consumed - self.committed).total()

    @property
    def is_good(self) -> bool:
        """Nothing lost, nothing that was never committed, and something happened at all."""
        return bool(self.committed) and self.lost == 0 and self.never_committed == 0

    def lines(self) -> Iterator[str]:
        yield _row("committed changes, by the database's own count", self.committed.total(), self._operations())
        yield _row("rolled back on purpose", self.rolled_back)
        yield _row(f"events confirmed by {self.destination}", self.confirmed)
        yield _row("events consumed", self.consumed.total() + self.duplicated)
        yield _row("lost", self.lost)
        yield _row("duplicated", self.duplicated)
        yield _row("never committed, but seen", self.never_committed)
        yield f"  {'commit to consumer':<48} {self._latency()}"

    def _operations(self) -> str:
        by_op: Counter[str] = Counter()
        for (_table, op, _key), count in self.committed.items():
            by_op[op] += count
        return ", ".join(f"{op} {by_op[op]:,}" for op in ("insert", "update", "delete"))

    def _latency(self) -> str:
        if len(self.latencies_s) < 2:  # noqa: PLR2004 - quantiles need two
            return "too few events to say"
        cuts = statistics.quantiles(self.latencies_s, n=100)
        return f"p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms"


def _row(name: str, value: int, note: str = "") -> str:
    return f"  {name:<48} {value:>9,}" + (f"   ({note})" if note else "")
