"""A transaction that has not committed: what pgoutput sent of it so far, kept or counted.

Source of every layout: PostgreSQL manual, "Logical Replication Message Formats", protocol version 2. Between Stream
Start and Stream Stop every message but Origin has the xid of its (sub)transaction after its tag. A savepoint that is
rolled back takes its rows with it, but not the Relation messages among them: they are not sent again.

What the manual does not say: a logical message has the xid of its whole transaction, also in a savepoint
(``pgoutput_message`` in pgoutput.c). Whether it goes with a savepoint that is rolled back cannot be told, until
something comes that stands in no savepoint: then all before it have ended, and of a rolled-back one we know.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pgevents.decoder.pgoutput import parse_message, parse_relation_head
from pgevents.errors import DecodeError, PiecesUnusable
from pgevents.foresight import Foresight
from pgevents.lsn import Lsn
from pgevents.wal import Outline, Passed, RawMessage

_INSERT, _UPDATE, _DELETE, _MESSAGE = ord("I"), ord("U"), ord("D"), ord("M")
_TRUNCATE, _RELATION, _TYPE, _ORIGIN = ord("T"), ord("R"), ord("Y"), ord("O")
_OPERATIONS = {_INSERT: "insert", _UPDATE: "update", _DELETE: "delete"}
_HEAD = 9
"""Bytes of a row change up to its tuples: the tag, the xid and the relation's oid."""

_PASSED = 0
"""The tag of our own entries in a spool: what was counted. No message begins so."""

_u16 = struct.Struct("!H").unpack_from
_u32 = struct.Struct("!I").unpack_from
_pair = struct.Struct("!II").unpack_from


class Spool(Protocol):
    """Keeps entries of LSN, xid and payload in order. It raises PiecesUnusable where it cannot."""

    def add(self, lsn: int, xid: int, payload: bytes) -> None: ...

    def read(self) -> Iterator[tuple[int, int, bytes]]: ...

    def close(self) -> None: ...


class Arrived(NamedTuple):
    """A Relation message as version 1 has it, and its place among all of them."""

    number: int
    payload: bytes


@dataclass(slots=True)
class InProgress:
    """One transaction that has not committed. ``torn`` is why what was sent of it cannot be used."""

    xid: int
    foresight: Foresight
    spool: Spool
    arrivals: Iterator[int]
    origin: bytes = b""
    arrived: dict[int, Arrived] = field(default_factory=dict)
    torn: PiecesUnusable | None = None
    _rolled_back: set[int] = field(default_factory=set)
    _is_unclear: bool = False
    _relations: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    _passing: dict[bytes, int] = field(default_factory=dict)
    _passes_streamed: bool = False

    def take(self, message: RawMessage) -> None:
        payload = message.payload
        head = payload[:_HEAD]
        # On the way of a migration this is all that happens to a row.
        if head in self._passing:
            self._passing[head] += 1
            return
        tag = payload[0]
        if self.torn is not None and tag != _RELATION:
            return
        if tag in _OPERATIONS:
            self._row(message, head)
        elif tag == _ORIGIN:
            self.origin = payload
        elif tag in (_RELATION, _TYPE):
            self._learn(message)
        elif tag in (_MESSAGE, _TRUNCATE):
            self._heard(message)
        else:
            raise malformed(message, "an unknown kind of message")

    def look_again(self) -> None:
        """What is certain may have changed with the windows."""
        if self.foresight.is_stale:
            self._put_down()

    def roll_back(self, subxid: int) -> None:
        self._rolled_back.add(subxid)
        if self._is_unclear:
            self._tear(
                PiecesUnusable(
                    f"transaction {self.xid} rolled a savepoint back, and PostgreSQL does not tell which of its "
                    "logical messages went with it while it runs",
                    hint="Nothing is lost: it is read once more, at its commit.",
                )
            )

    def finish(self, end_lsn: Lsn) -> None:
        """It has committed. Raises PiecesUnusable."""
        self._put_down()
        if self.torn is not None:
            raise PiecesUnusable(str(self.torn), hint=self.torn.hint, until=end_lsn) from self.torn

    def relations(self) -> Iterator[RawMessage]:
        """The last of each table."""
        return (RawMessage(0, arrived.payload) for arrived in self.arrived.values())

    def messages(self) -> Iterator[RawMessage | Passed | None]:
        """Everything that was not rolled back, in order, and None for what was."""
        for lsn, xid, payload in self.spool.read():
            if payload[0] == _PASSED:
                yield _passed_of(payload)
            else:
                yield None if xid in self._rolled_back else RawMessage(lsn, payload)

    def _row(self, message: RawMessage, head: bytes) -> None:
        xid, oid = _pair(head, 1)
        if xid != self.xid:
            self.foresight.doubt()
        else:
            self._is_unclear = False
            outline, (_, _, columns) = self._outline(head), self._relations[oid]
            if self.foresight.drops(outline, columns, len(message.payload)):
                self._count(head, outline)
                return
        self._keep(message, xid)

    def _count(self, head: bytes, outline: Outline) -> None:
        """Dropped rows and those of tables that are not streamed stay apart: a record says where it begins."""
        is_streamed = self.foresight.is_streamed(outline)
        if self._passing and is_streamed != self._passes_streamed:
            self._put_down()
        self._passes_streamed = is_streamed
        self._passing[head] = 1

    def _learn(self, message: RawMessage) -> None:
        payload = message.payload[:1] + message.payload[5:]
        if payload[0] == _RELATION:
            oid, schema, name, at = parse_relation_head(payload[1:])
            self._put_down()
            self._relations[oid] = (schema, name, _u16(payload, at + 2)[0])
            self.arrived[oid] = Arrived(next(self.arrivals), payload)
        self._keep(message, self.xid)

    def _heard(self, message: RawMessage) -> None:
        xid = _u32(message.payload, 1)[0]
        if message.payload[0] == _MESSAGE:
            self._is_unclear = True
            self.foresight.hear(parse_message(message.payload[5:]))
        else:
            self._is_unclear = self._is_unclear and xid != self.xid
            self.foresight.doubt()
        self._keep(message, xid)

    def _keep(self, message: RawMessage, xid: int) -> None:
        if self._passing:
            self._put_down()
        self._add(message.lsn, xid, message.payload[:1] + message.payload[5:])

    def _put_down(self) -> None:
        """Write what was counted where it belongs, before what comes next."""
        for head, rows in self._passing.items():
            self._add(0, self.xid, _passed_entry(self._outline(head), rows))
        self._passing.clear()

    def _add(self, lsn: int, xid: int, payload: bytes) -> None:
        if self.torn is not None:
            return
        try:
            self.spool.add(lsn, xid, payload)
        except PiecesUnusable as error:
            self._tear(error)

    def _tear(self, why: PiecesUnusable) -> None:
        """It may still be rolled back, and then nothing is to be done. Its file is of no use either way."""
        self.torn = self.torn or why
        self._passing.clear()
        self.spool.close()

    def _outline(self, head: bytes) -> Outline:
        schema, table, _ = self._relations[_u32(head, 5)[0]]
        return Outline(_OPERATIONS[head[0]], schema, table)


def _passed_entry(outline: Outline, rows: int) -> bytes:
    # No identifier holds a NUL.
    return b"\0" + "\0".join((*outline, str(rows))).encode()


def _passed_of(entry: bytes) -> Passed:
    op, schema, table, rows = entry[1:].decode().split("\0")
    return Passed(Outline(op, schema, table), int(rows))


def malformed(message: RawMessage, reason: str) -> DecodeError:
    return DecodeError(reason, lsn=message.lsn, tag=chr(message.payload[0]) if message.payload else "")
