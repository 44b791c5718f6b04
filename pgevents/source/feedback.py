"""The standby status update, written by ourselves.

psycopg2 answers keepalives with a flush position of its own making once it has been given one, and that can
confirm a commit whose events no broker has confirmed. So it is never given one (it then reports 0, which
the server ignores), and the message goes out through libpq directly. docs/adr/0002 tells the whole story.
"""

import ctypes
import struct
import time
from typing import Any

import psycopg2

from pgevents.errors import SourceUnavailable
from pgevents.lsn import Lsn

# Microseconds between 1970-01-01 and 2000-01-01, PostgreSQL's epoch.
_POSTGRES_EPOCH_US = 946_684_800_000_000

_STATUS = struct.Struct("!cQQQqB").pack
"""Layout of "Standby status update (F)": 'r', written, flushed, applied LSN, client time, reply requested."""


def _libpq() -> ctypes.CDLL:
    """The libpq that psycopg2 itself is linked with."""
    library = ctypes.CDLL(psycopg2._psycopg.__file__)  # noqa: SLF001
    library.PQputCopyData.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    library.PQputCopyEnd.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.PQflush.argtypes = [ctypes.c_void_p]
    return library


class Feedback:
    """Status updates on one replication connection."""

    def __init__(self, connection: Any) -> None:
        self._libpq = _libpq()
        self._connection = connection

    def send(self, flushed: Lsn, *, written: int, reply: bool = False) -> None:
        """Tell the server that everything before ``flushed`` may go; 0 tells only that we are alive.

        ``written`` is how far we have read: the server pings a reader that has not reached the end of its WAL
        again and again, as fast as it is answered. Nothing is forgotten for it.

        Raises SourceUnavailable when the connection does not take it.
        """
        if self._connection.closed:  # its pointer is no longer libpq's to use
            raise SourceUnavailable("the replication connection is closed")
        pgconn = self._connection.pgconn_ptr
        now = time.time_ns() // 1000 - _POSTGRES_EPOCH_US
        message = _STATUS(b"r", max(written, flushed), flushed, flushed, now, reply)
        if self._libpq.PQputCopyData(pgconn, message, len(message)) != 1 or self._libpq.PQflush(pgconn):
            raise SourceUnavailable("the replication connection was lost while sending a status update")

    def end(self) -> None:
        """Ask the server to end the replication command."""
        if not self._connection.closed:
            self._libpq.PQputCopyEnd(self._connection.pgconn_ptr, None)
            self._libpq.PQflush(self._connection.pgconn_ptr)
