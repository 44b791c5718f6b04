"""What of the rules a publication can do, and the statements that have it do so.

The stream goes on applying all rules, so that a publication that does less loses nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgevents.columns import verdict_of
from pgevents.condition import Condition, Unfit
from pgevents.filters import TableFilter
from pgevents.log import one_line
from pgevents.postgres import PINNED_SETTINGS, quoted
from pgevents.publication_filter import BY_IDENTITY, CLAUSES_SINCE, OPERATIONS, matching, row_filter, taken
from pgevents.rule import FilterRule, RouteRule
from pgevents.rule_catalog import PARTITIONED, Table
from pgevents.settings import Settings

# PostgreSQL reads the literals of a row filter when it is made, and they must mean what they do in the stream.
_READING = ("datestyle", "intervalstyle", "timezone", "search_path")


@dataclass(frozen=True, slots=True)
class Published:
    """The publication as it is: whether it is there, and for all tables, which are not to be altered one by one.

    ``via_root``: changes of partitions are published under the name of their root, and with its clauses.
    """

    exists: bool = False
    all_tables: bool = False
    via_root: bool = False


@dataclass(slots=True)
class Plan:
    """``statements`` belong into one transaction. ``pushed`` is what the publication will do of the rules, ``kept``
    what the stream alone can, and why, and ``warnings`` is what changes by it. ``operations`` is what is published.
    """

    statements: tuple[str, ...] = ()
    operations: tuple[str, ...] = OPERATIONS
    pushed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "statements": list(self.statements),
            "operations": list(self.operations),
            "pushed": self.pushed,
            "kept": self.kept,
            "warnings": self.warnings,
        }

    def lines(self) -> list[str]:
        """A script for psql, with the reasons as comments."""
        said = (("in the publication", self.pushed), ("in the stream", self.kept), ("mind", self.warnings))
        comments = [f"-- {word}: {one_line(sentence)}" for word, sentences in said for sentence in sentences]
        return [*comments, "BEGIN;", *(f"{statement};" for statement in self.statements), "COMMIT;"]


def plan(
    settings: Settings, tables: Sequence[Table], published: Published, *, version: int, keyless: Sequence[str] = ()
) -> Plan:
    """The plan for a server of that ``version`` (``server_version_num``) with those ``tables``, streamed or not.

    ``keyless`` are the streamed tables without a replica identity.
    """
    keep = TableFilter(settings.tables, settings.exclude_tables)
    streamed = [table for table in tables if keep(table.schema, table.name)]
    made = Plan()
    made.operations = _operations(settings.rules.filter, streamed, made)
    clauses = {str(table): _clauses(table, settings, version, made) for table in streamed}
    is_listed = bool(settings.tables or settings.exclude_tables or any(clauses.values()) or made.pushed)
    made.statements = tuple(
        _statements(settings.publication, streamed if is_listed else None, clauses, published, made)
    )
    if published.via_root and any(table.kind == PARTITIONED for table in streamed):
        made.warnings.append("publish_via_partition_root is on: PostgreSQL does not use what is said of partitions")
    _warn(settings, streamed, clauses, made, keyless=keyless, is_listed=is_listed)
    return made


def _operations(rules: Sequence[FilterRule], tables: Sequence[Table], made: Plan) -> tuple[str, ...]:
    """What at least one table needs: a publication has one list for all of its tables."""
    of_table = {str(table): taken(rules, table) for table in tables}
    wanted = tuple(op for op in OPERATIONS if any(op in each for each in of_table.values()))
    if not wanted:
        return OPERATIONS
    if wanted != OPERATIONS:
        made.pushed.append(f"only {_listed(wanted)} of all tables")
    for name, each in of_table.items():
        if more := [op for op in wanted if op not in each]:
            made.kept.append(f"{name}: that {_listed(more)} is left out, which other tables need")
    return wanted


def _clauses(table: Table, settings: Settings, version: int, made: Plan) -> str:
    """The column list and row filter of a table, as they follow its name."""
    if table.kind == PARTITIONED:  # its changes are those of its partitions, and have their clauses
        return ""
    return _column_list(table, settings, version, made) + _row_filter(table, settings, version, made)


def _row_filter(table: Table, settings: Settings, version: int, made: Plan) -> str:
    conditions = []
    for rule in matching(settings.rules.filter, table):
        if rule.unchanged:
            made.kept.append(f"{table}: drop_unchanged of filter {rule.name}: a publication does not compare rows")
        if rule.when is None:
            continue
        try:
            found = row_filter(rule.when, table, settings.rules, version=version, operations=made.operations)
        except Unfit as reason:
            made.kept.append(f"{table}: the condition of filter {rule.name}: {reason}")
        else:
            conditions.append(f"({found})")
            made.pushed.append(f"{table}: the condition of filter {rule.name}")
    return f" WHERE ({' AND '.join(conditions)})" if conditions else ""


def _column_list(table: Table, settings: Settings, version: int, made: Plan) -> str:
    verdict = verdict_of(settings.rules.columns, table.relation)
    if verdict is None:
        return ""
    changed = [*verdict.masked, *verdict.hashed, *(name for name, _ in verdict.truncated)]
    if changed:
        made.kept.append(f"{table}: {_listed(changed)}: a publication does not change values")
    if not verdict.excluded:
        return ""
    reason = _unlisted(table, verdict.excluded, settings, version, made.operations)
    if reason:
        made.kept.append(f"{table}: that {_listed(verdict.excluded)} is left out: {reason}")
        return ""
    made.pushed.append(f"{table}: without {_listed(verdict.excluded)}")
    return f" ({', '.join(quoted(name) for name in table.types if name not in verdict.excluded)})"


def _unlisted(
    table: Table, excluded: Sequence[str], settings: Settings, version: int, operations: Sequence[str]
) -> str:
    """Why columns cannot be left out by a column list; empty where they can."""
    if version < CLAUSES_SINCE:
        return "column lists are in PostgreSQL 15 and later"
    if BY_IDENTITY & set(operations) and table.sent.intersection(excluded):
        return "they are in the replica identity, and PostgreSQL would then refuse updates and deletes"
    for name, when in _conditions(settings, table):
        if needed := sorted({column for _, column in when.columns} & set(excluded)):
            return f"the condition of {name} asks for {needed[0]}"
    if len(excluded) == len(table.types):
        return "a column list must have a column"
    return ""


def _conditions(settings: Settings, table: Table) -> Iterator[tuple[str, Condition]]:
    """Every condition that the stream asks of the table's rows, and the rule it is of."""
    rules: tuple[FilterRule | RouteRule, ...] = (*settings.rules.filter, *settings.rules.route)
    for rule in rules:
        if rule.tables(table.schema, table.name) and rule.when is not None:
            yield rule.name, rule.when


def _statements(
    name: str, tables: Sequence[Table] | None, clauses: Mapping[str, str], published: Published, made: Plan
) -> Iterator[str]:
    """``tables`` None: all of them, also those created later."""
    if _has_filters(clauses):
        yield from (f"SET LOCAL {setting} = '{PINNED_SETTINGS[setting]}'" for setting in _READING)
    publish = f"publish = '{', '.join(made.operations)}'"
    target = "ALL TABLES"
    if tables is not None:
        listed = ", ".join(quoted(table.schema, table.name) + clauses[str(table)] for table in tables)
        target = f"TABLE {listed}" if listed else ""
    if published.exists and not published.all_tables and tables:
        yield f"ALTER PUBLICATION {quoted(name)} SET {target}"
        yield f"ALTER PUBLICATION {quoted(name)} SET ({publish})"
        return
    if published.exists and published.all_tables and tables is None:
        yield f"ALTER PUBLICATION {quoted(name)} SET ({publish})"
        return
    if published.exists:  # from all tables to some, or back, there is no other way
        yield f"DROP PUBLICATION {quoted(name)}"
    via_root = ", publish_via_partition_root = true" if published.via_root else ""
    yield f"CREATE PUBLICATION {quoted(name)} {f'FOR {target} ' if target else ''}WITH ({publish}{via_root})"


def _warn(
    settings: Settings,
    tables: Sequence[Table],
    clauses: Mapping[str, str],
    made: Plan,
    *,
    keyless: Sequence[str],
    is_listed: bool,
) -> None:
    say = made.warnings.append
    if settings.plugin == "wal2json":
        say("wal2json reads no publication: this is for a slot of pgoutput, and push_down is for one of wal2json")
    say("a change that is not sent gets no number: ids of other changes in its transaction are then different ones")
    if "update" in made.operations:
        _warn_of_moves(settings, [table for table in tables if _is_filtered(clauses[str(table)])], made)
    if any(rule.rows is not None for rule in settings.rules.skip):
        say("skip rules by size count what is sent, and no longer what was changed")
    if settings.rules.skip:
        say("records and summaries of skip rules count what is sent, and no longer what was changed")
    if any(clause.startswith(" (") for clause in clauses.values()):
        say("a column that is added to a table with a column list is not sent before this is applied again")
    if is_listed:
        say("a table that is created later is not published before this is applied again")
    if any(table.kind == PARTITIONED for table in tables) and any(clauses.values()):
        say("a partition that is created later is sent whole before this is applied again")
    if keyless and BY_IDENTITY & set(made.operations):
        say(f"PostgreSQL refuses updates and deletes of tables without a replica identity: {_listed(keyless)}")


def _warn_of_moves(settings: Settings, tables: Sequence[Table], made: Plan) -> None:
    """Of updates that come as something else, to ``tables`` with a row filter."""
    if not tables:
        return
    say = made.warnings.append
    say("an update that moves a row into a row filter comes as an insert, one that moves it out as a delete")
    parting = [rule for rule in settings.rules.route if len(rule.operations & {"insert", "update"}) == 1]
    if routes := [rule.name for rule in parting if any(matching([rule], table) for table in tables)]:
        say(f"routes that take inserts or updates alone take such an update for an insert: {_listed(routes)}")


def _has_filters(clauses: Mapping[str, str]) -> bool:
    return any(map(_is_filtered, clauses.values()))


def _is_filtered(clauses: str) -> bool:
    return " WHERE (" in clauses


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
