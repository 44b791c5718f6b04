"""The known name most like a wrong one, whichever letters are capitals."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, likeness: float = 0.5) -> str:
    """A question for a hint; empty where no known name is alike enough (0 to 1)."""
    spelled = {word.lower(): word for word in known}
    near = difflib.get_close_matches(name.lower(), sorted(spelled), 1, likeness)
    return f"Did you mean {spelled[near[0]]}?" if near else ""
