"""Which rule decides on a transaction, and when that is known.

A window and an origin are known when a transaction begins, a mark when it is read, a size when it is passed. The
first that is known decides, among those known at once the first of the configuration; nothing decides twice but a
window that is added meanwhile.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pgevents.filters import TableFilter
from pgevents.mark import Mark
from pgevents.rule import Action, SkipRule
from pgevents.wal import Begin

MARKED_LOOK_AHEAD = 1_000
"""So many changes of a transaction are held for a mark that does not come first."""


_MOST_TABLES = 10_000


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a rule says of one transaction. ``tables`` is what it covers; None covers all of it.

    ``by`` is who marked the transaction, by the mark's own words, or who added the window.
    """

    rule: SkipRule
    reason: str
    tables: TableFilter | None = None
    by: str = ""
    application: str = ""

    @property
    def action(self) -> Action:
        return self.rule.action

    def covers(self, schema: str | None, table: str | None) -> bool:
        """Messages have no table, and go with the whole transaction."""
        if self.tables is None:
            return True
        return schema is not None and table is not None and self.tables(schema, table)


class Rulebook:
    """The skip rules, each kind in the order of the configuration.

    ``windows`` are those added while the stream runs; they come before the configured ones.
    """

    def __init__(self, rules: Iterable[SkipRule] = ()) -> None:
        rules = tuple(rules)
        self.windows: tuple[SkipRule, ...] = ()
        self._windows = tuple(rule for rule in rules if rule.is_window)
        self._origins = tuple(rule for rule in rules if rule.origin)
        self._marked = next((rule for rule in rules if rule.marked), None)
        self._sizes = tuple(rule for rule in rules if rule.rows is not None)
        self._fewest = min((rule.rows or 0 for rule in self._sizes), default=0)
        self._matching: dict[tuple[str, str], tuple[SkipRule, ...]] = {}
        self.heeds_marks = self._marked is not None
        self.has_sizes = bool(self._sizes)
        self._most = max((rule.rows or 0 for rule in self._sizes), default=0)
        self._of_tables = any(rule.tables is not None for rule in self._sizes)
        self.looks_ahead = self.has_sizes or self.heeds_marks

    def is_past(self, rows: int) -> bool:
        """Whether after so many changes it is too late for a mark and clear that no size is passed.

        Where one table's rows decide, all changes before them are held, however many; only their bytes bound them.
        """
        return not self._of_tables and rows > max(self._most, MARKED_LOOK_AHEAD if self.heeds_marks else 0)

    @property
    def waits_for_commit(self) -> bool:
        """Whether a window asks for what is not known before a transaction commits: its LSN, or its time."""
        return any(rule.xid is None for rule in (*self.windows, *self._windows))

    @property
    def is_idle(self) -> bool:
        """Whether there is no rule at all."""
        return not (self.windows or self._windows or self._origins or self.looks_ahead)

    def of_begin(self, begin: Begin) -> Ruling | None:
        ruling = self.of_window(begin)
        if ruling is not None or begin.origin is None:
            return ruling
        for rule in self._origins:
            if rule.origin == begin.origin:
                return _ruling(rule, f"origin {begin.origin}")
        return None

    def of_window(self, begin: Begin) -> Ruling | None:
        for rule in (*self.windows, *self._windows):
            if _is_inside(rule, begin):
                return _ruling(rule, "window")
        return None

    def of_mark(self, mark: Mark) -> Ruling | None:
        if self._marked is None:
            return None
        tables = None if mark.tables is None else TableFilter(mark.tables)
        return Ruling(self._marked, mark.reason, tables, mark.by, mark.application)

    def of_size(self, rows: int, table: tuple[str, str], count: int) -> Ruling | None:
        """``rows`` changes of a transaction have come so far, ``count`` of them of ``table``, and that one last."""
        if rows <= self._fewest:
            return None
        for rule in self._sizes_of(table):
            most = rule.rows or 0
            if (rows if rule.tables is None else count) > most:
                return _ruling(rule, f"more than {most} rows" + ("" if rule.tables is None else " of one table"))
        return None

    def _sizes_of(self, table: tuple[str, str]) -> tuple[SkipRule, ...]:
        """The size rules that count rows of a table."""
        if table not in self._matching:
            if len(self._matching) >= _MOST_TABLES:
                self._matching.clear()
            self._matching[table] = tuple(rule for rule in self._sizes if rule.tables is None or rule.tables(*table))
        return self._matching[table]


def _is_inside(rule: SkipRule, begin: Begin) -> bool:
    if rule.xid is not None and rule.xid != begin.xid:
        return False
    if rule.last or rule.first:
        return rule.first <= begin.commit_lsn and (not rule.last or begin.commit_lsn <= rule.last)
    # Both are ISO 8601 in UTC with microseconds, whose order is that of the text.
    return rule.since <= begin.committed_at and (not rule.until or begin.committed_at < rule.until)


def _ruling(rule: SkipRule, reason: str) -> Ruling:
    return Ruling(rule, rule.reason or reason, rule.tables, rule.by)
