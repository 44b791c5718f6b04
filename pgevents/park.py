"""The park file: events that could not be delivered, each a line of JSON with all it takes to publish it again.

Lines are appended and synced, and never changed or removed: what became of an event stands in a file beside it, so
that a person can decide on events while a stream holds this one.
"""

import base64
import hashlib
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from pgevents.errors import SinkRefused
from pgevents.event import Address, Envelope, Headers
from pgevents.interfaces import Unpublished
from pgevents.sink._lines import LineFile
from pgevents.sink._writer import Writer

# Lines hold rows: only the account that streams may read a new file.
MODE = 0o600
_START = b'{"parked_at":'


@dataclass(frozen=True, slots=True)
class Parked:
    """A line of the park file. ``sink`` and ``detail`` are empty in lines of old."""

    park_id: str
    parked_at: str
    reason: str
    detail: str
    sink: str
    envelope: Envelope
    line: bytes


class ParkFile:
    """Appends to a park file, which is opened and locked at the first event."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = Writer(partial(LineFile, path, (_START,), mode=MODE), str(path))

    async def add(self, events: Sequence[Unpublished], *, sink: str) -> None:
        """Returns once ``events`` would survive a crash. Raises SinkError when the file cannot be written."""
        now = timestamp()
        await self._writer.append(b"".join([line_of(event, sink=sink, parked_at=now) for event in events]))

    async def close(self) -> None:
        """Let what is being written end; a disk that hangs for seconds keeps the file open, until it answers."""
        await self._writer.close()


def check(path: Path) -> None:
    """Raises SinkRefused where the first event to be parked could not be written. Creates and locks nothing."""
    folder = path.parent
    if not os.access(folder, os.F_OK):
        raise SinkRefused(f"there is no folder {folder} for the park file", hint="Create it, or name another file.")
    exists = os.access(path, os.F_OK)
    if exists and not path.is_file():
        raise SinkRefused(f"the park file {path} is no regular file", hint="Name a file on a disk with --park-file.")
    if not os.access(path if exists else folder, os.W_OK):
        hint = "The account that runs this must be allowed to write there."
        raise SinkRefused(f"the park file {path} cannot be written", hint=hint)


def timestamp() -> str:
    """Now, in ISO 8601 and UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def line_of(event: Unpublished, *, sink: str, parked_at: str) -> bytes:
    """The line of ``event``, with its line break."""
    envelope = event.envelope
    line: dict[str, object] = {
        "parked_at": parked_at,
        "park_id": secrets.token_hex(8),
        "reason": event.reason,
        "detail": event.detail,
        "sink": sink,
        "message_id": envelope.message_id,
        "routing_key": envelope.address.topic,
        "type": envelope.address.kind,
        "content_type": envelope.address.content_type,
        "timestamp": envelope.timestamp,
        **_beyond_plain(envelope),
    }
    try:
        line["body"] = envelope.body.decode()
    except UnicodeDecodeError:
        line["body_base64"] = base64.b64encode(envelope.body).decode()
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _beyond_plain(envelope: Envelope) -> dict[str, object]:
    """What only a message has that a route or a format gave more to."""
    address = envelope.address
    fields = {
        "exchange": address.exchange,
        "headers": address.headers,
        "message_headers": envelope.headers,
        "priority": address.priority,
        "expiration": address.expiration,
        "content_encoding": address.content_encoding,
    }
    return {name: value for name, value in fields.items() if value not in ("", (), None)}


def parse(line: bytes) -> Parked:
    """Raises ValueError, LookupError or TypeError for what is no line of ours, of today or of old."""
    found = orjson.loads(line)
    body = base64.b64decode(found["body_base64"]) if "body_base64" in found else found["body"].encode()
    kind = found["type"] if "type" in found else _kind(found["body"])
    address = Address(
        _text(found["routing_key"]),
        _text(kind),
        _text(found["content_type"]),
        # Lines of old name the sink's own exchange, and have no sink: it was the one of that time.
        _text(found.get("exchange", "")) if "sink" in found else "",
        _headers(found.get("headers", ())),
        _priority(found.get("priority")),
        _text(found.get("expiration", "")),
        _text(found.get("content_encoding", "")),
    )
    headers = _headers(found.get("message_headers", ()))
    return Parked(
        # Lines of old have no id of their own.
        _text(found.get("park_id") or hashlib.sha256(line.strip()).hexdigest()[:16]),
        _text(found["parked_at"]),
        _text(found["reason"]),
        _text(found.get("detail", "")),
        _text(found.get("sink", "")),
        Envelope(_text(found["message_id"]), address, int(found.get("timestamp", 0)), body, headers),
        line,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _headers(value: Any) -> Headers:
    return tuple((_text(name), _text(text)) for name, text in value)


def _priority(value: Any) -> int | None:
    return None if value is None else int(value)


def _kind(body: str) -> str:
    """The AMQP type of an event in the native format; lines of old do not say it."""
    with suppress(ValueError, LookupError, TypeError):
        return "pgevents." + _text(orjson.loads(body)["op"])
    return ""
