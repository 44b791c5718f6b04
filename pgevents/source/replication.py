"""A logical replication slot, read through psycopg2's replication cursor."""

import asyncio
import logging
import select
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg2
import psycopg2.extensions

from pgevents.errors import PGEventsError, SourceError, SourceUnavailable
from pgevents.fault import translated
from pgevents.lsn import NOWHERE, Lsn
from pgevents.postgres import connect_replication, quoted
from pgevents.source.feedback import Feedback
from pgevents.thread import in_thread
from pgevents.wal import Keepalive, RawMessage

logger = logging.getLogger(__name__)

# Well before wal_sender_timeout (60 s by default), so that one lost update is harmless.
STATUS_INTERVAL_S = 10.0

# An LSN goes back at most ten times a second: the server may write the slot to disk for each.
ACKNOWLEDGE_INTERVAL_S = 0.1

# One drain hands over at most so much, so that confirms are seen and memory stays bounded.
DRAIN_MESSAGES = 1000
DRAIN_BYTES = 1024 * 1024

# psycopg2's own feedback, which carries no LSN, is put off for good: ours keeps the connection alive.
_NEVER_S = 10**8

_CLOSE_TIMEOUT_S = 2.0


class Session(NamedTuple):
    """A replication connection before streaming, and what it told about the server."""

    connection: Any
    system_id: str
    timeline: int
    server_version: int
    encoding: str
    wal_sender_timeout_s: float

    @property
    def identity(self) -> str:
        """``{system identifier}-{timeline}``: LSNs mean the same only where this is the same."""
        return f"{self.system_id}-{self.timeline}"

    def create_temporary_slot(self, slot: str, plugin: str) -> None:
        """A slot that ends with the connection. Blocks; raises SourceError."""
        statement = f"CREATE_REPLICATION_SLOT {quoted(slot)} TEMPORARY LOGICAL {quoted(plugin)}"
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(f"{statement} NOEXPORT_SNAPSHOT")
        except psycopg2.Error as error:
            raise translated(error, slot=slot, plugin=plugin) from error


def connect_session(dsn: str) -> Session:
    """Connect and ask who the server is. Blocks; raises SourceError."""
    connection = connect_replication(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute("IDENTIFY_SYSTEM")
            system_id, timeline, _, _ = cursor.fetchone()
            cursor.execute("SHOW wal_sender_timeout")
            timeout_s = _seconds(cursor.fetchone()[0])
            cursor.execute("SHOW server_encoding")
            encoding = cursor.fetchone()[0]
    except psycopg2.Error as error:
        connection.close()
        raise translated(error) from error
    codec = psycopg2.extensions.encodings.get(encoding, "utf-8")
    codec = "utf-8" if codec in {"utf_8", "ascii"} else codec
    return Session(connection, system_id, timeline, connection.server_version, codec, timeout_s)


_UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(setting: str) -> float:
    """PostgreSQL's ``1min`` or ``500ms``; 0 means no time-out."""
    number = setting.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number) * _UNITS_S.get(setting[len(number) :], 0.001)


def start(session: Session, *, slot: str, plugin: str, options: Mapping[str, str]) -> Any:
    """Begin streaming where the slot stands and return the cursor. Raises SourceError.

    The start is always 0/0: the server begins at its own confirmed flush LSN, and one that we named and that
    were too high would skip changes in silence.
    """
    settings = ", ".join(f"{quoted(name)} {_literal(value)}" for name, value in options.items())
    cursor = session.connection.cursor()
    try:
        cursor.start_replication_expert(
            f"START_REPLICATION SLOT {quoted(slot)} LOGICAL 0/0 ({settings})",
            decode=False,
            status_interval=_NEVER_S,
        )
    except psycopg2.Error as error:
        cursor.close()
        raise translated(error, slot=slot, plugin=plugin) from error
    return cursor


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


class ReplicationSource:
    """Reads the slot and reports back; ``read_only`` acknowledges nothing, so that the slot stays where it is."""

    def __init__(
        self, session: Session, cursor: Any, *, slot: str, acknowledged: Lsn = NOWHERE, read_only: bool = False
    ) -> None:
        self._session = session
        self._cursor = cursor
        self._slot = slot
        self._read_only = read_only
        self._feedback = Feedback(session.connection)
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._failure: PGEventsError | None = None
        self._acknowledged = acknowledged
        self._received = cursor.io_timestamp
        self._sent_at = 0.0
        self._due: asyncio.TimerHandle | None = None
        limit_s = session.wal_sender_timeout_s / 4 or STATUS_INTERVAL_S
        self._interval_s = min(STATUS_INTERVAL_S, limit_s)
        self._ticking = self._loop.call_soon(self._tick)

    async def read(self) -> list[RawMessage | Keepalive]:
        """Messages in order, at least one. Raises SourceUnavailable or SlotLost."""
        while True:
            if self._failure is not None:
                raise self._failure
            try:
                messages = self._drain()
            except psycopg2.Error as error:
                raise self._why_lost(error) from error
            if messages:
                await asyncio.sleep(0)  # let confirms in between two drains of a backlog
                return messages
            await self._readable()

    def _why_lost(self, error: psycopg2.Error) -> PGEventsError:
        """An error without an SQLSTATE is not the server's: it is what libpq says when the server left."""
        fault = translated(error, slot=self._slot)
        if error.pgcode or type(fault) is not SourceError:
            return fault
        return SourceUnavailable(f"the replication connection ended: {fault}")

    def _drain(self) -> list[RawMessage | Keepalive]:
        read = self._cursor.read_message
        messages: list[RawMessage | Keepalive] = []
        room = DRAIN_BYTES
        for _ in range(DRAIN_MESSAGES):
            message = read()
            if message is None:
                self._note_keepalive(messages)
                break
            payload = message.payload
            messages.append(RawMessage(message.data_start, payload))
            room -= len(payload)
            if room < 0:
                break
        return messages

    def _note_keepalive(self, messages: list[RawMessage | Keepalive]) -> None:
        """psycopg2 swallows keepalives: one has come when something was received that was no message.

        Called when everything received has been read, so that all changes before the keepalive are in hand.
        """
        received, self._received = self._received, self._cursor.io_timestamp
        last = messages[-1] if messages else None
        came = self._cursor.wal_end > last.lsn if isinstance(last, RawMessage) else self._received != received
        if came:
            messages.append(Keepalive(self._cursor.wal_end))
            # psycopg2 may have answered it with flush 0; a server that is shutting down waits for the real one.
            self._send()

    async def _readable(self) -> None:
        """Wait for bytes. The reader is registered only meanwhile: it is level-triggered, and would spin."""
        descriptor = self._session.connection.fileno()
        self._waiting = self._loop.create_future()
        self._loop.add_reader(descriptor, self._wake)
        try:
            await self._waiting
        finally:
            self._loop.remove_reader(descriptor)
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def acknowledge(self, end_lsn: Lsn) -> None:
        if end_lsn <= self._acknowledged or self._read_only:
            return
        self._acknowledged = end_lsn
        wait_s = self._sent_at + ACKNOWLEDGE_INTERVAL_S - time.monotonic()
        if wait_s <= 0:
            self._send()
        elif self._due is None:
            self._due = self._loop.call_later(wait_s, self._send)

    def _tick(self) -> None:
        """Alive, also while the sink blocks and nothing is read. The reply moves an idle slot on."""
        self._ticking = self._loop.call_later(self._interval_s, self._tick)
        self._send(reply=True)

    def _send(self, *, reply: bool = False) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self._sent_at = time.monotonic()
        try:
            self._feedback.send(self._acknowledged, written=self._cursor.wal_end, reply=reply)
        except SourceUnavailable as error:
            self._failure = error
            self._wake()

    async def close(self) -> None:
        """Report once more, end the command so that the server reads the report, and disconnect."""
        self._ticking.cancel()
        if self._failure is None:
            self._send()
            await in_thread(self._end)
        if self._failure is not None and self._acknowledged:
            logger.warning(
                "the last acknowledged LSN may not have reached the server; what is before it may come again",
                extra={"slot": self._slot, "lsn": str(self._acknowledged)},
            )
        if self._due is not None:
            self._due.cancel()
        self._session.connection.close()

    def _end(self) -> None:
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        self._feedback.end()
        try:
            while time.monotonic() < deadline:
                if self._cursor.read_message() is None:
                    select.select([self._session.connection], [], [], 0.05)
        except psycopg2.Error:
            return  # this is how psycopg2 reports the end of the command
