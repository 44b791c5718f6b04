"""Names for a person to read: a few of many, and the known one most like a wrong one."""

import difflib
from collections.abc import Iterable

SHOWN = 3


def some(names: Iterable[object]) -> str:
    """The first SHOWN of them, and how many more there are."""
    every = list(map(str, names))
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def nearest(name: str, known: Iterable[str], *, likeness: float = 0.5) -> str:
    """A question for a hint; empty where no known name is alike enough (0 to 1), whichever letters are capitals."""
    spelled = {word.lower(): word for word in known}
    near = difflib.get_close_matches(name.lower(), sorted(spelled), 1, likeness)
    return f"Did you mean {spelled[near[0]]}?" if near else ""
