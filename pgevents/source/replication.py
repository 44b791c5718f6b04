"""A logical replication slot, read through psycopg2's replication cursor."""

import asyncio
import logging
import select
import time
from typing import Any

import psycopg2

from pgevents.errors import PGEventsError, SourceError, SourceUnavailable
from pgevents.fault import translated
from pgevents.lsn import NOWHERE, Lsn
from pgevents.source.acknowledgement import Acknowledgement, Keep, forget
from pgevents.source.connection import Session
from pgevents.source.feedback import Feedback
from pgevents.thread import in_thread
from pgevents.wal import Keepalive, RawMessage

logger = logging.getLogger(__name__)

# Well before wal_sender_timeout (60 s by default), so that one lost update is harmless.
STATUS_INTERVAL_S = 10.0

# After so long without a word from the server, which is asked for one with every status update, somebody may want to
# know.
SILENCE_S = 60.0

# One drain hands over at most so much, so that confirms are seen and memory stays bounded.
DRAIN_MESSAGES = 1000
DRAIN_BYTES = 1024 * 1024

_CLOSE_TIMEOUT_S = 2.0
_LOOK_AGAIN_MS = 50


class ReplicationSource:
    """Reads the slot and reports back.

    ``acknowledged`` is the LSN reached so far; ``keep`` is called with each later one, and may block, before the
    server is told. ``read_only`` acknowledges nothing, so that the slot stays where it is.
    """

    def __init__(
        self,
        session: Session,
        cursor: Any,
        *,
        slot: str,
        acknowledged: Lsn = NOWHERE,
        keep: Keep = forget,
        idle_interval_s: float = 0.0,
        read_only: bool = False,
    ) -> None:
        self._session = session
        self._cursor = cursor
        self._slot = slot
        self._read_only = read_only
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._received = cursor.io_timestamp
        self._heard_at = time.monotonic()
        self._warned_at = self._heard_at
        self._feedback = Feedback(session.connection)
        self._acknowledgement = Acknowledgement(
            self._feedback,
            acknowledged=acknowledged,
            keep=keep,
            idle_interval_s=idle_interval_s,
            written=lambda: int(cursor.wal_end),
            on_failure=self._fail,
        )
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
                self._heard_at = time.monotonic()
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
            self._acknowledgement.send()

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

    def acknowledge(self, end_lsn: Lsn, *, idle: bool) -> None:
        if not self._read_only:
            self._acknowledgement.move(end_lsn, idle=idle)

    def _tick(self) -> None:
        """Alive, also while the sink blocks and nothing is read. The reply moves an idle slot on."""
        self._ticking = self._loop.call_later(self._interval_s, self._tick)
        self._acknowledgement.send(reply=True)
        self._warn_of_silence()

    def _warn_of_silence(self) -> None:
        """Say that the server is silent, and no more: inside one large transaction it may be for many minutes.

        A dead network ends the connection by TCP's own time-outs; to leave because of silence would begin the same
        transaction over and over.
        """
        now = time.monotonic()
        if self._waiting is None:  # we have not looked
            self._heard_at = now
        if now - max(self._heard_at, self._warned_at) >= SILENCE_S:
            self._warned_at = now
            logger.warning(
                "the server has not answered; it may be busy with a large transaction",
                extra={"slot": self._slot, "silent_s": round(now - self._heard_at)},
            )

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._wake()

    async def close(self) -> None:
        """Keep and report the last LSN, end the command so that the server reads the report, and disconnect.

        Raises what prevents the keeping. A report that does not arrive is made up for by the watermark.
        """
        self._ticking.cancel()
        try:
            await self._acknowledgement.close()
            if self._failure is None:
                await in_thread(self._end)
        finally:
            self._session.connection.close()
        if self._failure is not None and not self._acknowledgement.is_kept:
            raise self._failure
        if self._failure is not None and self._acknowledgement.told:
            logger.warning(
                "the last acknowledged LSN may not have reached the server, which may then send again what is before",
                extra={"slot": self._slot, "lsn": str(self._acknowledgement.told)},
            )

    def _end(self) -> None:
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        # Not select(), which takes no descriptor beyond 1023.
        readable = select.poll()
        readable.register(self._session.connection, select.POLLIN)
        self._feedback.end()
        try:
            while time.monotonic() < deadline:
                if self._cursor.read_message() is None:
                    readable.poll(_LOOK_AGAIN_MS)
        except psycopg2.Error:
            return  # this is how psycopg2 reports the end of the command
