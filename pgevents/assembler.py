"""Transactions that pgoutput sends in pieces while they run, put together as if they had been sent at their commit.

PostgreSQL hands transactions over in the order of their commits, and one of a million rows holds up all behind it
for seconds. With ``streaming 'on'`` it sends what outgrows its memory as it is written, so that little is left to do
at the commit. What comes before the commit goes into a spool, and on from there once the transaction has committed;
what is certain to be dropped is only counted.

Source of every layout: PostgreSQL manual, "Logical Replication Message Formats", protocol version 2.
"""

import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import count

from pgevents.foresight import Foresight
from pgevents.in_progress import Arrived, InProgress, Spool, malformed
from pgevents.lsn import NOWHERE, Lsn
from pgevents.wal import RawMessage, WalMessage

_START, _STOP, _COMMIT, _ABORT = ord("S"), ord("E"), ord("c"), ord("A")
_RELATION = ord("R")

_u32 = struct.Struct("!I").unpack_from
_pair = struct.Struct("!II").unpack_from
_stream_commit = struct.Struct("!IBQQq").unpack
_begin = struct.Struct("!QqI").pack
_commit = struct.Struct("!BQQq").pack

Foresee = Callable[[int], Foresight]
"""Begins to look at a transaction, by its xid."""


class Assembler:
    """Takes the messages of protocol version 2 and gives those of version 1, and Passed for what was counted.

    Of transactions that committed before ``watermark``, which are sent again, only the Relation messages go on.
    """

    def __init__(self, foresee: Foresee, new_spool: Callable[[], Spool], watermark: Lsn = NOWHERE) -> None:
        self._watermark = watermark
        self._foresee = foresee
        self._new_spool = new_spool
        self._transactions: dict[int, InProgress] = {}
        self._current: InProgress | None = None
        self._relations: dict[int, Arrived] = {}
        self._arrivals = count()

    def feed(self, messages: Iterable[WalMessage]) -> Generator[WalMessage | None]:
        """What goes on now that ``messages`` have come; None for what was rolled back, of which there may be a lot.

        Raises DecodeError, and PiecesUnusable for a transaction that has committed.
        """
        for message in messages:
            if type(message) is not RawMessage:
                yield message
                continue
            try:
                if self._current is None:
                    yield from self._outside(message)
                elif message.payload[0] == _STOP:
                    self._current = None
                else:
                    self._current.take(message)
            except (IndexError, KeyError, struct.error, ValueError):
                # The cause is cut off: a UnicodeDecodeError carries the row's bytes.
                raise malformed(message, "it does not have its documented layout") from None

    def close(self) -> None:
        for transaction in self._transactions.values():
            transaction.spool.close()

    def _outside(self, message: RawMessage) -> Iterator[WalMessage | None]:
        payload = message.payload
        tag = payload[0]
        if tag == _START:
            self._start(_u32(payload, 1)[0])
        elif tag == _COMMIT:
            yield from self._commit(message)
        elif tag == _ABORT:
            self._abort(*_pair(payload, 1))
        else:
            if tag == _RELATION:
                self._relations[_u32(payload, 1)[0]] = Arrived(next(self._arrivals), payload)
            yield message

    def _start(self, xid: int) -> None:
        if xid not in self._transactions:
            self._transactions[xid] = InProgress(xid, self._foresee(xid), self._new_spool(), self._arrivals)
        self._current = self._transactions[xid]
        self._current.look_again()

    def _abort(self, xid: int, subxid: int) -> None:
        if xid == subxid:
            self._transactions.pop(xid).spool.close()
        else:
            self._transactions[xid].roll_back(subxid)

    def _commit(self, message: RawMessage) -> Iterator[WalMessage | None]:
        xid, flags, commit_lsn, end_lsn, time = _stream_commit(message.payload[1:])
        transaction = self._transactions.pop(xid)
        is_resent = commit_lsn < self._watermark
        try:
            if not is_resent:
                transaction.finish(Lsn(end_lsn))
            yield RawMessage(commit_lsn, b"B" + _begin(commit_lsn, time, xid))
            if transaction.origin:
                yield RawMessage(commit_lsn, transaction.origin)
            yield from transaction.relations() if is_resent else transaction.messages()
            yield from self._newer(transaction)
            yield RawMessage(message.lsn, b"C" + _commit(flags, commit_lsn, end_lsn, time))
        finally:
            transaction.spool.close()

    def _newer(self, transaction: InProgress) -> Iterator[RawMessage]:
        """Relations that came after those of the transaction, which has just repeated its own."""
        for oid, arrived in transaction.arrived.items():
            latest = self._relations.get(oid, arrived)
            if latest.number > arrived.number:
                yield RawMessage(0, latest.payload)
            else:
                self._relations[oid] = arrived
