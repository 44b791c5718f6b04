"""The objects that wal2json prints in its format version 2, made again from events.

Source: wal2json's README, and its output with include-xids, include-timestamp, include-lsn and without
include-types. docs/formats.md says what differs.
"""

from typing import Any

import orjson

from pgevents.codec._row import json_as_text
from pgevents.event import Event
from pgevents.format import CodecContext
from pgevents.wal import Row

_ACTIONS = {"insert": "I", "update": "U", "delete": "D", "truncate": "T", "message": "M"}


def open(_context: CodecContext) -> "Wal2jsonCodec":
    return Wal2jsonCodec()


class Wal2jsonCodec:
    """One action object an event; those of the transaction, B and C, are not made."""

    content_type = "application/json"
    operations = frozenset(_ACTIONS)

    def encode(self, event: Event) -> bytes | tuple[()]:
        action = _ACTIONS.get(event.op)
        if action is None:
            return ()
        transaction = event.transaction
        document = {
            "action": action,
            "xid": transaction.xid,
            "timestamp": _timestamp(transaction.committed_at),
            "lsn": transaction.lsn,
        }
        return orjson.dumps(document | _content(event))


def _content(event: Event) -> dict[str, Any]:
    if event.message is not None:
        return {name: event.message[name] for name in ("transactional", "prefix", "content")}
    content: dict[str, Any] = {"schema": event.schema, "table": event.table}
    if event.new is not None:
        content["columns"] = _columns(event.new)
    if event.old is not None:
        content["identity"] = _columns(event.old)
    return content


def _columns(row: Row) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in json_as_text(row).items()]


def _timestamp(committed_at: str | None) -> str | None:
    """As PostgreSQL prints it in UTC: no more digits of the second than there are."""
    return committed_at and f"{committed_at[:-1].replace('T', ' ').rstrip('0').rstrip('.')}+00"
