"""An event as a line for a person."""

import io
import sys
from typing import Any

import orjson
import pytest

from pgevents.tail import readable
from pgevents.view import WIDTH, line_of

UPDATE: dict[str, Any] = {
    "v": 1,
    "op": "update",
    "schema": "public",
    "table": "orders",
    "key": {"id": 7},
    "new": {"id": 7, "status": "paid"},
    "old": {"id": 7, "status": "open"},
    "changed": ["status"],
    "tx": {"lsn": "16/B374D848", "committed_at": "2026-11-20T18:02:48.632795Z"},
}
FOREIGN = [[], 7, "text", {}, {"tx": None}]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def event(**fields: Any) -> dict[str, Any]:
    return UPDATE | fields


def shown(**fields: Any) -> str:
    """What stands between the clock and the LSN."""
    return line_of(event(**fields)).split("  ", 1)[1].rsplit("  ", 1)[0]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"op": "insert", "old": None, "changed": None}, "INSERT    public.orders #7  status=paid"),
        ({}, "UPDATE    public.orders #7  status: open → paid"),
        ({"op": "delete", "new": None, "changed": None}, "DELETE    public.orders #7  status=open"),
        ({"op": "truncate", "key": None, "new": None, "old": None, "changed": None}, "TRUNCATE  public.orders"),
    ],
)
def test_each_operation_names_the_row_and_what_it_did(fields: dict[str, Any], line: str) -> None:
    assert shown(**fields) == line


def test_a_logical_message_shows_its_prefix_and_content() -> None:
    nothing: dict[str, None] = dict.fromkeys(("schema", "table", "key", "new", "old", "changed"))
    message = {"prefix": "mail", "content": "welcome 42", "encoding": "text", "transactional": False}
    tx = {"lsn": "16/B374D848", "committed_at": None}

    line = line_of(event(op="message", message=message, tx=tx, **nothing))

    assert line == f"{'-':<12}  MESSAGE   mail  welcome 42  16/B374D848"


def test_when_and_where_it_was_committed_stand_at_the_ends() -> None:
    line = line_of(UPDATE)

    assert line.startswith("18:02:48.632  UPDATE")
    assert line.endswith("  16/B374D848")


def test_an_update_whose_old_row_is_not_known_shows_the_new_one() -> None:
    assert shown(old={"id": 7}, changed=None) == "UPDATE    public.orders #7  status=paid"


def test_an_update_that_changed_nothing_shows_nothing() -> None:
    assert shown(changed=[]) == "UPDATE    public.orders #7"


def test_a_row_without_a_key_shows_all_its_columns() -> None:
    assert shown(op="insert", key=None, changed=None) == "INSERT    public.orders  id=7, status=paid"


def test_a_key_of_several_columns_is_shown_whole() -> None:
    assert shown(key={"id": 7, "part": "a"}).startswith("UPDATE    public.orders #7,a  ")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), (1.5, "1.5"), ([1, None], "[1,null]"), ({"a": 1}, '{"a":1}')]
)
def test_a_value_that_is_no_text_is_shown_as_json(value: object, text: str) -> None:
    assert shown(new={"id": 7, "status": value}).endswith(f"open → {text}")


def test_a_long_value_is_cut() -> None:
    fits, too_long = "x" * WIDTH, "x" * (WIDTH + 1)

    assert shown(new={"id": 7, "status": fits}).endswith(f"→ {fits}")
    assert shown(new={"id": 7, "status": too_long}).endswith(f"→ {'x' * (WIDTH - 1)}…")


@pytest.mark.parametrize("place", ["schema", "table", "key", "column", "value", "prefix", "op"])
def test_no_control_character_reaches_the_terminal(place: str) -> None:
    bad = "a\x1b[31m\n\r\x9b\u202eb"
    fields: dict[str, dict[str, Any]] = {
        "schema": {"schema": bad},
        "table": {"table": bad},
        "key": {"key": {"id": bad}},
        "column": {"new": {bad: 1}, "changed": None},
        "value": {"new": {"id": 7, "status": bad}},
        "prefix": {"op": "message", "message": {"prefix": bad, "content": ""}},
        "op": {"op": bad},
    }

    line = line_of(event(**fields[place]))

    assert line.isprintable()
    assert "a·[31m····b" in line.lower()


@pytest.mark.parametrize("body", [b"caf\xc3\xa9", b"{", *map(orjson.dumps, FOREIGN)])
def test_a_body_that_is_no_event_is_shown_as_it_is(body: bytes) -> None:
    assert readable(body) == body


@pytest.mark.parametrize("fields", [{"op": 5}, {"key": "x"}, {"new": [1]}, {"changed": ["gone"]}, {"changed": 5}])
def test_a_body_that_is_almost_an_event_is_shown_as_it_is(fields: dict[str, Any]) -> None:
    body = orjson.dumps(event(**fields))

    assert readable(body) == body


def test_a_foreign_body_brings_no_control_characters() -> None:
    assert readable(b"\x1b[2Jcleared\nforged\xff").decode() == "·[2Jcleared·forged\N{REPLACEMENT CHARACTER}"


def test_what_is_no_terminal_gets_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())

    assert "\x1b" not in line_of(UPDATE)


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colour_unless_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, no_color: str, is_coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys, "stdout", Terminal())

    assert ("\x1b[33mUPDATE  \x1b[0m" in line_of(UPDATE)) is is_coloured
