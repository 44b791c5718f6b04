"""Rules checked against the database: what they name must be there, and what they ask for must be sent."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pgevents.columns import check_key, check_verdict, verdict_of
from pgevents.condition import Condition
from pgevents.errors import ConfigError
from pgevents.filters import TableFilter
from pgevents.postgres import Sql
from pgevents.routing import MESSAGE_SCHEMA
from pgevents.rule import ColumnRule, FilterRule, Missing, RouteRule, Rules, SkipRule
from pgevents.rule_catalog import PARTITIONED, Table, enums, origins, tables
from pgevents.rule_warning import warnings_of
from pgevents.settings import Settings, nearest

_SHOWN = 3


def check_file(settings: Settings) -> list[str]:
    """Warnings about the rules that need no database.

    Raises ConfigError for a hash without a key, and for compressed events into lines of text.
    """
    if settings.sink.startswith(("file:", "stdout:")):
        for route in settings.rules.route:
            if route.compression not in ("", "identity"):
                raise ConfigError(
                    f"[[route]] {route.name}: compression: {settings.sink.partition(':')[0]}: writes lines of text",
                    hint="Compress the file, or leave compression out.",
                )
    for rule in settings.rules.columns:
        if rule.hash:
            check_key(settings.hash_key.encode(), f"[[columns]] {rule.name}: the columns")
    return warnings_of(settings.rules)


def check_rules(sql: Sql, settings: Settings) -> list[str]:
    """Warnings about the rules and the tables they are about.

    Of the tables that are streamed, ``when`` must fit every one that its rule matches; any other column that a rule
    names must be in at least one. Raises ConfigError for what does not fit, SourceError; blocks.
    """
    rules = settings.rules
    if rules == Rules():
        return []
    keep = TableFilter(settings.tables, settings.exclude_tables)
    check = Check([table for table in tables(sql) if keep(table.schema, table.name)], enums(sql))
    warnings = list(_origin_warnings(sql, rules.skip))
    for skip in rules.skip:
        if skip.tables:
            warnings += check.patterns("skip", skip.name, skip.tables)
    for filter in rules.filter:
        warnings += [*check.patterns("filter", filter.name, filter.tables), *check.filter(filter)]
    for column in rules.columns:
        check.column(column)
        warnings += check.patterns("columns", column.name, column.tables)
    check.verdicts(rules.columns)
    for route in rules.route:
        warnings += [*check.patterns("route", route.name, route.tables), *check.condition("route", route)]
    return warnings


def _origin_warnings(sql: Sql, rules: Sequence[SkipRule]) -> Iterator[str]:
    known = origins(sql) if any(rule.origin for rule in rules) else []
    for rule in rules:
        if rule.origin and rule.origin not in known:
            yield _said(
                f"[[skip]] {rule.name}: there is no replication origin {rule.origin}", nearest(rule.origin, known)
            )


def _said(sentence: str, hint: str) -> str:
    return f"{sentence}. {hint}" if hint else sentence


@dataclass(frozen=True, slots=True)
class Check:
    """The checks of a rule against the tables that are streamed; each yields warnings, and raises ConfigError."""

    tables: Sequence[Table]
    enums: frozenset[int]
    found: dict[TableFilter, list[Table]] = field(default_factory=dict)

    def patterns(self, kind: str, name: str, patterns: TableFilter) -> Iterator[str]:
        names, matching = [str(table) for table in self.tables], self._matching(patterns)
        # Of one pattern that something matches nothing more is to be found out.
        unmatched = [] if matching and len(patterns.include) <= 1 else patterns.unmatched(names)
        for pattern in unmatched:
            if not pattern.startswith(f"{MESSAGE_SCHEMA}."):
                sentence = f"[[{kind}]] {name}: the pattern {pattern} matches no table that is streamed"
                yield _said(sentence, nearest(pattern, names))
        if not unmatched and not matching:
            yield f"[[{kind}]] {name}: it matches no table that is streamed"

    def filter(self, rule: FilterRule) -> Iterator[str]:
        yield from self.condition("filter", rule)
        matching = self._matching(rule.tables)
        _check_columns(f"[[filter]] {rule.name}: ignore", rule.ignore, matching)
        lacking = [table for table in matching if not table.is_full]
        if rule.unchanged and "update" in rule.operations and lacking:
            yield (
                f"[[filter]] {rule.name}: an update that changes nothing is published all the same where the old row "
                f"is not sent, as of {_some(lacking)}: {lacking[0].full_identity}"
            )

    def condition(self, kind: str, rule: FilterRule | RouteRule) -> Iterator[str]:
        """Its ``when``, which must fit every table that the rule matches."""
        if rule.when is None:
            return
        place, matching = f"[[{kind}]] {rule.name}: when", self._matching(rule.tables)
        for table in matching:
            try:
                rule.when.bind(table.types, enums=self.enums)
            except ConfigError as error:
                raise ConfigError(f"{place}, of {table}: {error}", hint=error.hint) from error
        yield from _unsent_old(place, rule, rule.when, matching)
        yield from _unsent_new(place, rule, rule.when, matching)

    def column(self, rule: ColumnRule) -> None:
        matching = self._matching(rule.tables)
        for key in () if rule.allow_missing else ("include", "exclude", "mask", "hash", "truncate"):
            _check_columns(f"[[columns]] {rule.name}: {key}", getattr(rule, key), matching, hint=_FORMER)
        for table in matching:
            for name in rule.truncate:
                if name in table.types and name not in table.texts:
                    raise ConfigError(
                        f"[[columns]] {rule.name}: truncate: {name} of {table} is not text",
                        hint="Mask, hash or exclude it.",
                    )

    def verdicts(self, rules: Sequence[ColumnRule]) -> None:
        """What all columns rules together make of each table."""
        for table in self.tables:
            verdict = verdict_of(rules, table.relation)
            if verdict:
                check_verdict(verdict, table.relation)

    def _matching(self, patterns: TableFilter) -> list[Table]:
        if patterns not in self.found:
            self.found[patterns] = [table for table in self.tables if patterns(table.schema, table.name)]
        return self.found[patterns]


def _unsent_old(
    place: str, rule: FilterRule | RouteRule, when: Condition, matching: Sequence[Table]
) -> Iterator[str]:
    """Old values of updates and deletes come with the replica identity alone."""
    asked = {name for image, name in when.columns if image == "old"}
    lacking = [table for table in matching if asked - table.sent]
    if not lacking or not rule.operations & {"update", "delete"}:
        return
    for table in lacking if rule.on_missing is Missing.STOP else ():
        # Of a partitioned table it is the partitions that say what is sent.
        if table.kind != PARTITIONED:
            raise ConfigError(
                f"{place}: PostgreSQL does not send old.{min(asked - table.sent)} of {table}",
                hint=f"{table.full_identity}; or say with on_missing what is to become of such changes.",
            )
    column = min(asked - lacking[0].sent)
    yield f"{place}: PostgreSQL does not send old.{column} of {_some(lacking)}: {lacking[0].full_identity}"


def _unsent_new(
    place: str, rule: FilterRule | RouteRule, when: Condition, matching: Sequence[Table]
) -> Iterator[str]:
    """Large values that an update leaves as they are do not come with it."""
    asked = {name for image, name in when.columns if image == "new"}
    lacking = [table for table in matching if asked & table.toastable and not table.is_full]
    if lacking and rule.on_missing is Missing.STOP and "update" in rule.operations:
        column = min(asked & lacking[0].toastable)
        yield (
            f"{place}: the stream will stop at an update of {_some(lacking)} that leaves a large {column} as it is, "
            f"which is not sent: {lacking[0].full_identity}; or say with on_missing what is to become of it"
        )


# Who takes a name out that is there no more publishes what was written while it was.
_FORMER = (
    "If it was renamed or dropped, changes from before may still wait: name both, and say allow_missing = true "
    "in the rule."
)


def _check_columns(place: str, columns: Iterable[str], matching: Sequence[Table], *, hint: str = "") -> None:
    known = {name for table in matching for name in table.types}
    for column in sorted(columns) if matching else ():
        if column not in known:
            where = str(matching[0]) if len(matching) == 1 else f"any of the {len(matching)} tables it matches"
            said = f"{nearest(column, known)} {hint}".strip()
            raise ConfigError(f"{place}: there is no column {column} in {where}", hint=said)


def _some(tables: Iterable[Table]) -> str:
    every = list(map(str, tables))
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
