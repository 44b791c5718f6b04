"""For tests, ours and yours: a source and a sink in memory, and the messages a server would send.

A :class:`MemoryServer` holds committed transactions and forgets what is acknowledged; a :class:`MemorySink`
keeps what it is given and confirms when told. Messages are pgoutput's, byte for byte.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pgevents.batch import Batch
from pgevents.codec.native import NativeCodec
from pgevents.decoder.pgoutput import PgoutputDecoder
from pgevents.event import Envelope
from pgevents.filters import TableFilter
from pgevents.gate import Gate
from pgevents.interfaces import Sink
from pgevents.lsn import NOWHERE, Lsn
from pgevents.pipeline import Limits, Pipeline, Progress
from pgevents.routing import RoutingKey
from pgevents.shape import Shape
from pgevents.wal import UNCHANGED_TOAST, Keepalive, PgType, RawMessage, TableFacts

IDENTITY = "7000000000000000001-1"
TEXT_OID, INT4_OID = 25, 23

Values = Sequence[object]
"""One row: text, None for NULL, or UNCHANGED_TOAST."""


@dataclass(slots=True)
class MemoryCatalog:
    """A catalog that knows what it is given and asks no server."""

    types: Mapping[int, PgType] = field(default_factory=dict)
    tables: Mapping[tuple[str, str], TableFacts] = field(default_factory=dict)
    origins: Mapping[int, str] = field(default_factory=dict)

    def begin(self, xid: int) -> None:
        """What it knows is always to be seen."""

    def type(self, oid: int) -> PgType:
        return self.types.get(oid, PgType())

    def table(self, schema: str, name: str) -> TableFacts | None:
        return self.tables.get((schema, name))

    def origin(self, number: int) -> str | None:
        return self.origins.get(number)


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def begin(commit_lsn: int, *, xid: int = 1, time_us: int = 0) -> bytes:
    return struct.pack("!cQqI", b"B", commit_lsn, time_us, xid)


def commit(commit_lsn: int, end_lsn: int, *, time_us: int = 0) -> bytes:
    return struct.pack("!cBQQq", b"C", 0, commit_lsn, end_lsn, time_us)


def relation(
    oid: int,
    name: str,
    columns: Sequence[tuple[str, int, bool]],
    *,
    schema: str = "public",
    identity: str = "d",
) -> bytes:
    """``columns``: name, type OID, and whether it belongs to the replica identity."""
    parts = [struct.pack("!cI", b"R", oid), _text(schema), _text(name), identity.encode()]
    parts.append(struct.pack("!H", len(columns)))
    for column, type_oid, in_key in columns:
        parts += [bytes([in_key]), _text(column), struct.pack("!Ii", type_oid, -1)]
    return b"".join(parts)


def _row(values: Values) -> bytes:
    parts = [struct.pack("!H", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif value is UNCHANGED_TOAST:
            parts.append(b"u")
        else:
            text = str(value).encode()
            parts += [b"t", struct.pack("!I", len(text)), text]
    return b"".join(parts)


def insert(oid: int, new: Values) -> bytes:
    return struct.pack("!cIc", b"I", oid, b"N") + _row(new)


def update(oid: int, new: Values, *, old: Values | None = None, key: Values | None = None) -> bytes:
    """``old`` is a full old image, ``key`` an old key; neither where the key did not change."""
    head = struct.pack("!cI", b"U", oid)
    before = b"O" + _row(old) if old is not None else b"K" + _row(key) if key is not None else b""
    return head + before + b"N" + _row(new)


def delete(oid: int, *, old: Values | None = None, key: Values = ()) -> bytes:
    return struct.pack("!cI", b"D", oid) + (b"O" + _row(old) if old is not None else b"K" + _row(key))


def truncate(*oids: int) -> bytes:
    return struct.pack(f"!cIB{len(oids)}I", b"T", len(oids), 0, *oids)


def logical_message(lsn: int, prefix: str, content: bytes, *, transactional: bool = True) -> bytes:
    return struct.pack("!cBQ", b"M", transactional, lsn) + _text(prefix) + struct.pack("!I", len(content)) + content


@dataclass(frozen=True, slots=True)
class Transaction:
    """A committed transaction as a server keeps it: the messages of its changes between Begin and Commit."""

    commit_lsn: int
    end_lsn: int
    changes: tuple[bytes, ...]

    def messages(self) -> list[RawMessage]:
        payloads = [begin(self.commit_lsn, xid=self.commit_lsn), *self.changes]
        sent = [RawMessage(self.commit_lsn - 1, payload) for payload in payloads]
        return [*sent, RawMessage(self.end_lsn, commit(self.commit_lsn, self.end_lsn))]


@dataclass(slots=True)
class MemoryServer:
    """Committed transactions, and what a slot's reader acknowledged over all its connections."""

    transactions: Sequence[Transaction]
    acknowledged: list[Lsn] = field(default_factory=list)

    @property
    def confirmed_flush_lsn(self) -> Lsn:
        return self.acknowledged[-1] if self.acknowledged else Lsn(0)

    def connect(self, *, chunk: int = 1000) -> "MemorySource":
        """A source of every transaction not acknowledged, whole, and a keepalive, as PostgreSQL sends it again."""
        due = [each for each in self.transactions if each.commit_lsn >= self.confirmed_flush_lsn]
        messages: list[RawMessage | Keepalive] = [message for each in due for message in each.messages()]
        messages.append(Keepalive(max(each.end_lsn for each in self.transactions)))
        return MemorySource(messages, chunk=chunk, server=self)


class MemorySource:
    """Hands over ``messages``, ``chunk`` at a time, and then waits for ever."""

    def __init__(
        self, messages: Sequence[RawMessage | Keepalive], *, chunk: int = 1000, server: MemoryServer | None = None
    ) -> None:
        self._messages = list(messages)
        self._chunk = chunk
        self._server = server or MemoryServer(())

    @property
    def acknowledged(self) -> list[Lsn]:
        return self._server.acknowledged

    async def read(self) -> Sequence[RawMessage | Keepalive]:
        await asyncio.sleep(0)
        if not self._messages:
            await asyncio.get_running_loop().create_future()
        part, self._messages = self._messages[: self._chunk], self._messages[self._chunk :]
        return part

    def acknowledge(self, end_lsn: Lsn, *, idle: bool) -> None:  # noqa: ARG002
        self._server.acknowledged.append(end_lsn)

    async def close(self) -> None:
        """Nothing to let go of."""


class MemorySink:
    """Stores envelopes as they are published; confirms each batch at once, or when ``confirm`` is called."""

    def __init__(self, *, confirms: bool = True, stored: list[Envelope] | None = None) -> None:
        self.stored: list[Envelope] = [] if stored is None else stored
        self.unconfirmed: list[tuple[Batch, asyncio.Future[None]]] = []
        self._confirms = confirms

    def publish(self, batch: Batch) -> Awaitable[None]:
        confirmation: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.unconfirmed.append((batch, confirmation))
        if self._confirms:
            self.confirm(len(self.unconfirmed) - 1)
        return confirmation

    def confirm(self, index: int = 0) -> None:
        """Store one of the unconfirmed batches and confirm it."""
        batch, confirmation = self.unconfirmed.pop(index)
        self.stored += batch.envelopes
        if not confirmation.done():
            confirmation.set_result(None)

    def fail(self, error: Exception, index: int = 0) -> None:
        """Refuse one of the unconfirmed batches."""
        self.unconfirmed.pop(index)[1].set_exception(error)

    async def close(self) -> None:
        self.unconfirmed.clear()

    def __str__(self) -> str:
        return "memory"


def pipeline(
    source: MemorySource,
    sink: Sink,
    *,
    keep: Callable[[str, str], bool] | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
    start_lsn: Lsn = NOWHERE,
) -> Pipeline:
    """The real pipeline between a source and a sink in memory; ``start_lsn`` is where the slot stands."""
    return Pipeline(
        source=source,
        decoder=PgoutputDecoder(MemoryCatalog()),
        gate=Gate(IDENTITY, start_lsn),
        shape=Shape(keep or TableFilter(), RoutingKey(), NativeCodec()),
        sink=sink,
        limits=limits or Limits(),
        progress=progress or Progress(),
    )


def run(source: MemorySource, sink: MemorySink, *, until: int, **parts: object) -> Progress:
    """Run the pipeline until ``until`` is reached and acknowledged."""
    made = pipeline(source, sink, limits=Limits(until=Lsn(until)), **parts)  # type: ignore[arg-type]
    asyncio.run(made.run(asyncio.Event()))
    return made.progress
