"""Conditions on rows as the plug-ins print them: three-valued logic, types, and values that were not sent."""

from typing import Any

import pytest

from pgevents.condition import Condition, ConditionFailed, Unsent, kind
from pgevents.wal import Row

ENUM = 20_001
TYPES = {
    "id": kind.INT4,
    "small": kind.INT2,
    "total": kind.NUMERIC,
    "ratio": kind.FLOAT8,
    "single": kind.FLOAT4,
    "paid": kind.BOOL,
    "status": kind.TEXT,
    "code": kind.BPCHAR,
    "day": kind.DATE,
    "at": kind.TIMESTAMPTZ,
    "local": kind.TIMESTAMP,
    "uuid": kind.UUID,
    "raw": kind.BYTEA,
    "doc": kind.JSON,
    "docb": kind.JSONB,
    "ids": 1007,
    "state": ENUM,
    "Odd name": kind.INT4,
}


def says(text: str, new: Row | None = None, old: Row | None = None) -> bool | None:
    return Condition.parse(text).bind(TYPES, enums=frozenset({ENUM}))(new, old)


TRUTHS = {"true": "t", "false": "f", "null": None}


@pytest.mark.parametrize(
    ("left", "right", "conjunction", "disjunction"),
    [
        ("true", "true", True, True),
        ("true", "false", False, True),
        ("true", "null", None, True),
        ("false", "false", False, False),
        ("false", "null", False, None),
        ("null", "null", None, None),
    ],
)
def test_and_and_or_follow_three_valued_logic_in_either_order(
    left: str, right: str, conjunction: bool | None, disjunction: bool | None
) -> None:
    for first, second in ((left, right), (right, left)):
        rows = {"paid": TRUTHS[first]}, {"paid": TRUTHS[second]}

        assert says("new.paid AND old.paid", *rows) is conjunction
        assert says("new.paid OR old.paid", *rows) is disjunction
        assert says(f"new.paid AND {second}", *rows) is conjunction
        assert says(f"{second} OR new.paid", *rows) is disjunction


@pytest.mark.parametrize(
    ("test", "of_true", "of_false", "of_null"),
    [
        ("NOT new.paid", False, True, None),
        ("new.paid IS TRUE", True, False, False),
        ("new.paid IS NOT TRUE", False, True, True),
        ("new.paid IS FALSE", False, True, False),
        ("new.paid IS NOT FALSE", True, False, True),
        ("new.paid IS UNKNOWN", False, False, True),
        ("new.paid IS NOT UNKNOWN", True, True, False),
        ("new.paid IS NULL", False, False, True),
        ("new.paid IS NOT NULL", True, True, False),
        ("new.paid ISNULL", False, False, True),
        ("new.paid = true", True, False, None),
        ("new.paid <> 'yes'", False, True, None),
        ("new.paid IS DISTINCT FROM true", False, True, True),
        ("new.paid IS NOT DISTINCT FROM NULL", False, False, True),
        ("new.paid IN (true, false)", True, True, None),
        ("new.paid NOT IN (true, NULL)", False, None, None),
        ("coalesce(new.paid, true)", True, False, True),
    ],
)
def test_a_test_of_a_truth_has_its_three_outcomes(test: str, of_true: Any, of_false: Any, of_null: Any) -> None:
    assert [says(test, {"paid": paid}) for paid in ("t", "f", None)] == [of_true, of_false, of_null]
    assert [says(test, {"paid": paid}) for paid in (True, False, None)] == [of_true, of_false, of_null]


@pytest.mark.parametrize(
    ("text", "new", "expected"),
    [
        ("new.id BETWEEN 1 AND 3", {"id": "3"}, True),
        ("new.id NOT BETWEEN 1 AND 3", {"id": 3}, False),
        ("new.id BETWEEN NULL AND 3", {"id": "4"}, False),
        ("new.id BETWEEN NULL AND 3", {"id": "2"}, None),
        ("new.id IN (1, 2.5, '3')", {"id": "3"}, True),
        ("new.id IN (1, NULL)", {"id": "3"}, None),
        ("new.id / 2 = -3", {"id": "-7"}, True),
        ("new.id % 2 = -1", {"id": "-7"}, True),
        ("- new.id * 2 + 1 = 15", {"id": "-7"}, True),
        ("new.id - 1 - 1 = 3", {"id": "5"}, True),
        ("new.total = 1.5", {"total": "1.500"}, True),
        ("new.total > 12345678901234567890.1", {"total": "12345678901234567890.11"}, True),
        ("new.total > 1e100", {"total": "NaN"}, True),
        ("new.total < " + "9" * 5_000, {"total": "1"}, True),
        ("new.total > 1e-16383", {"total": "1"}, True),
        ("new.total = 'NaN'", {"total": "NaN"}, True),
        ("new.total / 3 = 0.33333333333333333333", {"total": "1"}, True),
        ("(new.total)::text = '1.500'", {"total": "1.500"}, True),
        ("new.ratio = 0.1", {"ratio": 0.1}, True),
        ("new.ratio > 'Infinity'", {"ratio": "NaN"}, True),
        ("new.single = 1.1", {"single": "1.1"}, False),
        ("new.single = '1.1'", {"single": 1.1}, True),
        ("new.single IN (1.1)", {"single": "1.1"}, False),
        ("new.single IN (1.1, 2.2)", {"single": "1.1"}, True),
        ("new.status LIKE '%@x.com'", {"status": "a@x.com"}, True),
        ("new.status NOT LIKE 'a_c%'", {"status": "abcd"}, False),
        ("new.status LIKE '50!%' ESCAPE '!'", {"status": "50%"}, True),
        ("new.status LIKE '\\_%'", {"status": "x"}, False),
        ("new.status ILIKE 'É%É'", {"status": "éaé"}, True),
        ("new.status LIKE 'a%a'", {"status": "a"}, False),
        ("new.status LIKE NULL", {"status": "a"}, None),
        ("lower(new.status) = 'ärger' AND upper(new.status) = 'ÄRGER'", {"status": "Ärger"}, True),
        ("new.status COLLATE \"C\" < 'a'", {"status": "B"}, True),
        ("new.code = 'ab'", {"code": "ab  "}, True),
        ("' ' COLLATE \"C\" = new.code", {"code": "    "}, True),
        ("new.single::text = '3.4028235e+38'", {"single": "3.4028235e+38"}, True),
        ("new.code LIKE 'ab'", {"code": "ab  "}, False),
        ("length(new.code) = 2", {"code": "ab  "}, True),
        ("left(new.status, -1) = 'ab'", {"status": "abc"}, True),
        (
            "new.day >= '2020-01-31' AND new.day < new.local",
            {"day": "2020-01-31", "local": "2020-01-31 00:00:01"},
            True,
        ),
        ("new.day < '0001-01-01'", {"day": "0044-03-15 BC"}, True),
        ("new.at = '2020-01-01 02:00+02'", {"at": "2020-01-01 00:00:00+00"}, True),
        ("new.at > timestamptz '294276-12-31'", {"at": "infinity"}, True),
        ("new.at::date = date '2020-01-01'", {"at": "2020-01-01 23:59:59.5+00"}, True),
        ("new.uuid = 'A0EEBC999C0B4EF8BB6D6BB9BD380A11'", {"uuid": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, True),
        ("new.raw = '\\xFF00'", {"raw": "\\xff00"}, True),
        ("new.raw = '\\xFF00'", {"raw": "ff00"}, True),
        ("new.doc->'a'->>1 = 'x'", {"doc": '{"a": [1, "x"]}'}, True),
        ("new.doc->>'a' = '1.50'", {"doc": '{"a":1.50}'}, True),
        ("new.doc->>'a' = 'x'", {"doc": '{"b":1}'}, None),
        ("new.doc->>'a' IS NULL", {"doc": '{"a":null}'}, True),
        ("(new.docb->>'n')::int > 5", {"docb": '{"n": 6}'}, True),
        ("new.docb->'a' = new.docb->'b'", {"docb": '{"a": [1.0], "b": [1.00]}'}, True),
        ("new.ids::text = '{1,2}'", {"ids": "{1,2}"}, True),
        ("new.state = 'open'", {"state": "open"}, True),
        ('new."Odd name" = 1 AND NEW.ID = 2', {"Odd name": "1", "id": "2"}, True),
        ("new.id = 2 OR new.id = 3 AND new.paid", {"id": "2", "paid": "f"}, True),
        ("NOT new.id = 2 IS NULL", {"id": "2"}, True),
    ],
)
def test_a_value_is_what_its_type_makes_of_it(text: str, new: Row, expected: bool | None) -> None:
    assert says(text, new) is expected


@pytest.mark.parametrize(
    ("text", "new", "old", "expected"),
    [
        ("new.status IS DISTINCT FROM old.status", {"status": "a"}, {"status": "b"}, True),
        ("new.status IS DISTINCT FROM old.status", {"status": None}, {"status": None}, False),
        ("new.total IS DISTINCT FROM old.total", {"total": "1.0"}, {"total": "1.00"}, False),
        ("lower(new.status) IS DISTINCT FROM old.status", {"status": "A"}, {"status": "A"}, True),
        ("old.ids IS NOT DISTINCT FROM new.ids", {"ids": "{1}"}, {"ids": "{1}"}, True),
        ("new.docb IS DISTINCT FROM old.docb", {"docb": '{"a": 1.0}'}, {"docb": '{"a": 1}'}, False),
        ("new.status <> old.status", {"status": "a"}, None, None),
        ("new.status IS DISTINCT FROM old.status", {"status": "a"}, None, True),
        ("new.status IS NULL", None, {"status": "a"}, True),
    ],
)
def test_both_rows_are_compared_and_a_missing_row_reads_as_null(
    text: str, new: Row | None, old: Row | None, expected: bool | None
) -> None:
    assert says(text, new, old) is expected


@pytest.mark.parametrize(
    "text",
    ["new.id = 1 AND old.paid", "old.paid AND new.id = 1", "NOT (old.paid OR new.id = 2)", "old.id > 3 AND false"],
)
def test_what_is_decided_without_a_value_does_not_need_it(text: str) -> None:
    assert says(text, {"id": "2"}, {}) is False


@pytest.mark.parametrize(
    "text", ["old.paid", "new.id = 2 AND old.paid", "old.status IS DISTINCT FROM new.status", "old.total > 5"]
)
def test_a_value_that_was_not_sent_and_is_needed_is_named(text: str) -> None:
    with pytest.raises(Unsent) as caught:
        says(text, {"id": "2", "status": "a"}, {})

    assert caught.value.column in ("old.paid", "old.status", "old.total")


@pytest.mark.parametrize(
    ("text", "new", "sqlstate"),
    [
        ("1 / new.id = 1", {"id": "0"}, "22012"),
        ("new.small + new.small > 1::int2", {"small": "32767"}, "22003"),
        ("new.total::int = 1", {"total": "1e10"}, "22003"),
        ("new.single * new.single > 1::real", {"single": "3e38"}, "22003"),
        ("new.ratio * new.ratio > 1", {"ratio": "1e-300"}, "22003"),
        ("new.status::int = 1", {"status": "secret"}, "22P02"),
        ("new.doc->>'a' = 'x'", {"doc": '{"a": "\\u0000"}'}, "22P05"),
        ("(new.doc->>'a')::date = '2020-01-01'", {"doc": '{"a": "2020-02-30"}'}, "22007"),
    ],
)
def test_a_row_that_fails_in_postgresql_fails_here_without_its_values(text: str, new: Row, sqlstate: str) -> None:
    with pytest.raises(ConditionFailed) as caught:
        says(text, new)

    assert caught.value.sqlstate == sqlstate
    assert "secret" not in str(caught.value)


def test_a_document_as_deep_as_any_is_read() -> None:
    deep = "[" * 100_000 + "]" * 100_000

    assert says("new.doc->>'b' = '1'", {"doc": f'{{"a": {deep}, "b": 1}}'}) is True


def test_a_pattern_full_of_wildcards_takes_no_time_to_speak_of() -> None:
    assert says("new.status LIKE '" + "%a" * 50 + "%b'", {"status": "a" * 20_000}) is False


def test_a_condition_names_its_columns() -> None:
    condition = Condition.parse("new.a = 1 AND (old.\"B c\" IS NULL OR lower(new.d) = 'x')")

    assert condition.columns == {("new", "a"), ("old", "B c"), ("new", "d")}
    assert condition.text == "new.a = 1 AND (old.\"B c\" IS NULL OR lower(new.d) = 'x')"


def test_without_a_list_of_enums_a_type_of_ones_own_counts_as_one() -> None:
    assert Condition.parse("new.state IN ('open', 'shut')").bind(TYPES)({"state": "shut"}, None) is True
