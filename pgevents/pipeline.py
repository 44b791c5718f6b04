"""The loop: read, publish, and acknowledge what was confirmed. Start reading here.

``pump`` turns messages into batches and starts publishing each; ``settle`` awaits the confirmations in order
and acknowledges. A full queue between them is the back-pressure: the pump stops reading, and PostgreSQL keeps
the rest as WAL. Because settle works in order, an LSN is acknowledged only when everything before it is
confirmed. Any error ends the loop; what was not acknowledged is sent again by PostgreSQL.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field

from pgevents.batch import Batch, Cutter
from pgevents.errors import PGEventsError, SinkStalled
from pgevents.gate import Gate
from pgevents.interfaces import Decoder, Sink, Source
from pgevents.look_ahead import Numbered
from pgevents.lsn import NOWHERE, Lsn
from pgevents.shape import Shape
from pgevents.wal import Keepalive, Passed, RawMessage, WalMessage


@dataclass(slots=True)
class Progress:
    """What the loop has done so far, over all its runs."""

    published: int = 0
    confirmed: int = 0
    acknowledged: Lsn = NOWHERE


@dataclass(frozen=True, slots=True)
class Limits:
    """``window`` batches are in flight at most; ``until`` ends the loop, 0 never does."""

    batch_events: int = 1000
    batch_bytes: int = 4 * 1024 * 1024
    window: int = 8
    stall_timeout_s: float = 60.0
    drain_timeout_s: float = 10.0
    until: Lsn = NOWHERE


Window = asyncio.Queue[tuple[Awaitable[None] | None, Batch] | None]
"""Batches in flight, in order, each with its confirmation; None ends it."""


@dataclass(slots=True)
class Pipeline:
    """One run over one source and one sink. Neither is opened or closed here."""

    source: Source
    decoder: Decoder
    gate: Gate
    shape: Shape
    sink: Sink
    limits: Limits
    progress: Progress
    cutter: Cutter = field(init=False)
    _given_up: int = 0
    _refused: PGEventsError | None = None
    _ends_at: float | None = None
    _reading: asyncio.Timeout | None = None
    _settling: asyncio.Timeout | None = None

    def __post_init__(self) -> None:
        limits, start = self.limits, self.gate.end_lsn
        self.cutter = Cutter(max_events=limits.batch_events, max_bytes=limits.batch_bytes, end_lsn=start)
        # What an earlier run handed over may not have been kept.
        self.progress.acknowledged = start
        self._given_up = self.progress.published - self.progress.confirmed

    async def run(self, stop: asyncio.Event) -> None:
        """Stream until ``stop`` is set, or ``limits.until`` reached, and everything read is confirmed.

        Raises the first PGEventsError of source, decoder, rules or sink; SinkStalled when the sink confirms nothing
        for ``stall_timeout_s``, or is not done ``drain_timeout_s`` after ``stop``.
        """
        window: Window = asyncio.Queue(self.limits.window)
        stopping = asyncio.ensure_future(self._heed(stop))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(window))
                tasks.create_task(self._settle(window))
        except* PGEventsError as group:
            raise group.exceptions[0] from None
        finally:
            stopping.cancel()
        if self._refused is not None:
            raise self._refused

    async def _pump(self, window: Window) -> None:
        while messages := await self._read():
            for batch in self._batches(messages):
                self.progress.published += len(batch.envelopes)
                # Filtered counts as delivered: a batch without envelopes needs no confirmation.
                await window.put((self.sink.publish(batch) if batch.envelopes else None, batch))
            if self._refused is not None or self._reached():
                break
        await window.put(None)

    async def _read(self) -> Sequence[WalMessage]:
        """The next messages, or none to stop. A half-read transaction is read on, so that a stop repeats nothing."""
        if self._ends_at is not None and not self.gate.inside:
            return ()
        try:
            async with asyncio.timeout_at(self._ends_at) as self._reading:
                return await self.source.read()
        except TimeoutError:
            return ()
        finally:
            self._reading = None

    async def _heed(self, stop: asyncio.Event) -> None:
        """From ``stop`` on, nothing waits longer than the drain time-out, and the reading only for a commit."""
        await stop.wait()
        now = asyncio.get_running_loop().time()
        self._ends_at = now + self.limits.drain_timeout_s
        for waiting, until in (
            (self._reading, self._ends_at if self.gate.inside else now),
            (self._settling, self._ends_at),
        ):
            if waiting is not None and not waiting.expired():
                waiting.reschedule(until)

    def _batches(self, messages: Sequence[WalMessage]) -> Iterator[Batch]:
        """Full batches, then what is left: no event waits for the next one.

        Once told to stop, only up to the end of a transaction: under load every read may end inside the next. What
        comes before a message that cannot be decoded, or a change that no rule can decide on, is still published.
        """
        gate, shape, cutter = self.gate, self.shape, self.cutter
        admitted, end_lsn = self._admitted, gate.end_lsn
        try:
            for message in messages:
                # What is let go of with a commit was held before it: all of it must be in before its LSN may be.
                end_lsn = gate.end_lsn
                for numbered in admitted(message):
                    for envelope in shape(numbered):
                        if cutter.add(envelope):
                            yield from self._cut(end_lsn)
                if (self._ends_at is not None and not gate.inside) or (self.limits.until and self._reached()):
                    break
        except PGEventsError as error:
            self._refused = error
            yield from self._cut(end_lsn)
        else:
            yield from self._cut(gate.end_lsn)

    def _admitted(self, message: WalMessage) -> Sequence[Numbered]:
        gate = self.gate
        if type(message) is not RawMessage:
            return self._noted(message)
        if gate.skims and (outline := self.decoder.skim(message)) is not None and gate.passes_over(outline):
            return ()
        item = self.decoder.decode(message)
        return () if item is None else gate.admit(item)

    def _noted(self, message: WalMessage) -> Sequence[Numbered]:
        match message:
            case Keepalive(wal_end=wal_end):
                self.gate.keepalive(wal_end)
            case Passed():
                return self.gate.count(message)
        return ()

    def _cut(self, end_lsn: Lsn) -> Iterator[Batch]:
        batch = self.cutter.cut(end_lsn)
        if batch is not None:
            yield batch

    def _reached(self) -> bool:
        return 0 < self.limits.until <= self.gate.end_lsn

    async def _settle(self, window: Window) -> None:
        while settled := await window.get():
            confirmation, batch = settled
            if confirmation is not None:
                await self._confirmed(confirmation)
            self.progress.confirmed += len(batch.envelopes)
            if batch.end_lsn > self.progress.acknowledged:
                self.source.acknowledge(batch.end_lsn, idle=not batch.envelopes)
                self.progress.acknowledged = batch.end_lsn

    async def _confirmed(self, confirmation: Awaitable[None]) -> None:
        stalls_at = asyncio.get_running_loop().time() + self.limits.stall_timeout_s
        try:
            async with asyncio.timeout_at(min(stalls_at, self._ends_at or stalls_at)) as self._settling:
                await confirmation
        except TimeoutError:
            raise self._stalled() from None
        finally:
            self._settling = None

    def _stalled(self) -> SinkStalled:
        limits, stopped = self.limits, self._ends_at is not None
        unconfirmed = self.progress.published - self.progress.confirmed - self._given_up
        return SinkStalled(
            f"the sink left {unconfirmed} events unconfirmed "
            + (f"{limits.drain_timeout_s:g} s after the stop" if stopped else f"for {limits.stall_timeout_s:g} s"),
            hint="They are not acknowledged and will be sent again. Look at the broker's alarms and queues.",
        )
