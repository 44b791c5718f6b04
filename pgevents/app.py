"""``pgevents stream``: both ends opened, joined by a pipeline, and tried again when a fault passes."""

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from pgevents.codec.native import NativeCodec
from pgevents.errors import ConfigError, PGEventsError, Unroutable
from pgevents.filters import TableFilter
from pgevents.gate import Gate
from pgevents.interfaces import Sink
from pgevents.lsn import NOWHERE, Lsn
from pgevents.mask import mask_dsn
from pgevents.pipeline import Limits, Pipeline, Progress
from pgevents.session import Stream, open_sink, open_stream, routing_key
from pgevents.settings import Settings
from pgevents.shape import Shape
from pgevents.slot import SlotReport, current_lsn, prepare, resume
from pgevents.surprise import surprises_named
from pgevents.thread import in_thread
from pgevents.version import VERSION

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5

Say = Callable[[str], None]
"""Takes one line for the person at the terminal."""


async def stream(settings: Settings, *, until: str | None, dry_run: bool, say: Say) -> None:
    """Stream until told to stop, or until everything before ``until`` (an LSN or ``now``) is acknowledged.

    Raises the PGEventsError that could not be overcome. ``dry_run`` writes events to standard output and leaves
    the slot where it is.
    """
    if dry_run:
        settings = replace(settings, sink="stdout:", create_slot=False)
    streaming = Streaming(settings, until=until, dry_run=dry_run, say=say)
    _collect_seldom()
    try:
        await _until_signalled(streaming)
    finally:
        done = streaming.progress
        if streaming.has_streamed:
            acknowledged = "nothing" if dry_run else done.acknowledged
            say(f"done: events={done.published} confirmed={done.confirmed} acknowledged={acknowledged}")


def _collect_seldom() -> None:
    """An event makes a dozen objects and no cycles: Python's default of a collection each 700 is wasted on them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _until_signalled(streaming: "Streaming") -> None:
    """SIGTERM and SIGINT drain; while nothing is being streamed, or when they come again, they end it at once."""
    task = asyncio.ensure_future(supervise(streaming))

    def on_signal() -> None:
        if streaming.stop.is_set() or not streaming.is_open:
            task.cancel()
        else:
            streaming.say("Stopping: what was read is being confirmed. The same signal again ends it at once.")
        streaming.stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await task
    except asyncio.CancelledError:
        if not streaming.stop.is_set():
            raise


async def supervise(streaming: "Streaming") -> None:
    """Run sessions until one ends well. This is the only place where anything is tried again."""
    settings = streaming.settings

    def gives_up(state: RetryCallState) -> bool:
        waited_s = state.seconds_since_start or 0.0
        return streaming.stop.is_set() or (not streaming.has_streamed and waited_s >= settings.start_timeout_s)

    async for attempt in AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, PGEventsError) and error.transient),
        wait=wait_random_exponential(multiplier=FIRST_PAUSE_S, max=settings.retry_max_s),
        stop=gives_up,
        before_sleep=_say_retry,
        reraise=True,
    ):
        before = replace(streaming.progress)
        with attempt:
            try:
                with surprises_named():
                    await streaming.session()
            finally:
                if has_moved(before, streaming.progress):
                    attempt.retry_state.attempt_number = 1


def has_moved(before: Progress, after: Progress) -> bool:
    """Whether a session got anywhere, so that the pauses between tries begin small again."""
    return after.confirmed > before.confirmed or 0 < before.acknowledged < after.acknowledged


def _say_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause_s = round(state.next_action.sleep, 1) if state.next_action else 0
    logger.warning("trying again", extra={"reason": str(error), "attempt": state.attempt_number, "in_s": pause_s})


@dataclass(slots=True)
class Streaming:
    """What outlives a session: the wish to stop, the progress, and the LSN to end at."""

    settings: Settings
    until: str | None
    dry_run: bool
    say: Say
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    progress: Progress = field(default_factory=Progress)
    is_open: bool = False
    has_streamed: bool = False
    until_lsn: Lsn = NOWHERE

    async def session(self) -> None:
        """Sink first, then slot: nothing is created on the server for a sink that fails."""
        sink = await open_sink(self.settings)
        try:
            await self._stream_into(sink)
        except Unroutable as unroutable:
            # The slot is let go of meanwhile: a server that shuts down waits for whoever reads one.
            logger.warning("the slot is left until a queue is bound", extra={"slot": self.settings.slot})
            await unroutable.routed
            raise
        finally:
            await sink.close()

    async def _stream_into(self, sink: Sink) -> None:
        report = await in_thread(self._prepare)
        opened = await self._open(report)
        try:
            self._announce(opened, report, sink)
            self.is_open = self.has_streamed = True
            await pipeline_of(self.settings, opened, sink, self.progress, until=self.until_lsn).run(self.stop)
        finally:
            self.is_open = False
            await opened.close()

    def _prepare(self) -> SlotReport:
        settings = self.settings
        if self.until and not self.until_lsn:
            self.until_lsn = resolve_lsn(settings.dsn, self.until)
        if self.has_streamed:
            return resume(settings.dsn, slot=settings.slot, plugin=settings.plugin)
        return prepare(
            settings.dsn,
            slot=settings.slot,
            plugin=settings.plugin,
            publication=settings.publication,
            tables=settings.tables,
            excluded=settings.exclude_tables,
            missing="create" if settings.create_slot else "fail",
        )

    def _open(self, report: SlotReport) -> Awaitable[Stream]:
        return open_stream(
            self.settings.dsn,
            slot=report.slot,
            plugin=report.plugin,
            publication=self.settings.publication,
            start_lsn=Lsn.parse(report.confirmed_flush_lsn or "0/0"),
            read_only=self.dry_run,
        )

    def _announce(self, opened: Stream, report: SlotReport, sink: Sink) -> None:
        if self.has_streamed:
            logger.info("streaming again", extra={"slot": report.slot, "lsn": report.confirmed_flush_lsn})
            return
        self._banner(report, sink)
        warn_of_losses(opened, report)

    def _banner(self, report: SlotReport, sink: Sink) -> None:
        reason = f" ({'; '.join(report.notes)})" if report.notes else ""
        self.say(f"pgevents {VERSION}")
        self.say(
            f"  source   {mask_dsn(self.settings.dsn) or 'from the PG* environment'}, database {report.database}"
        )
        self.say(f"  slot     {report.slot} at {report.confirmed_flush_lsn}, plug-in {report.plugin}{reason}")
        self.say(f"  sink     {sink}{', dry run: the slot does not move' if self.dry_run else ''}")
        self.say("Ready. Ctrl-C stops once everything read is confirmed.")


def pipeline_of(
    settings: Settings, opened: Stream, sink: Sink, progress: Progress, *, until: Lsn = NOWHERE
) -> Pipeline:
    """What the settings say, between an open stream and an open sink."""
    keep = TableFilter(settings.tables, settings.exclude_tables)
    return Pipeline(
        source=opened.source,
        decoder=opened.decoder,
        gate=Gate(opened.identity, opened.start_lsn),
        shape=Shape(keep, routing_key(settings.sink), NativeCodec()),
        sink=sink,
        limits=Limits(
            batch_events=settings.batch_events,
            batch_bytes=settings.batch_bytes,
            window=settings.window,
            stall_timeout_s=settings.stall_timeout_s,
            drain_timeout_s=settings.drain_timeout_s,
            until=until,
        ),
        progress=progress,
    )


def warn_of_losses(opened: Stream, report: SlotReport) -> None:
    """Say what the plug-in would leave out or print otherwise, before any of it is lost in silence."""
    if report.keyless_tables:
        logger.warning(
            "wal2json leaves out updates and deletes of tables without a primary key or replica identity",
            extra={"tables": len(report.keyless_tables), "such_as": ", ".join(report.keyless_tables[:3])},
        )
    if report.inexact_columns and not opened.is_exact:
        logger.warning(
            "this wal2json prints NaN and the infinities as null; 2.6 and pgoutput do not",
            extra={"columns": len(report.inexact_columns), "such_as": ", ".join(report.inexact_columns[:3])},
        )


def resolve_lsn(dsn: str, text: str) -> Lsn:
    """The LSN that ``--until-lsn`` names; ``now`` is where the server writes at this moment."""
    if text == "now":
        return Lsn.parse(current_lsn(dsn))
    try:
        return Lsn.parse(text)
    except ValueError as error:
        raise ConfigError(f"--until-lsn: {error}", hint="Give an LSN, or the word now.") from error
