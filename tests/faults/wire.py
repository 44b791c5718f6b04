"""A TCP port in front of another whose packets the kernel drops, unlike those of a proxy that only does not read."""

import ctypes
import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

# From asm-generic/socket.h and linux/filter.h: a program of classic BPF that sees each packet before TCP does.
_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("HBBI")
_LOAD_RANDOM, _MODULO, _IF_AT_LEAST, _RETURN = 0x20, 0x94, 0x35, 0x06
_RANDOM, _WHOLE_PACKET = 0xFFFFF038, 0xFFFFFFFF


def _dropping(percent: int) -> bytes:
    return b"".join(
        _INSTRUCTION.pack(*each)
        for each in (
            (_LOAD_RANDOM, 0, 0, _RANDOM),
            (_MODULO, 0, 0, 100),
            (_IF_AT_LEAST, 0, 1, percent),
            (_RETURN, 0, 0, _WHOLE_PACKET),
            (_RETURN, 0, 0, 0),
        )
    )


class Wire:
    """Forwards a port of its own, ``port``, to ``target``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, percent: int) -> None:
        """Drop that many of the packets that reach us on the connections there are; new ones are sound.

        What is dropped is not acknowledged: to both ends it is a network that loses packets, or with 100 a dead one.
        """
        program = ctypes.create_string_buffer(_dropping(percent))
        description = struct.pack("HP", len(program) // _INSTRUCTION.size, ctypes.addressof(program))
        for each in self._ends:
            each.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, description)

    def cut(self) -> None:
        """Refuse connections from now on, and end those there are."""
        for each in (self._listener, *self._ends):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=_forward, args=(source, sink), daemon=True).start()


def _forward(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
