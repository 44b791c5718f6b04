"""What wal2json is told to leave out, and what of it is left to the stream."""

import re
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.filters import TableFilter
from pgevents.push_down import PushDown, Selector, push_down
from pgevents.rule import Action, ColumnRule, FilterRule, Rules, SkipRule
from pgevents.settings import Settings

OWN = "pgevents.skip_window, pgevents.watermark"
ALL = TableFilter()
SHOP = TableFilter(("shop.*",))


def made(*tables: tuple[str, str], plugin: str = "wal2json", has_windows: bool = False, **settings: Any) -> PushDown:
    return push_down(Settings(push_down=True, **settings), tables, {}, plugin=plugin, has_windows=has_windows)


def without(*operations: str, tables: TableFilter = ALL) -> FilterRule:
    return FilterRule(
        "some", tables, frozenset({"insert", "update", "delete", "truncate", "message"} - {*operations})
    )


def test_nothing_is_pushed_down_unless_it_is_asked_for() -> None:
    assert push_down(Settings(tables=("shop.*",)), [], {}) == PushDown()


def test_an_origin_is_pushed_down_by_its_rule_alone() -> None:
    rules = Rules(
        skip=tuple(SkipRule(each, origin=each, push_down=each != "kept") for each in ("bulk", "kept", "new"))
    )

    pushed = push_down(Settings(tables=("shop.*",), rules=rules), [], {"bulk": 3, "kept": 4})

    assert pushed.options == {"filter-origins": "3"}
    assert pushed.lines() == [
        "in wal2json: without the transactions of origin bulk",
        "in the stream: origin new: there is none of that name yet",
    ]


def test_to_pgoutput_nothing_is_pushed_down_and_the_publication_is_named() -> None:
    pushed = made(plugin="pgoutput", tables=("shop.*",))

    assert pushed.options == {}
    assert "pgevents publication plan" in pushed.kept[0]


@pytest.mark.parametrize(
    ("patterns", "option"),
    [
        (("public.orders",), "public.orders"),
        (("orders",), "public.orders"),
        (("shop.*", "*.orders"), "shop.*,*.orders"),
        (("shop.order_*",), "shop.*"),
        (("shop.order[0-9]",), "shop.*"),
        (("sh?p.orders",), "*.orders"),
        (("a.b.c",), r"\a.b\.c,a\.b.c"),
        ((".a.b",), r".a\.b,*.b"),
        (("Shop.Order Lines",), r"Shop.Order\ Lines"),
        (("shop.a,b",), r"shop.a\,b"),
        (("shop.it's\\",), r"shop.it\'s\\"),
        (("shop.größe",), "shop.größe"),
        # Somewhere else than here a byte of à is a blank.
        (("shop.voilà",), "shop.*"),
    ],
)
def test_patterns_are_written_as_wal2json_reads_them(patterns: tuple[str, ...], option: str) -> None:
    assert made(tables=patterns).options["add-tables"] == option


@pytest.mark.parametrize("pattern", ["*.*", "*.audit_*", "s[h.]op", "s[h.]op.orders", "shop.[a.].b"])
def test_a_pattern_that_wal2json_has_no_words_for_is_kept(pattern: str) -> None:
    pushed = made(tables=("shop.*", pattern))

    assert "add-tables" not in pushed.options
    assert pushed.kept == (f"which tables: {pattern} has a wildcard inside of both names",)


def test_tables_are_left_to_the_stream_where_a_wildcard_reaches_across_a_dot() -> None:
    pushed = made(("shop", "orders"), ("shop.old", "orders"), tables=("shop.*",))

    assert "add-tables" not in pushed.options
    assert pushed.kept == ("which tables: a wildcard of wal2json's does not match shop.old.orders as ours does",)


def test_excluded_tables_are_left_out_as_far_as_wal2json_can() -> None:
    pushed = made(exclude_tables=("shop.log", "*.audit", "tmp.*", "shop.old_*"))

    assert pushed.options == {"filter-tables": f"shop.log,*.audit,tmp.*,{OWN}".replace(", ", ",")}
    assert pushed.pushed == {"filter-tables": f"without shop.log, *.audit, tmp.*, {OWN}"}
    assert pushed.kept == ("that shop.old_* is left out: it has a wildcard inside of a name",)


NAMES = st.text(st.sampled_from("ab.*?[]\\, "), min_size=1, max_size=4)
PATTERNS = st.lists(st.builds("{}.{}".format, NAMES, NAMES), max_size=3)


@given(PATTERNS, PATTERNS, st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=5))
def test_what_is_streamed_is_never_left_out(
    include: list[str], exclude: list[str], tables: list[tuple[str, str]]
) -> None:
    keep = TableFilter(include, exclude)

    options = made(*tables, tables=tuple(include), exclude_tables=tuple(exclude)).options

    for table in tables:
        if keep(*table):
            assert any(each(*table) for each in read(options.get("add-tables", "*.*")))
            assert not any(each(*table) for each in read(options["filter-tables"]))


@given(PATTERNS, st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["a", "b", "ab"])))
def test_a_table_that_is_created_later_is_not_left_out_if_no_dot_is_in_its_name(
    include: list[str], table: tuple[str, str]
) -> None:
    option = made(tables=tuple(include)).options.get("add-tables", "*.*")

    if TableFilter(include)(*table):
        assert any(each(*table) for each in read(option))


def read(option: str) -> list[Selector]:
    """A list of tables as wal2json takes it apart, byte by byte."""
    assert not re.search(r"(?:^|(?<!\\),)[^*]\.", option), "some versions take it for any schema"
    found: list[Selector] = []
    parts: list[str | None] = []
    part, is_bare = "", True
    at = 0
    while at <= len(option):
        letter = option[at : at + 1]
        if letter == "\\":
            part, is_bare, at = part + option[at + 1], False, at + 2
            continue
        if letter in ("", ",") or (letter == "." and not parts):
            parts.append(None if part == "*" and is_bare else part)
            part, is_bare = "", True
            if letter != ".":
                schema, table = parts
                found.append(Selector(schema, table))
                parts = []
        else:
            assert letter != " ", "a blank ends a name"
            part += letter
        at += 1
    return found


def test_reading_back_is_what_a_pattern_matches() -> None:
    (selector,) = read(r"a\.b.\*")

    assert selector == ("a.b", "*")
    assert fnmatchcase("a.b.*", "a.b.[*]")


# Operations


@pytest.mark.parametrize(
    ("rules", "tables", "actions"),
    [
        ((without("truncate"),), (), "insert,update,delete"),
        ((without("truncate"), without("delete")), (), "insert,update"),
        ((without("truncate", tables=SHOP),), ("shop.*",), "insert,update,delete"),
        ((without("delete", tables=SHOP), without("delete", tables=TableFilter(("a.b",)))), ("shop.*", "a.b"), None),
    ],
)
def test_operations_that_no_table_needs_are_left_out(
    rules: tuple[FilterRule, ...], tables: tuple[str, ...], actions: str | None
) -> None:
    expected = actions or "insert,update,truncate"

    assert made(tables=tables, rules=Rules(filter=rules)).options["actions"] == expected


@pytest.mark.parametrize(
    ("rule", "tables"),
    [
        (without("delete", tables=SHOP), ()),
        (without("delete", tables=SHOP), ("shop.*", "crm.*")),
        (without("delete", tables=TableFilter(("shop.orders",))), ("shop.*",)),
        (without("delete", tables=TableFilter((), ("shop.log",))), ("shop.*",)),
    ],
)
def test_an_operation_that_one_table_may_need_is_sent_of_all(rule: FilterRule, tables: tuple[str, ...]) -> None:
    pushed = made(tables=tables, rules=Rules(filter=(rule,)))

    assert "actions" not in pushed.options
    assert "that delete of some tables is left out: wal2json has one list for all of them" in pushed.kept


def test_messages_are_no_operation_of_wal2json() -> None:
    assert "actions" not in made(rules=Rules(filter=(without("message"),))).options


def test_a_list_of_no_operation_at_all_is_never_made() -> None:
    rule = without("insert", "update", "delete", "truncate")

    assert "actions" not in made(rules=Rules(filter=(rule,))).options


@pytest.mark.parametrize(
    ("skip", "has_windows"),
    [((SkipRule("large", rows=10),), False), ((SkipRule("marked", Action.DROP, marked=True),), False), ((), True)],
)
def test_operations_are_sent_where_skip_rules_count_them(skip: tuple[SkipRule, ...], *, has_windows: bool) -> None:
    pushed = made(rules=Rules(skip=skip, filter=(without("delete"),)), has_windows=has_windows)

    assert "actions" not in pushed.options
    assert pushed.kept == ("that delete is left out: skip rules and their records count every operation",)


def test_what_wal2json_cannot_do_at_all_is_said() -> None:
    rules = Rules(filter=(FilterRule("changed", ALL, unchanged=True),), columns=(ColumnRule("c", ALL),))

    assert made(rules=rules).lines() == [
        f"in wal2json: without {OWN}",
        "in the stream: the conditions of filters: wal2json does not look at rows",
        "in the stream: which columns: wal2json sends all of them",
    ]


def test_an_option_that_the_plug_in_does_not_know_is_kept() -> None:
    pushed = made(tables=("shop.*",)).taken({"filter-tables", "include-xids"})

    assert list(pushed.options) == list(pushed.pushed) == ["filter-tables"]
    assert pushed.kept == ("add-tables: this wal2json does not know the option",)
    assert set(pushed.as_dict()) == {"options", "pushed", "kept"}
