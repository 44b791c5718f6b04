"""What a run came to, for people and for machines."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from chaos.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run was told to do."""

    seconds: float
    seed: int
    plugin: str
    queue_type: str
    names: str
    """Of the faults, as they were given."""
    streaming: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Of the stream."""
        return ("--streaming",) if self.streaming else ()

    @property
    def command(self) -> str:
        """It inflicts the same faults again, as long as there are no others in the catalogue."""
        only = f" --faults {self.names}" if self.names else ""
        where = " ".join(("--plugin", self.plugin, *self.options, "--queue", self.queue_type))
        return f"python -m chaos --seconds {self.seconds:g} --seed {self.seed} {where}{only}"


@dataclass(frozen=True, slots=True)
class Report:
    """An outcome, and how it was come by. ``faults`` counts those inflicted, ``seconds`` how long there was load."""

    plan: Plan
    seconds: float
    faults: Mapping[str, int]
    outcome: Outcome

    def lines(self) -> list[str]:
        plan, plugin = self.plan, " ".join((self.plan.plugin, *self.plan.options))
        return [
            f"chaos: seed {plan.seed}, {plugin}, {plan.queue_type} queue, {self.seconds:.0f} s of load",
            "",
            *self.outcome.verdict.lines(),
            "",
            *self._workload(),
            *self._stream(),
            f"  faults        {sum(self.faults.values())}: {self._faults()}",
            *(f"  ! {each}" for each in (*self.outcome.exits, *self.outcome.delays)),
            "",
            "Nothing was lost."
            if self.outcome.is_good
            else "This must not be: see the lines with an exclamation mark.",
        ]

    def document(self) -> dict[str, Any]:
        outcome = self.outcome
        return {
            "good": outcome.is_good,
            "seed": self.plan.seed,
            "plugin": self.plan.plugin,
            "streaming": self.plan.streaming,
            "queue_type": self.plan.queue_type,
            "seconds": round(self.seconds, 1),
            **outcome.verdict.counters(),
            "changes_per_s": round(self._rate),
            "caught_up_s": round(outcome.caught_up_s, 1),
            "exits": len(outcome.exits),
            "delays": len(outcome.delays),
            "forgotten": outcome.forgotten,
            "rss_mib": {name: round(value, 1) for name, value in asdict(outcome.memory).items()},
            "rss_flat": outcome.memory.is_flat,
            "faults": dict(self.faults),
        }

    @property
    def _rate(self) -> float:
        return self.outcome.verdict.committed / max(self.seconds, 1.0)

    def _workload(self) -> list[str]:
        tally = self.outcome.tally
        lines = [
            f"  transactions  {len(tally.committed):,} committed, {tally.rolled_back:,} rolled back",
            f"                {tally.failed:,} failed, {tally.unknown:,} resolved after an unanswered COMMIT",
            f"  throughput    {self._rate:,.0f} committed changes/s",
            f"  caught up     {self.outcome.caught_up_s:.1f} s after the last",
        ]
        if self.outcome.forgotten:
            lines.append(f"  ! the database and the writers disagree on {self.outcome.forgotten} transactions")
        return lines

    def _stream(self) -> list[str]:
        memory = self.outcome.memory
        verdict = {None: "too short to tell", True: "flat", False: "NOT FLAT"}[memory.is_flat]
        quarters = f"{memory.first:.0f} MiB in the first quarter, {memory.last:.0f} in the last"
        deciles = f"ninth decile {memory.first_high:.0f} and {memory.last_high:.0f}, peak {memory.peak:.0f}"
        return [f"  RSS           {quarters}", f"                {deciles}: {verdict}"]

    def _faults(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
