"""What the skip rules will say of a transaction that has not committed, where that is certain already.

It is never guessed. Where something may still change what is decided (a rolled-back savepoint, a window over commit
times) nothing is foreseen, and the rows are kept until the commit. The sift decides then, and has the last word.
"""

from collections import Counter
from collections.abc import Callable

from pgevents.look_ahead import CHANGE_BYTES, VALUE_BYTES
from pgevents.mark import PREFIX, MalformedMark, parse_mark
from pgevents.rule import Action
from pgevents.skip import Rulebook, Ruling
from pgevents.wal import Begin, LogicalMessage, Outline


class Foresight:
    """Takes what a transaction did, in order, and says of each row whether it will be dropped.

    Only of what nothing but the whole transaction can roll back: ``doubt`` is called where a savepoint can. ``begin``
    is what is known of it: neither commit LSN nor origin, and as the time of its commit the present.
    """

    def __init__(self, book: Rulebook, keep: Callable[[str, str], bool], begin: Begin, *, max_bytes: int) -> None:
        self._book = book
        self._keep = keep
        self._max_bytes = max_bytes
        self._begin = begin
        self._windows = book.windows
        self._ruling: Ruling | None = None
        self._is_open = False
        self._rows = 0
        self._bytes = 0
        self._of_table: Counter[tuple[str, str]] = Counter()
        if book.waits_for_commit:
            self._give_up()
        elif ruling := book.of_begin(self._begin):
            self._settle(ruling)
        elif not book.looks_ahead:
            self._give_up()

    @property
    def is_stale(self) -> bool:
        """Whether windows were added or removed since it was asked last, so that what it said may no longer hold."""
        return self._windows is not self._book.windows

    def drops(self, outline: Outline, columns: int, size: int) -> bool:
        """Whether a row will not be published: one more of ``outline``, ``size`` bytes as it was sent."""
        if self.is_stale:
            self._look_again()
        if not self.is_streamed(outline):
            return True
        if self._ruling is not None:
            return self._ruling.covers(outline.schema, outline.table)
        if not self._is_open:
            self._count((outline.schema, outline.table), columns, size)
        return False

    def is_streamed(self, outline: Outline) -> bool:
        """Whether the table is: changes of others go nowhere, and count for nothing."""
        return self._keep(outline.schema, outline.table)

    def hear(self, message: LogicalMessage) -> None:
        """A message of the transaction, which may be a mark."""
        if self._is_open or self._ruling is not None:
            return
        if message.prefix != PREFIX or not self._book.heeds_marks:
            self._hold(CHANGE_BYTES + len(message.content))
            return
        try:
            ruling = self._book.of_mark(parse_mark(message.content))
        except MalformedMark:
            return
        if ruling is not None:
            self._settle(ruling)

    def doubt(self) -> None:
        """Something came that may be rolled back, and the rest with what it decides not."""
        if self._ruling is None:
            self._give_up()

    def _count(self, table: tuple[str, str], columns: int, size: int) -> None:
        self._rows += 1
        self._of_table[table] += 1
        if ruling := self._book.of_size(self._rows, table, self._of_table[table]):
            self._settle(ruling)
            return
        # Never less than what the look-ahead counts, for which the row would have to be decoded.
        self._hold(CHANGE_BYTES + 2 * columns * VALUE_BYTES + size)

    def _hold(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes or self._book.is_past(self._rows):
            self._give_up()

    def _settle(self, ruling: Ruling) -> None:
        if ruling.action is Action.DROP:
            self._ruling = ruling
        else:
            self._give_up()

    def _give_up(self) -> None:
        self._ruling, self._is_open = None, True

    def _look_again(self) -> None:
        """What was counted on a window that is there no more, the sift refuses at the commit."""
        self._windows = self._book.windows
        if self._book.waits_for_commit:
            self._give_up()
        elif ruling := self._book.of_window(self._begin):
            self._settle(ruling)
        elif self._ruling is not None and self._ruling.rule.is_window:
            self._give_up()
