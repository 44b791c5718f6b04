"""Rules checked against the database: what they name must be there, and what they ask for must be sent."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pgevents.columns import OF_KEY, check_key, objections
from pgevents.condition import Condition, Enum
from pgevents.errors import ConfigError
from pgevents.filters import TableFilter
from pgevents.look_ahead import rows_held
from pgevents.postgres import Sql
from pgevents.routing import MESSAGE_SCHEMA
from pgevents.rule import ColumnRule, FilterRule, Missing, RouteRule, Rules, SkipRule
from pgevents.rule_catalog import PARTITIONED, Table, enums, origins, tables
from pgevents.rule_mistake import noted, place, refuse, settled
from pgevents.rule_warning import warnings_of, wordless
from pgevents.settings import MOST_LOOK_AHEAD_BYTES, Settings
from pgevents.spelling import nearest, some

Finding = str | ConfigError
"""A warning, or a mistake."""


def check_file(settings: Settings) -> list[str]:
    """Warnings about the rules that need no database.

    Raises ConfigError for a hash without a key, and for compressed events into lines of text; Mistakes for several.
    """
    mistakes = list(_compressed_lines(settings))
    for rule in settings.rules.columns:
        if rule.hash:
            with noted(mistakes):
                check_key(settings.hash_key.encode(), f"{place('columns', rule.name)}: hash: it wants a key")
    refuse(mistakes)
    return [*warnings_of(settings.rules), *wordless(settings), *_too_large(settings)]


def _too_large(settings: Settings) -> Iterator[str]:
    """Size rules that no transaction meets before it outgrows what is held, whatever its tables."""
    for rule in settings.rules.skip:
        if (rule.rows or 0) > rows_held(settings.look_ahead_bytes, columns=1):
            yield _outgrown(rule, "of one column", settings, columns=1)


def _too_wide(settings: Settings, tables: Sequence[Table]) -> Iterator[str]:
    """Other size rules that no transaction of one of these tables meets."""
    for rule in settings.rules.skip:
        rows = rule.rows or 0
        covered = [each for each in tables if rule.tables is None or rule.tables(each.schema, each.name)]
        wide = [each for each in covered if rows > rows_held(settings.look_ahead_bytes, columns=len(each.types))]
        if wide and rows <= rows_held(settings.look_ahead_bytes, columns=1):
            columns = max(len(each.types) for each in wide)
            yield _outgrown(rule, f"of {columns} columns, as in {some(wide)}", settings, columns=columns)


def _outgrown(rule: SkipRule, which: str, settings: Settings, *, columns: int) -> str:
    held, most = (rows_held(room, columns=columns) for room in (settings.look_ahead_bytes, MOST_LOOK_AHEAD_BYTES))
    if (rule.rows or 0) <= most:
        hint = f"Give more look_ahead_bytes, up to {MOST_LOOK_AHEAD_BYTES}."
    else:
        hint = f"With the most look_ahead_bytes there may be, it is {most:,}."
    return _said(
        f"{place('skip', rule.name)}: rows: a transaction outgrows look_ahead_bytes before the rule decides, and is "
        f"published: of rows {which}, at most {held:,} are held",
        hint,
    )


def _compressed_lines(settings: Settings) -> Iterator[ConfigError]:
    if settings.sink.startswith(("file:", "stdout:")):
        for route in settings.rules.route:
            if route.compression not in ("", "identity"):
                yield ConfigError(
                    f"{place('route', route.name)}: compression: {settings.sink.partition(':')[0]}: writes lines of "
                    "text",
                    hint="Compress the file, or leave compression out.",
                )


def check_rules(sql: Sql, settings: Settings) -> list[str]:
    """Warnings about the rules and the tables they are about.

    Of the tables that are streamed, ``when`` must fit every one that its rule matches; any other column that a rule
    names must be in at least one. Raises ConfigError for what does not fit, Mistakes for several; SourceError.
    Blocks.
    """
    if settings.rules == Rules():
        return []
    every, keep = tables(sql), TableFilter(settings.tables, settings.exclude_tables)
    check = Check([table for table in every if keep(table.schema, table.name)], enums(sql), list(map(str, every)))
    return settled(
        [*_origins(sql, settings.rules.skip), *check.all(settings.rules), *_too_wide(settings, check.tables)]
    )


def _origins(sql: Sql, rules: Sequence[SkipRule]) -> Iterator[Finding]:
    known = origins(sql) if any(rule.origin for rule in rules) else {}
    for rule in rules:
        if rule.origin and rule.origin not in known:
            yield _said(
                f"{place('skip', rule.name)}: origin: there is no replication origin {rule.origin}",
                nearest(rule.origin, known),
            )


def _said(sentence: str, hint: str) -> str:
    return f"{sentence}. {hint}" if hint else sentence


@dataclass(frozen=True, slots=True)
class Check:
    """The checks of rules against the ``tables`` that are streamed. ``known`` names all that are there."""

    tables: Sequence[Table]
    enums: Mapping[int, Enum]
    known: Sequence[str]
    found: dict[TableFilter, list[Table]] = field(default_factory=dict)

    def all(self, rules: Rules) -> Iterator[Finding]:
        for skip in rules.skip:
            if skip.tables:
                yield from self.patterns("skip", skip.name, skip.tables)
        for filter in rules.filter:
            yield from self.patterns("filter", filter.name, filter.tables)
            yield from self.filter(filter)
        for column in rules.columns:
            yield from self.patterns("columns", column.name, column.tables)
            yield from self.column(column)
        yield from self.keys(rules.columns)
        for route in rules.route:
            yield from self.patterns("route", route.name, route.tables)
            yield from self.condition("route", route)

    def patterns(self, kind: str, name: str, patterns: TableFilter) -> Iterator[Finding]:
        streamed, matching = [str(table) for table in self.tables], self._matching(patterns)
        # Of one pattern that something matches nothing more is to be found out.
        unmatched = [] if matching and len(patterns.include) <= 1 else patterns.unmatched(streamed)
        left_out = {pattern for pattern in unmatched if pattern not in patterns.unmatched(self.known)}
        for pattern in unmatched:
            if not pattern.startswith(f"{MESSAGE_SCHEMA}."):
                what = f"{place(kind, name)}: tables: the pattern {pattern} matches no table that is streamed"
                hint = _LEFT_OUT if pattern in left_out else nearest(pattern, streamed)
                yield _said(what, hint)
        if not unmatched and not matching:
            yield f"{place(kind, name)}: it matches no table that is streamed"

    def filter(self, rule: FilterRule) -> Iterator[Finding]:
        yield from self.condition("filter", rule)
        matching = self._matching(rule.tables)
        yield from _unknown_columns(f"{place('filter', rule.name)}: ignore", rule.ignore, matching)
        lacking = [table for table in matching if not table.is_full]
        if rule.unchanged and "update" in rule.operations and lacking:
            yield (
                f"{place('filter', rule.name)}: drop_unchanged: an update that changes nothing is published all the "
                f"same where the old row is not sent, as of {some(lacking)}: {lacking[0].full_identity}"
            )

    def condition(self, kind: str, rule: FilterRule | RouteRule) -> Iterator[Finding]:
        """Its ``when``, which must fit every table that the rule matches; what is wrong with several is said once."""
        if rule.when is None:
            return
        where, matching = f"{place(kind, rule.name)}: when", self._matching(rule.tables)
        unfit: defaultdict[tuple[str, str], list[Table]] = defaultdict(list)
        for table in matching:
            try:
                rule.when.bind(table.types, enums=self.enums)
            except ConfigError as error:
                unfit[str(error), error.hint].append(table)
        for (what, hint), each in unfit.items():
            yield ConfigError(f"{where}: {some(each)}: {what}", hint=hint)
        yield from _unsent_old(where, rule, rule.when, matching)
        yield from _unsent_new(where, rule, rule.when, matching)

    def column(self, rule: ColumnRule) -> Iterator[Finding]:
        matching, where = self._matching(rule.tables), place("columns", rule.name)
        for key in () if rule.allow_missing else ("include", "exclude", "mask", "hash", "truncate"):
            yield from _unknown_columns(f"{where}: {key}", getattr(rule, key), matching, hint=_FORMER)
        for name in rule.truncate:
            uncut = [table for table in matching if name in table.types and name not in table.texts]
            if uncut:
                yield ConfigError(
                    f"{where}: truncate: {name} of {some(uncut)} is not text", hint="Mask, hash or exclude it."
                )

    def keys(self, rules: Sequence[ColumnRule]) -> Iterator[Finding]:
        """What all columns rules together make of each table's key."""
        found = defaultdict(list)
        for table in self.tables:
            for objection in objections(rules, table.relation):
                if objection.reason == OF_KEY:
                    found[objection].append(table)
        for each, where in found.items():
            what = f"{each.column} {each.reason} of {some(where)}"
            yield ConfigError(f"{place('columns', each.rule)}: {each.key}: {what}", hint=each.hint)

    def _matching(self, patterns: TableFilter) -> list[Table]:
        if patterns not in self.found:
            self.found[patterns] = [table for table in self.tables if patterns(table.schema, table.name)]
        return self.found[patterns]


_LEFT_OUT = "The options tables and exclude_tables leave it out."


def _unsent_old(
    where: str, rule: FilterRule | RouteRule, when: Condition, matching: Sequence[Table]
) -> Iterator[Finding]:
    """Old values of updates and deletes come with the replica identity alone."""
    asked = {name for image, name in when.columns if image == "old"}
    lacking = [table for table in matching if asked - table.sent]
    if not lacking or not rule.operations & {"update", "delete"}:
        return
    # Of a partitioned table it is the partitions that say what is sent.
    plain = [table for table in lacking if table.kind != PARTITIONED] if rule.on_missing is Missing.STOP else []
    first = (plain or lacking)[0]
    what = f"{where}: PostgreSQL does not send old.{min(asked - first.sent)} of {some(plain or lacking)}"
    if plain:
        hint = f"{first.full_identity}; or say with on_missing what is to become of such changes."
        yield ConfigError(what, hint=hint)
    else:
        yield f"{what}: {first.full_identity}"


def _unsent_new(
    where: str, rule: FilterRule | RouteRule, when: Condition, matching: Sequence[Table]
) -> Iterator[Finding]:
    """Large values that an update leaves as they are do not come with it."""
    asked = {name for image, name in when.columns if image == "new"}
    lacking = [table for table in matching if asked & table.toastable and not table.is_full]
    if lacking and rule.on_missing is Missing.STOP and "update" in rule.operations:
        column = min(asked & lacking[0].toastable)
        yield (
            f"{where}: the stream will stop at an update of {some(lacking)} that leaves a large {column} as it is, "
            f"which is not sent: {lacking[0].full_identity}; or say with on_missing what is to become of it"
        )


# Who takes a name out that is there no more publishes what was written while it was.
_FORMER = (
    "If it was renamed or dropped, changes from before may still wait: name both, and say allow_missing = true "
    "in the rule."
)


def _unknown_columns(
    where: str, columns: Iterable[str], matching: Sequence[Table], *, hint: str = ""
) -> Iterator[ConfigError]:
    known = {name for table in matching for name in table.types}
    for column in sorted(columns) if matching else ():
        if column not in known:
            tables = str(matching[0]) if len(matching) == 1 else f"any of the {len(matching)} tables it matches"
            said = f"{nearest(column, known)} {hint}".strip()
            yield ConfigError(f"{where}: there is no column {column} in {tables}", hint=said)
