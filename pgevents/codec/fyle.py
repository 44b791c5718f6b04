"""The event of Fyle's pgevents. Source: ``BaseEvent.to_dict`` there. docs/formats.md says what differs."""

import orjson

from pgevents.codec._row import is_same
from pgevents.event import Event
from pgevents.format import CodecContext
from pgevents.wal import Row

_ACTIONS = {"insert": "I", "update": "U", "delete": "D"}


def open(_context: CodecContext) -> "FyleCodec":
    return FyleCodec()


class FyleCodec:
    """One JSON object a changed row. Fyle has no word for a truncated table or a logical message."""

    content_type = "application/json"
    operations = frozenset(_ACTIONS)

    def encode(self, event: Event) -> bytes | tuple[()]:
        action = _ACTIONS.get(event.op)
        if action is None:
            return ()
        new, old = event.new or {}, event.old or {}
        document = {
            "table_name": f"{event.schema}.{event.table}",
            "old": old if event.op != "insert" else {},
            "new": new,
            "id": (new or old).get("id"),
            "diff": _diff(event, new, old),
            "action": action,
            "recorded_at": _isoformat(event.transaction.committed_at),
        }
        return orjson.dumps(document)


def _diff(event: Event, new: Row, old: Row) -> Row:
    """The new values of what changed. A column whose old value is not known counts as changed if it is not null."""
    if event.changed is not None:
        return {name: new[name] for name in event.changed if name in new}
    return {name: value for name, value in new.items() if not is_same(value, old.get(name))}


def _isoformat(committed_at: str | None) -> str | None:
    """As Python's own ``isoformat`` has it, which older versions of it can read."""
    return committed_at and f"{committed_at[:-1]}+00:00"
