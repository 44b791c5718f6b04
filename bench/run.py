"""One finished run, of whatever is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """So many events ``confirmed`` in so many seconds, for so much processor time."""

    confirmed: int
    seconds: float
    cpu_s: float

    @property
    def rate(self) -> float:
        return self.confirmed / self.seconds

    @property
    def cpu_us(self) -> float:
        """Processor time per event, user and system."""
        return self.cpu_s / self.confirmed * 1e6
