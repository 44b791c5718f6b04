"""An event loop whose clock jumps ahead when nothing can happen before, and whose network is this process.

Schedules of minutes pass in milliseconds, and in the same order each time. pika asks the loop it is given for
connections when that loop is also what it calls its I/O services: so its own transport runs, over a socket pair.
"""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Mapping
from selectors import DefaultSelector, SelectorKey
from typing import Any, Protocol

from pika.adapters.asyncio_connection import _AsyncioIOServicesAdapter
from pika.adapters.utils.nbio_interface import AbstractIOServices

# Any later than the schedules' longest wait, and the stream has hung.
END_OF_TIME_S = 100_000.0
MOST_TURNS = 100_000


class Hung(AssertionError):
    """Nothing will ever happen again, or everything for ever."""


class Network(Protocol):
    """Who answers a connection."""

    def dial(self) -> Callable[[], asyncio.Protocol] | None:
        """What serves it; None never answers. Raises OSError to refuse it."""
        ...

    @property
    def send_buffer_bytes(self) -> int:
        """Of our end of the connection that was asked for last; 0 leaves it to the kernel."""
        ...


class _Jumping(DefaultSelector):
    """Waits for nothing but threads: when no file is ready, the time that was to be waited has passed."""

    def __init__(self) -> None:
        super().__init__()
        # Not from 0: a clock's zero is long ago.
        self.now_s = 1_000.0
        self.turns = 0
        self._others = set(threading.enumerate())

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        for thread in set(threading.enumerate()) - self._others:
            thread.join()
        ready = super().select(0)
        self.turns += 1
        if not ready:
            self._wait(timeout)
        return ready

    def _wait(self, timeout: float | None) -> None:
        if timeout is None or self.now_s > END_OF_TIME_S or self.turns > MOST_TURNS:
            raise Hung(f"after {self.turns} turns and {self.now_s - 1_000:g} s nothing more can happen")
        self.now_s += max(timeout, 0)


class VirtualLoop(asyncio.SelectorEventLoop, AbstractIOServices):  # type: ignore[misc]  # pika has no types
    """``complaints`` collects what asyncio would only log: errors nobody handled."""

    def __init__(self, network: Network) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)
        self._network = network
        self._pika = _AsyncioIOServicesAdapter(self)
        self._dialled: list[socket.socket] = []
        self._answered: list[socket.socket] = []
        self.complaints: list[Mapping[str, Any]] = []
        self.set_exception_handler(lambda _loop, context: self.complaints.append(context))

    def time(self) -> float:
        return self._jumping.now_s

    def get_native_ioloop(self) -> "VirtualLoop":
        return self

    def run(self) -> None:
        self.run_forever()

    def add_callback_threadsafe(self, callback: Callable[[], object]) -> None:
        self.call_soon(callback)

    def getaddrinfo(  # type: ignore[override]  # this one is pika's
        self, host: str, port: int, on_done: Callable[..., object], **_wanted: int
    ) -> asyncio.Handle:
        return self.call_soon(on_done, [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))])

    def connect_socket(
        self, sock: socket.socket, _address: object, on_done: Callable[[BaseException | None], object]
    ) -> asyncio.Handle:
        try:
            serving = self._network.dial()
        except OSError as error:
            return self.call_soon(on_done, error)
        if serving is None:
            return self.call_later(END_OF_TIME_S, on_done, TimeoutError())
        self._connect(sock, serving)
        return self.call_soon(on_done, None)

    def create_streaming_connection(
        self, protocol_factory: Callable[[], Any], sock: socket.socket, **on_done_and_tls: Any
    ) -> Any:
        return self._pika.create_streaming_connection(protocol_factory, sock, **on_done_and_tls)

    def close(self) -> None:
        for sock in (*self._dialled, *self._answered):
            sock.close()
        super().close()

    @property
    def dialled(self) -> list[socket.socket]:
        """Connections of ours that are open."""
        return [sock for sock in self._dialled if sock.fileno() >= 0]

    def cut_all(self) -> None:
        """What the kernel does to the sockets of a process that was killed."""
        for sock in self.dialled:
            sock.shutdown(socket.SHUT_RDWR)

    def _connect(self, sock: socket.socket, serving: Callable[[], asyncio.Protocol]) -> None:
        """Put one end of a pair in the place of ``sock``, which stays the caller's object, and serve the other."""
        ours, theirs = socket.socketpair()
        if self._network.send_buffer_bytes:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._network.send_buffer_bytes)
        for end in (ours, theirs):
            end.setblocking(False)
        _become(sock, ours)
        self._dialled.append(sock)
        self._answered.append(theirs)
        self.create_task(self.connect_accepted_socket(serving, theirs))


def _become(sock: socket.socket, other: socket.socket) -> None:
    """Let ``sock`` be ``other`` from here on, under its own number."""
    os.dup2(other.fileno(), sock.fileno())
    other.close()
