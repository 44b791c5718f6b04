"""Which skip rules match a transaction, whether or not they decide on it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pgevents.mark import MalformedMark, parse_mark
from pgevents.rule import SkipRule
from pgevents.skip import Rulebook, Ruling
from pgevents.wal import Begin


class Match(NamedTuple):
    """A rule that matches, and what by."""

    rule: str
    action: str
    reason: str


class Contest:
    """Asks each rule as if it were alone. ``windows`` are those added by ``pgevents skip add``.

    Matches come in the order in which rules are known to match: windows, origins, then marks and sizes.
    """

    def __init__(self, rules: Sequence[SkipRule], windows: Sequence[SkipRule] = ()) -> None:
        ordered = sorted(rules, key=_moment)
        self._books = [(rule, Rulebook((rule,))) for rule in (*windows, *ordered)]
        self._found: dict[int, Match] = {}

    def begin(self, begin: Begin) -> None:
        self._found = {}
        for at, (rule, book) in enumerate(self._books):
            self._add(at, rule, book.of_begin(begin))

    def mark(self, content: bytes) -> None:
        """A message under the prefix of marks; one that is no mark matches nothing."""
        try:
            mark = parse_mark(content)
        except MalformedMark:
            return
        for at, (rule, book) in enumerate(self._books):
            self._add(at, rule, book.of_mark(mark))

    def matches(self, of_table: Mapping[tuple[str, str], int]) -> tuple[Match, ...]:
        """Every match, now that the transaction has so many rows of each table that is streamed."""
        total = sum(of_table.values())
        for at, (rule, book) in enumerate(self._books):
            for table, count in of_table.items():
                self._add(at, rule, book.of_size(total, table, count))
        return tuple(self._found[at] for at in sorted(self._found))

    def _add(self, at: int, rule: SkipRule, ruling: Ruling | None) -> None:
        if ruling is not None:
            self._found.setdefault(at, Match(rule.name, str(rule.action), ruling.reason))


def _moment(rule: SkipRule) -> int:
    return 0 if rule.is_window else 1 if rule.origin else 2
