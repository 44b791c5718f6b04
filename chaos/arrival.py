"""What a consumer took in, one line each in a file, in the order it came."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

FILE = "arrivals"


class Kind(Enum):
    """``FIRST``: the broker gives it for the first time. ``AGAIN``: it gave it before, and got no acknowledgement.

    ``MARK``: no event, but the slot's confirmed flush LSN, which was put into the queue when it had been reached.
    """

    FIRST = b"+"
    AGAIN = b"r"
    MARK = b"m"


class Arrival(NamedTuple):
    kind: Kind
    body: bytes

    def line(self) -> bytes:
        return self.kind.value + self.body + b"\n"


def read(path: Path) -> Iterator[Arrival]:
    with path.open("rb") as file:
        for line in file:
            yield Arrival(Kind(line[:1]), line[1:-1])
