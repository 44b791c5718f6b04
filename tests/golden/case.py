"""The events that every format is shown with, and the files that they make."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from pgevents.event import Body, Event, Transaction
from pgevents.format import CodecContext, open_codec
from pgevents.interfaces import Codec

FOLDER = Path(__file__).parent
CONTEXT = CodecContext(database="shop", name="orders-stream", version="1.2.3")

PREFIX = "7446123456789012345-1-16B374D848-"
TRANSACTION = Transaction(PREFIX, 733, "16/B374D848", "2026-11-20T18:02:48.632795Z", 1_795_197_768, None)
LONE = Transaction("7446123456789012345-1-16B374DA00-", None, "16/B374DA00", None, 0, None)

ROW = {"id": 42, "status": "paid", "amount": "12.50", "note": None}
OLD = {**ROW, "status": "new"}


def event(op: str, *, seq: int = 3, transaction: Transaction = TRANSACTION, **fields: Any) -> Event:
    """An event of the table public.orders that has ``fields``."""
    known: dict[str, Any] = {
        "schema": "public",
        "table": "orders",
        "key": None,
        "new": None,
        "old": None,
        "old_complete": False,
        "changed": None,
        "missing": [],
    }
    return Event(id=f"{transaction.id_prefix}{seq}", op=op, transaction=transaction, seq=seq, **{**known, **fields})


def _message(content: str, encoding: str = "text", *, transaction: Transaction = TRANSACTION, seq: int = 3) -> Event:
    message = {
        "prefix": "mail",
        "content": content,
        "encoding": encoding,
        "transactional": transaction is TRANSACTION,
    }
    return event("message", seq=seq, transaction=transaction, schema=None, table=None, message=message)


TYPES: dict[str, Any] = {
    "id": -9_223_372_036_854_775_808,
    "big": 9_223_372_036_854_775_807,
    "numeric": "-12345678901234567890.123456789000",
    "not_a_number": "NaN",
    "float": 0.1,
    "tiny": 5e-324,
    "minus_zero": -0.0,
    "infinite": "-Infinity",
    "yes": True,
    "json": orjson.Fragment('{"exact": 1.10, "text": "a\\"b"}'),
    "json_null": orjson.Fragment("null"),
    "array": [[1, None], [2, 3]],
    "json_array": [orjson.Fragment('{"a": 1}'), None],
    "shifted_array": "[0:1]={1,2}",
    "timestamp": "2018-03-27T11:58:28.98",
    "timestamptz": "2018-03-27T11:58:28.98Z",
    "forever": "infinity",
    "date": "2026-11-20",
    "interval": "1 year 2 mons 3 days 04:05:06",
    "bytea": "\\xdeadbeef",
    "empty": "",
    "unicode": "höflich 🐘 \u2028 \u0001",
    "null": None,
}
WEIRD: dict[str, Any] = {"": 1, 'a"b': 2, "ключ\n": 3, "op": 4}

CASES: dict[str, Event] = {
    "insert": event("insert", key={"id": 42}, new=ROW),
    "insert-without-key": event("insert", new=ROW),
    "update": event("update", key={"id": 42}, new=ROW, old={"id": 42}),
    "update-full": event("update", key={"id": 42}, new=ROW, old=OLD, old_complete=True, changed=["status"]),
    "update-full-nothing": event("update", key={"id": 42}, new=ROW, old=ROW, old_complete=True, changed=[]),
    "update-key": event("update", key={"id": 42}, new=ROW, old={"id": 41}),
    "update-key-full": event(
        "update", key={"id": 42}, new=ROW, old={**OLD, "id": 41}, old_complete=True, changed=["id", "status"]
    ),
    "update-missing": event(
        "update", key={"id": 42}, new={"id": 42, "status": "paid"}, old={"id": 42}, missing=["document", "photo"]
    ),
    "delete": event("delete", key={"id": 42}, old={"id": 42}),
    "delete-full": event("delete", key={"id": 42}, old=OLD, old_complete=True),
    "truncate": event("truncate"),
    "message-text": _message("welcome 42"),
    "message-hex": _message("\\x00ff", "hex"),
    "message-alone": _message("höflich", transaction=LONE, seq=0),
    "types": event("insert", key={"id": TYPES["id"]}, new=TYPES),
    "identifiers": event("insert", schema='Sales "EU"', table="order.items\n", key={"": 1}, new=WEIRD),
    "origin": event("insert", key={"id": 42}, new=ROW, transaction=TRANSACTION._replace(origin="pg_16402")),
}


def bodies(codec: Codec, event: Event) -> Sequence[Body]:
    """What ``codec`` makes of an event, also where that is one body without more."""
    encoded = codec.encode(event)
    return (Body(encoded),) if isinstance(encoded, bytes) else encoded


def golden_files(name: str) -> Iterator[tuple[str, bytes]]:
    """The files of a format: each message's body as a line, and its headers where it has any.

    A case that the format has no word for makes none.
    """
    codec = open_codec(name, CONTEXT)
    for case, shown in CASES.items():
        for body in bodies(codec, shown):
            yield f"{case}{body.suffix}.json", body.data + b"\n"
            if body.headers:
                yield f"{case}{body.suffix}.headers.json", _readable(dict(body.headers))


def _readable(headers: dict[str, str]) -> bytes:
    return orjson.dumps(headers, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
