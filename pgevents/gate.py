"""Whole transactions: which one a change belongs to, its number in it, and what may be acknowledged.

Numbering happens here, before anything is filtered, so that an event's id depends on the WAL alone.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from pgevents.errors import DecodeError
from pgevents.event import Transaction
from pgevents.lsn import NOWHERE, Lsn
from pgevents.wal import Begin, Change, Commit, LogicalMessage, Relation, Truncate, WalItem

Numbered = tuple[Change | Relation | LogicalMessage, Transaction, int]
"""A change, its transaction, and its number in it. A TRUNCATE of three tables is three of them."""


class Gate:
    """Takes WAL items in order and lets numbered changes through.

    ``identity`` is ``{system identifier}-{timeline}``. ``end_lsn`` is the LSN up to which every change has been let
    through: at first where the slot stands, then the end of the last whole transaction, or a later keepalive's.
    """

    def __init__(self, identity: str, end_lsn: Lsn = NOWHERE) -> None:
        self._identity = identity
        self._transaction: Transaction | None = None
        self._seq = 0
        self.end_lsn = end_lsn

    @property
    def inside(self) -> bool:
        """Whether a transaction has begun and not ended."""
        return self._transaction is not None

    def admit(self, item: WalItem) -> Sequence[Numbered]:
        """The changes of ``item`` that go on. Raises DecodeError for a change outside any transaction."""
        if type(item) is Change:
            return (self._number(item),)
        match item:
            case Begin():
                self._begin(item)
            case Commit():
                self._transaction = None
                self.end_lsn = item.end_lsn
            case Truncate():
                return [self._number(relation) for relation in item.relations]
            case LogicalMessage(transactional=True):
                return (self._number(item),)
            case LogicalMessage():
                return (self._lone_message(item),)
        return ()

    def keepalive(self, wal_end: int) -> None:
        """Nothing of ours lies before ``wal_end``, unless a transaction is still being sent."""
        if self._transaction is None and wal_end > self.end_lsn:
            self.end_lsn = Lsn(wal_end)

    def _begin(self, begin: Begin) -> None:
        self._seq = 0
        xid, commit_lsn, committed_at, origin = begin
        self._transaction = Transaction(
            f"{self._identity}-{commit_lsn:X}-",
            xid,
            str(commit_lsn),
            committed_at,
            _epoch_seconds(committed_at[:19]),
            origin,
        )

    def _number(self, item: Change | Relation | LogicalMessage) -> Numbered:
        if self._transaction is None:
            raise DecodeError("a change outside any transaction", lsn=self.end_lsn, tag=type(item).__name__)
        self._seq += 1
        return item, self._transaction, self._seq

    def _lone_message(self, message: LogicalMessage) -> Numbered:
        """A non-transactional message: seq 0, because a commit record may start at the very LSN it ends."""
        if self._transaction is None:
            self.end_lsn = max(self.end_lsn, message.lsn)
        lone = Transaction(f"{self._identity}-{message.lsn:X}-", None, str(message.lsn), None, 0, None)
        return message, lone, 0


@lru_cache(maxsize=64)
def _epoch_seconds(second: str) -> int:
    """Remembered because a busy server commits thousands of transactions in the same second."""
    return int(datetime.fromisoformat(second).replace(tzinfo=UTC).timestamp())
