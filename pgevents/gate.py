"""Whole transactions: which one a change belongs to, its number in it, and what may be acknowledged.

Numbering happens here, before anything is filtered, so that an event's id depends on the WAL alone.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from pgevents.errors import DecodeError, GapDetected, SourceUnavailable
from pgevents.event import Transaction
from pgevents.look_ahead import Numbered
from pgevents.lsn import NOWHERE, Lsn
from pgevents.rule import SkipRule
from pgevents.sift import Sift
from pgevents.wal import Begin, Change, Commit, LogicalMessage, Outline, Passed, Relation, Truncate, WalItem


class Gate:
    """Takes WAL items in order and lets numbered changes through.

    ``identity`` is ``{system identifier}-{timeline}``. ``end_lsn`` is the LSN up to which every change has been let
    through: at first the watermark, then the end of the last whole transaction, or a later keepalive's. What lies
    before the watermark was confirmed in an earlier run: when the server sends it again, it is let go of, a whole
    transaction at a time. ``resent`` counts those transactions. ``sift`` is what skip rules have to say.
    ``skims``: row changes may be passed over for now, which spares decoding them.
    """

    def __init__(self, identity: str, end_lsn: Lsn = NOWHERE, *, sift: Sift | None = None) -> None:
        self._identity = identity
        self._sift = sift
        self._transaction: Transaction | None = None
        self._is_resent = False
        self._seq = 0
        self._watermark = end_lsn
        self.end_lsn = end_lsn
        self.resent = 0
        self.skims = False

    @property
    def inside(self) -> bool:
        """Whether a transaction has begun and not ended."""
        return self._transaction is not None

    def take_up(self, windows: tuple[SkipRule, ...]) -> None:
        """Skip rules that were added while the stream runs, all of them: from here on, also in mid-transaction."""
        if self._sift is not None:
            self._sift.take_up(windows)

    def passes_over(self, outline: Outline) -> bool:
        """Whether a row change goes no further, and is not to be decoded and admitted. It is counted all the same."""
        if self._is_resent:
            return True
        if self._sift is None or not self._sift.passes_over(outline, self._seq + 1):
            return False
        self._seq += 1
        return True

    def count(self, passed: Passed) -> Sequence[Numbered]:
        """Changes that were thrown away before their commit, which is in order where a rule now drops them.

        Gives what ``admit`` gives.

        Raises SourceUnavailable where none does: a rule was taken back, or added, meanwhile.
        """
        if self._is_resent:
            return ()
        outline, rows = passed
        going_on = self._sift.look_again() if self._sift is not None else ()
        if self._sift is None or not self._sift.passes_over(outline, self._seq + 1, rows):
            raise SourceUnavailable(
                f"{rows} changes of {outline.schema}.{outline.table} were left out before they committed, "
                "and are not to be left out any more",
                hint="Nothing is lost: PostgreSQL is asked for the transaction once more.",
            )
        self._seq += rows
        return going_on

    def admit(self, item: WalItem) -> Sequence[Numbered]:
        """The changes that go on now that ``item`` is here.

        With a commit, or when a rule has decided, those come that were held until then. Raises DecodeError for a
        change outside any transaction, GapDetected for one across the watermark.
        """
        if type(item) is Change:
            if self._is_resent:
                return ()
            if self._transaction is not None and (self._sift is None or self._sift.lets_through):
                self._seq += 1
                return ((item, self._transaction, self._seq),)
            return self._taken(item)
        match item:
            case Begin():
                self._begin(item)
            case Commit():
                return self._commit(item.end_lsn)
            case Truncate():
                if not self._is_resent:
                    return [each for relation in item.relations for each in self._taken(relation)]
            case LogicalMessage(transactional=True):
                return () if self._is_resent else self._taken(item)
            case LogicalMessage():
                return self._lone_message(item)
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
        # As PostgreSQL decides it: records do not overlap, so a commit that starts before an end LSN ends by then.
        self._is_resent = commit_lsn < self._watermark
        self.skims = self._is_resent
        if self._sift is not None and not self._is_resent:
            self._sift.begin(begin, self._transaction)
            self.skims = self._sift.is_dropping

    def _commit(self, end_lsn: Lsn) -> Sequence[Numbered]:
        self._transaction, self.skims = None, False
        if not self._is_resent:
            self.end_lsn = end_lsn
            return self._sift.commit() if self._sift is not None else ()
        self._is_resent = False
        self.resent += 1
        if end_lsn > self._watermark:
            raise GapDetected(
                f"a commit that ends at {end_lsn} lies across the watermark {self._watermark}: this is not the WAL "
                "that was acknowledged",
                hint="The database was set back and has written something else since. Reload what depends on the "
                "events, then go on with --accept-gap.",
            )
        return ()

    def _taken(self, item: Change | Relation | LogicalMessage) -> Sequence[Numbered]:
        numbered = self._number(item)
        if self._sift is None or self._sift.lets_through:
            return (numbered,)
        taken = self._sift.take(numbered)
        self.skims = self._sift.is_dropping
        return taken

    def _number(self, item: Change | Relation | LogicalMessage) -> Numbered:
        if self._transaction is None:
            raise DecodeError("a change outside any transaction", lsn=self.end_lsn, tag=type(item).__name__)
        self._seq += 1
        return item, self._transaction, self._seq

    def _lone_message(self, message: LogicalMessage) -> Sequence[Numbered]:
        """A non-transactional message: seq 0, because a commit record may start at the very LSN it ends."""
        if message.lsn <= self._watermark:
            return ()
        if self._transaction is None:
            self.end_lsn = max(self.end_lsn, message.lsn)
        lone = Transaction(f"{self._identity}-{message.lsn:X}-", None, str(message.lsn), None, 0, None)
        return ((message, lone, 0),)


@lru_cache(maxsize=64)
def _epoch_seconds(second: str) -> int:
    """Remembered because a busy server commits thousands of transactions in the same second."""
    return int(datetime.fromisoformat(second).replace(tzinfo=UTC).timestamp())
