"""The rules of pgevents.toml: its arrays of tables, checked as far as they can be without a database."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from string import Formatter
from typing import Any, TypeVar

from pgevents.compression import compressor
from pgevents.condition import Condition
from pgevents.errors import ConfigError
from pgevents.event import Headers
from pgevents.exchange import check_exchange
from pgevents.lsn import NOWHERE, Lsn
from pgevents.routing import RoutingKey
from pgevents.rule import OPERATIONS, Action, ColumnRule, FilterRule, Missing, RouteRule, Rules, SkipRule
from pgevents.rule_mistake import noted, refuse
from pgevents.rule_table import SHORTSTR_BYTES, RuleTable, whole
from pgevents.settings import MAX_ROWS

R = TypeVar("R", SkipRule, FilterRule, ColumnRule, RouteRule)

KINDS = tuple(field.name for field in fields(Rules))
"""The arrays of tables that hold rules."""

_TESTS = ("marked", "origin", "rows", "xid", "lsn", "since", "until")
_TABLES = ("tables", "exclude_tables")
_COLUMN_LISTS = ("include", "exclude", "mask", "hash")

SKIP_KEYS = (*_TESTS, *_TABLES, "action", "reason", "exchange", "routing_key", "push_down")
FILTER_KEYS = (*_TABLES, "operations", "when", "on_missing", "drop_unchanged", "ignore")
COLUMN_KEYS = (*_TABLES, *_COLUMN_LISTS, "truncate", "allow_missing")
ROUTE_KEYS = (
    *(*_TABLES, "operations", "when", "on_missing"),
    *("exchange", "routing_key", "headers", "priority", "expiration", "format", "compression"),
)

MAX_XID = 2**32 - 1
FIRST_XID = 3
"""Of an ordinary transaction (FirstNormalTransactionId)."""
MAX_PRIORITY = 255
MAX_EXPIRATION_S = (2**32 - 1) // 1000
"""RabbitMQ's: 2³² - 1 milliseconds."""


# RabbitMQ closes the channel of a message in which these are not lists of routing keys.
_BROKER_HEADERS = frozenset({"CC", "BCC"})


def parse_rules(document: Mapping[str, Any], file: str) -> Rules:
    """The rules among the keys of a TOML document; what else it holds is not looked at.

    Raises ConfigError, which names ``file``, the table, its position and name, the key, and what is wrong with it.
    """
    mistakes: list[ConfigError] = []
    rules = Rules(
        skip=_every(document, file, "skip", _skip_rule, mistakes),
        filter=_every(document, file, "filter", _filter_rule, mistakes),
        columns=_every(document, file, "columns", _column_rule, mistakes),
        route=_every(document, file, "route", _route_rule, mistakes),
    )
    refuse(mistakes)
    return rules


def _every(
    document: Mapping[str, Any], file: str, kind: str, parse: Callable[[RuleTable], R], mistakes: list[ConfigError]
) -> tuple[R, ...]:
    """The rules of a kind that can be used; what is wrong with the others is put to ``mistakes``."""
    given = document.get(kind, [])
    if not isinstance(given, list):
        mistakes.append(ConfigError(f"{file}: {kind}: it must be an array of tables", hint=f"Write [[{kind}]]."))
        return ()
    rules: dict[str, R] = {}
    positions: dict[str, int] = {}
    for position, each in enumerate(given, 1):
        with noted(mistakes):
            table = RuleTable(file, kind, position, each)
            rule = whole(table, parse)
            if rule.name in rules:
                both = f"rule {positions[rule.name]} and rule {position} have that name"
                raise table.wrong("name", both, hint="Give each rule a name of its own.")
            rules[rule.name], positions[rule.name] = rule, position
    return tuple(rules.values())


def _skip_rule(table: RuleTable) -> SkipRule:
    table.refuse_unknown(SKIP_KEYS)
    _check_tests(table)
    action = Action(table.choice("action", [*Action], Action.DROP))
    exchange, routing_key = _lane(table, action)
    first, last = _window(table)
    return SkipRule(
        table.name,
        action,
        reason=table.text("reason"),
        marked=table.switch("marked"),
        origin=table.text("origin"),
        rows=table.whole("rows", 1, MAX_ROWS),
        tables=table.tables() if "tables" in table or "exclude_tables" in table else None,
        xid=table.whole("xid", FIRST_XID, MAX_XID),
        first=first,
        last=last,
        since=table.instant("since"),
        until=_until(table),
        exchange=exchange,
        routing_key=routing_key,
        push_down=_push_down(table, action),
    )


def _push_down(table: RuleTable, action: Action) -> bool:
    wanted = table.switch("push_down")
    if wanted and not ("origin" in table and action is Action.DROP):
        raise table.wrong("push_down", "a plug-in can only drop the transactions of an origin", hint="Leave it out.")
    return wanted


def _check_tests(table: RuleTable) -> None:
    """One test a rule: of two, it would not be plain whether both or either is meant."""
    tests = [key for key in _TESTS if key in table]
    if not tests or (tests == ["marked"] and not table.switch("marked")):
        raise table.wrong(tests[0] if tests else "rule", "it tests nothing", hint=f"Give one of {', '.join(_TESTS)}.")
    if len(tests) > 1 and tests != ["since", "until"]:
        raise table.wrong(tests[1], f"the rule tests {tests[0]} already", hint="Make it two rules.")
    for key in _TABLES:
        if key in table and "rows" not in table:
            raise table.wrong(key, "only a rule with rows has tables", hint="A transaction is skipped as a whole.")


def _lane(table: RuleTable, action: Action) -> tuple[str, str]:
    given = [key for key in ("exchange", "routing_key") if key in table]
    if action is Action.SLOW_LANE and not given:
        raise table.wrong("action", "the slow lane leads nowhere", hint="Give exchange, routing_key, or both.")
    if action is not Action.SLOW_LANE and given:
        raise table.wrong(given[0], f"the action {action} goes nowhere", hint='Only action = "slow-lane" has it.')
    return _exchange(table), _template(table)


def _window(table: RuleTable) -> tuple[Lsn, Lsn]:
    if "lsn" not in table:
        return NOWHERE, NOWHERE
    parts = table.text("lsn").split("..", 1)
    try:
        first, last = Lsn.parse(parts[0]), Lsn.parse(parts[-1])
    except ValueError:
        first = last = NOWHERE
    if not NOWHERE < first <= last:
        raise table.wrong(
            "lsn", "it must be an LSN, or two with the lower one first, such as 16/B374D848..16/B3750000"
        )
    return first, last


def _until(table: RuleTable) -> str:
    since, until = table.instant("since"), table.instant("until")
    if since and until and since >= until:
        raise table.wrong("until", "it is not later than since")
    return until


def _filter_rule(table: RuleTable) -> FilterRule:
    table.refuse_unknown(("tables", "exclude_tables", "operations", "when", "drop_unchanged", "ignore", "on_missing"))
    unchanged = table.switch("drop_unchanged")
    if not (unchanged or "operations" in table or "when" in table):
        raise table.wrong(
            "rule",
            "it filters nothing",
            hint="Give operations, when or drop_unchanged = true; which tables are streamed is the option tables.",
        )
    if "ignore" in table and not unchanged:
        raise table.wrong("ignore", "it says nothing without drop_unchanged = true")
    return FilterRule(
        table.name,
        table.tables(),
        operations=frozenset(table.choices("operations", OPERATIONS)),
        when=table.checked("when", Condition.parse),
        unchanged=unchanged,
        ignore=frozenset(table.names("ignore", may_be_empty=True)),
        on_missing=_on_missing(table),
    )


def _on_missing(table: RuleTable) -> Missing:
    if "on_missing" in table and "when" not in table:
        raise table.wrong("on_missing", "it says nothing without when")
    return Missing(table.choice("on_missing", [*Missing], Missing.STOP))


def _column_rule(table: RuleTable) -> ColumnRule:
    table.refuse_unknown(COLUMN_KEYS)
    named = {key: frozenset(table.names(key)) for key in _COLUMN_LISTS}
    truncate = table.pairs("truncate")
    for column, length in truncate.items():
        if type(length) is not int or length < 1:
            raise table.wrong(f"truncate.{column}", "it must be a whole number of characters, at least 1")
    if not truncate and not any(named.values()):
        raise table.wrong("rule", "it changes nothing", hint="Give include, exclude, mask, hash or truncate.")
    _check_columns(table, {**named, "truncate": frozenset(truncate)})
    allow_missing = table.switch("allow_missing")
    return ColumnRule(table.name, table.tables(), **named, truncate=dict(truncate), allow_missing=allow_missing)


def _check_columns(table: RuleTable, named: Mapping[str, frozenset[str]]) -> None:
    """Each column once; and nothing is said of one that is left out."""
    seen: dict[str, str] = {}
    for key in ("exclude", "mask", "hash", "truncate"):
        for column in sorted(named[key]):
            if column in seen:
                raise table.wrong(key, f"the column {column} stands in {seen[column]} already")
            seen[column] = key
            if key == "exclude" and column in named["include"]:
                raise table.wrong(key, f"the column {column} stands in include already")
            if key != "exclude" and named["include"] and column not in named["include"]:
                raise table.wrong(key, f"the column {column} is not in include, which leaves it out")


def _route_rule(table: RuleTable) -> RouteRule:
    table.refuse_unknown(ROUTE_KEYS)
    table.checked("compression", compressor)
    return RouteRule(
        table.name,
        table.tables(),
        operations=frozenset(table.choices("operations", OPERATIONS)),
        when=table.checked("when", Condition.parse),
        exchange=_exchange(table),
        routing_key=_template(table),
        headers=_headers(table),
        priority=table.whole("priority", 0, MAX_PRIORITY),
        expiration_ms=table.milliseconds("expiration", MAX_EXPIRATION_S),
        format=_format(table),
        compression=table.text("compression"),
        on_missing=_on_missing(table),
    )


def _exchange(table: RuleTable) -> str:
    exchange = table.text("exchange", longest=SHORTSTR_BYTES)
    table.checked("exchange", check_exchange)
    return exchange


def _template(table: RuleTable) -> str:
    template = table.text("routing_key", longest=SHORTSTR_BYTES)
    table.checked("routing_key", RoutingKey)
    if any(spec or conversion for _, _, spec, conversion in Formatter().parse(template)):
        raise table.wrong("routing_key", "a field stands alone in its braces, as in {schema}.{table}.{op}")
    return template


def _format(table: RuleTable) -> str:
    if "format" not in table:
        return ""
    # Looks through what is installed: too slow for every command's --help.
    from pgevents.format import codec_names

    return table.choice("format", codec_names(), "")


def _headers(table: RuleTable) -> Headers:
    pairs = table.pairs("headers")
    for name, value in pairs.items():
        if not name or len(name.encode("utf-8", "replace")) > SHORTSTR_BYTES or name in _BROKER_HEADERS:
            raise table.wrong("headers", "a name must be 1 to 255 bytes, and neither CC nor BCC")
        if not isinstance(value, str):
            raise table.wrong(f"headers.{name}", "it must be text")
    return tuple(pairs.items())
