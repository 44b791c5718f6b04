"""The formats of Maxwell, Sequin, Fyle and wal2json."""

import json
from datetime import datetime
from typing import Any

import pytest

from pgevents.format import open_codec
from tests.golden.case import CASES, CONTEXT, ROW, TRANSACTION, bodies, event


def document(name: str, case: str) -> dict[str, Any]:
    (body,) = bodies(open_codec(name, CONTEXT), CASES[case])
    found: dict[str, Any] = json.loads(body.data)
    return found


@pytest.mark.parametrize("name", ["maxwell", "sequin"])
@pytest.mark.parametrize(
    ("case", "old"),
    [
        ("update-full", {"status": "new"}),
        ("update-full-nothing", {}),
        ("update-key-full", {"id": 41, "status": "new"}),
        ("update", {}),
        ("update-key", {"id": 41}),
        ("update-missing", {}),
    ],
)
def test_only_old_values_of_changed_columns_are_sent(name: str, case: str, old: dict[str, Any]) -> None:
    assert document(name, case)["old" if name == "maxwell" else "changes"] == old


def test_maxwell_rows_can_be_put_together_to_what_they_were() -> None:
    update = document("maxwell", "update-full")

    assert update["data"] | update["old"] == {**ROW, "status": "new"}


def test_maxwell_counts_from_zero_and_in_seconds() -> None:
    insert = document("maxwell", "insert")

    assert (insert["xoffset"], insert["ts"], insert["xid"]) == (2, 1_795_197_768, 733)
    assert "old" not in insert
    assert "commit" not in insert


@pytest.mark.parametrize(("name", "row"), [("maxwell", "data"), ("sequin", "record")])
def test_a_deleted_row_is_the_old_one(name: str, row: str) -> None:
    assert document(name, "delete-full")[row] == {**ROW, "status": "new"}
    assert document(name, "delete")[row] == {"id": 42}


def test_sequin_metadata_has_the_documented_fields() -> None:
    metadata = document("sequin", "insert")["metadata"]

    assert set(metadata) == {
        "table_schema",
        "table_name",
        "idempotency_key",
        "commit_timestamp",
        "commit_lsn",
        "commit_idx",
        "database_name",
        "consumer",
        "database",
        "enrichment",
        "transaction_annotations",
    }
    assert metadata["idempotency_key"] == CASES["insert"].id
    assert metadata["commit_lsn"] == 0x16B374D848


def test_sequin_says_no_changes_but_for_updates() -> None:
    assert document("sequin", "insert")["changes"] is None
    assert document("sequin", "delete-full")["changes"] is None


def fyles_own_diff(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What Fyle's producer takes for a difference."""
    added = {name: value for name, value in new.items() if name not in old and value is not None}
    return added | {name: value for name, value in new.items() if name in old and value != old[name]}


@pytest.mark.parametrize("case", ["insert", "update", "update-full", "update-full-nothing", "update-key"])
def test_fyles_difference_is_as_fyle_counts_it(case: str) -> None:
    sent = document("fyle", case)

    assert sent["diff"] == fyles_own_diff(sent["old"], sent["new"])


def test_fyle_has_empty_rows_where_there_are_none() -> None:
    insert, delete = document("fyle", "insert"), document("fyle", "delete")

    assert (insert["old"], insert["action"], insert["id"]) == ({}, "I", 42)
    assert (delete["new"], delete["diff"], delete["action"], delete["id"]) == ({}, {}, "D", 42)


def test_fyle_records_the_time_of_the_commit_as_python_writes_it() -> None:
    recorded_at = document("fyle", "insert")["recorded_at"]

    assert datetime.fromisoformat(recorded_at).isoformat() == recorded_at


def test_fyle_has_no_id_for_a_table_without_such_a_column() -> None:
    (body,) = bodies(open_codec("fyle", CONTEXT), event("insert", new={"code": "a"}))

    assert json.loads(body.data)["id"] is None


def test_wal2json_columns_are_a_list_of_names_and_values() -> None:
    update = document("wal2json", "update-key")

    assert update["action"] == "U"
    assert update["timestamp"] == "2026-11-20 18:02:48.632795+00"
    assert update["columns"][0] == {"name": "id", "value": 42}
    assert update["identity"] == [{"name": "id", "value": 41}]


@pytest.mark.parametrize(
    ("case", "absent"),
    [("insert", "identity"), ("delete", "columns"), ("truncate", "columns"), ("truncate", "identity")],
)
def test_wal2json_leaves_out_what_there_is_not(case: str, absent: str) -> None:
    assert absent not in document("wal2json", case)


@pytest.mark.parametrize(
    ("committed_at", "printed"),
    [
        ("2026-11-20T18:02:48.632790Z", "2026-11-20 18:02:48.63279+00"),
        ("2026-11-20T18:02:00.000000Z", "2026-11-20 18:02:00+00"),
    ],
)
def test_wal2json_prints_no_more_digits_of_the_second_than_there_are(committed_at: str, printed: str) -> None:
    shown = event("truncate", transaction=TRANSACTION._replace(committed_at=committed_at))

    (body,) = bodies(open_codec("wal2json", CONTEXT), shown)

    assert json.loads(body.data)["timestamp"] == printed


def test_wal2json_prints_json_as_text() -> None:
    columns = {column["name"]: column["value"] for column in document("wal2json", "types")["columns"]}

    assert json.loads(columns["json"]) == {"exact": 1.1, "text": 'a"b'}
