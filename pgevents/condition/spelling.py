"""The known name most like a wrong one."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, likeness: float = 0.5) -> str:
    """A question for a hint; empty where no known name is alike enough (0 to 1)."""
    near = difflib.get_close_matches(name, sorted(known), 1, likeness)
    return f"Did you mean {near[0]}?" if near else ""
