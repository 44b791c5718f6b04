"""Gate, filters, routing keys, the cutter and LSNs: the small pure modules between decoder and sink."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.batch import Cutter
from pgevents.codec.native import NativeCodec
from pgevents.decoder.pgoutput import PgoutputDecoder
from pgevents.decoder.values import text_converter
from pgevents.errors import ConfigError
from pgevents.event import Address, Envelope
from pgevents.filters import TableFilter
from pgevents.gate import Gate
from pgevents.lsn import Lsn
from pgevents.routing import RoutingKey, escaped
from pgevents.shape import MAX_PLANS, Shape
from pgevents.testing import (
    INT4_OID,
    TEXT_OID,
    MemoryCatalog,
    begin,
    delete,
    insert,
    logical_message,
    relation,
    truncate,
    update,
)
from pgevents.wal import UNCHANGED_TOAST, LogicalMessage, PgType, RawMessage

ADDRESS = Address("public.t.insert", "pgevents.insert", "application/json")


def shaped(
    *messages: bytes, keep: TableFilter | None = None, routing: str = "{schema}.{table}.{op}"
) -> list[Envelope]:
    """The envelopes of one transaction with these messages."""
    decoder, gate = PgoutputDecoder(MemoryCatalog()), Gate("7-1")
    shape = Shape(keep or TableFilter(), RoutingKey(routing), NativeCodec())
    envelopes = []
    for payload in (begin(0x16B374D848, time_us=1_000_000), *messages):
        item = decoder.decode(RawMessage(1, payload))
        if item is not None:
            envelopes += [envelope for numbered in gate.admit(item) for envelope in shape(numbered)]
    return envelopes


@given(st.integers(0, 2**64 - 1))
def test_an_lsn_reads_what_it_prints(value: int) -> None:
    assert Lsn.parse(str(Lsn(value))) == value


@pytest.mark.parametrize(
    "text", ["", "16", "16/", "/1", "x/1", "16/B374D848 ", "123456789/0", "1/2/3", "+1/2", "0x1/2"]
)
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an LSN"):
        Lsn.parse(text)


def test_an_lsn_prints_as_postgres_does() -> None:
    assert str(Lsn(0x16B374D848)) == "16/B374D848"
    assert str(Lsn(0x1600000001)) == "16/1"


def test_an_event_id_is_made_of_the_wal_alone() -> None:
    table = relation(1, "t", [("id", INT4_OID, True)])

    first, second = shaped(table, insert(1, [1]), insert(1, [2]))

    assert [first.message_id, second.message_id] == ["7-1-16B374D848-1", "7-1-16B374D848-2"]
    assert first.timestamp == 946_684_801
    assert first.address.kind == "pgevents.insert"


def test_a_truncate_counts_every_table() -> None:
    tables = [relation(n, name, [("id", INT4_OID, True)]) for n, name in ((1, "a"), (2, "b"))]

    kept = shaped(*tables, truncate(1, 2), insert(1, [1]), keep=TableFilter(["*.b", "*.a"], ["*.b"]))

    assert [e.message_id.rpartition("-")[2] for e in kept] == ["1", "3"]


def test_an_unchanged_toast_value_is_filled_from_a_full_old_image() -> None:
    table = relation(1, "t", [("id", INT4_OID, True), ("doc", TEXT_OID, True), ("n", INT4_OID, True)], identity="f")

    (envelope,) = shaped(table, update(1, [1, UNCHANGED_TOAST, 3], old=[1, "long", 2]))

    assert b'"new":{"id":1,"doc":"long","n":3}' in envelope.body
    assert b'"changed":["n"],"missing":[]' in envelope.body


def test_a_toasted_key_that_did_not_change_is_taken_from_the_old_key() -> None:
    table = relation(1, "t", [("id", TEXT_OID, True), ("n", INT4_OID, False)])

    (envelope,) = shaped(table, update(1, [UNCHANGED_TOAST, 3], key=["k", None]))

    assert b'"key":{"id":"k"},"new":{"n":3},"old":{"id":"k"}' in envelope.body
    assert b'"missing":["id"]' in envelope.body


def test_a_table_without_a_key_has_none() -> None:
    table = relation(1, "t", [("id", INT4_OID, False)], identity="n")

    (envelope,) = shaped(table, insert(1, [1]))

    assert b'"key":null' in envelope.body


def test_a_deleted_key_is_the_old_one() -> None:
    table = relation(1, "t", [("id", INT4_OID, True), ("n", INT4_OID, False)])

    (envelope,) = shaped(table, delete(1, key=[7, None]))

    assert b'"key":{"id":7},"new":null,"old":{"id":7},"old_complete":false' in envelope.body


def test_a_logical_message_is_routed_by_its_prefix() -> None:
    (envelope,) = shaped(logical_message(5, "my.prefix", b"x"))

    assert envelope.address.topic == "_.my%2Eprefix.message"


def test_a_million_message_prefixes_do_not_grow_the_shape() -> None:
    gate, shape = Gate("7-1"), Shape(TableFilter(), RoutingKey(), NativeCodec())

    for number in range(MAX_PLANS + 5):
        (numbered,) = gate.admit(
            LogicalMessage(Lsn(number + 1), transactional=False, prefix=str(number), content=b"")
        )
        shape(numbered)

    assert len(shape._messages) <= MAX_PLANS


@pytest.mark.parametrize(
    ("patterns", "excluded", "kept"),
    [
        ([], [], ["public.orders", "shop.orders", "shop.items"]),
        (["orders"], [], ["public.orders"]),
        (["*.orders"], [], ["public.orders", "shop.orders"]),
        (["shop.*"], ["shop.i*"], ["shop.orders"]),
        ([], ["*.orders"], ["shop.items"]),
        (["SHOP.*"], [], []),
    ],
)
def test_table_patterns_are_globs(patterns: list[str], excluded: list[str], kept: list[str]) -> None:
    keep = TableFilter(patterns, excluded)

    names = [("public", "orders"), ("shop", "orders"), ("shop", "items")]

    assert [".".join(name) for name in names if keep(*name)] == kept


def test_patterns_that_match_nothing_are_found() -> None:
    assert TableFilter(["orders", "shop.*"]).unmatched(["shop.items"]) == ["public.orders"]


@pytest.mark.parametrize(
    ("identifier", "key"),
    [
        ("orders", "orders"),
        ("my.table", "my%2Etable"),
        ("a b*c#d%e", "a%20b%2Ac%23d%25e"),
        ("größe_1-x", "größe_1-x"),
        ("€", "%E2%82%AC"),
    ],
)
def test_identifiers_are_escaped_in_routing_keys(identifier: str, key: str) -> None:
    assert escaped(identifier) == key


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_identifiers_have_different_routing_keys(one: str, other: str) -> None:
    assert (escaped(one) == escaped(other)) == (one == other)
    assert not set(escaped(one)) & set(".*# ")


def test_an_unknown_field_of_a_routing_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown field \{tabel\}") as caught:
        RoutingKey("{schema}.{tabel}")

    assert "{table}" in caught.value.hint


@pytest.mark.parametrize("template", ["{schema", "{}", "{schema.__class__}", "{0}"])
def test_a_broken_template_is_refused(template: str) -> None:
    with pytest.raises(ConfigError):
        RoutingKey(template)


def test_a_batch_is_full_by_events_or_by_bytes() -> None:
    by_events = Cutter(max_events=2, max_bytes=1000)
    by_bytes = Cutter(max_events=100, max_bytes=5)
    envelope = Envelope("1", ADDRESS, 0, b"abc")

    assert [by_events.add(envelope), by_events.add(envelope)] == [False, True]
    assert [by_bytes.add(envelope), by_bytes.add(envelope)] == [False, True]


def test_an_empty_batch_is_cut_only_for_a_new_lsn() -> None:
    cutter = Cutter(max_events=2, max_bytes=1000)

    assert cutter.cut(Lsn(0)) is None
    batch = cutter.cut(Lsn(10))
    assert batch is not None
    assert batch.end_lsn == 10
    assert cutter.cut(Lsn(10)) is None


ARRAYS = MemoryCatalog(
    types={
        1007: PgType(element=23),
        1009: PgType(element=25),
        1020: PgType(element=603, delimiter=";"),
        90_000: PgType(base=90_001),
        90_001: PgType(base=23),
        90_002: PgType(element=90_000),
    }
)


@pytest.mark.parametrize(
    ("oid", "text", "value"),
    [
        (1007, "{}", []),
        (1007, "{1,NULL,-3}", [1, None, -3]),
        (1007, "{{1,2},{3,4}}", [[1, 2], [3, 4]]),
        (1007, "[0:1]={1,2}", "[0:1]={1,2}"),
        (1009, '{a,"b,c","d\\"e","\\\\",NULL,"NULL","","{x}"}', ["a", "b,c", 'd"e', "\\", None, "NULL", "", "{x}"]),
        (1009, '{"a\nb"}', ["a\nb"]),
        (1020, "{(1,1),(0,0);(2,2),(1,1)}", ["(1,1),(0,0)", "(2,2),(1,1)"]),
        (90_000, "42", 42),
        (90_002, "{1,2}", [1, 2]),
        (16, "t", True),
        (701, "NaN", "NaN"),
        (701, "-Infinity", "-Infinity"),
        (701, "1e+20", 1e20),
        (1114, "2018-03-27 11:58:28.98", "2018-03-27T11:58:28.98"),
        (1114, "infinity", "infinity"),
        (1114, "0044-03-15 10:00:00 BC", "0044-03-15 10:00:00 BC"),
        (1184, "2018-03-27 11:58:28+00", "2018-03-27T11:58:28Z"),
        (1184, "294276-12-31 23:59:59.999999+00", "294276-12-31T23:59:59.999999Z"),
        (1184, "0044-03-15 10:00:00+00 BC", "0044-03-15 10:00:00+00 BC"),
    ],
)
def test_text_becomes_a_value(oid: int, text: str, value: object) -> None:
    convert = text_converter(oid, ARRAYS)

    assert convert is not None
    assert convert(text) == value


@pytest.mark.parametrize("oid", [25, 1043, 1700, 2950, 1083, 1082, 1186, 17, 26, 99_999])
def test_other_types_stay_text(oid: int) -> None:
    assert text_converter(oid, ARRAYS) is None


@given(st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0")))))
def test_any_text_array_comes_back(values: list[str | None]) -> None:
    quoted = ("NULL" if v is None else '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values)
    convert = text_converter(1009, ARRAYS)

    assert convert is not None
    assert convert("{" + ",".join(quoted) + "}") == values
