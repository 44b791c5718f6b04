"""One transaction's way past the skip rules: held while it is not known what becomes of it, then let go or counted.

Memory does not grow with the transaction: so many changes, and so many bytes of them, are held at most. A transaction
that outgrows that goes on as it is, and nothing stops it any more but a window that is added meanwhile.
"""

import logging
from collections.abc import Callable, Sequence

from pgevents.event import Lane, Transaction
from pgevents.evidence import GONE, Evidence
from pgevents.look_ahead import Item, LookAhead, Numbered
from pgevents.lsn import NOWHERE
from pgevents.mark import PREFIX, MalformedMark, parse_mark
from pgevents.rule import Action, SkipRule
from pgevents.skip import Rulebook, Ruling
from pgevents.tally import Counts
from pgevents.wal import Begin, Change, LogicalMessage, Outline, Relation

logger = logging.getLogger(__name__)

MAX_HELD_BYTES = 64 * 2**20
_MOST_TABLES = 10_000

_NOT_BEGUN = Begin(0, NOWHERE, "")
_NO_TRANSACTION = Transaction("", None, "", None, 0, None)


class Sift:
    """Takes the numbered changes of one transaction after the other; gives back those that go on.

    ``keep`` says which tables are streamed: the others count for nothing. ``lets_through``: nothing is to be decided
    on the transaction, and changes need not come here. ``is_dropping``: what comes may be counted undecoded.
    """

    def __init__(
        self,
        book: Rulebook,
        *,
        keep: Callable[[str, str], bool],
        counts: Counts,
        max_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self.book = book
        self._keep = keep
        self._counts = counts
        self._max_bytes = max_bytes
        self._outlines: dict[tuple[str, Relation], Outline] = {}
        self._kept: dict[tuple[str, str], bool] = {}
        self._windows: tuple[SkipRule, ...] = ()
        self._ruling: Ruling | None = None
        self._forget(_NOT_BEGUN, _NO_TRANSACTION)

    def begin(self, begin: Begin, transaction: Transaction) -> None:
        """A transaction begins; what came of it before, where its origin was only told now, is none of it."""
        if self.book.is_idle and self._ruling is None and self._windows is self.book.windows:
            self._begin, self._transaction = begin, transaction
            return
        self._forget(begin, transaction)
        if ruling := self.book.of_begin(begin):
            self._settle(ruling)

    def _forget(self, begin: Begin, transaction: Transaction) -> None:
        self._begin, self._transaction = begin, transaction
        self._windows = self.book.windows
        self._ahead = LookAhead()
        self._covered: dict[Outline, bool] = {}
        self._evidence = Evidence()
        self._is_open = not self.book.looks_ahead
        self._ruling = None
        self._aside = transaction
        self.is_dropping = False
        self.lets_through = self._is_open and not self.book.heeds_marks

    def take_up(self, windows: tuple[SkipRule, ...]) -> None:
        """Windows were added or removed, perhaps for the very transaction at hand."""
        self.book.windows = windows
        self.lets_through = False

    @property
    def ruling(self) -> Ruling | None:
        """What was decided on the transaction at hand."""
        return self._ruling

    def passes_over(self, outline: Outline, seq: int, rows: int = 1) -> bool:
        """Whether changes from number ``seq`` on are neither published nor looked at; they are counted then.

        Not while rules have changed.
        """
        if self.book.windows is not self._windows:
            return False
        if not self._is_kept((outline.schema, outline.table)):
            return True
        if not (self.is_dropping and self._covers(outline)):
            return False
        self._evidence.add(outline, seq, rows)
        return True

    def look_again(self) -> Sequence[Numbered]:
        """Those changes that go on where a window was added or removed meanwhile."""
        return () if self.book.windows is self._windows else self._look_again()

    def take(self, numbered: Numbered) -> Sequence[Numbered]:
        """Those changes that go on now that this one has come."""
        if self.book.windows is self._windows:
            return self._take(numbered)
        return [*self.look_again(), *self._take(numbered)]

    def commit(self) -> Sequence[Numbered]:
        """What is still held, and the records of what is not published."""
        if self.lets_through:
            return ()
        passed = [*self.look_again(), *self._ahead.release()]
        self._close_record()
        records = [(each, self._transaction, number) for number, each in enumerate(self._evidence.records)]
        return [*passed, *records]

    def _take(self, numbered: Numbered) -> Sequence[Numbered]:
        item = numbered[0]
        if isinstance(item, LogicalMessage) and item.prefix == PREFIX and self.book.heeds_marks:
            return self._mark(item, numbered[2])
        table = _table_of(item)
        if table is not None and not self._is_kept(table):
            return ()
        if self._ruling is not None:
            return self._ruled(numbered)
        if self._is_open:
            return (numbered,)
        self._ahead.hold(numbered)
        if table is not None:
            count = self._ahead.count(table)
            if ruling := self.book.of_size(self._ahead.rows, table, count):
                return self._rule(ruling)
        return self._outgrown()

    def _is_kept(self, table: tuple[str, str]) -> bool:
        if table not in self._kept:
            if len(self._kept) >= _MOST_TABLES:
                self._kept.clear()
            self._kept[table] = self._keep(*table)
        return self._kept[table]

    def _outgrown(self) -> Sequence[Numbered]:
        """What was held, once it is larger than what is to be held, and no rule is about its size."""
        ahead = self._ahead
        if ahead.bytes <= self._max_bytes and not self.book.is_past(ahead.rows):
            return ()
        if ahead.bytes > self._max_bytes and self.book.has_sizes:
            logger.warning(
                "a transaction outgrew the look-ahead before its size was known, and is published",
                extra={
                    "xid": self._begin.xid,
                    "rows": ahead.rows,
                    "bytes": ahead.bytes,
                    "hint": "look_ahead_bytes is too small for the rows of the size rule",
                },
            )
        self._is_open = True
        return ahead.release()

    def _mark(self, message: LogicalMessage, seq: int) -> Sequence[Numbered]:
        """A mark is never published; it decides where nothing did before."""
        try:
            mark = parse_mark(message.content)
        except MalformedMark as error:
            self._counts.malformed_marks += 1
            self._complain("a malformed mark was not obeyed", self._counts.malformed_marks, reason=str(error))
            return ()
        if self._ruling is not None:
            self._counts.overruled_marks += 1
            self._complain(
                "a mark was not obeyed, because a rule had decided before",
                self._counts.overruled_marks,
                reason=mark.reason,
                by=mark.by,
                rule=self._ruling.rule.name,
            )
            return ()
        ruling = self.book.of_mark(mark)
        if ruling is not None and not self._is_open:
            return self._rule(ruling)
        self._counts.late_marks += 1
        self._complain(
            "a mark came too late and was not obeyed",
            self._counts.late_marks,
            reason=mark.reason,
            by=mark.by,
            changes_before=seq - 1,
        )
        return ()

    def _complain(self, message: str, count: int, **extra: object) -> None:
        """Of the first, the tenth, the hundredth: anybody may send a million of them."""
        if str(count).strip("0") == "1":
            logger.warning(message, extra={"xid": self._begin.xid, "count": count, **extra})

    def _look_again(self) -> Sequence[Numbered]:
        """A window was added or removed in the middle of the transaction."""
        self._windows = self.book.windows
        ruling, before = self.book.of_window(self._begin), self._ruling
        if ruling is None:
            return ()
        if before is not None and (before.rule == ruling.rule or (before.action in GONE and before.tables is None)):
            return ()
        self._close_record()
        return self._rule(ruling)

    def _rule(self, ruling: Ruling) -> Sequence[Numbered]:
        """It is decided: what was held goes the way of the rest."""
        self._settle(ruling)
        return [each for numbered in self._ahead.release() for each in self._ruled(numbered)]

    def _settle(self, ruling: Ruling) -> None:
        self._ruling, self._is_open = ruling, True
        self._covered.clear()
        self.lets_through, self.is_dropping = False, ruling.action is Action.DROP
        rule = ruling.rule
        lane = Lane(rule.name, rule.exchange, rule.routing_key, rule.parks)
        self._aside = self._transaction._replace(lane=lane)

    def _ruled(self, numbered: Numbered) -> Sequence[Numbered]:
        item, _, seq = numbered
        outline = self._outline(item)
        if self._ruling is None or not self._covers(outline):
            return (numbered,)
        self._evidence.add(outline, seq)
        match self._ruling.action:
            case Action.PUBLISH:
                return (numbered,)
            case Action.SLOW_LANE | Action.PARK:
                return ((item, self._aside, seq),)
            case Action.SUMMARISE:
                self._evidence.digest(item)
        return ()

    def _covers(self, outline: Outline) -> bool:
        covered = self._covered.get(outline)
        if covered is None:
            ruling, (_, schema, table) = self._ruling, outline
            covered = ruling is not None and ruling.covers(schema or None, table or None)
            self._covered[outline] = covered
        return covered

    def _outline(self, item: Item) -> Outline:
        match item:
            case Change(op=op, relation=relation):
                pass
            case Relation() as relation:
                op = "truncate"
            case _:
                return Outline("message", "", "")
        try:
            return self._outlines[op, relation]
        except KeyError:
            if len(self._outlines) >= _MOST_TABLES:
                self._outlines.clear()
            outline = self._outlines[op, relation] = Outline(op, relation.schema, relation.name)
            return outline

    def _close_record(self) -> None:
        if self._ruling is not None:
            self._evidence.close(self._ruling, self._begin, self._counts)


def _table_of(item: Item) -> tuple[str, str] | None:
    """The table a row is of, or that was truncated."""
    match item:
        case Change(relation=relation):
            return relation.schema, relation.name
        case Relation():
            return item.schema, item.name
    return None
