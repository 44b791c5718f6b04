"""``pgevents stream``: both ends opened, joined by a pipeline, and tried again when a fault passes."""

import asyncio
import gc
import logging
import signal
import time
from dataclasses import dataclass, replace

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from pgevents.errors import PGEventsError
from pgevents.lsn import NOWHERE, Lsn
from pgevents.settings import Settings
from pgevents.streaming import Say, Streaming
from pgevents.surprise import surprises_named

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5

# What has not passed for so long needs a person, though it may still pass.
ALERT_AFTER_S = 60.0


async def stream(settings: Settings, *, until: str | None, dry_run: bool, say: Say, accept_gap: bool = False) -> None:
    """Stream until told to stop, or until everything before ``until`` (an LSN or ``now``) is acknowledged.

    Raises the PGEventsError that could not be overcome. ``dry_run`` writes events to standard output and leaves
    slot and watermark where they are. ``accept_gap`` goes on behind lost changes.
    """
    if dry_run:
        settings = replace(settings, sink="stdout:", create_slot=False, state="none")
        settings = replace(settings, on_unroutable="wait", on_poison="halt")
    streaming = Streaming(settings, until=until, dry_run=dry_run, accept_gap=accept_gap, say=say)
    _collect_seldom()
    try:
        await _until_signalled(streaming)
    finally:
        streaming.windows.close()
        done = streaming.progress
        streaming.log_counts()
        if streaming.has_streamed:
            acknowledged = "nothing" if dry_run else done.acknowledged
            count = streaming.poison.parked
            parked = f" parked={count}, see pgevents parked list" if count else ""
            more = f"{parked}{streaming.counts.said()}"
            say(f"done: events={done.published} confirmed={done.confirmed} acknowledged={acknowledged}{more}")


def _collect_seldom() -> None:
    """An event makes a dozen objects and no cycles: Python's default of a collection each 700 is wasted on them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _until_signalled(streaming: Streaming) -> None:
    """SIGTERM and SIGINT drain; while nothing is being streamed, or when they come again, they end it at once."""
    task, was_cut = asyncio.ensure_future(supervise(streaming)), False

    def on_signal() -> None:
        nonlocal was_cut
        if streaming.stop.is_set() or not streaming.is_open:
            was_cut = streaming.is_open
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
        if was_cut:
            raise PGEventsError(
                "ended at once, before everything was confirmed and kept",
                hint="Nothing is lost: what was not acknowledged is sent again at the next start.",
            ) from None


async def supervise(streaming: Streaming, *, alert_after_s: float = ALERT_AFTER_S) -> None:
    """Run sessions until one ends well. Whatever is tried again is tried again here, but for new poison."""
    settings, trouble = streaming.settings, Trouble(alert_after_s)

    def gives_up(state: RetryCallState) -> bool:
        waited_s = state.seconds_since_start or 0.0
        return streaming.stop.is_set() or (not streaming.has_streamed and waited_s >= settings.start_timeout_s)

    async for attempt in AsyncRetrying(
        retry=retry_if_exception(lambda error: is_tried_again(error, has_streamed=streaming.has_streamed)),
        wait=wait_random_exponential(multiplier=FIRST_PAUSE_S, max=settings.retry_max_s),
        stop=gives_up,
        before_sleep=trouble.say,
        reraise=True,
    ):
        before = streaming.kept_lsn
        with attempt:
            try:
                with surprises_named():
                    await streaming.session()
            finally:
                if has_moved(before, streaming.kept_lsn):
                    attempt.retry_state.attempt_number = 1
                    trouble.began_at = None


def has_moved(before: Lsn, after: Lsn) -> bool:
    """Whether a session got anywhere, so that the pauses between tries begin small again.

    Confirmed is not enough: what cannot be kept is confirmed in each session anew.
    """
    return NOWHERE < before < after


def is_tried_again(error: BaseException, *, has_streamed: bool) -> bool:
    """What a running stream had and lost, such as its password, it may be given back; a start ends at once for it."""
    return isinstance(error, PGEventsError) and (error.transient or (error.alert and has_streamed))


@dataclass(slots=True)
class Trouble:
    """What is tried again, told louder once it has lasted for ``alert_after_s`` by the monotonic clock."""

    alert_after_s: float
    began_at: float | None = None

    def say(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if not isinstance(error, PGEventsError):
            return
        now = time.monotonic()
        self.began_at = now if self.began_at is None else self.began_at
        is_loud = error.alert or now - self.began_at >= self.alert_after_s
        logger.log(
            logging.ERROR if is_loud else logging.WARNING,
            "trying again",
            extra={
                "reason": str(error),
                "attempt": state.attempt_number,
                "in_s": round(state.upcoming_sleep, 1),
                "hint": error.hint,
            },
        )
