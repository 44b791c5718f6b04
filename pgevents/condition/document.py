"""JSON documents as PostgreSQL prints them: parts of them, as the text they are, without parsing the rest."""

import json
import re
from typing import Any

from pgevents.condition.error import ConditionFailed

_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_STRING = re.compile(_QUOTED, re.DOTALL)
_MARK = re.compile(rf"{_QUOTED}|[\[\]{{}}]", re.DOTALL)
_GAP = r"[ \t\n\r]*"
# A member's name, and its value unless that is an object or array.
_MEMBER = re.compile(rf"{_GAP},?{_GAP}({_QUOTED}){_GAP}:{_GAP}({_QUOTED}|[^\s,\]}}{{\[]+)?", re.DOTALL)
_SCALAR = re.compile(r"[^\s,\]}]+")
_SPACE = re.compile(_GAP)
_LONE = re.compile("[\ud800-\udfff]")
_STRING_OR_NUMBER = re.compile(rf"({_QUOTED})|(-?[0-9]+\.[0-9]+)", re.DOTALL)


def member(text: str, key: str | int, *, binary: bool) -> str | None:
    """The part of a document under an object's key or at an array's index, as printed; None without one.

    ``binary``: jsonb, in which a scalar is also an array of one.
    """
    if not binary and "\\u" in text:
        _check_escapes(text)
    at = _space(text, 0)
    if isinstance(key, str):
        return _of_object(text, at + 1, key) if text[at] == "{" else None
    if text[at] == "[":
        return _of_array(text, at + 1, key)
    return text if binary and text[at] != "{" and key in (0, -1) else None


def as_text(part: str | None) -> str | None:
    """What ``->>`` gives: a string without its quotes, NULL for null, anything else as printed."""
    if part is None or part == "null":
        return None
    return _unquoted(part) if part.startswith('"') else part


def equal_form(text: str) -> str:
    """Alike for two jsonb documents exactly where they are equal: numbers without trailing zeros."""
    return _STRING_OR_NUMBER.sub(lambda match: match[1] or _trimmed(match[2]), text)


def _trimmed(number: str) -> str:
    return number.rstrip("0").rstrip(".")


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _end(text: str, at: int) -> int:
    """Where the value that starts at ``at`` ends. Depth costs nothing."""
    if text[at] not in "{[":
        match = (_STRING if text[at] == '"' else _SCALAR).match(text, at)
        return match.end() if match else len(text)
    depth = 0
    for mark in _MARK.finditer(text, at):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(mark[0], 0)
        if not depth:
            return mark.end()
    return len(text)


def _of_object(text: str, at: int, key: str) -> str | None:
    """The last member of this name, as json keeps them all."""
    found = None
    while match := _MEMBER.match(text, at):
        name, part = match.groups()
        at = match.end()
        if part is None:
            start, at = at, _end(text, at)
            part = text[start:at]
        if _unquoted(name) == key:
            found = part
    return found


def _of_array(text: str, at: int, index: int) -> str | None:
    parts: list[str] = []
    at = _space(text, at)
    while text[at] != "]":
        end = _end(text, at)
        parts.append(text[at:end])
        if len(parts) - 1 == index:
            return parts[index]
        at = _space(text, end)
        if text[at] == ",":
            at = _space(text, at + 1)
    return parts[index] if -len(parts) <= index < 0 else None


def _check_escapes(text: str) -> None:
    """PostgreSQL reads every string of a json document on the way to one of them."""
    for mark in _MARK.finditer(text):
        if "\\u" in mark[0]:
            _unquoted(mark[0])


def _unquoted(part: str) -> str:
    if "\\" not in part:
        return part[1:-1]
    value: Any = json.loads(part)
    if "\0" in value:
        raise ConditionFailed("a JSON string has \\u0000, which is no text", sqlstate="22P05")
    if _LONE.search(value):
        raise ConditionFailed("a JSON string has half a surrogate pair", sqlstate="22P02")
    return str(value)
