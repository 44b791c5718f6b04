"""A source whose large transactions come in pieces, before they commit, and are handed on whole."""

import asyncio

from pgevents.assembler import Assembler
from pgevents.errors import PGEventsError
from pgevents.interfaces import Source
from pgevents.lsn import Lsn
from pgevents.source.replication import DRAIN_BYTES, DRAIN_MESSAGES
from pgevents.wal import RawMessage, WalMessage


class AssembledSource:
    """Acknowledges and closes like the ``source`` it reads from."""

    def __init__(self, source: Source, assembler: Assembler) -> None:
        self._source = source
        self._assembler = assembler
        self._ready = assembler.feed(())
        self._is_exhausted = True
        self._failure: PGEventsError | None = None

    async def read(self) -> list[WalMessage]:
        """Messages in order, at least one; of a spooled transaction no more at a time than of any other."""
        while True:
            await asyncio.sleep(0)  # a spool is read without waiting, and confirms are to be seen meanwhile
            if messages := self._part():
                return messages
            if self._failure is not None:
                raise self._failure
            if self._is_exhausted:
                self._ready = self._assembler.feed(await self._source.read())
                self._is_exhausted = False

    def acknowledge(self, end_lsn: Lsn, *, idle: bool) -> None:
        self._source.acknowledge(end_lsn, idle=idle)

    async def close(self) -> None:
        try:
            self._ready.close()
            self._assembler.close()
        finally:
            await self._source.close()

    def _part(self) -> list[WalMessage]:
        """The next messages. What comes before one that cannot be used is handed on first."""
        messages: list[WalMessage] = []
        room = DRAIN_BYTES
        try:
            for count, message in enumerate(self._ready, 1):
                if message is not None:
                    messages.append(message)
                if type(message) is RawMessage:
                    room -= len(message.payload)
                if room < 0 or count >= DRAIN_MESSAGES:
                    return messages
        except PGEventsError as error:
            self._failure = error
        self._is_exhausted = True
        return messages
