"""The changes of a transaction that are held until it is known what becomes of it."""

from collections import Counter

from pgevents.event import Transaction
from pgevents.tally import Skipped, Summary
from pgevents.wal import Change, LogicalMessage, Relation

Item = Change | Relation | LogicalMessage | Skipped | Summary
Numbered = tuple[Item, Transaction, int]
"""A change, its transaction, and its number in it. A TRUNCATE of three tables is three of them."""

# What CPython takes for a tuple, its dict and their names, and for each value of a row besides its text: measured.
CHANGE_BYTES = 300
VALUE_BYTES = 100


class LookAhead:
    """Changes in their order, about how many ``bytes`` of memory they take, and ``rows``, in all and by table."""

    __slots__ = ("_held", "bytes", "of_table", "rows")

    def __init__(self) -> None:
        self._held: list[Numbered] = []
        self.bytes = 0
        self.rows = 0
        self.of_table: Counter[tuple[str, str]] = Counter()

    def hold(self, numbered: Numbered) -> None:
        self._held.append(numbered)
        self.bytes += memory_of(numbered[0])

    def count(self, table: tuple[str, str]) -> int:
        """Count a row of a table; how many it has now."""
        self.rows += 1
        self.of_table[table] += 1
        return self.of_table[table]

    def release(self) -> list[Numbered]:
        """What was held, which is held no more."""
        held, self._held = self._held, []
        return held


def rows_held(room: int, *, columns: int) -> int:
    """How many inserts of such rows there is room for, if all that they hold is empty."""
    return room // (CHANGE_BYTES + VALUE_BYTES * columns)


def memory_of(item: Item) -> int:
    """About how many bytes a change takes while it is held, whichever plug-in it came from."""
    if isinstance(item, LogicalMessage):
        return CHANGE_BYTES + len(item.content)
    if not isinstance(item, Change):
        return CHANGE_BYTES
    taken = CHANGE_BYTES
    for row in (item.new, item.old):
        if row is not None:
            texts = [len(value) for value in row.values() if type(value) is str]
            taken += VALUE_BYTES * len(row) + sum(texts)
    return taken
