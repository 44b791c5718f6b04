"""An event as one readable line: when, what, which row, and what changed."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import click
import orjson

WIDTH = 60
"""Longest value shown, in characters."""

_COLOURS = {"insert": "green", "update": "yellow", "delete": "red", "truncate": "red", "message": "cyan"}


def line_of(event: Mapping[str, Any]) -> str:
    """``08:36:07.123  UPDATE    public.orders #42  status: open → paid  16/B374D848``.

    Takes an event in the native format, parsed. Raises KeyError or TypeError for anything else.
    """
    tx = event["tx"]
    clock = (tx["committed_at"] or "")[11:23] or "-"
    op = f"{event['op'].upper():<8}"
    parts = [f"{clock:<12}", _coloured(op, event["op"]), _subject(event), _detail(event), tx["lsn"]]
    return "  ".join(part for part in parts if part)


def _coloured(text: str, op: str) -> str:
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return click.style(text, fg=_COLOURS.get(op))
    return text


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
    text = "".join(char if char.isprintable() else "·" for char in text)
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
