"""LIKE and ILIKE, and the folding of letters. Source: like_match.c.

A pattern is cut at each ``%``; the parts between are looked for from left to right, so that no pattern takes longer
than its length times the text's.
"""

import re
from collections.abc import Callable

Match = Callable[[str], bool]


class BadPattern(ValueError):
    """The pattern ends with its escape character."""


def lower(text: str) -> str:
    """Letter by letter, as PostgreSQL does with UTF-8 and a locale of libc other than C."""
    return text.lower() if text.isascii() else "".join(map(_lower, text))


def upper(text: str) -> str:
    """Letter by letter: a letter whose capital is two stays as it is."""
    return text.upper() if text.isascii() else "".join(map(_upper, text))


def _lower(letter: str) -> str:
    folded = letter.lower()
    return folded if len(folded) == 1 else "i"


def _upper(letter: str) -> str:
    folded = letter.upper()
    return folded if len(folded) == 1 else letter


def matcher(pattern: str, escape: str) -> Match:
    """Whether a text is like ``pattern``, all of it. Raises BadPattern."""
    parts = _parts(pattern, escape)
    plain = ["".join(part) for part in parts if None not in part]  # type: ignore[arg-type]
    if len(plain) == len(parts):
        known = _simple(plain)
        if known:
            return known
    return _general(parts)


def _parts(pattern: str, escape: str) -> list[list[str | None]]:
    """The characters between each two ``%``; None for any one."""
    parts: list[list[str | None]] = [[]]
    letters = iter(pattern)
    for letter in letters:
        if letter == escape:
            following = next(letters, None)
            if following is None:
                raise BadPattern
            parts[-1].append(following)
        elif letter == "%":
            parts.append([])
        else:
            parts[-1].append(None if letter == "_" else letter)
    return parts


def _simple(parts: list[str]) -> Match | None:
    match parts:
        case [whole]:
            return whole.__eq__
        case ["", end]:
            return lambda text: text.endswith(end)
        case [start, ""]:
            return lambda text: text.startswith(start)
        case ["", inside, ""]:
            return lambda text: inside in text
    return None


def _general(parts: list[list[str | None]]) -> Match:
    found = [
        re.compile("".join("." if letter is None else re.escape(letter) for letter in part), re.DOTALL)
        for part in parts
    ]
    first, *inner = found
    if not inner:
        return lambda text: first.fullmatch(text) is not None
    last, length = inner.pop(), len(parts[-1])

    def like(text: str) -> bool:
        start = first.match(text)
        if not start:
            return False
        at = start.end()
        for part in inner:
            place = part.search(text, at)
            if not place:
                return False
            at = place.end()
        return len(text) - length >= at and last.fullmatch(text, len(text) - length) is not None

    return like
