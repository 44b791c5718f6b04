"""The sink that writes one line an event: what ``file:`` and ``stdout:`` share."""

import asyncio
from collections import deque
from collections.abc import Awaitable

from pgevents.batch import Batch
from pgevents.errors import SinkError, SinkUnavailable
from pgevents.sink._lines import Lines

_CLOSE_TIMEOUT_S = 3.0


class LineSink:
    """A sink that writes one line an event. Batches that wait while others are written share one write and sync."""

    def __init__(self, lines: Lines, name: str) -> None:
        self._lines = lines
        self._name = name
        self._waiting: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._failure: SinkError | None = None

    def publish(self, batch: Batch) -> Awaitable[None]:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._failure:
            _fail(written, self._failure)
            return written
        self._waiting.append((_joined(batch), written))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_waiting())
        return written

    async def close(self) -> None:
        self._failure = self._failure or SinkUnavailable(f"{self._name} was closed")
        self._lines.stop()
        if self._writer:
            await asyncio.wait({self._writer}, timeout=_CLOSE_TIMEOUT_S)
        self._fail_waiting(self._failure)
        if self._writer is None:
            self._lines.close()

    def __str__(self) -> str:
        return self._name

    async def _write_waiting(self) -> None:
        while self._waiting and not self._failure:
            taken = list(self._waiting)
            self._waiting.clear()
            await self._write(taken)
        self._writer = None

    async def _write(self, taken: list[tuple[bytes, asyncio.Future[None]]]) -> None:
        try:
            await asyncio.to_thread(self._lines.append, b"".join(lines for lines, _ in taken))
        except SinkError as error:
            self._failure = error
            self._waiting.extendleft(reversed(taken))
            self._fail_waiting(error)
            return
        for _, written in taken:
            if not written.done():
                written.set_result(None)

    def _fail_waiting(self, error: SinkError) -> None:
        while self._waiting:
            _fail(self._waiting.popleft()[1], error)


def _joined(batch: Batch) -> bytes:
    lines = b"\n".join([envelope.body for envelope in batch.envelopes]) + b"\n"
    if lines.count(b"\n") == len(batch.envelopes):
        return lines
    # A json column is embedded as it was written; in JSON a newline can only be white space.
    return b"\n".join([envelope.body.replace(b"\n", b" ") for envelope in batch.envelopes]) + b"\n"


def _fail(future: asyncio.Future[None], error: SinkError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # marks it as seen: nobody need await a batch once the stream has ended
