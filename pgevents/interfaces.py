"""The seams of the pipeline: source, decoder, codec, sink, and what each promises."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pgevents.batch import Batch
from pgevents.event import Event
from pgevents.lsn import Lsn
from pgevents.wal import Keepalive, PgType, RawMessage, TableFacts, WalItem


class Source(Protocol):
    """Where messages come from and acknowledged LSNs go back to."""

    async def read(self) -> Sequence[RawMessage | Keepalive]:
        """The next messages in order, at least one; waits for it.

        Raises SourceUnavailable when the connection is gone, SlotLost when the slot is.
        """
        ...

    def acknowledge(self, end_lsn: Lsn) -> None:
        """Everything before ``end_lsn`` may be forgotten. A smaller LSN than the last one changes nothing."""
        ...

    async def close(self) -> None:
        """Send the last acknowledged LSN once more and leave. The slot stays."""
        ...


class Catalog(Protocol):
    """What the stream itself does not say about types, tables and origins."""

    def begin(self, xid: int) -> None:
        """What is asked from here on is about a transaction that committed as ``xid``.

        The server sends a commit once it is flushed, which may be before others can see it.
        """
        ...

    def type(self, oid: int) -> PgType:
        """The shape of a type; a plain PgType when it is a scalar or unknown."""
        ...

    def table(self, schema: str, name: str) -> TableFacts | None:
        """The table as it is now, or None when there is none of that name."""
        ...

    def origin(self, number: int) -> str | None:
        """The name of a replication origin, or None when it is unknown."""
        ...


class Decoder(Protocol):
    """Turns the messages of one output plug-in into WAL items. Pure but for the catalog it is given."""

    def decode(self, message: RawMessage) -> WalItem | None:
        """The item, or None for a message that only teaches the decoder something. Raises DecodeError."""
        ...


class Codec(Protocol):
    """Turns an event into the body of a message."""

    content_type: str

    def encode(self, event: Event) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """What a sink may be told besides its URL; a sink ignores what does not concern it.

    ``on_unroutable``: ``wait`` holds until a queue is bound, and raises Unroutable after ``hold_s``; ``park``
    appends to ``park_file``; ``drop`` counts and forgets. ``declare``: whether the sink may create what it
    publishes to.
    """

    declare: bool = True
    on_unroutable: str = "wait"
    park_file: str = "pgevents-parked.ndjson"
    hold_s: float = 30.0


class Sink(Protocol):
    """Where events go. A sink module has ``async def open(url, options) -> Sink`` beside it."""

    def publish(self, batch: Batch) -> Awaitable[None]:
        """Start writing at once; what is returned resolves when every envelope is durable at the other end.

        Batches are published in order and may resolve out of order. Raises nothing itself: the awaitable raises
        SinkUnavailable, PublishRejected or Unroutable, and then the whole batch counts as unconfirmed.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection. Unconfirmed batches stay unconfirmed."""
        ...

    def __str__(self) -> str:
        """One line for the start banner, without secrets."""
        ...
