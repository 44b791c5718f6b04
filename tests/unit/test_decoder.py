"""Both decoders on messages recorded from a real server, and on what no server sends."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.codec.native import NativeCodec
from pgevents.decoder.pgoutput import PgoutputDecoder
from pgevents.decoder.wal2json import Wal2jsonDecoder
from pgevents.errors import DecodeError
from pgevents.event import Envelope
from pgevents.filters import TableFilter
from pgevents.gate import Gate
from pgevents.interfaces import Decoder
from pgevents.routing import RoutingKey
from pgevents.shape import Shape
from pgevents.testing import MemoryCatalog
from pgevents.wal import Change, Column, PgType, RawMessage, TableFacts, WalItem

RECORDED = Path(__file__).parent / "recorded"


def recorded(plugin: str) -> list[RawMessage]:
    lines = (RECORDED / f"{plugin}.txt").read_text().splitlines()
    return [RawMessage(int(lsn), bytes.fromhex(data)) for lsn, data in (line.split() for line in lines)]


def facts(identity: str, key: tuple[str, ...], **columns: int) -> TableFacts:
    return TableFacts(tuple(Column(*column) for column in columns.items()), frozenset(), identity, key, ())


ORDERS = facts(
    "f",
    ("id",),
    id=23,
    status=25,
    amount=1700,
    tags=3802,
    paid=16,
    weight=701,
    placed=1184,
    raw=17,
    sizes=1007,
    note=25,
)
KEYED = facts("d", ("id",), id=23, name=25, doc=25)
PAIRS = facts("d", ("a", "b"), a=23, b=25, c=23)
CATALOG = MemoryCatalog(
    types={1007: PgType(element=23)},
    tables={("public", "orders"): ORDERS, ("public", "keyed"): KEYED, ("public", "pairs"): PAIRS},
)
DECODERS = {"wal2json": Wal2jsonDecoder, "pgoutput": PgoutputDecoder}
PLUGINS = pytest.mark.parametrize("plugin", DECODERS)


def decoder_of(plugin: str) -> Decoder:
    made: Decoder = DECODERS[plugin](CATALOG)
    return made


def items(plugin: str) -> list[WalItem]:
    decoder = decoder_of(plugin)
    decoded = [decoder.decode(message) for message in recorded(plugin)]
    return [item for item in decoded if item is not None]


def envelopes(plugin: str) -> list[Envelope]:
    gate, shape = Gate("7-1"), Shape(TableFilter(), RoutingKey(), NativeCodec())
    return [envelope for item in items(plugin) for numbered in gate.admit(item) for envelope in shape(numbered)]


def events(plugin: str, table: str, op: str) -> list[dict[str, Any]]:
    parsed = (orjson.loads(envelope.body) for envelope in envelopes(plugin))
    return [event for event in parsed if event["table"] == table and event["op"] == op]


def test_both_plug_ins_give_the_same_envelopes() -> None:
    assert envelopes("wal2json") == envelopes("pgoutput")
    assert len(envelopes("wal2json")) == 18


@PLUGINS
def test_a_row_keeps_every_value(plugin: str) -> None:
    (event,) = events(plugin, "orders", "insert")

    assert event["new"] == {
        "id": 1,
        "status": "new",
        "amount": "12.50",
        "tags": {"n": 1.0, "src": "web"},
        "paid": True,
        "weight": 0.0,
        "placed": "2026-11-20T18:02:48.63Z",
        "raw": "\\xdeadbeef",
        "sizes": [1, None, 3],
        "note": "ab" * 5000,
    }
    assert event["old"] is None
    assert event["key"] == {"id": 1}


@PLUGINS
def test_a_full_old_image_shows_what_changed_and_fills_unchanged_toast(plugin: str) -> None:
    paid, shortened = events(plugin, "orders", "update")

    assert paid["old_complete"] is True
    assert paid["changed"] == ["status", "amount", "weight"]
    assert (paid["old"]["amount"], paid["new"]["amount"]) == ("12.50", "1234567890.01")
    assert paid["new"]["note"] == paid["old"]["note"] == "ab" * 5000
    assert paid["missing"] == []
    assert list(paid["new"]) == [column.name for column in ORDERS.columns]
    assert shortened["changed"] == ["note"]


@PLUGINS
def test_unchanged_toast_without_an_old_image_is_missing_and_never_null(plugin: str) -> None:
    renamed, _ = events(plugin, "keyed", "update")

    assert renamed["missing"] == ["doc"]
    assert "doc" not in renamed["new"]
    assert renamed["changed"] is None
    assert renamed["old"] == {"id": 1}


@PLUGINS
def test_a_changed_key_is_old_and_new(plugin: str) -> None:
    _, moved = events(plugin, "keyed", "update")
    (_, renamed) = events(plugin, "pairs", "update")

    assert (moved["key"], moved["old"]) == ({"id": 3}, {"id": 2})
    assert (renamed["key"], renamed["old"]) == ({"a": 1, "b": "y"}, {"a": 1, "b": "x"})


@PLUGINS
def test_a_deleted_row_holds_its_key_or_its_whole_image(plugin: str) -> None:
    (keyed,), (whole,) = events(plugin, "keyed", "delete"), events(plugin, "orders", "delete")

    assert (keyed["new"], keyed["old"], keyed["old_complete"]) == (None, {"id": 3}, False)
    assert whole["old"]["note"] == "short"
    assert whole["old_complete"] is True


@PLUGINS
def test_a_truncate_of_two_tables_is_two_events(plugin: str) -> None:
    (orders,), (pairs,) = events(plugin, "orders", "truncate"), events(plugin, "pairs", "truncate")

    assert (orders["tx"]["seq"], pairs["tx"]["seq"]) == (1, 2)
    assert orders["tx"]["lsn"] == pairs["tx"]["lsn"]


@PLUGINS
def test_logical_messages_carry_their_prefix_and_content(plugin: str) -> None:
    transactional, lone = (orjson.loads(envelope.body) for envelope in envelopes(plugin)[-3:-1])

    assert transactional["message"] == {
        "prefix": "audit",
        "content": "hello",
        "encoding": "text",
        "transactional": True,
    }
    assert (lone["tx"]["xid"], lone["tx"]["seq"], lone["tx"]["committed_at"]) == (None, 0, None)


@PLUGINS
def test_embedded_json_keeps_its_digits(plugin: str) -> None:
    inserted = next(e for e in envelopes(plugin) if e.address.topic == "public.orders.insert")

    assert b'"tags":{"n": 1.0, "src": "web"}' in inserted.body


def test_a_negative_zero_keeps_its_sign() -> None:
    catalog = MemoryCatalog(tables={("public", "t"): facts("d", (), f=701, g=701)})
    payload = (
        b'{"action":"I","schema":"public","table":"t","columns":[{"name":"f","typeoid":701,"value":-0},'
        b'{"name":"g","typeoid":701,"value":0}],"pk":[]}'
    )

    change = Wal2jsonDecoder(catalog).decode(RawMessage(1, payload))

    assert isinstance(change, Change)
    assert change.new is not None
    assert [str(change.new[name]) for name in "fg"] == ["-0", "0"]


@given(st.decimals(allow_nan=False, allow_infinity=False), st.text(), st.booleans())
def test_a_numeric_keeps_every_digit_whatever_stands_beside_it(number: Any, text: str, null: bool) -> None:
    catalog = MemoryCatalog(tables={("public", "t"): facts("d", (), s=25, z=1700, n=1700)})
    columns = [
        {"name": "s", "typeoid": 25, "value": text + '"typeoid":1700,"value":7}'},
        {"name": "z", "typeoid": 1700, "value": None if null else 1},
    ]
    last = b'{"name":"n","typeoid":1700,"value":' + f"{number:f}".encode() + b"}"
    payload = (
        b'{"action":"I","schema":"public","table":"t","columns":['
        + b",".join([*(orjson.dumps(column) for column in columns), last])
        + b'],"pk":[]}'
    )

    change = Wal2jsonDecoder(catalog).decode(RawMessage(1, payload))

    assert isinstance(change, Change)
    assert change.new is not None
    assert change.new["n"] == f"{number:f}"
    assert change.new["z"] == (None if null else "1")


@PLUGINS
@given(data=st.data())
@pytest.mark.fault("I21")
def test_malformed_input_raises_only_decode_errors(plugin: str, data: st.DataObject) -> None:
    decoder, messages = decoder_of(plugin), recorded(plugin)
    for message in messages:
        decoder.decode(message)
    message = data.draw(st.sampled_from(messages))
    broken = bytearray(message.payload[: data.draw(st.integers(0, min(400, len(message.payload))))])
    for _ in range(data.draw(st.integers(0, 3))):
        if broken:
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))

    decode_or_refuse(decoder, RawMessage(77, bytes(broken)))


@PLUGINS
@given(payload=st.binary(max_size=60))
def test_arbitrary_bytes_raise_only_decode_errors(plugin: str, payload: bytes) -> None:
    decode_or_refuse(decoder_of(plugin), RawMessage(77, payload))


def decode_or_refuse(decoder: Decoder, message: RawMessage) -> None:
    refusals: list[DecodeError] = []
    try:
        decoder.decode(message)
    except DecodeError as refusal:
        refusals.append(refusal)
    assert all(refusal.lsn == 77 and refusal.__suppress_context__ for refusal in refusals)


@PLUGINS
def test_a_truncated_message_is_refused_at_every_length(plugin: str) -> None:
    for message in recorded(plugin):
        decoder = decoder_of(plugin)
        if plugin == "pgoutput":
            for earlier in recorded(plugin):
                decoder.decode(earlier)
        for length in range(min(len(message.payload), 300)):
            if message.payload[:1] != b"Y":
                with pytest.raises(DecodeError):
                    decoder.decode(RawMessage(message.lsn, message.payload[:length]))


@PLUGINS
@pytest.mark.fault("I21")
def test_a_decode_error_names_the_lsn_and_holds_no_row_values(plugin: str) -> None:
    decoder = decoder_of(plugin)
    insert = next(m for m in recorded(plugin) if b"deadbeef" in m.payload)

    with pytest.raises(DecodeError) as caught:
        decoder.decode(RawMessage(0x16B374D848, insert.payload[:-1] + b"\xff"))

    assert "16/B374D848" in str(caught.value)
    assert "deadbeef" not in f"{caught.value!r} {caught.value.hint}"


def test_content_that_is_no_text_reaches_the_event_in_hex() -> None:
    payload = b'{"action":"M","lsn":"0/12C","transactional":false,"prefix":"raw","content":"\xff\xfe"}'

    message = Wal2jsonDecoder(MemoryCatalog()).decode(RawMessage(300, payload))
    (numbered,) = Gate("7-1").admit(message) if message else ()
    [envelope] = Shape(TableFilter(), RoutingKey(), NativeCodec())(numbered)

    assert orjson.loads(envelope.body)["message"] == {
        "prefix": "raw",
        "content": "\\xfffe",
        "encoding": "hex",
        "transactional": False,
    }


def test_a_database_in_latin1_is_transcoded() -> None:
    catalog = MemoryCatalog(tables={("public", "t"): facts("d", (), s=25)})
    text = '{"action":"I","schema":"public","table":"t","columns":[{"name":"s","typeoid":25,"value":"Zoë"}],"pk":[]}'

    change = Wal2jsonDecoder(catalog, encoding="iso8859_1").decode(RawMessage(1, text.encode("latin-1")))

    assert isinstance(change, Change)
    assert change.new == {"s": "Zoë"}
