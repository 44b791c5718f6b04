"""What goes back to the server: that we are alive, and how far it may forget, once that LSN is kept."""

import asyncio
from collections.abc import Callable

from pgevents.errors import SourceUnavailable, StateUnavailable
from pgevents.lsn import NOWHERE, Lsn
from pgevents.source.feedback import Feedback
from pgevents.thread import in_thread

# An LSN goes back at most ten times a second: it is synced to a disk on both sides.
INTERVAL_S = 0.1

KEEP_TIMEOUT_S = 10.0

Keep = Callable[[Lsn], None]
"""Returns when an LSN would survive a crash of ours; it may block."""


def forget(_end_lsn: Lsn) -> None:
    """For a slot that ends with us, or one that is only read."""


class Acknowledgement:
    """Keeps each acknowledged LSN, then sends it.

    ``written`` gives how far we have read. ``on_failure`` is called once, with the error after which nothing more is
    sent.
    """

    def __init__(
        self,
        feedback: Feedback,
        *,
        acknowledged: Lsn,
        keep: Keep,
        idle_interval_s: float,
        written: Callable[[], int],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._feedback = feedback
        self._keep = keep
        self._idle_interval_s = max(INTERVAL_S, idle_interval_s)
        self._written = written
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._start = self._wanted = self._kept = acknowledged
        self._kept_at = 0.0
        self._is_urgent = False
        self._due: asyncio.TimerHandle | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._has_failed = False
        self._cannot_keep = False
        self._is_closed = False

    @property
    def told(self) -> Lsn:
        """The LSN that the server is told: what was kept in this run, and not where it started.

        Only what comes after it shows that the WAL is the one that was acknowledged; another would be forgotten.
        """
        return self._kept if self._kept > self._start else NOWHERE

    @property
    def is_kept(self) -> bool:
        """Whether all that was acknowledged is."""
        return self._wanted == self._kept

    def move(self, end_lsn: Lsn, *, idle: bool) -> None:
        """Acknowledge ``end_lsn``: soon, or where it is ``idle`` in its own time."""
        if end_lsn <= self._wanted:
            return
        self._wanted = end_lsn
        self._is_urgent |= not idle
        if self._keeping is None:
            self._schedule()

    def send(self, *, reply: bool = False) -> None:
        """A status update with what is kept; ``reply`` asks the server for a sign of life."""
        try:
            self._feedback.send(self.told, written=self._written(), reply=reply)
        except SourceUnavailable as error:
            self._fail(error)

    async def close(self) -> None:
        """Keep and send what is still to be. Raises the error that prevents it, unless ``on_failure`` got one."""
        self._is_closed = True
        self._cancel()
        if self._keeping is not None:
            await asyncio.wait({self._keeping})
        if self._wanted > self._kept and not self._cannot_keep:
            await self._keep_wanted()
        if not self._has_failed:
            self.send()

    def _schedule(self) -> None:
        at = self._kept_at + (INTERVAL_S if self._is_urgent else self._idle_interval_s)
        if self._due is None or at < self._due.when():
            self._cancel()
            self._due = self._loop.call_at(at, self._begin)

    def _begin(self) -> None:
        self._due = None
        self._keeping = self._loop.create_task(self._keep_wanted())
        self._keeping.add_done_callback(self._on_kept)

    def _on_kept(self, keeping: asyncio.Task[None]) -> None:
        self._keeping = None
        error = None if keeping.cancelled() else keeping.exception()
        if error is not None:
            self._cannot_keep = True
            self._fail(error)
            return
        self.send()
        if self._wanted > self._kept and not self._is_closed:
            self._schedule()

    async def _keep_wanted(self) -> None:
        wanted, self._is_urgent = self._wanted, False
        try:
            async with asyncio.timeout(KEEP_TIMEOUT_S):
                await in_thread(self._keep, wanted)
        except TimeoutError:
            raise StateUnavailable(
                f"the watermark was not kept within {KEEP_TIMEOUT_S:g} s", hint="Look at the disk it is on."
            ) from None
        self._kept, self._kept_at = wanted, self._loop.time()

    def _fail(self, error: BaseException) -> None:
        if not self._has_failed:
            self._has_failed = True
            self._on_failure(error)

    def _cancel(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
