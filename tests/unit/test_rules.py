"""The rules of pgevents.toml: what is read, and every way in which they can be wrong."""

import re
import sys
import tomllib
from datetime import UTC, date, time, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgevents.condition import Condition, ConditionError
from pgevents.errors import EXIT_USAGE, ConfigError
from pgevents.lsn import Lsn
from pgevents.rule import Action, Missing, Rules
from pgevents.rule_check import check_file
from pgevents.rule_mistake import Mistakes
from pgevents.rule_warning import warnings_of
from pgevents.rules import COLUMN_KEYS, FILTER_KEYS, ROUTE_KEYS, SKIP_KEYS, parse_rules
from pgevents.settings import Settings


def rules(text: str) -> Rules:
    return parse_rules(tomllib.loads(text), "shop.toml")


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        rules(text)
    assert caught.value.exit_code == EXIT_USAGE
    return caught.value


def test_a_document_without_rules_has_none() -> None:
    assert rules('slot = "shop"') == Rules()


def test_each_test_of_a_skip_rule_is_read() -> None:
    found = rules(
        """
        [[skip]]
        marked = true
        [[skip]]
        name = "bulk"
        origin = "bulk_loader"
        action = "summarise"
        reason = "nightly load"
        [[skip]]
        rows = 10_000
        tables = ["orders", "shop.*"]
        exclude_tables = ["shop.audit"]
        action = "park"
        [[skip]]
        xid = 812
        [[skip]]
        lsn = "16/A..16/B"
        [[skip]]
        since = 2026-11-20T19:00:00+01:00
        until = "2026-11-20T18:30:00.5Z"
        """
    ).skip

    assert [rule.name for rule in found] == ["skip 1", "bulk", "skip 3", "skip 4", "skip 5", "skip 6"]
    marked, bulk, large, xid, window, hours = found
    assert (marked.marked, marked.action) == (True, Action.DROP)
    assert (bulk.origin, bulk.action, bulk.reason) == ("bulk_loader", Action.SUMMARISE, "nightly load")
    assert large.tables is not None
    assert (large.rows, large.tables.include, large.tables.exclude, large.action) == (
        10_000,
        ("public.orders", "shop.*"),
        ("shop.audit",),
        Action.PARK,
    )
    assert (xid.xid, xid.tables) == (812, None)
    assert (window.first, window.last) == (Lsn.parse("16/A"), Lsn.parse("16/B"))
    assert (hours.since, hours.until) == ("2026-11-20T18:00:00.000000Z", "2026-11-20T18:30:00.500000Z")


def test_a_window_of_one_lsn_is_one_commit() -> None:
    (rule,) = rules('[[skip]]\nlsn = "16/A"').skip

    assert (rule.first, rule.last) == (Lsn.parse("16/A"), Lsn.parse("16/A"))


def test_the_slow_lane_leads_somewhere_else() -> None:
    (rule,) = rules('[[skip]]\nrows = 5\naction = "slow-lane"\nexchange = "slow"\nrouting_key = "slow.{op}"').skip

    assert (rule.action, rule.exchange, rule.routing_key) == (Action.SLOW_LANE, "slow", "slow.{op}")


def test_a_filter_is_read() -> None:
    (rule,) = rules(
        """
        [[filter]]
        tables = ["public.orders"]
        exclude_tables = []
        operations = ["insert", "update"]
        when = "new.status IS DISTINCT FROM old.status AND new.total > 100"
        drop_unchanged = true
        ignore = ["updated_at"]
        on_missing = "publish"
        """
    ).filter

    assert rule.when is not None
    assert rule.when.text == "new.status IS DISTINCT FROM old.status AND new.total > 100"
    assert rule.operations == {"insert", "update"}
    assert rule.ignore == {"updated_at"}
    assert (rule.unchanged, rule.on_missing) == (True, Missing.PUBLISH)


def test_a_filter_is_about_every_table_and_operation_that_it_does_not_leave_out() -> None:
    (rule,) = rules("[[filter]]\ndrop_unchanged = true").filter

    assert rule.tables("any", "table")
    assert rule.operations == {"insert", "update", "delete", "truncate", "message"}
    assert (rule.when, rule.on_missing) == (None, Missing.STOP)


def test_a_columns_rule_is_read() -> None:
    (rule,) = rules(
        """
        [[columns]]
        tables = ["users"]
        include = ["id", "email", "bio", "iban"]
        mask = ["email"]
        hash = ["iban"]
        truncate = { bio = 100 }
        [[columns]]
        exclude = ["password"]
        """
    ).columns[:1]

    assert rule.include == {"id", "email", "bio", "iban"}
    assert (rule.exclude, rule.mask, rule.hash) == (frozenset(), frozenset({"email"}), frozenset({"iban"}))
    assert rule.truncate == {"bio": 100}


def test_a_route_is_read() -> None:
    (rule,) = rules(
        """
        [[route]]
        tables = ["orders"]
        operations = ["delete"]
        exchange = "gone"
        routing_key = "gone.{table}"
        headers = { team = "shop", kind = "x" }
        priority = 9
        expiration = 1.5
        format = "debezium"
        compression = "gzip"
        """
    ).route

    assert rule.operations == {"delete"}
    assert (rule.exchange, rule.routing_key) == ("gone", "gone.{table}")
    assert (rule.headers, rule.priority) == ((("team", "shop"), ("kind", "x")), 9)
    assert (rule.expiration_ms, rule.format, rule.compression) == (1500, "debezium", "gzip")


@pytest.mark.parametrize("exchange", ["amq.topic", "amq.direct", "amq", "amqp.x", "AMQ.x"])
def test_an_exchange_that_clients_can_publish_to_is_allowed(exchange: str) -> None:
    (rule,) = rules(f'[[route]]\nexchange = "{exchange}"').route

    assert rule.exchange == exchange


@pytest.mark.parametrize("expiration", ["0", "0.0", "0.001", "4294967"])
def test_the_bounds_of_an_expiration_are_allowed(expiration: str) -> None:
    (rule,) = rules(f"[[route]]\nexpiration = {expiration}").route

    assert rule.expiration_ms == float(expiration) * 1000


WRONG: list[tuple[str, str, str]] = [
    ("skip = 1", "shop.toml: skip: it must be an array of tables", "[[skip]]"),
    ("[skip]\nmarked = true", "shop.toml: skip: it must be an array of tables", "[[skip]]"),
    ("skip = [1]", "shop.toml [[skip]] 1: it must be a table", "[[skip]]"),
    ("[[skip]]", "shop.toml [[skip]] 1: rule: it tests nothing", "marked"),
    ("[[skip]]\nmarked = false", "shop.toml [[skip]] 1: marked: it tests nothing", ""),
    ('[[skip]]\nmarked = "true"', "shop.toml [[skip]] 1: marked: it must be true or false", ""),
    ('[[skip]]\nmarked = true\norigin = "a"', "[[skip]] 1: origin: the rule tests marked already", "two rules"),
    ("[[skip]]\nrows = 1\nxid = 9", "[[skip]] 1: xid: the rule tests rows already", "two rules"),
    ('[[skip]]\norgin = "a"', "[[skip]] 1: 'orgin': there is no such key", "Did you mean origin?"),
    ('[[skip]]\nzzzzzzzz = "a"', "[[skip]] 1: 'zzzzzzzz': there is no such key", "The keys are name, marked"),
    ('[[skip]]\norigin = ""', "[[skip]] 1: origin: it must be text that is not empty", ""),
    ("[[skip]]\nrows = 0", "[[skip]] 1: rows: it must be a whole number from 1 to", ""),
    ("[[skip]]\nrows = true", "[[skip]] 1: rows: it must be a whole number from 1 to", ""),
    ("[[skip]]\nrows = 1.0", "[[skip]] 1: rows: it must be a whole number from 1 to", ""),
    ("[[skip]]\nxid = 2", "[[skip]] 1: xid: it must be a whole number from 3 to 4294967295", ""),
    ("[[skip]]\nxid = 4294967296", "[[skip]] 1: xid: it must be a whole number from 3", ""),
    ('[[skip]]\nlsn = "16/B..16/A"', "[[skip]] 1: lsn: it must be an LSN, or two with the lower one", ""),
    ('[[skip]]\nlsn = "16/A.."', "[[skip]] 1: lsn: it must be an LSN", ""),
    ('[[skip]]\nlsn = "16/A..16/B..16/C"', "[[skip]] 1: lsn: it must be an LSN", ""),
    ('[[skip]]\nlsn = "0/0..16/B"', "[[skip]] 1: lsn: it must be an LSN", ""),
    ('[[skip]]\nlsn = "a..b"', "[[skip]] 1: lsn: it must be an LSN", ""),
    ("[[skip]]\nsince = 2026-11-20T18:00:00", "[[skip]] 1: since: it must be a time with its zone", ""),
    ("[[skip]]\nsince = 2026-11-20", "[[skip]] 1: since: it must be a time with its zone", ""),
    ('[[skip]]\nuntil = "yesterday"', "[[skip]] 1: until: it must be a time with its zone", ""),
    ("[[skip]]\nuntil = 5", "[[skip]] 1: until: it must be a time with its zone", ""),
    ("[[skip]]\nuntil = 0001-01-01T00:00:00+14:00", "[[skip]] 1: until: it must be a time with its zone", ""),
    (
        "[[skip]]\nsince = 2026-11-20T18:00:00Z\nuntil = 2026-11-20T18:00:00Z",
        "[[skip]] 1: until: it is not later than since",
        "",
    ),
    ('[[skip]]\nmarked = true\ntables = ["a"]', "[[skip]] 1: tables: only a rule with rows has tables", "as a whole"),
    (
        '[[skip]]\nmarked = true\naction = "summarize"',
        "[[skip]] 1: action: 'summarize' is none of publish, drop, summarise, slow-lane, park",
        "Did you mean summarise?",
    ),
    ("[[skip]]\nmarked = true\naction = 5", "[[skip]] 1: action: that is none of publish", ""),
    ('[[skip]]\nmarked = true\naction = "slow-lane"', "[[skip]] 1: action: the slow lane leads nowhere", "exchange"),
    ('[[skip]]\nmarked = true\nexchange = "x"', "[[skip]] 1: exchange: the action drop goes nowhere", "slow-lane"),
    (
        '[[skip]]\nname = "a"\nmarked = true\n[[skip]]\nname = "a"\nrows = 1',
        "shop.toml [[skip]] a: name: rule 1 and rule 2 have that name",
        "of its own",
    ),
    (
        '[[skip]]\nname = "skip 2"\nmarked = true\n[[skip]]\nrows = 1',
        "[[skip]] 2: name: rule 1 and rule 2 have that",
        "",
    ),
    ('[[skip]]\nname = ""\nmarked = true', "[[skip]] 1: name: it must be printable text of 1 to 100", ""),
    ('[[skip]]\nname = "a\\nb"\nmarked = true', "[[skip]] 1: name: it must be printable text of 1 to 100", ""),
    ("[[skip]]\nname = 5\nmarked = true", "[[skip]] 1: name: it must be printable text of 1 to 100", ""),
    ('[[filter]]\ntables = ["a"]', "[[filter]] 1: rule: it filters nothing", "the option tables"),
    (
        "[[filter]]\ndrop_unchanged = true\ntables = []",
        "[[filter]] 1: tables: the list is empty",
        'about every table, or name some, as in ["public.orders"]',
    ),
    ('[[filter]]\ndrop_unchanged = true\ntables = "a"', "[[filter]] 1: tables: it must be a list of text", ""),
    ('[[filter]]\ndrop_unchanged = true\ntables = [""]', "[[filter]] 1: tables: it must be a list of text", ""),
    ("[[filter]]\ndrop_unchanged = true\ntables = [1]", "[[filter]] 1: tables: it must be a list of text", ""),
    ("[[filter]]\noperations = []", "[[filter]] 1: operations: the list is empty", "about all of them"),
    (
        '[[filter]]\noperations = ["updte"]',
        "[[filter]] 1: operations: 'updte' is none of insert, update, delete, truncate, message",
        "Did you mean update?",
    ),
    ('[[filter]]\nwhen = ""', "[[filter]] 1: when: it must be text that is not empty", ""),
    ("[[filter]]\nwhen = true", "[[filter]] 1: when: it must be text that is not empty", ""),
    (
        '[[filter]]\noperations = ["insert"]\nignore = ["a"]',
        "[[filter]] 1: ignore: it says nothing without drop_unchanged",
        "",
    ),
    (
        '[[filter]]\noperations = ["insert"]\non_missing = "drop"',
        "[[filter]] 1: on_missing: it says nothing without when",
        "",
    ),
    (
        '[[filter]]\nwhen = "new.a = 1"\non_missing = "pass"',
        "[[filter]] 1: on_missing: 'pass' is none of stop, publish, drop",
        "",
    ),
    ('[[columns]]\ntables = ["a"]', "[[columns]] 1: rule: it changes nothing", "include, exclude, mask"),
    ("[[columns]]\nmask = []", "[[columns]] 1: mask: the list is empty", ""),
    ('[[columns]]\nmaks = ["a"]', "[[columns]] 1: 'maks': there is no such key", "Did you mean mask?"),
    ("[[columns]]\ntruncate = {}", "[[columns]] 1: truncate: it must be a table that is not empty", ""),
    ('[[columns]]\ntruncate = ["a"]', "[[columns]] 1: truncate: it must be a table that is not empty", ""),
    ("[[columns]]\ntruncate = { bio = 0 }", "[[columns]] 1: truncate.bio: it must be a whole number of char", ""),
    ("[[columns]]\ntruncate = { bio = 1.5 }", "[[columns]] 1: truncate.bio: it must be a whole number of char", ""),
    ("[[columns]]\ntruncate = { bio = true }", "[[columns]] 1: truncate.bio: it must be a whole number", ""),
    (
        '[[columns]]\nmask = ["a"]\nhash = ["a"]',
        "[[columns]] 1: hash: the column a stands in mask already",
        "",
    ),
    (
        '[[columns]]\ninclude = ["a"]\nexclude = ["a"]',
        "[[columns]] 1: exclude: the column a stands in include already",
        "",
    ),
    (
        '[[columns]]\ninclude = ["a"]\nmask = ["b"]',
        "[[columns]] 1: mask: the column b is not in include, which leaves it out",
        "",
    ),
    ("[[route]]\npriority = 256", "[[route]] 1: priority: it must be a whole number from 0 to 255", ""),
    ("[[route]]\npriority = -1", "[[route]] 1: priority: it must be a whole number from 0 to 255", ""),
    ("[[route]]\nexpiration = inf", "[[route]] 1: expiration: it must be a number of seconds from 0", ""),
    ("[[route]]\nexpiration = nan", "[[route]] 1: expiration: it must be a number of seconds from 0", ""),
    ("[[route]]\nexpiration = -1", "[[route]] 1: expiration: it must be a number of seconds from 0", ""),
    (
        "[[route]]\nexpiration = 0.0004",
        "[[route]] 1: expiration: it is less than a millisecond, 0.001",
        "With 0 the broker drops",
    ),
    ("[[route]]\nexpiration = 0.00099", "[[route]] 1: expiration: it is less than a millisecond, 0.001", ""),
    ('[[route]]\nexpiration = "60"', "[[route]] 1: expiration: it must be a number of seconds from 0", ""),
    ("[[route]]\nheaders = { a = 1 }", "[[route]] 1: headers.a: it must be text", ""),
    ('[[route]]\nheaders = { CC = "x" }', "[[route]] 1: headers: a name must be 1 to 255 bytes, and neither CC", ""),
    ('[[route]]\nheaders = { "" = "x" }', "[[route]] 1: headers: a name must be 1 to 255 bytes", ""),
    ('[[route]]\nrouting_key = "{shema}"', "[[route]] 1: routing_key: the routing key template", "{schema}"),
    ('[[route]]\nrouting_key = "{"', "[[route]] 1: routing_key: the routing key template '{' is broken", ""),
    ('[[route]]\nrouting_key = "{table:>9999999999}"', "[[route]] 1: routing_key: a field stands alone", ""),
    ('[[route]]\nrouting_key = "{table!r}"', "[[route]] 1: routing_key: a field stands alone", ""),
    (f'[[route]]\nrouting_key = "{"é" * 128}"', "[[route]] 1: routing_key: it is longer than 255 bytes", ""),
    (f'[[route]]\nexchange = "{"x" * 256}"', "[[route]] 1: exchange: it is longer than 255 bytes", ""),
    (
        '[[route]]\nexchange = "amq.nope"',
        "[[route]] 1: exchange: 'amq.nope' has the prefix amq., which is reserved for the broker's own exchanges",
        "there are amq.topic, amq.direct",
    ),
    (
        '[[skip]]\nmarked = true\naction = "slow-lane"\nexchange = "amq.rabbitmq.trace"',
        "[[skip]] 1: exchange: 'amq.rabbitmq.trace' has the prefix amq.",
        "Give it another name.",
    ),
    ('[[route]]\nformat = "debezim"', "[[route]] 1: format: 'debezim' is none of ", "Did you mean debezium?"),
    ("[[route]]\nformat = 1", "[[route]] 1: format: that is none of ", ""),
    ('[[route]]\ncompression = "gzp"', "[[route]] 1: compression: 'gzp' is not a compression", "gzip"),
    ('[[route]]\nexpires = "x"', "[[route]] 1: 'expires': there is no such key", "Did you mean expiration?"),
]


@pytest.mark.parametrize(("text", "said", "advised"), WRONG, ids=[said for _, said, _ in WRONG])
def test_what_is_wrong_is_said_with_its_place(text: str, said: str, advised: str) -> None:
    error = refusal(text)

    assert said in str(error)
    assert str(error).startswith("shop.toml")
    assert advised in error.hint


def test_a_condition_without_sqlglot_is_placed_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlglot.dialects.postgres", None)

    error = refusal('[[filter]]\nname = "big"\nwhen = "new.total > 100"')

    assert str(error) == "shop.toml [[filter]] big: when: conditions need sqlglot, which is not installed"
    assert error.hint == "pip install 'pgevents-stream[rules]'"


def test_a_rule_with_a_name_is_named_by_it_too() -> None:
    error = refusal('[[filter]]\noperations = ["insert"]\n[[filter]]\nname = "big ones"\ndrop_unchanged = 1')

    assert str(error) == "shop.toml [[filter]] big ones: drop_unchanged: it must be true or false"


def test_what_is_wrong_with_a_condition_is_said_with_both_places() -> None:
    with pytest.raises(ConditionError) as caught:
        Condition.parse("new.a = = 1")

    error = refusal('[[route]]\nname = "r"\nwhen = "new.a = = 1"')

    assert str(error) == f"shop.toml [[route]] r: when: {caught.value}"
    assert error.hint == caught.value.hint


@pytest.mark.parametrize(
    "text",
    ['[[skip]]\n"postgresql://u:hunter2@h/d" = 1', '[[skip]]\nmarked = true\naction = "amqp://u:hunter2@h"'],
)
def test_no_password_is_repeated(text: str) -> None:
    assert "hunter2" not in str(refusal(text))


NAMES = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=2)
TEXT = st.text(min_size=1, max_size=8)
ROW_KEYS = {"tables": NAMES, "exclude_tables": NAMES, "operations": st.just(["insert"]), "when": TEXT}
KEYS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "skip": {
        "marked": st.booleans(),
        "origin": TEXT,
        "rows": st.integers(),
        "tables": NAMES,
        "xid": st.integers(0, 9),
        "lsn": st.sampled_from(["16/A..16/B", "1/1..0/1", ".."]),
        "since": st.datetimes(timezones=st.just(timezone(timedelta(hours=14)))),
        "until": st.just("2026-11-20T18:00:00Z"),
        "action": st.sampled_from([*Action]),
        "exchange": TEXT,
    },
    "filter": ROW_KEYS
    | {"drop_unchanged": st.booleans(), "ignore": NAMES, "on_missing": st.sampled_from([*Missing])},
    "columns": {
        "tables": NAMES,
        "include": NAMES,
        "exclude": NAMES,
        "mask": NAMES,
        "hash": NAMES,
        "truncate": st.dictionaries(TEXT, st.integers()),
    },
    "route": ROW_KEYS
    | {
        "routing_key": TEXT | st.just("{table}"),
        "headers": st.dictionaries(TEXT, TEXT),
        "priority": st.integers(),
        "expiration": st.floats(),
        "format": TEXT,
        "compression": TEXT,
    },
}
SCALARS = st.one_of(
    st.text(max_size=8),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.booleans(),
    st.datetimes(timezones=st.sampled_from([None, UTC])),
    st.sampled_from([date(2026, 11, 20), time(18)]),
)
NONSENSE = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def some_table(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    keys = KEYS[kind] | {"name": TEXT}
    sensible = st.fixed_dictionaries({}, optional=keys)
    return st.builds(dict.__or__, sensible, st.just({}) | st.dictionaries(st.sampled_from([*keys]) | TEXT, NONSENSE))


DOCUMENTS = st.fixed_dictionaries(
    {}, optional={kind: st.lists(some_table(kind), max_size=3) | NONSENSE for kind in KEYS}
)


@settings(deadline=None)
@given(DOCUMENTS)
def test_whatever_toml_may_hold_is_read_or_refused(document: dict[str, Any]) -> None:
    said = ""
    try:
        warnings_of(parse_rules(document, "shop.toml"))
    except ConfigError as error:
        said = str(error)

    assert said == "" or said.startswith("shop.toml")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            '[[skip]]\nmarked = true\n[[skip]]\nmarked = true\naction = "park"',
            "[[skip]] 2: it never decides, because skip 1 comes first",
        ),
        (
            "[[skip]]\nrows = 20\n[[skip]]\nrows = 10",
            "[[skip]] 1: it never decides, because skip 2 does after fewer rows",
        ),
        (
            "[[skip]]\nrows = 20\ntables = ['a']\n[[skip]]\nrows = 10",
            "[[skip]] 1: it never decides, because skip 2 does after fewer rows",
        ),
        (
            "[[skip]]\nrows = 10\n[[skip]]\nrows = 10",
            "[[skip]] 2: it never decides, because skip 1 comes first",
        ),
        (
            '[[route]]\ntables = ["a"]\n[[route]]\ntables = ["a"]\noperations = ["insert"]',
            "[[route]] 2: it never decides, because route 1 comes first",
        ),
        (
            '[[route]]\nformat = "maxwell"\n[[route]]\ntables = ["a"]\nformat = "fyle"',
            "[[route]] 2: it never decides, because route 1 comes first",
        ),
        (
            (
                "[[filter]]\ntables = ['a']\noperations = ['insert']\n"
                "[[filter]]\ntables = ['a']\noperations = ['update']"
            ),
            "[[filter]] 2: operations: with filter 1 before it, nothing of these tables is published",
        ),
        (
            '[[columns]]\ntables = ["a"]\nmask = ["b"]\n[[columns]]\ntables = ["public.a"]\nhash = ["b"]',
            "[[columns]] 2: with columns 1, b would be masked and hashed: it is masked",
        ),
    ],
)
def test_a_rule_that_cannot_matter_is_told(text: str, warning: str) -> None:
    assert warnings_of(rules(text)) == [warning]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[skip]]\nrows = 20\n[[skip]]\nrows = 10\ntables = ['a']",
        "[[skip]]\nrows = 20\ntables = ['a']\n[[skip]]\nrows = 10\ntables = ['b']",
        "[[skip]]\nrows = 10\ntables = ['a']\n[[skip]]\nrows = 20",
        "[[skip]]\norigin = 'a'\n[[skip]]\norigin = 'b'",
        "[[route]]\ntables = ['a']\n[[route]]\nformat = 'maxwell'",
        "[[route]]\noperations = ['insert']\n[[route]]\nformat = 'maxwell'",
        "[[columns]]\nmask = ['b']\n[[columns]]\ntables = ['a']\nmask = ['b']\nexclude = ['c']",
        "[[filter]]\ntables = ['a']\noperations = ['insert']\n[[filter]]\ntables = ['b']\noperations = ['update']",
    ],
)
def test_rules_that_matter_are_not_warned_of(text: str) -> None:
    assert warnings_of(rules(text)) == []


@pytest.mark.parametrize("tables", ["", "tables = ['a']\n"])
def test_filters_that_no_row_can_pass_together_are_told(tables: str) -> None:
    paid = f"[[filter]]\nname = 'paid'\n{tables}when = \"new.s = 'paid'\""
    text = f"{paid}\n[[filter]]\ntables = ['a']\nwhen = \"new.s = 'new'\""

    (warning,) = warnings_of(rules(text))
    never = "it can never be true where that of filter paid is"
    assert warning == f"[[filter]] 2: when: {never}: no row of the tables of both is published"


@pytest.mark.parametrize(
    "second",
    [
        "tables = ['b']\nwhen = \"new.s = 'new'\"",
        "tables = ['a']\nwhen = \"new.t = 'new'\"",
        "tables = ['a']\nwhen = \"old.s = 'new'\"",
        "tables = ['a']\nwhen = \"new.s IN ('new', 'paid')\"",
    ],
)
def test_filters_that_a_row_may_pass_together_are_not(second: str) -> None:
    assert warnings_of(rules(f"[[filter]]\ntables = ['a']\nwhen = \"new.s = 'paid'\"\n[[filter]]\n{second}")) == []


def test_operations_that_a_routes_format_cannot_say_are_told() -> None:
    text = '[[route]]\nname = "r"\noperations = ["insert", "truncate", "message"]'

    own = check_file(Settings(rules=rules(f'{text}\nformat = "maxwell"')))
    default = check_file(Settings(format="sequin", rules=rules(text)))

    said = "has no word for truncate and message, of which nothing is published"
    assert own == [f"[[route]] r: operations: the format maxwell {said}"]
    assert default == [f"[[route]] r: operations: the format sequin {said}"]


@pytest.mark.parametrize(
    "text",
    [
        '[[route]]\noperations = ["insert"]\nformat = "maxwell"',
        '[[route]]\noperations = ["truncate"]\nformat = "native"',
        '[[route]]\nformat = "maxwell"',
    ],
)
def test_a_route_for_what_its_format_can_say_is_not_warned_of(text: str) -> None:
    assert check_file(Settings(rules=rules(text))) == []


def test_every_mistake_of_every_rule_is_found() -> None:
    error = refusal(
        """
        filter = [5, { name = "big", operations = ["updte"], when = "new.x = ", drop_unchanged = true }]
        skip = { marked = true }
        [[columns]]
        maks = ["a"]
        hash = 5
        [[route]]
        priority = 256
        """
    )

    assert isinstance(error, Mistakes)
    assert [str(each).removeprefix("shop.toml ").partition(":")[0] for each in error.mistakes] == [
        "shop.toml",
        "[[filter]] 1",
        "[[filter]] big",
        "[[filter]] big",
        "[[columns]] 1",
        "[[route]] 1",
    ]
    assert str(error) == f"{error.mistakes[0]} (and 5 more, which pgevents config check lists)"
    assert error.hint == error.mistakes[0].hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[columns]]\nmask = []", "mask: the list is empty"),
        ('[[skip]]\nmarked = "yes"', "marked: it must be true or false"),
        ('[[filter]]\ndrop_unchanged = 1\nignore = ["a"]', "drop_unchanged: it must be true or false"),
        ('[[skip]]\nmarked = true\naction = "slow"\nexchange = "x"', "action: 'slow' is none of"),
        ('[[route]]\nwhen = "x"\non_missing = "drop"', "when: the condition 'x' cannot be used"),
        ('[[skip]]\norgin = "a"', "'orgin': there is no such key"),
    ],
)
def test_what_follows_from_a_mistake_is_none(text: str, said: str) -> None:
    error = refusal(text)

    assert not isinstance(error, Mistakes)
    assert f" 1: {said}" in str(error)


def test_a_condition_that_can_never_be_true_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Condition, "never", lambda _: True)

    warnings = warnings_of(rules('[[filter]]\nwhen = "new.a"\n[[route]]\nwhen = "new.a"'))

    assert warnings == [
        "[[filter]] 1: when: it can never be true: nothing of its tables is published",
        "[[route]] 1: when: it can never be true: nothing goes there",
    ]


def test_the_examples_of_the_documentation_are_rules() -> None:
    documentation = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
    examples = [text for text in re.findall(r"```toml\n(.*?)```", documentation, re.DOTALL) if "[[" in text]

    found = [rules(text) for text in examples]

    assert [warnings_of(each) for each in found] == [[]] * 4
    assert [len(each.skip + each.filter + each.columns + each.route) for each in found] == [4, 2, 2, 1]


@pytest.mark.parametrize(
    ("kind", "keys"),
    [("skip", SKIP_KEYS), ("filter", FILTER_KEYS), ("columns", COLUMN_KEYS), ("route", ROUTE_KEYS)],
)
def test_the_documentation_names_every_key(kind: str, keys: tuple[str, ...]) -> None:
    documentation = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
    section = documentation.partition(f"### `[[{kind}]]`")[2].partition("\n### ")[0]

    assert [key for key in keys if not re.search(rf"\b{key}\b", section) and not key.endswith("tables")] == []


@pytest.mark.parametrize("sink", ["file:events.ndjson", "stdout:"])
def test_lines_of_text_are_not_compressed(sink: str) -> None:
    rules = parse_rules({"route": [{"tables": ["orders"], "compression": "gzip"}]}, "pgevents.toml")

    with pytest.raises(ConfigError, match=r"\[\[route\]\] 1: compression: .* lines of text"):
        check_file(Settings(sink=sink, rules=rules))
