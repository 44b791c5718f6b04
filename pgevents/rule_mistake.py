"""What is wrong with rules: where it stands, in the one way it is said everywhere, and all of it at once."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from pgevents.errors import ConfigError

_UNNAMED = re.compile(r"(?:skip|filter|columns|route) (\d+)")


def place(kind: str, name: str) -> str:
    """Where a rule stands in the file: ``[[filter]] big orders``, or ``[[filter]] 2`` without a name of its own."""
    unnamed = _UNNAMED.fullmatch(name)
    return f"[[{kind}]] {unnamed[1] if unnamed else name}"


def called(kind: str, name: str) -> str:
    """A rule as a sentence begins with it: ``filter big orders``, or ``filter 2`` without a name of its own."""
    return name if _UNNAMED.fullmatch(name) else f"{kind} {name}"


class Mistakes(ConfigError):
    """Several ``mistakes``, in the words of the first."""

    def __init__(self, mistakes: Sequence[ConfigError]) -> None:
        first, more = mistakes[0], len(mistakes) - 1
        super().__init__(f"{first} (and {more} more, which pgevents config check lists)", hint=first.hint)
        self.mistakes = tuple(mistakes)


def settled(findings: Iterable[str | ConfigError]) -> list[str]:
    """The warnings among warnings and mistakes. Raises ConfigError where there is a mistake."""
    every = list(findings)
    refuse([each for each in every if isinstance(each, ConfigError)])
    return [each for each in every if isinstance(each, str)]


def refuse(mistakes: Sequence[ConfigError]) -> None:
    """Raises the one mistake as it is, or all as Mistakes."""
    if len(mistakes) > 1:
        raise Mistakes(mistakes)
    for mistake in mistakes:
        raise mistake


@contextmanager
def noted(mistakes: list[ConfigError]) -> Iterator[None]:
    """What is raised within as wrong configuration is put to ``mistakes`` instead, each on its own."""
    try:
        yield
    except Mistakes as error:
        mistakes += error.mistakes
    except ConfigError as error:
        mistakes.append(error)
