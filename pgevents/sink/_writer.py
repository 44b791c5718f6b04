"""Lines appended from the event loop, on threads that neither a close nor the exit waits for."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from pgevents.errors import SinkUnavailable
from pgevents.sink._lines import Lines
from pgevents.thread import in_thread

_CLOSE_TIMEOUT_S = 3.0

_hanging: set[str] = set()
"""The names of closed writers whose last call has not come back: their files are still open and locked."""


class Writer:
    """Appends to the lines that ``open`` gives, one call at a time. ``name`` is for errors, and unique."""

    def __init__(self, open: Callable[[], Lines], name: str) -> None:
        self._open = open
        self._name = name
        self._lines: Lines | None = None
        self._one_at_a_time = asyncio.Lock()
        self._is_stopped = False
        # Held for a moment only; it guards what follows against the thread.
        self._lock = threading.Lock()
        self._is_busy = False
        self._is_closed = False

    async def open(self) -> None:
        """Open now instead of at the first ``append``. Raises SinkError."""
        await self._call(lambda _lines: None)

    async def append(self, lines: bytes) -> None:
        """Write whole lines so that they stay. Raises SinkError, and then they count as not written."""
        await self._call(lambda opened: opened.append(lines))

    async def close(self) -> None:
        """Let what is being written end. A call that hangs for seconds is left to close the lines when it ends.

        Until then, opening the same name again raises SinkUnavailable.
        """
        self._is_stopped = True
        if self._lines:
            self._lines.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S), self._one_at_a_time:
                pass
        self._leave()

    async def _call(self, use: Callable[[Lines], None]) -> None:
        async with self._one_at_a_time:
            await in_thread(self._use, use)

    def _use(self, use: Callable[[Lines], None]) -> None:
        self._begin()
        try:
            if self._lines is None:
                self._lines = self._open()
            # Once more: whoever stopped us during the opening had no lines to stop.
            self._refuse_if(stopped=self._is_stopped)
            use(self._lines)
        finally:
            self._end()

    def _begin(self) -> None:
        with self._lock:
            self._refuse_if(stopped=self._is_stopped)
            if self._lines is None and self._name in _hanging:
                raise SinkUnavailable(
                    f"an earlier write to {self._name} has not ended yet", hint="Look at the disk it is on."
                )
            self._is_busy = True

    def _end(self) -> None:
        with self._lock:
            self._is_busy = False
            if self._is_closed:
                self._close_lines()
                _hanging.discard(self._name)

    def _leave(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            if self._is_busy:
                _hanging.add(self._name)
            else:
                self._close_lines()

    def _close_lines(self) -> None:
        if self._lines:
            self._lines.close()

    def _refuse_if(self, *, stopped: bool) -> None:
        if stopped:
            raise SinkUnavailable(f"{self._name} was closed")
