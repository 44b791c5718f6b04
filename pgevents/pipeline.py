"""The loop: read, publish, and acknowledge what was confirmed. Start reading here.

``pump`` turns messages into batches and starts publishing each; ``settle`` awaits the confirmations in order
and acknowledges. A full queue between them is the back-pressure: the pump stops reading, and PostgreSQL keeps
the rest as WAL. Because settle works in order, an LSN is acknowledged only when everything before it is
confirmed. Any error ends the loop; what was not acknowledged is sent again by PostgreSQL.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgevents.batch import Batch, Cutter
from pgevents.errors import PGEventsError, SinkStalled
from pgevents.gate import Gate
from pgevents.interfaces import Decoder, Sink, Source
from pgevents.lsn import NOWHERE, Lsn
from pgevents.shape import Shape
from pgevents.wal import Keepalive, RawMessage


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

    def __post_init__(self) -> None:
        self.cutter = Cutter(max_events=self.limits.batch_events, max_bytes=self.limits.batch_bytes)

    async def run(self, stop: asyncio.Event) -> None:
        """Stream until ``stop`` is set, or ``limits.until`` reached, and everything read is confirmed.

        Raises the first PGEventsError of source, decoder or sink; SinkStalled when the sink confirms nothing
        for ``stall_timeout_s``, or is not done ``drain_timeout_s`` after ``stop``.
        """
        window: Window = asyncio.Queue(self.limits.window)
        stopping = asyncio.ensure_future(stop.wait())
        overdue = asyncio.ensure_future(self._overdue(stop))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(window, stopping, overdue))
                tasks.create_task(self._settle(window, overdue))
        except* PGEventsError as group:
            raise group.exceptions[0] from None
        finally:
            stopping.cancel()
            overdue.cancel()

    async def _pump(self, window: Window, stopping: asyncio.Future[Any], overdue: asyncio.Future[Any]) -> None:
        while messages := await self._read(stopping, overdue):
            for batch in self._batches(messages):
                self.progress.published += len(batch.envelopes)
                # Filtered counts as delivered: a batch without envelopes needs no confirmation.
                await window.put((self.sink.publish(batch) if batch.envelopes else None, batch))
            if self._reached():
                break
        await window.put(None)

    async def _read(
        self, stopping: asyncio.Future[Any], overdue: asyncio.Future[Any]
    ) -> Sequence[RawMessage | Keepalive]:
        """The next messages, or none to stop. A half-read transaction is read on, so that a stop repeats nothing."""
        halt = overdue if self.gate.inside else stopping
        if halt.done():
            return ()
        reading = asyncio.ensure_future(self.source.read())
        try:
            await asyncio.wait({reading, halt}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else ()
        finally:
            reading.cancel()

    def _batches(self, messages: Sequence[RawMessage | Keepalive]) -> Iterator[Batch]:
        """Full batches, then what is left: no event waits for the next one."""
        gate = self.gate
        for message in messages:
            if isinstance(message, Keepalive):
                gate.keepalive(message.wal_end)
            elif (item := self.decoder.decode(message)) is not None:
                for numbered in gate.admit(item):
                    envelope = self.shape(numbered)
                    if envelope is not None and self.cutter.add(envelope):
                        yield from self._cut()
            if self.limits.until and self._reached():
                break
        yield from self._cut()

    def _cut(self) -> Iterator[Batch]:
        batch = self.cutter.cut(self.gate.end_lsn)
        if batch is not None:
            yield batch

    def _reached(self) -> bool:
        return 0 < self.limits.until <= self.gate.end_lsn

    async def _settle(self, window: Window, overdue: asyncio.Future[Any]) -> None:
        while settled := await window.get():
            confirmation, batch = settled
            if confirmation is not None:
                await self._confirmed(asyncio.ensure_future(confirmation), overdue)
            self.progress.confirmed += len(batch.envelopes)
            if batch.end_lsn > self.progress.acknowledged:
                self.source.acknowledge(batch.end_lsn)
                self.progress.acknowledged = batch.end_lsn

    async def _confirmed(self, confirmation: asyncio.Future[None], overdue: asyncio.Future[Any]) -> None:
        limit_s = self.limits.stall_timeout_s
        await asyncio.wait({confirmation, overdue}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if not confirmation.done():
            confirmation.cancel()
            raise SinkStalled(
                f"the sink left {self.progress.published - self.progress.confirmed} events unconfirmed "
                + (f"{self.limits.drain_timeout_s:g} s after the stop" if overdue.done() else f"for {limit_s:g} s"),
                hint="They are not acknowledged and will be sent again. Look at the broker's alarms and queues.",
            )
        confirmation.result()

    async def _overdue(self, stop: asyncio.Event) -> None:
        await stop.wait()
        await asyncio.sleep(self.limits.drain_timeout_s)
