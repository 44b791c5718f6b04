"""What a run came to."""

from dataclasses import dataclass

from chaos.oracle import Verdict
from chaos.sampler import Memory
from chaos.workload import Tally


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. ``exits`` of the stream that nobody asked for, and ``delays`` that nothing explains."""

    verdict: Verdict
    tally: Tally
    memory: Memory
    caught_up_s: float
    exits: tuple[str, ...]
    delays: tuple[str, ...]
    forgotten: int
    """Transactions whose COMMIT was answered and which the database does not have, or the other way round."""

    @property
    def is_good(self) -> bool:
        return self.verdict.is_good and not (self.exits or self.delays or self.forgotten)
