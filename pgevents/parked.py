"""Parked events, and what a person decided on them.

The park file belongs to the stream that appends to it, and is only read here. Each decision is a line in the file
``<park file>.resolved``. What is parked and not resolved is open.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from pgevents import park
from pgevents.errors import ConfigError, ParkRefused
from pgevents.park import Parked
from pgevents.sink._lines import LineFile

_START = b'{"resolved_at":'
_ID = re.compile(r"\d+-\d+-(?P<lsn>[0-9A-F]+)-(?P<seq>\d*).*")
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')


@dataclass(frozen=True, slots=True)
class Entry:
    """An open event, without its body; ``exchange`` is empty for the sink's own, ``at`` is where its line begins.

    An event that was parked several times is one entry: the line of the last time, and the park ids of all.
    """

    message_id: str
    park_ids: tuple[str, ...]
    parked_at: str
    reason: str
    exchange: str
    routing_key: str
    body_bytes: int
    at: int

    def is_named(self, name: str) -> bool:
        return name == self.message_id or name in self.park_ids

    def as_dict(self) -> dict[str, Any]:
        shown = asdict(self)
        del shown["at"]
        return shown

    def line(self) -> str:
        when = f"{self.parked_at[:19]}Z"
        return f"{self.message_id:<42}  {when}  {self.reason:<13}  {self.body_bytes:>11,}  {self.routing_key}"


def commit_order(entry: Entry) -> tuple[int, int]:
    """Commit LSN and number in its transaction, as its id has them; zeros where the id is not one of ours.

    A record of a transaction has no number. Messages of one event have the same.
    """
    found = _ID.fullmatch(entry.message_id)
    return (int(found["lsn"], 16), int(found["seq"] or 0)) if found else (0, 0)


def open_events(park_file: Path) -> list[Entry]:
    """What is parked and not resolved, in the order of the first parking. Raises ParkRefused."""
    found: dict[str, Entry] = {}
    parked = list(_parked(park_file))
    resolved = _resolved(park_file)
    for entry in parked:
        if entry.park_ids[0] not in resolved:
            before = found.get(entry.message_id)
            ids = (*before.park_ids, *entry.park_ids) if before else entry.park_ids
            found[entry.message_id] = Entry(**asdict(entry) | {"park_ids": tuple(dict.fromkeys(ids))})
    return list(found.values())


def select(entries: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    """Those of these message ids or park ids, all without names. Raises ConfigError for an unknown one."""
    for name in names:
        if not any(entry.is_named(name) for entry in entries):
            raise ConfigError(
                f"no open parked event is called {name}",
                hint="pgevents parked list shows them; one that was retried or discarded is open no longer.",
            )
    return [entry for entry in entries if not names or any(map(entry.is_named, names))]


def read(park_file: Path, entry: Entry) -> Parked:
    """All of an event. Raises ParkRefused."""
    try:
        with park_file.open("rb") as file:
            file.seek(entry.at)
            return park.parse(file.readline())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ParkRefused(f"event {entry.message_id} is no longer where it was in {park_file}") from error


class Decisions:
    """What became of parked events, appended and synced; one process at a time decides."""

    def __init__(self, park_file: Path) -> None:
        rival = "Wait until the other pgevents parked command has ended."
        self._lines = LineFile(_beside(park_file), (_START,), mode=park.MODE, rival=rival)

    def add(self, entries: Iterable[Entry], how: str) -> None:
        """Returns once it would survive a crash. Raises SinkError."""
        now = park.timestamp()
        lines = [
            {"resolved_at": now, "how": how, "message_id": entry.message_id, "park_ids": entry.park_ids}
            for entry in entries
        ]
        self._lines.append(b"".join([orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines]))

    def close(self) -> None:
        self._lines.close()


@contextmanager
def deciding(park_file: Path) -> Iterator[Decisions]:
    """Raises SinkRefused while another process decides."""
    decisions = Decisions(park_file)
    try:
        yield decisions
    finally:
        decisions.close()


def shown(event: Parked) -> str:
    """Everything about an event, a line each, and then its body."""
    envelope, address = event.envelope, event.envelope.address
    beyond_plain = {
        "exchange": address.exchange,
        "headers": " ".join(f"{name}={value}" for name, value in address.headers + envelope.headers),
        "priority": "" if address.priority is None else str(address.priority),
        "expiration": address.expiration and f"{address.expiration} ms",
        "encoding": address.content_encoding,
    }
    fields = {
        "message id": envelope.message_id,
        "park id": event.park_id,
        "parked at": event.parked_at,
        "reason": f"{event.reason} {event.detail}".strip(),
        "sink": event.sink,
        "routing key": address.topic,
        "type": address.kind,
        "content type": address.content_type,
        "timestamp": str(envelope.timestamp),
        **{name: value for name, value in beyond_plain.items() if value},
        "bytes": str(len(envelope.body)),
    }
    return "\n".join([*(f"{name:<13} {value}" for name, value in fields.items()), "", _readable(envelope.body)])


def _readable(body: bytes) -> str:
    try:
        orjson.loads(body)
    except ValueError:
        return body.decode(errors="backslashreplace")
    return _indented(body.decode())


def _indented(text: str) -> str:
    """JSON a member a line. Not parsed: a number would lose digits."""
    lines, depth = [""], 0
    for piece in _PIECE.findall(text):
        if piece in "]}":
            depth -= 1
            if lines[-1].strip():
                lines.append("  " * depth)
            else:
                lines.pop()
        lines[-1] += piece + " " * (piece == ":")
        depth += piece in "[{"
        if piece in "[{,":
            lines.append("  " * depth)
    return "\n".join(lines)


def _parked(park_file: Path) -> Iterator[Entry]:
    for number, at, line in _lines(park_file, b'{"parked_at":'):
        try:
            event = park.parse(line)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _foreign(park_file, number) from error
        envelope = event.envelope
        yield Entry(
            envelope.message_id,
            (event.park_id,),
            event.parked_at,
            event.reason,
            envelope.address.exchange,
            envelope.address.topic,
            len(envelope.body),
            at,
        )


def _resolved(park_file: Path) -> set[str]:
    path, ids = _beside(park_file), set[str]()
    for number, _, line in _lines(path, _START):
        try:
            ids.update(orjson.loads(line)["park_ids"])
        except (ValueError, LookupError, TypeError) as error:
            raise _foreign(path, number) from error
    return ids


def _lines(path: Path, start: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, place and bytes of each whole line; none where there is no file.

    A last line of ours that is not whole is being written, or was torn by a crash, and counts for nothing.
    """
    at = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield number, at, line
                elif not line.startswith(start[: len(line)]):
                    raise _foreign(path, number)
                at += len(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ParkRefused(f"cannot read {path}: {error.strerror}") from error


def _foreign(path: Path, number: int) -> ParkRefused:
    return ParkRefused(
        f"line {number} of {path} is not of ours",
        hint="Nothing was changed. Look at that line, and move it elsewhere while no stream is running.",
    )


def _beside(park_file: Path) -> Path:
    return park_file.with_name(f"{park_file.name}.resolved")
