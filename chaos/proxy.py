"""A TCP proxy on loopback that misbehaves as it is told. It runs in a thread of its own."""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from math import inf
from struct import pack
from types import TracebackType
from typing import Self, TypeVar

from pgevents.demo.process import free_ports

T = TypeVar("T")

CHUNK_BYTES = 65536
CALL_DEADLINE_S = 10.0

# close() then sends RST instead of FIN.
_ABORT = pack("ii", 1, 0)


class Direction(Enum):
    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


BOTH = frozenset(Direction)


@dataclass(frozen=True, slots=True)
class Mode:
    """How a link behaves, for the connections there are as for new ones.

    A ``deaf`` direction is not read: nothing passes, neither bytes nor the end of a connection, until the mode
    changes; then what was held goes on. Each piece of up to 64 KiB comes ``latency_s`` late. ``cut_after`` so many
    more bytes in ``cut_direction`` their connection is reset, and the link passes again.
    """

    listens: bool = True
    deaf: frozenset[Direction] = frozenset()
    latency_s: float = 0.0
    bytes_per_s: float = inf
    cut_after: int | None = None
    cut_direction: Direction = Direction.TO_CLIENT


PASS = Mode()
REFUSE = Mode(listens=False)
BLACK_HOLE = Mode(deaf=BOTH)


def half_open(deaf: Direction) -> Mode:
    return Mode(deaf=frozenset({deaf}))


def latency(seconds: float) -> Mode:
    return Mode(latency_s=seconds)


def bandwidth(bytes_per_s: float) -> Mode:
    """Each direction of each connection has it for itself."""
    return Mode(bytes_per_s=bytes_per_s)


def cut_after(size: int, direction: Direction) -> Mode:
    return Mode(cut_after=size, cut_direction=direction)


class Proxy:
    """Forwards a port of its own, ``port``, to ``target``; the mode may change at any time.

    Every method may be called from any thread and returns when it is in force.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        (self.port,) = free_ports(1)
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # By its number: a port bound as 0 would be given up when the socket no longer listens.
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.setblocking(False)  # noqa: FBT003  # as socket has it
        self._loop = asyncio.new_event_loop()
        self._mode = REFUSE
        self._left = 0
        self._changed = asyncio.Event()
        self._accepting: asyncio.Task[None] | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.switch(PASS)

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def connections(self) -> int:
        """How many pass through now."""
        return len(self._links)

    def switch(self, mode: Mode) -> None:
        self._call(self._switch(mode))

    def reset(self) -> None:
        """RST every connection there is; new ones are served."""
        self._call(self._reset())

    def cut(self) -> None:
        """Refuse connections from now on and reset those there are."""
        self.switch(REFUSE)
        self.reset()

    def mend(self) -> None:
        self.switch(PASS)

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self.cut()
        self._listener.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_DEADLINE_S)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_DEADLINE_S)

    async def _switch(self, mode: Mode) -> None:
        if mode.listens and self._accepting is None:
            self._listener.listen()
            self._accepting = self._loop.create_task(self._accept())
        elif not mode.listens and self._accepting is not None:
            await _ended(self._accepting)
            self._accepting = None
            # Not close(): the port stays ours, and refuses.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._enter(mode)

    def _enter(self, mode: Mode) -> None:
        self._mode, self._left = mode, mode.cut_after or 0
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _reset(self) -> None:
        await _ended(*self._links)

    async def _accept(self) -> None:
        while True:
            await self._knock()
            # Nothing is awaited from here to the task: a cancellation would lose the socket.
            with suppress(OSError):
                client, _ = self._listener.accept()
                link = self._loop.create_task(self._serve(client))
                self._links.add(link)
                link.add_done_callback(self._links.discard)
                # One that is cancelled before it began closes nothing itself.
                link.add_done_callback(partial(_close, client))

    async def _knock(self) -> None:
        """Wait for a connection to be accepted."""
        knocked: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._listener, _resolve, knocked)
        try:
            await knocked
        finally:
            self._loop.remove_reader(self._listener)

    async def _serve(self, client: socket.socket) -> None:
        """One connection, until both sides have ended it; in any other case both get an RST."""
        server = socket.socket()
        try:
            for each in (client, server):
                each.setblocking(False)  # noqa: FBT003  # as socket has it
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            await self._loop.sock_connect(server, ("127.0.0.1", self._target))
            async with asyncio.TaskGroup() as relays:
                relays.create_task(self._relay(client, server, Direction.TO_SERVER))
                relays.create_task(self._relay(server, client, Direction.TO_CLIENT))
            for each in (client, server):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 0, 0))
        except* OSError:
            pass
        finally:
            client.close()
            server.close()

    async def _relay(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        while chunk := await self._received(source, direction):
            await self._pause(self._mode.latency_s + len(chunk) / self._mode.bytes_per_s)
            await self._hearing(direction)
            await self._forward(chunk, sink, direction)
        sink.shutdown(socket.SHUT_WR)

    async def _received(self, source: socket.socket, direction: Direction) -> bytes:
        """The next piece, empty at the end. Not before the direction hears, not even that there is an end."""
        await self._hearing(direction)
        size = CHUNK_BYTES if self._mode.bytes_per_s == inf else max(1, int(self._mode.bytes_per_s / 10))
        try:
            chunk = await self._loop.sock_recv(source, min(CHUNK_BYTES, size))
        except OSError:
            await self._hearing(direction)
            raise
        await self._hearing(direction)
        return chunk

    async def _forward(self, chunk: bytes, sink: socket.socket, direction: Direction) -> None:
        if self._mode.cut_after is None or direction is not self._mode.cut_direction:
            await self._loop.sock_sendall(sink, chunk)
            return
        part = chunk[: self._left]
        self._left -= len(part)
        is_last = self._left == 0
        if is_last:
            self._enter(PASS)
        await self._loop.sock_sendall(sink, part)
        if is_last:
            raise ConnectionResetError

    async def _hearing(self, direction: Direction) -> None:
        while direction in self._mode.deaf:
            await self._changed.wait()

    async def _pause(self, seconds: float) -> None:
        """As long as the mode is the same."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)


def _resolve(knocked: asyncio.Future[None]) -> None:
    if not knocked.done():
        knocked.set_result(None)


def _close(unserved: socket.socket, _link: object) -> None:
    unserved.close()


async def _ended(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
