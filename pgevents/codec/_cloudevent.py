"""The context attributes that both modes of CloudEvents 1.0 share."""

from urllib.parse import quote

from pgevents.event import Event
from pgevents.format import CodecContext
from pgevents.routing import escaped

DATA_TYPE = "application/json"


def source_of(context: CodecContext) -> str:
    """A URI reference that is the same for all events of one stream."""
    return f"/pgevents/{quote(context.name, safe='')}/{quote(context.database, safe='')}"


def attributes(event: Event, source: str) -> dict[str, str]:
    """Every attribute but ``datacontenttype``. ``subject`` and ``time`` are left out where there are none."""
    found = {"specversion": "1.0", "id": event.id, "source": source, "type": f"pgevents.{event.op}"}
    if subject := _subject(event):
        found["subject"] = subject
    if event.transaction.committed_at is not None:
        found["time"] = event.transaction.committed_at
    return found


def _subject(event: Event) -> str:
    """The table, or a message's prefix, escaped as in a routing key: attributes may hold no control characters."""
    if event.table is not None:
        return f"{escaped(event.schema or '')}.{escaped(event.table)}"
    return escaped(event.message["prefix"]) if event.message else ""
