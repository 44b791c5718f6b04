"""Debezium's change event envelope, as its PostgreSQL connector writes it without schemas.

Source: Debezium's documentation of that connector, "Data change events". docs/formats.md says what differs, and
which of the connector's settings the values are like.
"""

import base64
from typing import Any

import orjson

from pgevents.codec._row import Commit, commit_of, json_as_text, old_key
from pgevents.event import Body, Event
from pgevents.format import CodecContext
from pgevents.wal import Row

UNAVAILABLE = "__debezium_unavailable_value"

_OPS = {"insert": "c", "update": "u", "delete": "d", "truncate": "t", "message": "m"}


def open(context: CodecContext) -> "DebeziumCodec":
    return DebeziumCodec(context)


class DebeziumCodec:
    """One envelope an event, but two for an update that changes the key: a delete and a create.

    Every time in it is that of the commit, so that an event is the same on every redelivery.
    """

    content_type = "application/json"
    operations = frozenset(_OPS)

    def __init__(self, context: CodecContext) -> None:
        self._context = context

    def encode(self, event: Event) -> bytes | tuple[Body, ...]:
        op = _OPS.get(event.op)
        if op is None:
            return ()
        if op == "m":
            return self._envelope(event, op, {"message": _message(event)})
        before = json_as_text(event.old) if event.old is not None else None
        after = _after(event) if event.new is not None else None
        if op == "u" and (replaced := old_key(event)) is not None:
            return self._moved(event, before, after, replaced)
        return self._envelope(event, op, {"before": before, "after": after})

    def _moved(self, event: Event, before: Row | None, after: Row | None, replaced: Row) -> tuple[Body, ...]:
        deleted = self._envelope(event, "d", {"before": before, "after": None})
        created = self._envelope(event, "c", {"before": None, "after": after})
        return (
            Body(deleted, (("__debezium.newkey", _key(event.key or {})),), "-d"),
            Body(created, (("__debezium.oldkey", _key(replaced)),), "-c"),
        )

    def _envelope(self, event: Event, op: str, content: dict[str, Any]) -> bytes:
        commit = commit_of(event.transaction)
        content["source"] = self._source(event, commit)
        content["transaction"] = _transaction(event, commit.lsn)
        content["op"] = op
        content["ts_ms"], content["ts_us"], content["ts_ns"] = commit.time_ms, commit.time_us, commit.time_ns
        return orjson.dumps(content)

    def _source(self, event: Event, commit: Commit) -> dict[str, Any]:
        context = self._context
        return {
            "version": context.version,
            "connector": "postgresql",
            "name": context.name,
            "ts_ms": commit.time_ms,
            "snapshot": "false",
            "db": context.database,
            "sequence": None,
            "ts_us": commit.time_us,
            "ts_ns": commit.time_ns,
            "schema": event.schema or "",
            "table": event.table or "",
            "txId": event.transaction.xid,
            "lsn": commit.lsn,
            "xmin": None,
        }


def _transaction(event: Event, lsn: int) -> dict[str, Any] | None:
    xid = event.transaction.xid
    if xid is None:
        return None
    return {"id": f"{xid}:{lsn}", "total_order": event.seq, "data_collection_order": None}


def _after(event: Event) -> Row:
    row = json_as_text(event.new or {})
    return {**row, **dict.fromkeys(event.missing, UNAVAILABLE)} if event.missing else row


def _key(key: Row) -> str:
    return orjson.dumps(json_as_text(key)).decode()


def _message(event: Event) -> dict[str, str]:
    message = event.message or {}
    content = message["content"]
    raw = bytes.fromhex(content[2:]) if message["encoding"] == "hex" else content.encode()
    return {"prefix": message["prefix"], "content": base64.b64encode(raw).decode()}
