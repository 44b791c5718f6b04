"""Debezium's envelope."""

import base64
import json
from typing import Any

import orjson
import pytest

from pgevents.format import open_codec
from tests.golden.case import CASES, CONTEXT, bodies, event

CODEC = open_codec("debezium", CONTEXT)

# The fields of the envelope and of its source in Debezium's documentation of the PostgreSQL connector.
ENVELOPE = {"source", "transaction", "op", "ts_ms", "ts_us", "ts_ns"}
SOURCE = {
    "version",
    "connector",
    "name",
    "ts_ms",
    "ts_us",
    "ts_ns",
    "snapshot",
    "db",
    "sequence",
    "schema",
    "table",
    "txId",
    "lsn",
    "xmin",
}


def envelopes(case: str) -> list[dict[str, Any]]:
    return [json.loads(body.data) for body in bodies(CODEC, CASES[case])]


@pytest.mark.parametrize("case", CASES)
def test_an_envelope_has_the_documented_fields(case: str) -> None:
    content = {"message"} if case.startswith("message") else {"before", "after"}

    for envelope in envelopes(case):
        assert set(envelope) == ENVELOPE | content
        assert set(envelope["source"]) == SOURCE
        assert envelope["source"]["snapshot"] == "false"


@pytest.mark.parametrize(
    ("case", "ops"),
    [
        ("insert", "c"),
        ("update", "u"),
        ("update-key", "dc"),
        ("delete", "d"),
        ("truncate", "t"),
        ("message-text", "m"),
    ],
)
def test_operations_have_debeziums_letters(case: str, ops: str) -> None:
    assert "".join(envelope["op"] for envelope in envelopes(case)) == ops


@pytest.mark.parametrize("case", ["update-key", "update-key-full"])
def test_a_changed_key_is_a_delete_and_a_create_that_name_each_other(case: str) -> None:
    deleted, created = bodies(CODEC, CASES[case])

    assert (deleted.suffix, created.suffix) == ("-d", "-c")
    assert deleted.headers == (("__debezium.newkey", '{"id":42}'),)
    assert created.headers == (("__debezium.oldkey", '{"id":41}'),)
    assert json.loads(deleted.data)["before"]["id"] == 41
    assert json.loads(deleted.data)["after"] is None
    assert json.loads(created.data)["before"] is None
    assert json.loads(created.data)["after"]["id"] == 42


def test_a_key_of_json_is_changed_only_when_its_text_is() -> None:
    def update(before: str, after: str) -> int:
        key = {"id": orjson.Fragment(after)}
        return len(bodies(CODEC, event("update", key=key, new=dict(key), old={"id": orjson.Fragment(before)})))

    assert update('{"a": 1}', '{"a": 1}') == 1
    assert update('{"a": 1}', '{"a": 2}') == 2


def test_an_update_of_a_table_without_a_key_is_one_message() -> None:
    assert len(bodies(CODEC, event("update", new={"a": 2}, old={"a": 1}, old_complete=True, changed=["a"]))) == 1


def test_a_key_column_that_was_not_sent_did_not_change() -> None:
    toasted = event("update", key={"id": "long"}, new={"n": 1}, old={"id": "long"}, missing=["id"])

    (body,) = bodies(CODEC, toasted)

    assert json.loads(body.data)["after"] == {"n": 1, "id": "__debezium_unavailable_value"}


def test_an_unchanged_toast_value_is_debeziums_placeholder() -> None:
    (envelope,) = envelopes("update-missing")

    assert envelope["after"]["document"] == "__debezium_unavailable_value"
    assert "document" not in envelope["before"]


def test_times_are_those_of_the_commit() -> None:
    (envelope,) = envelopes("insert")

    for stated in (envelope, envelope["source"]):
        assert stated["ts_ms"] == 1_795_197_768_632
        assert stated["ts_us"] == 1_795_197_768_632_795
        assert stated["ts_ns"] == 1_795_197_768_632_795_000


def test_a_transaction_is_named_by_xid_and_lsn() -> None:
    (envelope,) = envelopes("insert")

    assert envelope["source"]["lsn"] == 0x16B374D848
    assert envelope["transaction"] == {
        "id": f"733:{0x16B374D848}",
        "total_order": 3,
        "data_collection_order": None,
    }


def test_a_message_outside_a_transaction_has_no_transaction_and_no_time() -> None:
    (envelope,) = envelopes("message-alone")

    assert envelope["transaction"] is None
    assert envelope["source"]["txId"] is None
    assert envelope["source"]["ts_ms"] is None


@pytest.mark.parametrize(("case", "content"), [("message-text", b"welcome 42"), ("message-hex", b"\0\xff")])
def test_a_messages_content_is_base64_of_its_bytes(case: str, content: bytes) -> None:
    (envelope,) = envelopes(case)

    assert envelope["message"]["prefix"] == "mail"
    assert base64.b64decode(envelope["message"]["content"]) == content


def test_json_is_text_as_debezium_has_it() -> None:
    (envelope,) = envelopes("types")

    assert envelope["after"]["json"] == '{"exact": 1.10, "text": "a\\"b"}'
    assert envelope["after"]["json_array"] == ['{"a": 1}', None]
