"""A position in PostgreSQL's write-ahead log."""

import re
from typing import Self

_TEXT = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")


class Lsn(int):
    """A WAL byte position: an ``int`` that prints as PostgreSQL prints it, ``16/B374D848``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read PostgreSQL's own notation. Raises ValueError for anything else."""
        if _TEXT.fullmatch(text) is None:
            raise ValueError(f"{text!r} is not an LSN such as 16/B374D848")
        high, low = text.split("/")
        return cls(int(high, 16) << 32 | int(low, 16))

    def __str__(self) -> str:
        high, low = divmod(self, 1 << 32)
        return f"{high:X}/{low:X}"

    def __repr__(self) -> str:
        return f"Lsn({self})"


NOWHERE = Lsn(0)
"""PostgreSQL's InvalidXLogRecPtr: no position at all."""
