"""Which filters can be the row filter of a table in a publication, so that the stream publishes the same.

PostgreSQL asks a row filter of both rows of an update. Where only the new one fits, the update comes as an insert and
without its old row; where only the old one fits, as a delete, which no condition on ``new`` lets through.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol, TypeVar

from pgevents.columns import FIRST_USER_OID
from pgevents.condition import Condition, Unfit
from pgevents.filters import TableFilter
from pgevents.rule import FilterRule, Rules
from pgevents.rule_catalog import Table

CLAUSES_SINCE = 150_000
"""The version of the server from which on a publication has row filters and column lists."""

# In the order in which PostgreSQL's manual has them. Logical messages are sent whatever the publication says.
OPERATIONS = ("insert", "update", "delete", "truncate")
BY_IDENTITY = frozenset({"update", "delete"})


class Matching(Protocol):
    """A rule about tables."""

    @property
    def tables(self) -> TableFilter: ...


_Rule = TypeVar("_Rule", bound=Matching)


def matching(rules: Sequence[_Rule], table: Table) -> list[_Rule]:
    return [rule for rule in rules if rule.tables(table.schema, table.name)]


def taken(rules: Sequence[FilterRule], table: Table) -> frozenset[str]:
    """The operations that pass every filter of the table."""
    return frozenset(OPERATIONS).intersection(*(rule.operations for rule in matching(rules, table)))


def row_filter(when: Condition, table: Table, rules: Rules, *, version: int, operations: Collection[str]) -> str:
    """The condition of a filter as the table's row filter in a publication of those ``operations``.

    Raises Unfit where the server would refuse it or could fail, or the stream publish something else.
    """
    columns = {name for _, name in when.columns}
    if version < CLAUSES_SINCE:
        raise Unfit("row filters are in PostgreSQL 15 and later")
    if missing := sorted(columns - table.types.keys()):
        raise Unfit(f"there is no column {missing[0]}")
    if own := sorted(name for name, oid in table.columns if name in columns and oid >= FIRST_USER_OID):
        raise Unfit(f"{own[0]} is of a user-defined type, which a row filter may not use")
    found = when.as_row_filter(table.types)
    reasons = (
        *_of_collations(table, columns),
        *_of_operations(when, table, taken(rules.filter, table), operations),
        *_of_old_rows(table, columns, rules, operations),
    )
    if reasons:
        raise Unfit(reasons[0])
    return found


def _of_collations(table: Table, columns: Collection[str]) -> Iterator[str]:
    collations = {name: oid for name, oid in table.collations.items() if name in columns}
    if own := sorted(name for name, oid in collations.items() if oid >= FIRST_USER_OID):
        yield f"{own[0]} has a user-defined collation, which a row filter may not use"
    if len(set(collations.values())) > 1:
        yield "its columns have different collations, and the server may fail to compare them"


def _of_operations(
    when: Condition, table: Table, wanted: Collection[str], operations: Collection[str]
) -> Iterator[str]:
    """``wanted`` are those of the table, ``operations`` those that are published."""
    if "delete" in wanted and when.bind(table.types)(None, None):
        yield "it is true of deletes, which have no new row, and a row filter asks the old one"
    if "update" in operations and ("update" in wanted) is not ("insert" in wanted):
        passing = "let through" if "insert" in wanted else "leave out"
        yield f"an update that moves a row into it would come as an insert, which the filters {passing}"
    columns = {name for _, name in when.columns}
    if BY_IDENTITY.intersection(operations) and (outside := sorted(columns - table.sent)):
        yield (
            f"{outside[0]} is not in the replica identity, and PostgreSQL would then refuse updates and deletes: "
            f"{table.full_identity}"
        )
    if "update" in operations and (unsent := sorted(table.toastable - table.sent)):
        yield (
            f"an update that moves a row into it would come as an insert, which may lack {unsent[0]}: "
            f"{table.full_identity}"
        )


def _of_old_rows(table: Table, columns: Collection[str], rules: Rules, operations: Collection[str]) -> Iterator[str]:
    """What other rules ask for that an update does not have once it comes as an insert."""
    if "update" not in operations:
        return
    change = "an update that moves a row into the row filter would come as an insert"
    for kind, found in (("filter", matching(rules.filter, table)), ("route", matching(rules.route, table))):
        for rule in found:
            if "update" in rule.operations and rule.when and any(side == "old" for side, _ in rule.when.columns):
                yield f"{kind} {rule.name} asks for old, and {change}, without it"
    for rule in matching(rules.filter, table):
        if rule.unchanged and table.is_full and (ignored := sorted(rule.ignore.intersection(columns))):
            yield f"filter {rule.name} ignores {ignored[0]}, and {change}, which it lets through"
