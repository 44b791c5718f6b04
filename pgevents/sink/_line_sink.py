"""The sink that writes one line an event: what ``file:`` and ``stdout:`` share."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from pgevents.batch import Batch
from pgevents.errors import SinkError, SinkUnavailable
from pgevents.sink._lines import Lines
from pgevents.sink._writer import Writer


class LineSink:
    """A sink that writes one line an event. Batches that wait while others are written share one write and sync."""

    def __init__(self, writer: Writer, name: str) -> None:
        self._writer = writer
        self._name = name
        self._unwritten: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._failure: SinkError | None = None

    def publish(self, batch: Batch) -> Awaitable[None]:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._failure:
            _fail(written, self._failure)
            return written
        self._unwritten.append((_joined(batch), written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        return written

    async def close(self) -> None:
        self._failure = self._failure or SinkUnavailable(f"{self._name} was closed")
        await self._writer.close()
        if self._writing:
            self._writing.cancel()
        self._fail_unwritten(self._failure)

    def __str__(self) -> str:
        return self._name

    async def _write_all(self) -> None:
        try:
            while self._unwritten and not self._failure:
                await self._write(len(self._unwritten))
        except SinkError as error:
            self._failure = self._failure or error
            self._fail_unwritten(error)
        self._writing = None

    async def _write(self, count: int) -> None:
        """The first ``count`` batches, all that there are: others may come meanwhile."""
        await self._writer.append(b"".join(lines for lines, _ in self._unwritten))
        for _ in range(count):
            _, written = self._unwritten.popleft()
            if not written.done():
                written.set_result(None)

    def _fail_unwritten(self, error: SinkError) -> None:
        while self._unwritten:
            _fail(self._unwritten.popleft()[1], error)


async def open_sink(open_lines: Callable[[], Lines], name: str) -> LineSink:
    """A sink over the lines that ``open_lines`` gives, which may block. Raises SinkError."""
    writer = Writer(open_lines, name)
    await writer.open()
    return LineSink(writer, name)


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
