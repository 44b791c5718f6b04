"""The mark that asks for its transaction to be skipped: what ``pgevents.skip`` writes into the WAL."""

from dataclasses import dataclass
from typing import Any

import orjson

from pgevents.filters import qualified

PREFIX = "pgevents.skip"
"""The prefix of the logical message. The message is transactional, and its content is JSON in UTF-8."""

VERSION = 1

MAX_BYTES = 64 * 1024
MAX_TABLES = 1000
MAX_CHARACTERS = 1000
MAX_PATTERN = 260
"""Of the reason, and of who marked it. Anybody who may call pg_logical_emit_message can send us more."""


class MalformedMark(ValueError):
    """A message under our prefix that is no mark. Its text is one line, and repeats nothing of the message."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Why a transaction is to be skipped, and who asked for it.

    ``tables`` are patterns as TableFilter takes them, each with its schema; None for the whole transaction. ``by``
    is the role that logged in, ``application`` its application_name, either empty where it is not known.
    """

    reason: str
    tables: tuple[str, ...] | None
    by: str
    application: str


def parse_mark(content: bytes) -> Mark:
    """The mark in a message's content, as migrations/0002_skip.sql writes it. Raises MalformedMark, and nothing else.

    Keys that are not known are left alone: a later version of the function may add some.
    """
    if len(content) > MAX_BYTES:
        raise MalformedMark(f"it is longer than {MAX_BYTES} bytes")
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise MalformedMark("it is not JSON in UTF-8") from error
    if not isinstance(document, dict):
        raise MalformedMark("it is not a JSON object")
    if type(document.get("v")) is not int or document["v"] != VERSION:
        raise MalformedMark(f"its version is not {VERSION}")
    reason = _text(document, "reason")
    if not reason.strip():
        raise MalformedMark("it gives no reason")
    return Mark(reason, _tables(document.get("tables")), _text(document, "by"), _text(document, "application"))


def _text(document: dict[str, Any], key: str) -> str:
    text = document.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise MalformedMark(f"its {key} is not text")
    if len(text) > MAX_CHARACTERS:
        raise MalformedMark(f"its {key} is longer than {MAX_CHARACTERS} characters")
    return text


def _tables(patterns: object) -> tuple[str, ...] | None:
    if patterns is None:
        return None
    # To TableFilter no pattern at all means every table, which an empty list cannot have meant.
    if not isinstance(patterns, list) or not patterns:
        raise MalformedMark("its tables are neither null nor a list of patterns")
    if len(patterns) > MAX_TABLES:
        raise MalformedMark(f"it names more than {MAX_TABLES} tables")
    # Two names of 63 characters make a pattern; one of many thousand would take seconds to be compared.
    if not all(isinstance(pattern, str) and 0 < len(pattern) <= MAX_PATTERN for pattern in patterns):
        raise MalformedMark(f"one of its tables is not a pattern of 1 to {MAX_PATTERN} characters")
    return tuple(map(qualified, patterns))
