"""Maxwell's row format. Source: Maxwell's documentation, "Data format". docs/formats.md says what differs."""

import orjson

from pgevents.codec._row import changes
from pgevents.event import Event
from pgevents.format import CodecContext


def open(context: CodecContext) -> "MaxwellCodec":
    return MaxwellCodec(context)


class MaxwellCodec:
    """One JSON object a changed row. Maxwell has no word for a truncated table or a logical message."""

    content_type = "application/json"
    operations = frozenset({"insert", "update", "delete"})

    def __init__(self, context: CodecContext) -> None:
        self._database = context.database

    def encode(self, event: Event) -> bytes | tuple[()]:
        if event.op not in self.operations:
            return ()
        document = {
            "database": self._database,
            "schema": event.schema,
            "table": event.table,
            "type": event.op,
            "ts": event.transaction.timestamp,
            "xid": event.transaction.xid,
            "xoffset": event.seq - 1,
            "position": event.transaction.lsn,
            "data": event.new if event.new is not None else event.old,
        }
        if event.op == "update":
            document["old"] = changes(event)
        return orjson.dumps(document)
