"""One session after another between a slot and a sink, and what outlives each."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pgevents.announcement import banner, log_pushed, warn_of_losses
from pgevents.assembler import Foresee
from pgevents.assembly import foresee_of, pipeline_of
from pgevents.errors import ConfigError, PiecesUnusable, PublishRejected, SlotMissing, SourceDegraded, Unroutable
from pgevents.gate import Gate
from pgevents.interfaces import Sink, State
from pgevents.lsn import NOWHERE, Lsn
from pgevents.pipeline import Pipeline, Progress
from pgevents.plugin import left_out
from pgevents.poison import Poison
from pgevents.postgres import Sql
from pgevents.push_down import PushDown
from pgevents.rule import Rules
from pgevents.rule_check import check_file, check_rules
from pgevents.session import Stream, open_sink, open_state, open_stream, open_windows
from pgevents.settings import Settings
from pgevents.skip import Rulebook
from pgevents.slot import SlotReport, current_lsn
from pgevents.start import Kept, Wish, prepare, recheck, resume
from pgevents.tally import Counts
from pgevents.thread import in_thread
from pgevents.window import Windows

logger = logging.getLogger(__name__)

# Making a slot waits up to a minute; whatever else blocks for so long hangs.
PREPARE_TIMEOUT_S = 120.0

# A window is to be taken up within two seconds.
WINDOWS_INTERVAL_S = 0.5

# What rules take out is logged while it goes on, and at the end.
COUNTS_INTERVAL_S = 600.0

Say = Callable[[str], None]
"""Takes one line for the person at the terminal."""


@dataclass(slots=True)
class Streaming:
    """What outlives a session: the wish to stop, the progress, and the LSN to end at."""

    settings: Settings
    until: str | None
    dry_run: bool
    say: Say
    accept_gap: bool = False
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    progress: Progress = field(default_factory=Progress)
    counts: Counts = field(default_factory=Counts)
    state: State = field(init=False)
    poison: Poison = field(init=False)
    windows: Windows = field(init=False)
    book: Rulebook = field(init=False)
    kept: Kept | None = None
    pushed: PushDown = field(default_factory=PushDown)
    pipeline: Pipeline | None = None
    is_open: bool = False
    is_careful: bool = False
    whole_until: Lsn = NOWHERE
    has_streamed: bool = False
    until_lsn: Lsn = NOWHERE
    counted: str = ""
    counted_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        settings = self.settings
        self.state = open_state(settings)
        nack_limit = settings.nack_limit if settings.on_poison == "park" else None
        self.poison = Poison(nack_limit=nack_limit, by_rule=any(rule.parks for rule in settings.rules.skip))
        self.windows = open_windows(settings)
        self.book = Rulebook(settings.rules.skip)

    @property
    def kept_lsn(self) -> Lsn:
        """Everything before it is confirmed, and known to be after a crash."""
        return self.kept.watermark.end_lsn if self.kept else NOWHERE

    @property
    def _plugin(self) -> str:
        return self.settings.new_plugin if self.settings.create_slot else self.settings.plugin

    @property
    def _is_over(self) -> bool:
        reached = self.until_lsn and self.until_lsn <= self.progress.acknowledged
        return bool(reached) or self.stop.is_set()

    @property
    def _session_until(self) -> Lsn:
        return min((lsn for lsn in (self.until_lsn, self.whole_until) if lsn), default=NOWHERE)

    async def session(self) -> None:
        """A session, and another at once where that is all it takes.

        An event turned out to be poison, which is parked from then on; or a transaction had to be read at its commit.
        """
        while True:
            try:
                await self._session()
                if not self.whole_until or self._is_over:
                    return
                self.whole_until = NOWHERE
                logger.info("large transactions are read while they run again", extra={"slot": self.settings.slot})
            except PiecesUnusable as torn:
                if self.stop.is_set():
                    raise
                self.whole_until = torn.until
                logger.warning(
                    "until then every transaction is read at its commit",
                    extra={"lsn": str(torn.until), "reason": str(torn), "hint": torn.hint},
                )
            except PublishRejected as rejection:
                # What is full is filled one event at a time from here on, so that each try gets somewhere.
                self.is_careful = rejection.transient
                if self.stop.is_set():
                    raise
                self.poison.judge(rejection)
                logger.warning("from here on such events are parked", extra={"reason": str(rejection)})

    async def _session(self) -> None:
        """Sink first, then slot: nothing is created on the server for a sink that fails."""
        sink = await open_sink(self.settings, self.poison, on_calm=self._calm if self.is_careful else None)
        try:
            await self._stream_into(sink)
        except Unroutable as unroutable:
            # The slot is let go of meanwhile: a server that shuts down waits for whoever reads one.
            if not self.stop.is_set():
                logger.warning("the slot is left until a queue is bound", extra={"slot": self.settings.slot})
                await unroutable.routed
            raise
        finally:
            await sink.close()

    async def _stream_into(self, sink: Sink) -> None:
        report, kept = await self._prepared()
        self.kept = kept
        try:
            opened = await self._open(report, kept)
        except SlotMissing:  # gone between two questions: with a watermark that is a gap
            await in_thread(recheck, self.settings.dsn, kept)
            raise
        try:
            await in_thread(recheck, self.settings.dsn, kept)
            self._announce(opened, report, kept, sink)
            self.is_open = self.has_streamed = True
            pipeline = pipeline_of(
                self.settings,
                opened,
                sink,
                self.progress,
                until=self._session_until,
                book=self.book,
                counts=self.counts,
            )
            await self._run(pipeline, report)
        finally:
            # What was confirmed is still to be kept: until then a signal is not a reason to leave.
            await opened.close()
            self.is_open = False

    async def _run(self, pipeline: Pipeline, report: SlotReport) -> None:
        self.pipeline = pipeline
        if self.is_careful:
            # Each batch must pass within the stall time-out, and events pass one at a time.
            pipeline.cutter.widen(1)
        watching = asyncio.create_task(self._watch(pipeline.gate))
        watching.add_done_callback(self._stop_after)
        try:
            await pipeline.run(self.stop)
            if watching.done():
                watching.result()
        finally:
            watching.cancel()
            _log_resent(pipeline.gate.resent, report.slot)

    async def _watch(self, gate: Gate) -> None:
        while True:
            windows = await in_thread(self.windows.fresh)
            if windows != self.book.windows:
                logger.info("skip windows taken up", extra={"windows": len(windows)})
                gate.take_up(windows)
            if time.monotonic() - self.counted_at >= COUNTS_INTERVAL_S:
                self.log_counts()
            await asyncio.sleep(WINDOWS_INTERVAL_S)

    def log_counts(self) -> None:
        """What each rule took out since the stream began, where that has changed."""
        self.counted_at = time.monotonic()
        if self.counts.said() != self.counted:
            self.counted = self.counts.said()
            for message, fields in self.counts.by_rule():
                logger.info(message, extra=fields)

    def _stop_after(self, watching: asyncio.Task[None]) -> None:
        """A stream that no longer takes up windows is not what was asked for. What was read is confirmed first."""
        if not watching.cancelled():
            self.stop.set()

    def _calm(self) -> None:
        """What was full is no longer."""
        self.is_careful = False
        if self.pipeline is not None:
            self.pipeline.cutter.widen(self.settings.batch_events)

    async def _prepared(self) -> tuple[SlotReport, Kept]:
        try:
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                return await in_thread(self._prepare)
        except TimeoutError:
            raise SourceDegraded(
                f"slot and watermark could not be looked at within {PREPARE_TIMEOUT_S:g} s",
                hint=f"Look at the server, and at what holds the watermark: {self.state}.",
            ) from None

    def _prepare(self) -> tuple[SlotReport, Kept]:
        settings = self.settings
        if self.until and not self.until_lsn:
            self.until_lsn = resolve_lsn(settings.dsn, self.until)
        if self.kept is not None and self.has_streamed:
            return resume(settings.dsn, self.kept, plugin=self._plugin)
        wish = Wish(
            settings.slot,
            self._plugin,
            settings.publication,
            settings.tables,
            settings.exclude_tables,
            create=settings.create_slot,
            accept_gap=self.accept_gap,
        )
        self._check_rules()
        self.book.windows = self.windows.load()
        prepared = prepare(settings.dsn, self.state, wish)
        self.accept_gap = False  # it was decided about this gap, and not about the next one
        return prepared

    def _check_rules(self) -> None:
        """Before anything is made on the server for rules that cannot be used."""
        if self.settings.rules == Rules():
            return
        warnings = check_file(self.settings)
        with Sql(self.settings.dsn) as sql:
            warnings += check_rules(sql, self.settings)
        for warning in warnings:
            logger.warning("a rule is hardly meant so", extra={"reason": warning})

    async def _open(self, report: SlotReport, kept: Kept) -> Stream:
        wish = await in_thread(self._push_down, report.plugin)
        opened = await open_stream(
            self.settings.dsn,
            slot=report.slot,
            plugin=report.plugin,
            publication=self.settings.publication,
            start_lsn=kept.watermark.end_lsn,
            keep=kept.move,
            idle_interval_s=kept.state.idle_interval_s,
            identity=kept.watermark.identity,
            read_only=self.dry_run,
            push_down=wish.options,
            foresee=self._foresee(),
        )
        pushed = wish.taken(opened.options)
        if pushed != self.pushed:
            log_pushed(pushed)
            self.pushed = pushed
        return opened

    def _foresee(self) -> Foresee | None:
        """Where transactions are to be read while they run."""
        is_wanted = self.settings.streaming and not self.whole_until
        return foresee_of(self.settings, self.book) if is_wanted else None

    def _push_down(self, plugin: str) -> PushDown:
        """What wal2json is to leave out. Asked anew for each session: there may be other tables by then."""
        with Sql(self.settings.dsn) as sql:
            return left_out(sql, self.settings, plugin=plugin, has_windows=bool(self.book.windows))

    def _announce(self, opened: Stream, report: SlotReport, kept: Kept, sink: Sink) -> None:
        if self.has_streamed:
            logger.info("streaming again", extra={"slot": report.slot, "lsn": report.confirmed_flush_lsn})
            return
        for line in banner(self.settings, report, kept, sink, windows=len(self.book.windows), dry_run=self.dry_run):
            self.say(line)
        warn_of_losses(opened, report)


def _log_resent(count: int, slot: str) -> None:
    if count:
        logger.info(
            "the server sent again what was confirmed before; it was not published again",
            extra={"slot": slot, "transactions": count},
        )


def resolve_lsn(dsn: str, text: str) -> Lsn:
    """The LSN that ``--until-lsn`` names; ``now`` is where the server writes at this moment."""
    if text == "now":
        return Lsn.parse(current_lsn(dsn))
    try:
        return Lsn.parse(text)
    except ValueError as error:
        raise ConfigError(f"--until-lsn: {error}", hint="Give an LSN, or the word now.") from error
