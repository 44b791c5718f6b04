"""The native format, version 1. docs/event.md is its contract."""

import orjson

from pgevents.event import VERSION, Event


class NativeCodec:
    """One JSON object an event, without a line break."""

    content_type = "application/json"

    def encode(self, event: Event) -> bytes:
        id_, op, schema, table, key, new, old, old_complete, changed, missing, transaction, seq, message = event
        _, xid, lsn, committed_at, _, origin = transaction
        document = {
            "v": VERSION,
            "id": id_,
            "op": op,
            "schema": schema,
            "table": table,
            "key": key,
            "new": new,
            "old": old,
            "old_complete": old_complete,
            "changed": changed,
            "missing": missing,
            "tx": {"xid": xid, "lsn": lsn, "seq": seq, "committed_at": committed_at, "origin": origin},
        }
        if message is not None:
            document["message"] = message
        return orjson.dumps(document)
