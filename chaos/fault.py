"""What a fault is, and the one way the rig itself fails."""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos.rig import Rig


class BrokenRig(Exception):
    """A server, the consumer or a writer did what no fault explains, so that the run means nothing."""


class Target(Enum):
    """What a fault breaks. Faults of one target never overlap."""

    STREAM = "stream"
    POSTGRES = "postgres"
    BROKER = "broker"
    POSTGRES_LINK = "postgres link"
    AMQP_LINK = "amqp link"


Inflict = Callable[["Rig", Random], AbstractContextManager[None]]
Breaking = Generator[None, None, None]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong, and is healed again when its context ends, after a time within ``lasts_s``.

    ``keeps_order`` is False where the broker refuses an event and takes what was sent behind it: a consumer sees the
    right order only in the last copies.
    """

    number: str
    name: str
    targets: frozenset[Target]
    lasts_s: tuple[float, float]
    inflict: Inflict
    keeps_order: bool = True

    def __str__(self) -> str:
        return f"{self.number} {self.name}"


class Catalogue:
    """The faults there are, by name; ``fault`` puts one in."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}

    @property
    def faults(self) -> Mapping[str, Fault]:
        return self._faults

    def fault(
        self,
        number: str,
        name: str,
        *targets: Target,
        lasts_s: tuple[float, float] = (0.0, 0.0),
        keeps_order: bool = True,
    ) -> Callable[[Callable[["Rig", Random], Breaking]], Inflict]:
        """Decorates a generator: what is before its ``yield`` breaks, what is after it heals."""

        def put(breaks: Callable[["Rig", Random], Breaking]) -> Inflict:
            inflict = contextmanager(breaks)
            self._faults[name] = Fault(number, name, frozenset(targets), lasts_s, inflict, keeps_order)
            return inflict

        return put
