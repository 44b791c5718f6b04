"""The seams of the pipeline: source, decoder, codec, sink, and what each promises."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from pgevents.batch import Batch
from pgevents.event import Body, Envelope, Event
from pgevents.lsn import Lsn
from pgevents.wal import Outline, PgType, RawMessage, TableFacts, WalItem, WalMessage
from pgevents.watermark import Watermark


class Source(Protocol):
    """Where messages come from and acknowledged LSNs go back to."""

    async def read(self) -> Sequence[WalMessage]:
        """The next messages in order, at least one; waits for it.

        Raises SourceUnavailable when the connection is gone, SlotLost when the slot is.
        """
        ...

    def acknowledge(self, end_lsn: Lsn, *, idle: bool) -> None:
        """Everything before ``end_lsn`` may be forgotten. A smaller LSN than the last one changes nothing.

        ``idle``: no event was confirmed for it, so that it is not urgent.
        """
        ...

    async def close(self) -> None:
        """Send the last acknowledged LSN once more and leave. The slot stays."""
        ...


class State(Protocol):
    """Where the watermark of a slot is kept. ``str()`` names it; every method may block.

    ``idle_interval_s`` is how long an LSN that no event came with may wait to be kept.
    """

    @property
    def idle_interval_s(self) -> float: ...

    def load(self) -> Watermark | None:
        """The watermark, or None where none was kept yet. Raises StateError or SourceError."""
        ...

    def save(self, watermark: Watermark) -> None:
        """Returns once ``watermark`` survives a crash. Raises StateError or SourceError; the old one then stays.

        So it does where another stream of the slot has kept one that is further on.
        """
        ...

    def close(self) -> None: ...


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

    def skim(self, message: RawMessage) -> Outline | None:
        """The outline of a row change that need not be decoded; None for whatever must be. Costs a fraction of it."""
        ...


class Codec(Protocol):
    """Turns an event into messages. Pure."""

    content_type: str

    def encode(self, event: Event) -> bytes | Sequence[Body]:
        """The body of its one message; or its messages in order, none where the format has no word for it."""
        ...


class Reason(StrEnum):
    """Why an event is parked."""

    NO_ROUTE = "NO_ROUTE"
    TOO_LARGE = "TOO_LARGE"
    NACKED = "NACKED"
    UNPUBLISHABLE = "UNPUBLISHABLE"
    RULE = "RULE"


class Unpublished(NamedTuple):
    """An event that is to be parked; ``detail`` says in words what ``reason`` means for it."""

    envelope: Envelope
    reason: Reason
    detail: str


class Park(Protocol):
    """Where events go that the sink cannot deliver, until a person decides on them."""

    async def add(self, events: Sequence[Unpublished], *, sink: str) -> None:
        """Returns once ``events`` would survive a crash; ``sink`` names, without secrets, who could not take them.

        Raises SinkError, and then they count as not parked.
        """
        ...


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """What a sink may be told besides its URL; a sink ignores what does not concern it.

    ``on_unroutable``: ``wait`` holds until a queue is bound, and raises Unroutable after ``hold_s``; ``park`` puts
    into ``park``, which whoever opened the sink closes; ``drop`` counts and forgets. ``declare``: whether the sink
    may create what it publishes to. ``exchanges`` are those that addresses name, besides the sink's own. ``on_calm``,
    where it is given: the other end was full a moment ago; it is called when it no longer is.
    """

    declare: bool = True
    exchanges: tuple[str, ...] = ()
    on_unroutable: str = "wait"
    park: Park | None = None
    hold_s: float = 30.0
    on_calm: Callable[[], None] | None = None


class Sink(Protocol):
    """Where events go. A sink module has ``async def open(url, options) -> Sink`` beside it."""

    def publish(self, batch: Batch) -> Awaitable[None]:
        """Start writing at once; what is returned resolves when every envelope is durable at the other end.

        Batches are published in order and may resolve out of order. Raises nothing itself: the awaitable raises
        SinkUnavailable, PublishRejected or Unroutable, and then the whole batch counts as unconfirmed.
        Behind a batch that raised PublishRejected nothing is published any more.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection. Unconfirmed batches stay unconfirmed."""
        ...

    def __str__(self) -> str:
        """One line for the start banner, without secrets."""
        ...
