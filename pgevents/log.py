"""Log lines on standard error: ``time level message key=value`` or one JSON object a line.

Fields are given with ``extra=``, as in ``logger.info("slot opened", extra={"slot": slot, "lsn": str(lsn)})``.
"""

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from pgevents.mask import mask_dsn

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[^\s\"=\\]+")
_COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31"}


def configure(level: str, style: Literal["text", "json"] | str, *, stream: TextIO | None = None) -> None:  # noqa: PYI051
    """Send the log to ``stream`` (standard error). ``level`` and ``style`` are those of the settings."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter(colour=shows_colour(stream)))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("pgevents").setLevel(level.upper())
    # pika logs every failed try as an error with a traceback; its faults reach us as exceptions.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def shows_colour(stream: TextIO) -> bool:
    """Whether to colour what is written there: a terminal, and NO_COLOR is not set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given with ``extra=``, secrets in text masked."""
    given = {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
    return {name: mask_dsn(value) if isinstance(value, str) else value for name, value in given.items()}


class TextFormatter(logging.Formatter):
    """``12:30:01 warning trying again attempt=2``; always one line but for a traceback."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        if self._colour and record.levelno in _COLOURS:
            level = f"\033[{_COLOURS[record.levelno]}m{level}\033[0m"
        words = [self.formatTime(record, self.datefmt), level, one_line(mask_dsn(record.getMessage()))]
        words += [f"{name}={_written(value)}" for name, value in fields_of(record).items()]
        trace = f"\n{mask_dsn(self.formatException(record.exc_info))}" if record.exc_info else ""
        return " ".join(words) + trace


class JsonFormatter(logging.Formatter):
    """One object a line: ``time`` in UTC, ``level``, ``logger``, ``message``, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask_dsn(record.getMessage()),
        }
        if record.exc_info:
            line["error"] = mask_dsn(self.formatException(record.exc_info))
        return json.dumps(fields_of(record) | line, default=str, ensure_ascii=False)


def one_line(text: str) -> str:
    """The text with escapes for what cannot be printed: a line break of any kind would forge a second line."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _written(value: Any) -> str:
    text = str(value)
    is_plain = _PLAIN.fullmatch(text) and text.isprintable()
    return text if is_plain else one_line(json.dumps(text, ensure_ascii=False))
