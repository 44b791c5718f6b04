"""Faults at random, for as long as one likes, and the same ones again for the same seed."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from chaos.fault import Fault, Target
from chaos.rig import Rig

_TICK_S = 0.05
_PAUSE_S = (0.3, 2.5)
_MOST_AT_ONCE = 3

Say = Callable[[str], None]


@dataclass(slots=True)
class Storm:
    """Inflicts ``faults`` on a running rig, up to three at once and never two on the same thing."""

    rig: Rig
    faults: Sequence[Fault]
    seed: int
    say: Say
    counts: Counter[str] = field(default_factory=Counter)
    _active: list[tuple[float, Fault, AbstractContextManager[None]]] = field(default_factory=list)

    def blow(self, seconds: float) -> None:
        """Returns with everything healed."""
        began = time.monotonic()
        deck = _deck(self.faults, random.Random(f"{self.seed}-deck"))
        coming, next_at = next(deck, None), began
        try:
            while (now := time.monotonic()) < began + seconds:
                self._heal(until=now)
                if coming and now >= next_at and self._is_free(coming):
                    chance = random.Random(f"{self.seed}-{self.counts.total()}")
                    self._inflict(coming, chance, at_s=now - began)
                    coming, next_at = next(deck), time.monotonic() + chance.uniform(*_PAUSE_S)
                self.rig.tick()
                time.sleep(_TICK_S)
        finally:
            self._heal(until=float("inf"))

    def _is_free(self, fault: Fault) -> bool:
        broken: set[Target] = {target for _, each, _ in self._active for target in each.targets}
        return len(self._active) < _MOST_AT_ONCE and not broken & fault.targets

    def _inflict(self, fault: Fault, chance: random.Random, *, at_s: float) -> None:
        lasts_s = chance.uniform(*fault.lasts_s)
        lasting = f" for {lasts_s:.1f} s" if lasts_s else ""
        self.say(f"{at_s:7.1f} s  {fault}{lasting}")
        self.counts[fault.name] += 1
        context = fault.inflict(self.rig, chance)
        context.__enter__()
        self._active.append((time.monotonic() + lasts_s, fault, context))

    def _heal(self, *, until: float) -> None:
        for each in [each for each in self._active if each[0] <= until]:
            self._active.remove(each)
            each[2].__exit__(None, None, None)


def _deck(faults: Sequence[Fault], chance: random.Random) -> Iterator[Fault]:
    """Every fault once in random order, again and again."""
    while faults:
        yield from chance.sample(faults, len(faults))
