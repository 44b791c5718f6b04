"""What a database did, as values that print, and a server in memory that sends it as often as it is asked to."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pgevents.lsn import NOWHERE, Lsn
from pgevents.testing import (
    IDENTITY,
    INT4_OID,
    TEXT_OID,
    MemoryServer,
    MemorySource,
    Transaction,
    insert,
    logical_message,
    relation,
    update,
)
from pgevents.wal import Keepalive, RawMessage

TABLES = ("orders", "items")
_COLUMNS = [("id", INT4_OID, True), ("text", TEXT_OID, False)]
_RELATIONS = tuple(relation(oid, name, _COLUMNS) for oid, name in enumerate(TABLES, 1))


@dataclass(frozen=True, slots=True)
class Row:
    """One change: an insert, or an update, of the row ``key`` of a table, ``size`` bytes long."""

    table: int = 0
    key: int = 0
    is_update: bool = False
    size: int = 1


@dataclass(frozen=True, slots=True)
class Work:
    """A transaction; ``keepalive`` is one that the server sends in the middle of it, ``note`` a message in it."""

    rows: tuple[Row, ...] = ()
    keepalive: bool = False
    note: bool = False


@dataclass(frozen=True, slots=True)
class Idle:
    """Other databases write WAL, and the server says so."""


@dataclass(frozen=True, slots=True)
class Lone:
    """A logical message outside any transaction."""


Deed = Work | Idle | Lone


@dataclass(frozen=True, slots=True)
class Due:
    """One event to come: its id, the LSN whose acknowledgement forgets it, and the row it is about."""

    id: str
    end_lsn: int
    row: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of WAL, ``start`` inclusive: what is sent of it, and which events are due."""

    start: int
    end: int
    messages: tuple[RawMessage | Keepalive, ...]
    due: tuple[Due, ...]


@dataclass(slots=True)
class History:
    """A list of deeds, on LSNs of their own."""

    deeds: Sequence[Deed]
    stretches: list[Stretch] = field(init=False)

    def __post_init__(self) -> None:
        self.stretches = []
        at = 100
        for deed in self.deeds:
            made = _stretch(deed, at)
            self.stretches.append(made)
            at = made.end + (len(self.stretches) % 3) * 8  # records of others may lie between, or none
        # What ends every run: a transaction whose end nothing else shares.
        self.stretches.append(_stretch(Work((Row(),)), at))

    @property
    def end_lsn(self) -> Lsn:
        return Lsn(self.stretches[-1].end)

    @property
    def due(self) -> list[Due]:
        return [each for stretch in self.stretches for each in stretch.due]

    @property
    def ends(self) -> set[int]:
        """Every LSN that may be acknowledged."""
        return {stretch.end for stretch in self.stretches}

    def sent_after(self, lsn: int, *, again: int = 0) -> Iterator[RawMessage | Keepalive]:
        """What a slot at ``lsn`` sends; ``again`` stretches more where the server forgot how far it was."""
        first = next((at for at, each in enumerate(self.stretches) if each.start >= lsn), len(self.stretches))
        for stretch in self.stretches[max(0, first - again) :]:
            yield from stretch.messages


def _stretch(deed: Deed, at: int) -> Stretch:
    match deed:
        case Idle():
            return Stretch(at, at + 16, (Keepalive(at + 16),), ())
        case Lone():
            end = at + 24
            raw = RawMessage(end, logical_message(end, "audit", b"hello", transactional=False))
            return Stretch(at, end, (raw,), (Due(f"{IDENTITY}-{end:X}-0", end, None),))
        case Work():
            return _transaction(deed, at)


def _transaction(work: Work, start: int) -> Stretch:
    commit_lsn = start + 8 * len(work.rows)
    end = commit_lsn + 8
    changes = [_change(row, seq) for seq, row in enumerate(work.rows, 1)]
    rows: list[tuple[int, int] | None] = [(row.table, row.key) for row in work.rows]
    if work.note:
        changes.append(logical_message(commit_lsn - 4, "audit", b"hello"))
        rows.append(None)
    messages: list[RawMessage | Keepalive] = list(Transaction(commit_lsn, end, (*_RELATIONS, *changes)).messages())
    if work.keepalive:
        messages.insert(len(messages) // 2, Keepalive(end + 1_000))
    due = [Due(f"{IDENTITY}-{commit_lsn:X}-{seq}", end, row) for seq, row in enumerate(rows, 1)]
    # A slot at the start of a commit record gets the transaction whole; one behind it, not at all.
    return Stretch(commit_lsn, end, tuple(messages), tuple(due))


def _change(row: Row, seq: int) -> bytes:
    values = [row.key, f"{seq}".ljust(row.size, ".")]
    return (update if row.is_update else insert)(row.table + 1, values)


class Watched(list[Lsn]):
    """Acknowledged LSNs; ``check`` sees each before it is taken. Once ``is_cut``, nothing is heard any more."""

    def __init__(self, check: Callable[[Lsn], None], before: Iterable[Lsn] = ()) -> None:
        super().__init__(before)
        self.is_cut = False
        self._check = check

    def append(self, lsn: Lsn) -> None:
        if not self.is_cut:
            self._check(lsn)
            super().append(lsn)


class Database:
    """The history's server: what is acknowledged stays acknowledged over all processes and sessions."""

    def __init__(self, history: History, check: Callable[[Lsn], None]) -> None:
        self._history = history
        self._check = check
        self._heard = Watched(check)

    @property
    def acknowledged(self) -> Lsn:
        return self._heard[-1] if self._heard else NOWHERE

    def connect(self, *, chunk: int, again: int = 0) -> MemorySource:
        """What is not acknowledged, and ``again`` stretches before it."""
        sent = list(self._history.sent_after(self.acknowledged, again=again))
        return MemorySource(sent, chunk=chunk, server=MemoryServer((), acknowledged=self._heard))

    def cut(self) -> None:
        """What is said on the connections that are open now is heard by nobody."""
        self._heard.is_cut = True
        self._heard = Watched(self._check, self._heard)
