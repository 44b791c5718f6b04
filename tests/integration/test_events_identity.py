"""Replica identities and TOAST: what key, old, old_complete, changed and missing hold."""

import secrets
from typing import Any

import pytest

from tests.integration.streaming import Json, Recording, ask, run

PARTS = ("key", "new", "old", "old_complete", "changed", "missing")


def parts(event: Json) -> dict[str, Any]:
    return {part: event[part] for part in PARTS}


def inserted(key: Json | None, new: Json) -> Json:
    return {"key": key, "new": new, "old": None, "old_complete": False, "changed": None, "missing": []}


def updated(key: Json, new: Json, old: Json) -> Json:
    return {"key": key, "new": new, "old": old, "old_complete": False, "changed": None, "missing": []}


def deleted(key: Json | None, old: Json, *, complete: bool = False) -> Json:
    return {"key": key, "new": None, "old": old, "old_complete": complete, "changed": None, "missing": []}


@pytest.mark.fault("F97")
def test_default_identity_gives_the_primary_key(database15: str) -> None:
    run(database15, "create table t (note text, id int primary key)")
    recording = Recording(database15)

    recording.run(
        "insert into t values ('a', 1)",
        "update t set note = null",
        "update t set id = 2, note = 'c'",
        "delete from t",
    )

    assert list(map(parts, recording.equal_events())) == [
        inserted({"id": 1}, {"note": "a", "id": 1}),
        updated({"id": 1}, {"note": None, "id": 1}, {"id": 1}),
        updated({"id": 2}, {"note": "c", "id": 2}, {"id": 1}),
        deleted({"id": 2}, {"id": 2}),
    ]


@pytest.mark.fault("F97")
def test_a_composite_key_keeps_the_order_of_the_table(database15: str) -> None:
    run(database15, "create table t (a int, note text, b text, c uuid, primary key (c, b, a))")
    recording = Recording(database15)
    nil = "00000000-0000-0000-0000-000000000000"

    recording.run(
        f"insert into t values (1, 'x', 'k', '{nil}')",
        "update t set note = 'y'",
        "update t set b = 'l'",
        "delete from t",
    )
    events = recording.equal_events()

    old_key, key = {"a": 1, "b": "k", "c": nil}, {"a": 1, "b": "l", "c": nil}
    assert [event["key"] for event in events] == [old_key, old_key, key, key]
    assert [event["old"] for event in events] == [None, old_key, old_key, key]
    assert list(events[0]["key"]) == ["a", "b", "c"]


@pytest.mark.fault("F97")
def test_keys_of_user_defined_types(database15: str) -> None:
    run(
        database15,
        "create type mood as enum ('sad', 'ok'); create domain whole as int",
        "create table t (m mood, w whole, n numeric(10, 2), b bytea, at timestamptz, primary key (m, w, n, b, at))",
    )
    recording = Recording(database15)

    recording.run(
        "insert into t values ('ok', 1, 1.5, '\\xff', '2024-01-01 00:00:00Z')", "update t set w = 2, n = 2.50"
    )
    recording.run("delete from t")
    events = recording.equal_events()

    first = {"m": "ok", "w": 1, "n": "1.50", "b": "\\xff", "at": "2024-01-01T00:00:00Z"}
    second = first | {"w": 2, "n": "2.50"}
    assert [event["key"] for event in events] == [first, second, second]
    assert [event["old"] for event in events] == [None, first, second]


@pytest.mark.parametrize("identity", ["default", "nothing"])
@pytest.mark.fault("F98")
def test_a_table_without_an_identity_gives_its_inserts(database15: str, identity: str) -> None:
    run(database15, "create table t (a int)", f"alter table t replica identity {identity}")
    recording = Recording(database15)

    recording.run("insert into t values (1), (1)")

    assert list(map(parts, recording.equal_events())) == [inserted(None, {"a": 1})] * 2


def test_identity_nothing_still_names_the_primary_key(database15: str) -> None:
    run(database15, "create table t (id int primary key, a int)", "alter table t replica identity nothing")
    recording = Recording(database15)

    recording.run("insert into t values (1, 2)")

    assert list(map(parts, recording.equal_events())) == [inserted({"id": 1}, {"id": 1, "a": 2})]


@pytest.mark.fault("F98")
def test_wal2json_leaves_out_what_has_no_identity(database15: str) -> None:
    """The plug-in only warns in the server's log. A publication makes the UPDATE itself fail instead."""
    run(database15, "create table t (a int)", "create table u (id int primary key)")
    recording = Recording(database15, plugins=("wal2json",))

    recording.run("insert into t values (1); insert into u values (1); update t set a = 2; update u set id = 2")
    events = recording.events("wal2json")

    assert [(event["op"], event["table"], event["tx"]["seq"]) for event in events] == [
        ("insert", "t", 1),
        ("insert", "u", 2),
        ("update", "u", 3),
    ]


def test_an_index_as_identity_gives_its_columns(database15: str) -> None:
    run(
        database15,
        "create table t (id int primary key, a int not null, note text, b text not null)",
        "create unique index t_ba on t (b, a) include (note); alter table t replica identity using index t_ba",
    )
    recording = Recording(database15)

    recording.run(
        "insert into t values (1, 2, 'n', 'x')",
        "update t set note = 'm'",
        "update t set id = 5",
        "update t set a = 3",
        "delete from t",
    )

    before, after = {"a": 2, "b": "x"}, {"a": 3, "b": "x"}
    assert list(map(parts, recording.equal_events())) == [
        inserted(before, {"id": 1, "a": 2, "note": "n", "b": "x"}),
        updated(before, {"id": 1, "a": 2, "note": "m", "b": "x"}, before),
        updated(before, {"id": 5, "a": 2, "note": "m", "b": "x"}, before),
        updated(after, {"id": 5, "a": 3, "note": "m", "b": "x"}, before),
        deleted(after, after),
    ]


def test_full_identity_gives_the_whole_old_row_and_what_changed(database15: str) -> None:
    run(database15, "create table t (a text, id int primary key, b numeric)", "alter table t replica identity full")
    recording = Recording(database15)

    recording.run(
        "insert into t values ('a', 1, 1.0)",
        "update t set a = null, b = 1.00",
        "update t set a = a",
        "update t set id = 2, a = 'z'",
        "delete from t",
    )
    first, second, same, moved, gone = map(parts, recording.equal_events())

    one, two = {"a": "a", "id": 1, "b": "1.0"}, {"a": None, "id": 1, "b": "1.00"}
    three = {"a": "z", "id": 2, "b": "1.00"}
    common = {"old_complete": True, "missing": []}
    assert first == inserted({"id": 1}, one)
    assert second == common | {"key": {"id": 1}, "new": two, "old": one, "changed": ["a", "b"]}
    assert same == common | {"key": {"id": 1}, "new": two, "old": two, "changed": []}
    assert moved == common | {"key": {"id": 2}, "new": three, "old": two, "changed": ["a", "id"]}
    assert gone == deleted({"id": 2}, three, complete=True)


def test_full_identity_without_a_primary_key_has_no_key(database15: str) -> None:
    run(database15, "create table t (a int, b int)", "alter table t replica identity full")
    recording = Recording(database15)

    recording.run("insert into t values (1, null)", "update t set b = 2", "delete from t")
    first, second, third = map(parts, recording.equal_events())

    assert first == inserted(None, {"a": 1, "b": None})
    assert (second["key"], second["old"], second["changed"]) == (None, {"a": 1, "b": None}, ["b"])
    assert third == deleted(None, {"a": 1, "b": 2}, complete=True)


def test_full_identity_of_a_table_of_key_columns_alone(database15: str) -> None:
    """Here the old row is as wide as the key, so that only the identity tells them apart."""
    run(database15, "create table t (a int, b int, primary key (a, b))", "alter table t replica identity full")
    recording = Recording(database15)

    recording.run("insert into t values (1, 2)", "update t set b = 3", "delete from t")
    _, second, third = map(parts, recording.equal_events())

    assert (second["old_complete"], second["changed"]) == (True, ["b"])
    assert third == deleted({"a": 1, "b": 3}, {"a": 1, "b": 3}, complete=True)


def test_default_identity_of_a_table_of_key_columns_alone(database15: str) -> None:
    run(database15, "create table t (a int, b int, primary key (a, b))")
    recording = Recording(database15)

    recording.run("insert into t values (1, 2)", "update t set b = 3", "delete from t")
    _, second, third = map(parts, recording.equal_events())

    assert second == updated({"a": 1, "b": 3}, {"a": 1, "b": 3}, {"a": 1, "b": 2})
    assert third == deleted({"a": 1, "b": 3}, {"a": 1, "b": 3})


@pytest.mark.parametrize("first", ["update t set note = 'b'", "delete from t"])
def test_a_table_whose_first_change_is_not_an_insert(database15: str, first: str) -> None:
    run(database15, "create table t (a int, id int primary key, note text)", "insert into t values (1, 2, 'a')")
    recording = Recording(database15)

    recording.run(first)
    (event,) = recording.equal_events()

    assert (event["key"], event["old"], event["old_complete"]) == ({"id": 2}, {"id": 2}, False)


def external(column: str) -> str:
    """DDL for values that are stored out of line, uncompressed."""
    return f"alter table t alter column {column} set storage external"


def big() -> str:
    return secrets.token_hex(5_000)


@pytest.fixture
def toasted(database15: str) -> tuple[Recording, str]:
    """A table with a big value that was inserted before anything was recorded."""
    body = big()
    run(
        database15,
        "create table t (body text, id int primary key, amount numeric, note text, ratio float8)",
        external("body"),
        f"insert into t values ('{body}', 1, 1.50, 'a', '-0')",
    )
    assert ask(database15, "select pg_column_size(body) > 9000 from t")
    return Recording(database15), body


@pytest.mark.fault("F96", "I11")
def test_an_unchanged_toasted_value_is_missing_and_never_null(toasted: tuple[Recording, str]) -> None:
    recording, _ = toasted

    recording.run("update t set note = 'b'", "update t set amount = 2.50")
    events = recording.equal_events()

    assert [event["new"] for event in events] == [
        {"id": 1, "amount": "1.50", "note": "b", "ratio": 0.0},
        {"id": 1, "amount": "2.50", "note": "b", "ratio": 0.0},
    ]
    assert [(event["missing"], event["old"]) for event in events] == [(["body"], {"id": 1})] * 2


def test_a_known_table_may_leave_toasted_values_out(toasted: tuple[Recording, str]) -> None:
    recording, body = toasted

    recording.run("insert into t values ('small', 2, 0, 'x', 1)", "update t set note = 'b'", "delete from t")
    recording.run(f"insert into t values ('{body}', 3, 0, 'x', 1)", "update t set id = 4")
    events = recording.equal_events()

    updates = [event for event in events if event["op"] == "update"]
    assert [(event["key"], event["missing"]) for event in updates] == [
        ({"id": 1}, ["body"]),
        ({"id": 2}, []),
        ({"id": 4}, ["body"]),
    ]
    assert [event["old"] for event in updates] == [{"id": 1}, {"id": 2}, {"id": 3}]


@pytest.mark.fault("F96", "I11")
def test_full_identity_fills_in_an_unchanged_toasted_value(toasted: tuple[Recording, str]) -> None:
    recording, body = toasted

    recording.run(
        "alter table t replica identity full", "update t set note = 'b', ratio = 0", "update t set note = 'c'"
    )
    events = recording.equal_events()

    new = {"body": body, "id": 1, "amount": "1.50", "note": "b", "ratio": 0.0}
    assert events[0]["new"] == new
    assert list(events[0]["new"]) == list(new)
    assert events[0]["old"] == new | {"note": "a"}
    assert [(event["missing"], event["changed"]) for event in events] == [([], ["note", "ratio"]), ([], ["note"])]


@pytest.mark.fault("F96", "I11")
def test_a_toasted_value_becomes_null_and_comes_back(toasted: tuple[Recording, str]) -> None:
    recording, _ = toasted
    other = big()

    recording.run("update t set body = null", f"update t set body = '{other}'", "update t set note = 'z'")
    events = recording.equal_events()

    assert [event["new"].get("body", "absent") for event in events] == [None, other, "absent"]
    assert [event["missing"] for event in events] == [[], [], ["body"]]


def test_a_changed_toasted_value_is_compared_under_full_identity(toasted: tuple[Recording, str]) -> None:
    recording, body = toasted
    other = big()

    recording.run("alter table t replica identity full", f"update t set body = '{other}'", "update t set body = null")
    first, second = recording.equal_events()

    assert (first["old"]["body"], first["new"]["body"], first["changed"]) == (body, other, ["body"])
    assert (second["old"]["body"], second["new"]["body"], second["changed"]) == (other, None, ["body"])


@pytest.mark.fault("F96", "I11")
def test_several_columns_of_every_kind_are_toasted_at_once(database15: str) -> None:
    run(
        database15,
        "create table t (n numeric, id int primary key, j json, d numeric, a text[], b bytea)",
        *map(external, ("n", "j", "a", "b")),
        "insert into t values (repeat('7', 20000)::numeric, 1,"
        f"""'"{big()}"', 1.5, array['{big()}'], '\\x{big()}')""",
    )
    recording = Recording(database15)

    recording.run("update t set d = 2.50", "update t set d = 3.50, n = 4.50", "alter table t replica identity full")
    recording.run("update t set d = 5.50", f"update t set n = {'8' * 9000}, j = '1'", "update t set d = 6.50")
    events = recording.equal_events()

    assert [event["missing"] for event in events] == [["n", "j", "a", "b"], ["j", "a", "b"], [], [], []]
    assert [event["new"]["d"] for event in events] == ["2.50", "3.50", "5.50", "5.50", "6.50"]
    assert [event["new"].get("n") for event in events] == [None, "4.50", "4.50", "8" * 9000, "8" * 9000]
    assert events[4]["changed"] == ["d"]


@pytest.mark.fault("F96", "F97")
def test_a_toasted_key_is_given_though_it_is_not_sent_again(database15: str) -> None:
    """Incompressible and short enough for a B-tree, stored out of line because the row is too wide."""
    key = secrets.token_hex(1_200)
    run(
        database15,
        "create table t (k text primary key, note text)",
        external("k"),
        "alter table t alter column note set storage main; alter table t set (toast_tuple_target = 128)",
        f"insert into t values ('{key}', 'a')",
    )
    recording = Recording(database15)

    recording.run("update t set note = 'b'", "update t set k = 'short'", f"update t set k = '{key}'", "delete from t")
    events = recording.equal_events()

    assert [event["old"] for event in events] == [{"k": key}, {"k": key}, {"k": "short"}, {"k": key}]
    assert [event["key"] for event in events] == [{"k": key}, {"k": "short"}, {"k": key}, {"k": key}]


def test_a_toasted_column_dropped_before_it_is_read_is_missing_by_pgoutput_alone(
    toasted: tuple[Recording, str],
) -> None:
    """A limit of wal2json: it prints nothing of such a column, and the catalog knows it no more."""
    recording, _ = toasted

    recording.run("update t set note = 'b'", "alter table t drop column body", "update t set note = 'c'")
    first, second = recording.events("pgoutput")
    same_but_for_missing = recording.events("wal2json")

    assert (first["missing"], second["missing"]) == (["body"], [])
    assert [event["new"] for event in same_but_for_missing] == [first["new"], second["new"]]
    assert same_but_for_missing == [first | {"missing": []}, second]
