"""What was measured, as tables for people and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should reach; at least ``limit``, or at most."""

    what: str
    value: float
    limit: float
    at_least: bool
    unit: str = ""

    @property
    def is_met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def line(self) -> str:
        wanted = f"{'≥' if self.at_least else '≤'} {self.limit:g}{self.unit}"
        return f"{self.what:<58}{self.value:>9.2f}{self.unit:<5}{wanted:<11}{'met' if self.is_met else 'MISSED'}"

    def as_dict(self) -> dict[str, Any]:
        names = {"what": self.what, "unit": self.unit.strip(), "at_least": self.at_least}
        return names | {"value": self.value, "limit": self.limit, "met": self.is_met}


@dataclass(frozen=True, slots=True)
class Section:
    """One question, its answer in lines, and every figure behind it for the JSON, under ``key``."""

    key: str
    title: str
    lines: Sequence[str]
    figures: dict[str, Any]
    targets: Sequence[Target] = ()
    notes: Sequence[str] = field(default=())

    def text(self) -> str:
        return "\n".join(["", self.title, *(f"  {line}" for line in (*self.lines, *self.notes))])


THROUGHPUT_HEAD = f"{'':<38}{'events/s':>10}{'CPU µs/event':>14}{'peak RSS MiB':>14}{'ratio':>8}"


def throughput_line(
    name: str, rates: Sequence[float], *, cpu_us: Sequence[float] = (), rss: Sequence[float] = (), ratio: float = 0
) -> str:
    """One row under THROUGHPUT_HEAD: medians of the rounds, the highest peak RSS."""
    cpu = f"{median(cpu_us):.1f}" if cpu_us else "–"
    peak = f"{max(rss):.0f}" if rss else "–"
    return f"{name:<38}{median(rates):>10,.0f}{cpu:>14}{peak:>14}{f'{ratio:.2f}' if ratio else '':>8}"


def machine_lines(machine: dict[str, Any]) -> str:
    return (
        f"PostgreSQL {machine['postgresql']} (plug-ins {', '.join(machine['plugins'])}; fsync {machine['fsync']}, "
        f"synchronous_commit {machine['synchronous_commit']})\n"
        f"RabbitMQ {machine['rabbitmq']} ({machine['rabbitmq_schedulers']} schedulers), Python {machine['python']}, "
        f"{machine['cpus']} CPUs, {machine['system']}, load before {machine['load_average'][0]}"
    )


def targets_section(targets: Sequence[Target]) -> str:
    return "\n".join(["", "Targets", *(f"  {target.line()}" for target in targets)])
