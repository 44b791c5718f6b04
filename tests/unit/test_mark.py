"""The mark of ``pgevents.skip``: what is one, and that nothing else stops us."""

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.mark import MalformedMark, Mark, parse_mark

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
KEYS = ("v", "reason", "tables", "by", "application")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=1000)


def content(**changes: Any) -> bytes:
    mark = {"v": 1, "reason": "prices with VAT", "tables": None, "by": "migrator", "application": "psql"}
    return orjson.dumps(mark | changes)


def test_a_mark_is_for_the_whole_transaction_where_no_tables_are_named() -> None:
    assert parse_mark(content()) == Mark("prices with VAT", None, by="migrator", application="psql")


def test_a_table_without_a_schema_is_one_of_public() -> None:
    assert parse_mark(content(tables=["orders", "shop.*"])).tables == ("public.orders", "shop.*")


def test_what_a_later_version_of_the_function_adds_is_left_alone() -> None:
    assert parse_mark(content(ticket="SHOP-12")) == parse_mark(content())


def test_a_mark_need_not_say_whose_it_is() -> None:
    assert parse_mark(b'{"v": 1, "reason": "x"}') == Mark("x", None, by="", application="")


@pytest.mark.parametrize(
    ("malformed", "reason"),
    [
        (b"", "it is not JSON in UTF-8"),
        (b"reason", "it is not JSON in UTF-8"),
        ('{"v": 1, "reason": "für"}'.encode("latin-1"), "it is not JSON in UTF-8"),
        (b"[" * 60_000, "it is not JSON in UTF-8"),
        (b"[1]", "it is not a JSON object"),
        (content(v=2), "its version is not 1"),
        (content(v=True), "its version is not 1"),
        (content(v="1"), "its version is not 1"),
        (b'{"reason": "x"}', "its version is not 1"),
        (b'{"v": 1}', "it gives no reason"),
        (content(reason=None), "it gives no reason"),
        (content(reason=" \n"), "it gives no reason"),
        (content(reason=["x"]), "its reason is not text"),
        (content(reason="x" * 1001), "its reason is longer than 1000 characters"),
        (content(by=7), "its by is not text"),
        (content(application="x" * 1001), "its application is longer than 1000 characters"),
        (content(tables=[]), "its tables are neither null nor a list of patterns"),
        (content(tables="public.orders"), "its tables are neither null nor a list of patterns"),
        (content(tables={"public": "orders"}), "its tables are neither null nor a list of patterns"),
        (content(tables=["public.orders", None]), "one of its tables is not a pattern of 1 to 260 characters"),
        (content(tables=[""]), "one of its tables is not a pattern of 1 to 260 characters"),
        (content(tables=["x"] * 1001), "it names more than 1000 tables"),
        (content(tables=["x" * 65_536]), "it is longer than 65536 bytes"),
    ],
)
def test_what_is_no_mark_is_refused_with_the_reason(malformed: bytes, reason: str) -> None:
    with pytest.raises(MalformedMark) as refused:
        parse_mark(malformed)

    assert str(refused.value) == reason


def test_what_is_allowed_is_allowed_up_to_the_limit() -> None:
    mark = parse_mark(content(reason="x" * 1000, tables=["x"] * 1000))

    assert len(mark.reason) == 1000
    assert mark.tables == ("public.x",) * 1000


@given(st.binary() | JSON.map(orjson.dumps))
def test_nothing_but_a_malformed_mark_is_ever_raised(anything: bytes) -> None:
    with suppress(MalformedMark):
        parse_mark(anything)


@given(st.fixed_dictionaries({}, optional={key: JSON | st.just(1) for key in KEYS}))
def test_a_forged_mark_is_either_whole_or_malformed(document: dict[str, Any]) -> None:
    with suppress(MalformedMark):
        mark = parse_mark(orjson.dumps(document))
        assert mark.reason.strip()
        assert mark.tables is None or all("." in pattern for pattern in mark.tables)


@given(reason=TEXT.filter(str.strip), by=TEXT, application=TEXT)
def test_texts_are_taken_as_they_are(reason: str, by: str, application: str) -> None:
    mark = Mark(reason, None, by, application)

    assert parse_mark(content(reason=reason, by=by, application=application)) == mark
