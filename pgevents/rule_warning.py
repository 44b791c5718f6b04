"""Rules that do nothing as they stand: allowed, and hardly meant."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, islice
from typing import TypeVar

from pgevents.filters import TableFilter
from pgevents.format import CodecContext, open_codec
from pgevents.rule import OPERATIONS, ColumnRule, FilterRule, RouteRule, Rules, SkipRule
from pgevents.rule_mistake import called, place
from pgevents.settings import Settings
from pgevents.version import VERSION

R = TypeVar("R", SkipRule, RouteRule)


def warnings_of(rules: Rules) -> list[str]:
    """A sentence about each rule that cannot matter, as far as that can be told without a database."""
    return [
        *_impossible("filter", rules.filter, "nothing of its tables is published"),
        *_impossible("route", rules.route, "nothing goes there"),
        *_shadowed("skip", rules.skip, _skips_all_of),
        *_outgrown(rules.skip),
        *_shadowed("route", rules.route, _routes_all_of),
        *_disjoint(rules.filter),
        *_contradictory(rules.filter),
        *_outdone(rules.columns),
    ]


def _impossible(kind: str, rules: Sequence[FilterRule | RouteRule], outcome: str) -> Iterator[str]:
    for rule in rules:
        if rule.when and rule.when.never():
            yield f"{place(kind, rule.name)}: when: it can never be true: {outcome}"


def _shadowed(kind: str, rules: Sequence[R], covers: Callable[[R, R], bool]) -> Iterator[str]:
    """The first rule that matches decides, so one behind another that matches all the same never does."""
    for position, later in enumerate(rules):
        for earlier in rules[:position]:
            if covers(earlier, later):
                yield f"{place(kind, later.name)}: it never decides, because {called(kind, earlier.name)} comes first"
                break


def _skips_all_of(earlier: SkipRule, later: SkipRule) -> bool:
    return _test(earlier) == _test(later) and _same_tables(earlier.tables, later.tables)


def _test(rule: SkipRule) -> tuple[object, ...]:
    return rule.marked, rule.origin, rule.rows, rule.xid, rule.first, rule.last, rule.since, rule.until


def _outgrown(rules: Sequence[SkipRule]) -> Iterator[str]:
    """A transaction passes the smaller size first, wherever the rule stands, and nothing is decided twice."""
    for rule in rules:
        for other in rules:
            if (other.rows or 0) < (rule.rows or 0) and _counts_all_of(other, rule):
                why = f"because {called('skip', other.name)} does after fewer rows"
                yield f"{place('skip', rule.name)}: it never decides, {why}"
                break


def _counts_all_of(smaller: SkipRule, larger: SkipRule) -> bool:
    return smaller.rows is not None and (smaller.tables is None or _same_tables(smaller.tables, larger.tables))


def _same_tables(one: TableFilter | None, other: TableFilter | None) -> bool:
    """Whether two filters are written alike."""
    if one is None or other is None:
        return one is other
    return (set(one.include), set(one.exclude)) == (set(other.include), set(other.exclude))


def _routes_all_of(earlier: RouteRule, later: RouteRule) -> bool:
    return (
        (_all_tables(earlier.tables) or _same_tables(earlier.tables, later.tables))
        and earlier.operations >= later.operations
        and (earlier.when is None or (later.when is not None and earlier.when.text == later.when.text))
    )


def _disjoint(rules: Sequence[FilterRule]) -> Iterator[str]:
    """A change must pass every filter of its table."""
    for one, other in combinations(rules, 2):
        if _same_tables(one.tables, other.tables) and not one.operations & other.operations:
            before = f"with {called('filter', one.name)} before it"
            yield f"{place('filter', other.name)}: operations: {before}, nothing of these tables is published"


def _contradictory(rules: Sequence[FilterRule]) -> Iterator[str]:
    """Conditions of which each can be true, and not both."""
    possible = [(rule, rule.when) for rule in rules if rule.when and not rule.when.never()]
    alike = (
        (one, other)
        for one, other in combinations(possible, 2)
        if one[1].columns & other[1].columns and _meet(one[0], other[0])
    )
    for (one, when), (other, other_when) in islice(alike, MAX_PAIRS):
        if when.never_with(other_when):
            both = f"it can never be true where that of {called('filter', one.name)} is"
            yield f"{place('filter', other.name)}: when: {both}: no row of the tables of both is published"


# Of conditions that take long to try out, each pair takes some hundredths of a second.
MAX_PAIRS = 100
_ROWS = frozenset({"insert", "update", "delete"})


def _meet(one: FilterRule, other: FilterRule) -> bool:
    """Whether it is sure that some rows must pass both."""
    return bool(one.operations & other.operations & _ROWS) and (
        _all_tables(one.tables) or _all_tables(other.tables) or _same_tables(one.tables, other.tables)
    )


def _all_tables(tables: TableFilter) -> bool:
    return not tables.include and not tables.exclude


def wordless(settings: Settings) -> Iterator[str]:
    """A sentence about each route for operations that its format has no word for."""
    for rule in settings.rules.route:
        name = rule.format or settings.format
        known = open_codec(name, CodecContext("", settings.slot, VERSION)).operations
        # A route for all operations takes what its format can say.
        lacking = [op for op in OPERATIONS if op in rule.operations - known]
        if lacking and rule.operations < frozenset(OPERATIONS):
            what = f"the format {name} has no word for {' and '.join(lacking)}, of which nothing is published"
            yield f"{place('route', rule.name)}: operations: {what}"


def _outdone(rules: Sequence[ColumnRule]) -> Iterator[str]:
    """Where rules disagree about a column, the strictest wins."""
    for one, other in combinations(rules, 2):
        if _same_tables(one.tables, other.tables):
            for column, strict, lax in _disagreements(one, other):
                wishes = f"with {called('columns', one.name)}, {column} would be {strict} and {lax}"
                yield f"{place('columns', other.name)}: {wishes}: it is {strict}"


def _disagreements(one: ColumnRule, other: ColumnRule) -> Iterator[tuple[str, str, str]]:
    ranks = ("excluded", "masked", "hashed", "cut")
    wishes = [(rule.exclude, rule.mask, rule.hash, frozenset(rule.truncate)) for rule in (one, other)]
    for strict, lax in combinations(range(len(ranks)), 2):
        for column in sorted((wishes[0][strict] & wishes[1][lax]) | (wishes[1][strict] & wishes[0][lax])):
            yield column, ranks[strict], ranks[lax]
