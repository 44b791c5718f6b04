"""Which changes of a table go on: the filter rules, bound to a relation and an operation once."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from pgevents.condition import Condition, ConditionError, ConditionFailed, Unsent
from pgevents.errors import RuleFailed
from pgevents.rule import FilterRule, Missing
from pgevents.rule_mistake import called
from pgevents.wal import IDENTITY_FULL, Relation, Row

Test = Callable[[Row | None, Row | None], bool | None]
"""Of the raw rows ``new`` and ``old``; only true lets a change go on, as in a trigger's WHEN."""


class ColumnTypes(NamedTuple):
    """The base type's oid of each column by its name, and which of these oids are enums."""

    oids: Mapping[str, int]
    enums: frozenset[int] = frozenset()


class RowFilter(NamedTuple):
    """``rule`` names the filter. ``passes`` raises RuleFailed where it cannot tell and may not guess."""

    rule: str
    passes: Test


def bind_filters(
    rules: Sequence[FilterRule], relation: Relation, op: str, types: ColumnTypes
) -> tuple[RowFilter, ...]:
    """What a change of ``relation`` by ``op`` must pass, in the order of the rules.

    A condition that does not fit the table as it was then is treated as one that asks for what was not sent.
    """
    return tuple(_bound(rule, relation, op, types) for rule in rules if rule.tables(relation.schema, relation.name))


def takes_operation(rules: Sequence[FilterRule], schema: str, table: str, op: str) -> str | None:
    """The first filter that leaves the operation out, None where all take it: for what has no rows."""
    return next((rule.name for rule in rules if rule.tables(schema, table) and op not in rule.operations), None)


def _bound(rule: FilterRule, relation: Relation, op: str, types: ColumnTypes) -> RowFilter:
    if op not in rule.operations:
        return RowFilter(rule.name, _never)
    tests: list[Test] = []
    if rule.unchanged and op == "update" and relation.identity == IDENTITY_FULL:
        tests.append(_changes([name for name in relation.names if name not in rule.ignore]))
    if rule.when is not None:
        tests.append(_condition(rule, relation, types))
    return RowFilter(rule.name, tests[0] if len(tests) == 1 else _all(tests))


def _never(_: Row | None, __: Row | None) -> bool:
    return False


def _all(tests: Sequence[Test]) -> Test:
    def passes(new: Row | None, old: Row | None) -> bool:
        return all(test(new, old) for test in tests)

    return passes


def _changes(names: Sequence[str]) -> Test:
    """Whether one of the columns differs. What was not sent did not change."""

    def changes(new: Row | None, old: Row | None) -> bool:
        return new is None or old is None or any(name in new and new[name] != old.get(name) for name in names)

    return changes


def _condition(rule: FilterRule, relation: Relation, types: ColumnTypes) -> Test:
    if rule.when is None:
        return _all(())
    try:
        test = _test(rule.when, tuple(types.oids.items()), types.enums)
    except ConditionError as error:
        return _undecided(rule, relation, str(error))

    def passes(new: Row | None, old: Row | None) -> bool | None:
        try:
            return test(new, old)
        except (Unsent, ConditionFailed) as error:
            return _guessed(rule, relation, str(error))

    return passes


# Where changes of a thousand partitions take turns, a test of each has left the processor's cache when it is asked
# again: a tenth of the time of a change.
@lru_cache(maxsize=1000)
def _test(when: Condition, oids: tuple[tuple[str, int], ...], enums: frozenset[int]) -> Test:
    """The condition, bound once for all operations, tables and rules that ask the same of the same columns."""
    return when.bind(dict(oids), enums=enums)


def _undecided(rule: FilterRule, relation: Relation, reason: str) -> Test:
    """What stands for a condition that does not fit the table as it was when the change was made."""

    def passes(_: Row | None, __: Row | None) -> bool:
        return _guessed(rule, relation, reason)

    return passes


def _guessed(rule: FilterRule, relation: Relation, reason: str) -> bool:
    if rule.on_missing is Missing.STOP:
        raise RuleFailed(
            f"{called('filter', rule.name)} cannot decide on a change of {relation}: {reason}",
            hint="Nothing is lost: the slot keeps the change. Correct the condition, set REPLICA IDENTITY FULL, or "
            "let on_missing say what becomes of such changes: publish or drop.",
        )
    return rule.on_missing is Missing.PUBLISH
