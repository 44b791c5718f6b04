"""A source whose large transactions come in pieces, before they commit, and are handed on whole."""

import asyncio

from pgevents.in_progress import Assembler
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

    async def read(self) -> list[WalMessage]:
        """Messages in order, at least one; of a spooled transaction no more at a time than of any other."""
        await asyncio.sleep(0)  # a spool is read without waiting, and confirms are to be seen meanwhile
        while not (messages := self._part()):
            self._ready = self._assembler.feed(await self._source.read())
        return messages

    def acknowledge(self, end_lsn: Lsn, *, idle: bool) -> None:
        self._source.acknowledge(end_lsn, idle=idle)

    async def close(self) -> None:
        self._assembler.close()
        await self._source.close()

    def _part(self) -> list[WalMessage]:
        messages: list[WalMessage] = []
        room = DRAIN_BYTES
        for message in self._ready:
            messages.append(message)
            if type(message) is RawMessage:
                room -= len(message.payload)
            if room < 0 or len(messages) >= DRAIN_MESSAGES:
                break
        return messages
