import copy
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from pgevents.codec.native import NativeCodec
from pgevents.event import Event, Transaction

SCHEMA = json.loads(resources.files("pgevents").joinpath("event.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

ROW = {"id": 42, "status": "paid", "amount": "12.50", "tags": {"src": "web"}, "ratio": 0.5, "note": None}
TX = {
    "xid": 733,
    "lsn": "16/B374D848",
    "seq": 3,
    "committed_at": "2026-11-20T18:02:48.632795Z",
    "origin": None,
}
INSERT: dict[str, Any] = {
    "v": 1,
    "id": "7446123456789012345-1-16B374D848-3",
    "op": "insert",
    "schema": "public",
    "table": "orders",
    "key": {"id": 42},
    "new": ROW,
    "old": None,
    "old_complete": False,
    "changed": None,
    "missing": [],
    "tx": TX,
}
UPDATE = INSERT | {"op": "update", "old": {"id": 42}, "missing": ["document"]}
FULL_UPDATE = INSERT | {
    "op": "update",
    "old": ROW | {"status": "new"},
    "old_complete": True,
    "changed": ["status"],
}
DELETE = INSERT | {"op": "delete", "new": None, "old": {"id": 42}}
FULL_DELETE = DELETE | {"key": None, "old": ROW, "old_complete": True}
TRUNCATE = INSERT | {"op": "truncate", "key": None, "new": None}
MESSAGE = TRUNCATE | {
    "op": "message",
    "schema": None,
    "table": None,
    "message": {"prefix": "outbox", "content": "höflich", "encoding": "text", "transactional": True},
}
LONE_MESSAGE = MESSAGE | {
    "message": {"prefix": "", "content": "\\x00ff", "encoding": "hex", "transactional": False},
    "tx": TX | {"xid": None, "seq": 0, "committed_at": None},
}
SKIP = MESSAGE | {
    "id": "7446123456789012345-1-16B374D848-skip",
    "op": "skip",
    "skip": {
        "rule": "migrations",
        "action": "drop",
        "reason": "backfill",
        "by": None,
        "application": None,
        "from_seq": 1,
        "rows": [{"schema": "public", "table": "orders", "update": 2}],
        "messages": 0,
    },
}
del SKIP["message"]
SUMMARY = TRUNCATE | {
    "op": "summary",
    "summary": {"operations": {"update": 3}, "first": {"id": 1}, "last": {"id": 3}, "columns": None},
    "tx": TX | {"seq": 0},
}
VALID = {
    "skip": SKIP,
    "a skip of nothing": SKIP | {"tx": TX | {"seq": 0}, "skip": SKIP["skip"] | {"rows": [], "from_seq": None}},
    "summary": SUMMARY,
    "insert": INSERT,
    "insert without a key": INSERT | {"key": None},
    "insert from an origin": INSERT | {"tx": TX | {"origin": "pg_16402"}},
    "update": UPDATE,
    "update with the whole old row": FULL_UPDATE,
    "update that changed nothing": FULL_UPDATE | {"changed": []},
    "delete": DELETE,
    "delete with the whole old row": FULL_DELETE,
    "truncate": TRUNCATE,
    "message": MESSAGE,
    "message outside a transaction": LONE_MESSAGE,
}


def without(event: dict[str, Any], *path: str) -> dict[str, Any]:
    shorter = copy.deepcopy(event)
    inner = shorter
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return shorter


def with_tx(event: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return event | {"tx": event["tx"] | fields}


def with_message(event: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return event | {"message": event["message"] | fields}


BROKEN = (
    {
        "an unknown field": INSERT | {"colour": "red"},
        "an unknown field of tx": with_tx(INSERT, gtid="1"),
        "an unknown field of message": with_message(MESSAGE, lsn="0/1"),
        "another version": INSERT | {"v": 2},
        "an unknown op": INSERT | {"op": "upsert"},
        "an id with an LSN's slash": INSERT | {"id": "7446123456789012345-1-16/B374D848-3"},
        "an id without seq": INSERT | {"id": "7446123456789012345-1-16B374D848"},
        "an empty key": INSERT | {"key": {}},
        "an insert with old": INSERT | {"old": {"id": 42}},
        "an insert without new": INSERT | {"new": None},
        "an insert with a complete old row": INSERT | {"old_complete": True},
        "an insert with changed": INSERT | {"changed": ["id"]},
        "an insert with something missing": INSERT | {"missing": ["note"]},
        "an update without old": UPDATE | {"old": None},
        "an update without new": UPDATE | {"new": None},
        "an update with changed but a key only": UPDATE | {"changed": ["status"]},
        "an update with all of old but changed unknown": FULL_UPDATE | {"changed": None},
        "an update with all of old but something missing": FULL_UPDATE | {"missing": ["document"]},
        "an update with a column changed twice": FULL_UPDATE | {"changed": ["status", "status"]},
        "an update with a changed column that is no name": FULL_UPDATE | {"changed": [1]},
        "missing that is null": UPDATE | {"missing": None},
        "a delete with new": DELETE | {"new": ROW},
        "a delete without old": DELETE | {"old": None},
        "a delete with changed": FULL_DELETE | {"changed": []},
        "a delete with something missing": DELETE | {"missing": ["note"]},
        "a truncate with a row": TRUNCATE | {"new": ROW},
        "a truncate with a key": TRUNCATE | {"key": {"id": 42}},
        "a truncate of no table": TRUNCATE | {"table": None},
        "a row change of no schema": INSERT | {"schema": None},
        "a row change with a message": INSERT | {"message": MESSAGE["message"]},
        "a message without its content": without(MESSAGE, "message"),
        "a message without a prefix": without(MESSAGE, "message", "prefix"),
        "a message of a table": MESSAGE | {"schema": "public", "table": "orders"},
        "a message with a row": MESSAGE | {"new": ROW},
        "a message in an unknown encoding": with_message(MESSAGE, encoding="base64"),
        "a message in hex that is none": with_message(MESSAGE, encoding="hex", content="00ff"),
        "a transactional message without xid": with_tx(MESSAGE, xid=None),
        "a transactional message numbered 0": with_tx(MESSAGE, seq=0),
        "a message outside a transaction with xid": with_tx(LONE_MESSAGE, xid=733),
        "a message outside a transaction with seq": with_tx(LONE_MESSAGE, seq=1),
        "a message outside a transaction with a commit": with_tx(LONE_MESSAGE, committed_at=TX["committed_at"]),
        "a row change without xid": with_tx(INSERT, xid=None),
        "a row change without a commit time": with_tx(INSERT, committed_at=None),
        "a row change numbered 0": with_tx(INSERT, seq=0),
        "a commit time without microseconds": with_tx(INSERT, committed_at="2026-11-20T18:02:48Z"),
        "a commit time with an offset": with_tx(INSERT, committed_at="2026-11-20T18:02:48.632795+00:00"),
        "a commit time with a space": with_tx(INSERT, committed_at="2026-11-20 18:02:48.632795Z"),
        "an LSN in lower case": with_tx(INSERT, lsn="16/b374d848"),
        "an xid of text": with_tx(INSERT, xid="733"),
        "an origin of a number": with_tx(INSERT, origin=1),
    }
    | {f"no {name}": without(INSERT, name) for name in INSERT}
    | {f"no {name} in tx": without(INSERT, "tx", name) for name in TX}
)


def test_the_schema_is_a_schema() -> None:
    VALIDATOR.check_schema(SCHEMA)


@pytest.mark.parametrize("event", VALID.values(), ids=VALID)
def test_an_event_of_each_kind_is_valid(event: dict[str, Any]) -> None:
    VALIDATOR.validate(event)


@pytest.mark.parametrize("event", BROKEN.values(), ids=BROKEN)
def test_a_broken_event_is_refused(event: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(event)


def test_what_the_native_codec_writes_is_valid() -> None:
    transaction = Transaction("1-1-16B374D848-", 733, "16/B374D848", "2026-11-20T18:02:48.632795Z", 1795198968, None)
    event = Event(
        f"{transaction.id_prefix}3",
        "insert",
        "public",
        "orders",
        key={"id": 42},
        new=ROW,
        old=None,
        old_complete=False,
        changed=None,
        missing=[],
        transaction=transaction,
        seq=3,
    )

    VALIDATOR.validate(orjson.loads(NativeCodec().encode(event)))


EXAMPLES = re.findall(
    r"^```json\n(.*?)^```",
    (Path(__file__).parents[2] / "docs" / "event.md").read_text("utf-8"),
    re.DOTALL | re.MULTILINE,
)


@pytest.mark.parametrize("text", EXAMPLES, ids=["update", "skip", "message"])
def test_the_examples_of_the_documentation_are_valid(text: str) -> None:
    VALIDATOR.validate(json.loads(text))


@pytest.mark.parametrize("properties", [SCHEMA["properties"], SCHEMA["properties"]["tx"]["properties"]])
def test_the_documentation_has_every_field(properties: dict[str, Any]) -> None:
    documentation = (Path(__file__).parents[2] / "docs" / "event.md").read_text("utf-8")
    cells = " ".join(re.findall(r"^\| (`.*?) \|", documentation, re.MULTILINE))

    assert [name for name in properties if f"`{name}`" not in cells] == []
