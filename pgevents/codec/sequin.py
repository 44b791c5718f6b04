"""Sequin's message. Source: Sequin's documentation, "Messages". docs/formats.md says what differs."""

from typing import Any

import orjson

from pgevents.codec._row import changes, commit_of
from pgevents.event import Event
from pgevents.format import CodecContext


def open(context: CodecContext) -> "SequinCodec":
    return SequinCodec(context)


class SequinCodec:
    """One JSON object a changed row. Sequin has no word for a truncated table or a logical message."""

    content_type = "application/json"
    operations = frozenset({"insert", "update", "delete"})

    def __init__(self, context: CodecContext) -> None:
        database = {"id": None, "name": context.database, "annotations": None}
        self._fixed = {
            "database_name": context.database,
            "consumer": {"id": None, "name": context.name, "annotations": None},
            "database": {**database, "database": context.database, "hostname": None},
            "enrichment": None,
            "transaction_annotations": None,
        }

    def encode(self, event: Event) -> bytes | tuple[()]:
        if event.op not in self.operations:
            return ()
        document = {
            "record": event.new if event.new is not None else event.old,
            "changes": changes(event) if event.op == "update" else None,
            "action": event.op,
            "metadata": self._metadata(event),
        }
        return orjson.dumps(document)

    def _metadata(self, event: Event) -> dict[str, Any]:
        return {
            "table_schema": event.schema,
            "table_name": event.table,
            "idempotency_key": event.id,
            "commit_timestamp": event.transaction.committed_at,
            "commit_lsn": commit_of(event.transaction).lsn,
            "commit_idx": event.seq,
            **self._fixed,
        }
