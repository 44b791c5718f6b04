"""Column rules: what is left of a row, and that both plug-ins' rows come to the same."""

import hashlib
import hmac
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pgevents.columns import ColumnPlan, bind_columns, check_key
from pgevents.decoder.values import embedded_json
from pgevents.errors import ConfigError, RuleFailed
from pgevents.filters import TableFilter
from pgevents.rule import ColumnRule
from pgevents.wal import Column, Relation

KEY = b"0123456789abcdef"
BOOL, BYTEA, INT8, INT4, TEXT, OID, JSON = 16, 17, 20, 23, 25, 26, 114
FLOAT4, FLOAT8, VARCHAR, BPCHAR, NUMERIC, TIMESTAMPTZ, UUID, TEXT_ARRAY = 700, 701, 1043, 1042, 1700, 1184, 2950, 1009
CITEXT = 16_400


def users(*columns: tuple[str, int], key: tuple[str, ...] = ("id",)) -> Relation:
    every = (("id", INT8), *(columns or (("email", TEXT), ("bio", TEXT))))
    converters = tuple((name, embedded_json) for name, oid in every if oid == JSON)
    return Relation("public", "users", tuple(Column(*column) for column in every), "f", key, converters)


def rule(name: str = "columns 1", *, tables: str = "public.users", **what: Any) -> ColumnRule:
    lists: dict[str, Any] = {word: frozenset(names) for word, names in what.items() if word != "truncate"}
    return ColumnRule(name, TableFilter([tables]), **lists, truncate=what.get("truncate", {}))


def plan_of(*rules: ColumnRule, relation: Relation | None = None) -> ColumnPlan:
    plan = bind_columns(rules, relation or users(), KEY)
    assert plan is not None
    return plan


def applied(plan: ColumnPlan, **row: Any) -> dict[str, Any]:
    plan.apply(row)
    return row


def hashed(text: str) -> str:
    return hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()


def test_a_table_that_no_rule_is_about_has_no_plan() -> None:
    assert bind_columns([rule(tables="public.orders", mask=["email"])], users(), KEY) is None


def test_a_rule_about_columns_that_a_table_lacks_leaves_it_as_it_is() -> None:
    assert bind_columns([rule(tables="*", mask=["iban"], exclude=["pin"])], users(), KEY) is None


def test_what_is_excluded_is_gone_and_the_rest_keeps_its_order() -> None:
    plan = plan_of(rule(exclude=["email"]))

    assert plan.names == ("id", "bio")
    assert applied(plan, id=1, email="a@x", bio="b") == {"id": 1, "bio": "b"}


def test_a_column_that_is_not_included_is_gone_even_if_it_was_added_later() -> None:
    relation = users(("email", TEXT), ("bio", TEXT), ("added_later", TEXT))

    plan = plan_of(rule(include=["id", "bio"]), relation=relation)

    assert plan.names == ("id", "bio")
    assert applied(plan, id=1, email="a@x", bio="b", added_later="c") == {"id": 1, "bio": "b"}


def test_each_of_mask_hash_and_truncate_makes_the_final_value() -> None:
    plan = plan_of(rule(mask=["email"], hash=["id"], truncate={"bio": 3}))

    assert plan.raw == {"email", "id", "bio"}
    assert applied(plan, id="7", email="a@x", bio="héllo") == {"id": hashed("7"), "email": "***", "bio": "hél"}


def test_null_and_what_was_not_sent_stay_what_they_are() -> None:
    plan = plan_of(rule(mask=["email"], hash=["id"], truncate={"bio": 3}))

    assert applied(plan, id=None, bio=None) == {"id": None, "bio": None}


def test_a_cut_counts_characters_and_not_bytes() -> None:
    assert applied(plan_of(rule(truncate={"bio": 2})), bio="é€𝄞x")["bio"] == "é€"


def test_of_several_rules_the_strictest_wins_whatever_their_order() -> None:
    relation = users(("a", TEXT), ("b", TEXT), ("c", TEXT), ("d", TEXT))
    rules = [
        rule(exclude=["a"], hash=["c"], truncate={"d": 9}),
        rule(mask=["a", "b"], truncate={"c": 2, "d": 5}),
        rule(tables="*", hash=["a", "b"]),
    ]

    rows = [
        applied(plan_of(*order, relation=relation), id=1, a="aa", b="bb", c="cc", d="dddddddddd")
        for order in (rules, rules[::-1])
    ]

    assert rows == [{"id": 1, "b": "***", "c": hashed("cc"), "d": "ddddd"}] * 2


def test_two_includes_leave_what_both_include() -> None:
    assert plan_of(rule(include=["id", "email"]), rule(include=["id", "bio"])).names == ("id",)


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ({"mask": ["id"]}, "masks id"),
        ({"exclude": ["id"]}, "leaves out id"),
        ({"include": ["email"]}, "leaves out id"),
        ({"truncate": {"id": 3}}, "cuts id"),
    ],
)
def test_a_key_column_is_not_taken_away(what: dict[str, Any], word: str) -> None:
    with pytest.raises(RuleFailed) as caught:
        plan_of(rule(**what))

    assert str(caught.value) == f"columns 1 {word} of public.users, which is of the key"
    assert "Hash it" in caught.value.hint


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([rule("a", hash=["id"]), rule("b", mask=["id"])], "columns b masks id"),
        ([rule("a", exclude=["bio"]), rule("b", include=["email"])], "columns b leaves out id"),
        ([rule("a", truncate={"id": 9}), rule("b", truncate={"id": 3})], "columns a cuts id"),
    ],
)
def test_of_several_rules_the_one_that_does_it_is_named(rules: list[ColumnRule], said: str) -> None:
    with pytest.raises(RuleFailed) as caught:
        plan_of(*rules)

    assert str(caught.value) == f"{said} of public.users, which is of the key"


def test_without_a_key_any_column_may_be_masked() -> None:
    assert plan_of(rule(mask=["id"]), relation=users(key=())).raw == {"id"}


@pytest.mark.parametrize("oid", [JSON, UUID, NUMERIC, TIMESTAMPTZ, TEXT_ARRAY])
def test_what_is_not_text_is_not_cut(oid: int) -> None:
    with pytest.raises(RuleFailed, match=r"cuts bio of public\.users, which is not text"):
        plan_of(rule(truncate={"bio": 3}), relation=users(("bio", oid)))


@pytest.mark.parametrize("oid", [TEXT, VARCHAR, BPCHAR, CITEXT])
def test_every_kind_of_text_is_cut(oid: int) -> None:
    assert applied(plan_of(rule(truncate={"bio": 3}), relation=users(("bio", oid))), bio="abcd") == {"bio": "abc"}


@pytest.mark.parametrize(("key", "said"), [(b"", "not given"), (b"hunter2", "too short")])
def test_a_hash_wants_a_key_and_no_error_repeats_it(key: bytes, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bind_columns([rule(hash=["email"])], users(), key)

    assert str(caught.value) == f"the columns rules of public.users hash, and hash_key is {said}"
    assert "hunter2" not in repr(caught.value) + caught.value.hint


def test_rules_without_a_hash_want_no_key() -> None:
    assert bind_columns([rule(mask=["email"])], users(), b"") is not None


def test_a_key_long_enough_is_taken() -> None:
    check_key(KEY, "x")


# What each plug-in prints of one value: wal2json, wal2json with numbers as strings, pgoutput.
PRINTED: list[tuple[int, Any, Any, str]] = [
    (BOOL, True, True, "t"),
    (BOOL, False, False, "f"),
    (INT4, -7, "-7", "-7"),
    (INT8, 9223372036854775807, "9223372036854775807", "9223372036854775807"),
    (OID, 4294967295, "4294967295", "4294967295"),
    (FLOAT8, orjson.loads("1e+20"), "1e+20", "1e+20"),
    (FLOAT8, orjson.loads("1e+15"), "1e+15", "1e+15"),
    (FLOAT8, orjson.loads("3"), "3", "3"),
    (FLOAT8, "-0", "-0", "-0"),
    (FLOAT8, orjson.loads("2.2250738585072014e-308"), "2.2250738585072014e-308", "2.2250738585072014e-308"),
    (FLOAT4, orjson.loads("1.1"), "1.1", "1.1"),
    (FLOAT4, orjson.loads("1e+06"), "1e+06", "1e+06"),
    (NUMERIC, "3.540", "3.540", "3.540"),
    (NUMERIC, "1" + "0" * 400, "1" + "0" * 400, "1" + "0" * 400),
    (TEXT, "", "", ""),
    (TEXT, "naïve 𝄞", "naïve 𝄞", "naïve 𝄞"),
    (BPCHAR, "teste     ", "teste     ", "teste     "),
    (BYTEA, "deadbeef", "deadbeef", r"\xdeadbeef"),
    (BYTEA, "", "", r"\x"),
    (JSON, '{ "a": 1.0 }', '{ "a": 1.0 }', '{ "a": 1.0 }'),
    (TIMESTAMPTZ, "2018-03-27 11:58:28+00", "2018-03-27 11:58:28+00", "2018-03-27 11:58:28+00"),
    (UUID, *3 * ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",)),
    (TEXT_ARRAY, '{1,NULL,"a,b"}', '{1,NULL,"a,b"}', '{1,NULL,"a,b"}'),
    (CITEXT, "t", "t", "t"),
]


@pytest.mark.parametrize(("oid", "wal2json", "as_string", "pgoutput"), PRINTED)
def test_both_plugins_values_hash_the_same(oid: int, wal2json: Any, as_string: Any, pgoutput: str) -> None:
    plan = plan_of(rule(hash=["bio"]), relation=users(("bio", oid)))

    hashes = {applied(plan, bio=printed)["bio"] for printed in (wal2json, as_string, pgoutput)}

    assert len(hashes) == 1


@pytest.mark.parametrize(("oid", "pgoutput"), [row[::3] for row in PRINTED if row[0] not in (FLOAT4, FLOAT8)])
def test_what_is_hashed_is_postgres_own_text(oid: int, pgoutput: str) -> None:
    plan = plan_of(rule(hash=["bio"]), relation=users(("bio", oid)))

    assert applied(plan, bio=pgoutput)["bio"] == hashed(pgoutput)


def test_the_zeros_that_postgres_holds_equal_hash_the_same() -> None:
    plan = plan_of(rule(hash=["bio"]), relation=users(("bio", FLOAT8)))

    assert applied(plan, bio="-0") == applied(plan, bio="0")


@given(st.floats(allow_nan=False))
def test_a_float_of_either_plugin_hashes_the_same(value: float) -> None:
    plan = plan_of(rule(hash=["bio"]), relation=users(("bio", FLOAT8)))

    from_wal2json, from_pgoutput = applied(plan, bio=value), applied(plan, bio=repr(value))

    assert from_wal2json == from_pgoutput


@given(st.integers(-(2**63), 2**63 - 1), st.booleans(), st.binary())
def test_values_of_types_that_wal2json_prints_otherwise_hash_the_same(whole: int, truth: bool, octets: bytes) -> None:
    relation = users(("whole", INT8), ("truth", BOOL), ("octets", BYTEA))
    plan = plan_of(rule(hash=["whole", "truth", "octets"]), relation=relation)

    from_wal2json = applied(plan, whole=whole, truth=truth, octets=octets.hex())
    from_pgoutput = applied(plan, whole=str(whole), truth="t" if truth else "f", octets="\\x" + octets.hex())

    assert from_wal2json == from_pgoutput


COLUMNS = ("a", "b", "c", "d")
NAMES = st.frozensets(st.sampled_from(COLUMNS), max_size=4)
RULES = st.lists(
    st.builds(
        ColumnRule,
        name=st.just("columns 1"),
        tables=st.just(TableFilter()),
        include=NAMES,
        exclude=NAMES,
        mask=NAMES,
        hash=NAMES,
        truncate=st.dictionaries(st.sampled_from(COLUMNS), st.integers(1, 9)),
    ),
    min_size=1,
    max_size=3,
)
# Each column has letters of its own, none of which is in a hash or a mask, so that each is known wherever it is.
VALUES = st.tuples(
    *(
        st.text(st.characters(min_codepoint=first, max_codepoint=first + 99), min_size=1)
        for first in range(256, 656, 100)
    )
)


@given(RULES, VALUES)
def test_nothing_of_a_value_that_a_rule_hides_is_left_anywhere(
    rules: list[ColumnRule], values: tuple[str, ...]
) -> None:
    plan = bind_columns(rules, users(*((name, TEXT) for name in COLUMNS), key=()), KEY)
    hidden = {name for rule in rules for name in rule.exclude | rule.mask | rule.hash}
    hidden |= {name for rule in rules if rule.include for name in set(COLUMNS) - rule.include}
    row = {"id": 1} | dict(zip(COLUMNS, values, strict=True))

    if plan:
        plan.apply(row)

    left = set("".join(map(str, row.values())))
    assert [name for name, value in zip(COLUMNS, values, strict=True) if left & set(value) and name in hidden] == []
    assert plan is None or list(row) == list(plan.names)


@given(RULES)
def test_to_exclude_mask_or_cut_twice_is_to_do_it_once(rules: list[ColumnRule]) -> None:
    unhashed = [replace(rule, hash=frozenset()) for rule in rules]
    plan = bind_columns(unhashed, users(*((name, TEXT) for name in COLUMNS), key=()), KEY)
    assume(plan)
    assert plan is not None
    once = {"id": 1} | dict.fromkeys(COLUMNS, "0123456789")

    plan.apply(once)
    twice = dict(once)
    plan.apply(twice)

    assert twice == once
