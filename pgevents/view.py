"""An event as one readable line: when, what, which row, and what changed."""

import sys
from collections.abc import Mapping
from typing import Any

import click
import orjson

from pgevents.log import shows_colour

WIDTH = 60
"""Longest value shown, in characters."""

_COLOURS = {"insert": "green", "update": "yellow", "delete": "red", "truncate": "red", "message": "cyan"}


def line_of(event: Mapping[str, Any]) -> str:
    """``08:36:07.123  UPDATE    public.orders #42  status: open → paid  16/B374D848``.

    Takes an event in the native format, parsed. Raises LookupError, TypeError or AttributeError for anything else.
    """
    tx = event["tx"]
    clock = (tx["committed_at"] or "")[11:23] or "-"
    op = f"{event['op'].upper():<8}"
    clock, op, subject, detail, lsn = map(printable, (f"{clock:<12}", op, _subject(event), _detail(event), tx["lsn"]))
    return "  ".join(part for part in (clock, _coloured(op, event["op"]), subject, detail, lsn) if part)


def printable(text: str) -> str:
    """The text with a dot for each character that would move the cursor, colour the screen or start a line."""
    return "".join(char if char.isprintable() else "·" for char in text)


def _coloured(text: str, op: str) -> str:
    return click.style(text, fg=_COLOURS.get(op)) if shows_colour(sys.stdout) else text


def _subject(event: Mapping[str, Any]) -> str:
    if event["op"] == "message":
        return str(event["message"]["prefix"])
    name = f"{event['schema']}.{event['table']}"
    key = ",".join(_short(value) for value in (event["key"] or {}).values())
    return f"{name} #{key}" if key else name


def _detail(event: Mapping[str, Any]) -> str:
    new, old = event["new"] or {}, event["old"] or {}
    if event["op"] == "message":
        return _short(event["message"]["content"])
    if event["changed"] is not None:
        return ", ".join(f"{name}: {_short(old[name])} → {_short(new[name])}" for name in event["changed"])
    shown = new or old
    return ", ".join(f"{name}={_short(value)}" for name, value in shown.items() if name not in (event["key"] or {}))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
