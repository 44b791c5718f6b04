"""The native format, version 1. docs/event.md is its contract."""

import orjson

from pgevents.event import VERSION, Event
from pgevents.format import CodecContext


def open(_context: CodecContext) -> "NativeCodec":
    return NativeCodec()


_DETAILED = frozenset({"message", "skip", "summary"})
"""Operations that say more, under their own name as in Event."""


class NativeCodec:
    """One JSON object an event, without a line break."""

    content_type = "application/json"
    operations = frozenset({"insert", "update", "delete", "truncate", "message", "skip", "summary"})

    def encode(self, event: Event) -> bytes:
        id_, op, schema, table, key, new, old, whole, changed, missing, transaction, seq, _, _, _ = event
        _, xid, lsn, committed_at, _, origin, _ = transaction
        document = {
            "v": VERSION,
            "id": id_,
            "op": op,
            "schema": schema,
            "table": table,
            "key": key,
            "new": new,
            "old": old,
            "old_complete": whole,
            "changed": changed,
            "missing": missing,
            "tx": {"xid": xid, "lsn": lsn, "seq": seq, "committed_at": committed_at, "origin": origin},
        }
        if op in _DETAILED:
            document[op] = getattr(event, op)
        return orjson.dumps(document)
