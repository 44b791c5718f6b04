"""DDL between changes that are read later: the catalog is then ahead of the stream."""

import pytest

from tests.integration.streaming import BOTH, Json, Recording, run


def shown(events: list[Json]) -> list[Json | None]:
    return [event["new"] for event in events]


@pytest.mark.fault("F47")
def test_columns_come_and_go(database15: str) -> None:
    run(database15, "create table t (id int primary key, a text)")
    recording = Recording(database15)

    recording.run(
        "insert into t values (1, 'a')",
        "alter table t add column b numeric",
        "insert into t values (2, 'b', 1.50)",
        "update t set a = 'c' where id = 1",
        "alter table t drop column a",
        "insert into t values (3, 2.50)",
        "update t set b = 3.50 where id = 1",
        "alter table t add column a int default 7",
        "update t set a = 8 where id = 2",
    )

    assert shown(recording.equal_events()) == [
        {"id": 1, "a": "a"},
        {"id": 2, "a": "b", "b": "1.50"},
        {"id": 1, "a": "c", "b": None},
        {"id": 3, "b": "2.50"},
        {"id": 1, "b": "3.50"},
        {"id": 2, "b": "1.50", "a": 8},
    ]


@pytest.mark.fault("F47")
def test_columns_are_renamed_and_swapped(database15: str) -> None:
    run(database15, "create table t (id int primary key, a numeric, b numeric)")
    recording = Recording(database15)

    recording.run(
        "insert into t values (1, 1.0, 2.0)",
        "alter table t rename a to c",
        "update t set b = 3.0",
        "begin; alter table t rename b to a; alter table t rename c to b; commit",
        "update t set a = 4.0",
        "alter table t rename id to key",
        "update t set b = 5.0",
        "delete from t",
    )
    events = recording.equal_events()

    assert shown(events) == [
        {"id": 1, "a": "1.0", "b": "2.0"},
        {"id": 1, "c": "1.0", "b": "3.0"},
        {"id": 1, "b": "1.0", "a": "4.0"},
        {"key": 1, "b": "5.0", "a": "4.0"},
        None,
    ]
    assert [event["key"] for event in events] == [{"id": 1}, {"id": 1}, {"id": 1}, {"key": 1}, {"key": 1}]


@pytest.mark.fault("F47", "F96", "I11")
def test_a_toasted_value_is_missing_though_another_column_was_dropped_since(database15: str) -> None:
    run(
        database15,
        "create table t (id int primary key, note text, body text)",
        "alter table t alter body set storage external",
    )
    recording = Recording(database15)

    recording.run(
        "insert into t values (1, 'a', repeat('x', 6400))",
        "alter table t add extra numeric",
        "update t set note = 'b', extra = 1.50",
        "alter table t drop extra",
        "update t set note = 'c'",
    )
    events = recording.equal_events()

    assert [event["missing"] for event in events] == [[], ["body"], ["body"]]
    assert [event["new"].get("note") for event in events] == ["a", "b", "c"]
    assert events[1]["new"]["extra"] == "1.50"


@pytest.mark.fault("F47")
def test_a_column_changes_its_type(database15: str) -> None:
    run(database15, "create domain whole as int", "create table t (id int primary key, a int)")
    recording = Recording(database15)

    recording.run("insert into t values (1, 1)")
    for type in ("numeric(9, 2)", "float8", "text", "text[] using array[a]", "json using to_json(a)", "jsonb"):
        recording.run(f"alter table t alter a type {type}", "update t set id = id")
    recording.run("alter table t alter a type whole using 5", "update t set id = id")

    assert [event["new"]["a"] for event in recording.equal_events()] == [1, "1.00", 1.0, "1", ["1"], ["1"], ["1"], 5]


@pytest.mark.fault("F99")
def test_the_identity_flips_between_updates(database15: str) -> None:
    run(database15, "create table t (id int primary key, u int not null, a text)", "create unique index t_u on t (u)")
    run(database15, "insert into t values (1, 2, 'a')")
    recording = Recording(database15)

    recording.run(
        "update t set a = 'b'",
        "alter table t replica identity full",
        "update t set a = 'c'",
        "alter table t replica identity using index t_u",
        "update t set a = 'd'",
        "alter table t replica identity default",
        "update t set a = 'e'",
        "alter table t replica identity full",
        "delete from t",
    )
    events = recording.equal_events()

    assert [event["old"] for event in events] == [
        {"id": 1},
        {"id": 1, "u": 2, "a": "b"},
        {"u": 2},
        {"id": 1},
        {"id": 1, "u": 2, "a": "e"},
    ]
    assert [event["old_complete"] for event in events] == [False, True, False, False, True]
    assert [event["key"] for event in events] == [{"id": 1}, {"id": 1}, {"u": 2}, {"id": 1}, {"id": 1}]


@pytest.mark.fault("F99")
def test_the_primary_key_moves_to_another_column(database15: str) -> None:
    run(database15, "create table t (id int primary key, other int not null, a text)")
    recording = Recording(database15)

    recording.run(
        "insert into t values (1, 2, 'a')",
        "update t set a = 'b'",
        "begin; alter table t drop constraint t_pkey; alter table t add primary key (other); commit",
        "update t set a = 'c'",
        "insert into t values (1, 3, 'd')",
        "delete from t where other = 2",
    )
    events = recording.equal_events()

    assert [event["key"] for event in events] == [{"id": 1}, {"id": 1}, {"other": 2}, {"other": 3}, {"other": 2}]


@pytest.mark.fault("F47")
def test_a_table_is_renamed_and_moved(database15: str) -> None:
    run(database15, "create table t (id int primary key, n numeric)", "create schema s")
    recording = Recording(database15)

    recording.run(
        "insert into t values (1, 1.0)",
        "alter table t rename to u",
        "update u set n = 2.0",
        "alter table u set schema s",
        "update s.u set n = 3.0",
        "create table t (id int primary key, text text)",
        "insert into t values (1, 'x')",
        "truncate s.u",
    )
    events = recording.equal_events()

    assert [(event["schema"], event["table"], event["new"]) for event in events] == [
        ("public", "t", {"id": 1, "n": "1.0"}),
        ("public", "u", {"id": 1, "n": "2.0"}),
        ("s", "u", {"id": 1, "n": "3.0"}),
        ("public", "t", {"id": 1, "text": "x"}),
        ("s", "u", None),
    ]


def test_a_table_is_dropped_before_its_changes_are_read(database15: str) -> None:
    run(database15, "create table t (id int, a text, n numeric, primary key (a, id))")
    recording = Recording(database15)

    recording.run("insert into t values (1, 'x', 1.50)", "update t set id = 2", "delete from t", "drop table t")
    events = recording.equal_events()

    assert [event["key"] for event in events] == [{"id": 1, "a": "x"}, {"id": 2, "a": "x"}, {"id": 2, "a": "x"}]
    assert shown(events) == [{"id": 1, "a": "x", "n": "1.50"}, {"id": 2, "a": "x", "n": "1.50"}, None]


@pytest.mark.fault("F47")
def test_a_dropped_table_is_made_again_with_other_columns(database15: str) -> None:
    run(database15, "create table t (id int primary key, a numeric)")
    recording = Recording(database15)

    recording.run(
        "insert into t values (1, 1.50)",
        "begin; drop table t; create table t (a float8, id text primary key); commit",
        "insert into t values (-0.0, 'x')",
        "update t set a = '-0'",
        "delete from t",
    )
    events = recording.equal_events()

    assert shown(events) == [{"id": 1, "a": "1.50"}, {"a": 0.0, "id": "x"}, {"a": 0.0, "id": "x"}, None]


@pytest.mark.fault("F48")
def test_rows_that_a_rewrite_copies_are_no_changes(database15: str) -> None:
    run(
        database15,
        "create table t (id int primary key, a int)",
        "insert into t select n, n from generate_series(1, 50) n",
    )
    recording = Recording(database15)

    recording.run(
        "alter table t alter a type bigint",
        "alter table t add column v text default clock_timestamp()::text",
        "vacuum full t",
        "cluster t using t_pkey",
        "update t set v = 'x' where id = 1",
    )

    assert shown(recording.equal_events()) == [{"id": 1, "a": 1, "v": "x"}]


def test_ddl_and_changes_in_one_transaction(database15: str) -> None:
    recording = Recording(database15)

    recording.run(
        "begin; create table t (id int primary key, a numeric); insert into t values (1, 1.50);"
        "alter table t add column b text default 'd'; insert into t values (2, 2.50);"
        "alter table t drop column a; update t set b = 'e' where id = 1; commit"
    )

    assert shown(recording.equal_events()) == [
        {"id": 1, "a": "1.50"},
        {"id": 2, "a": "2.50", "b": "d"},
        {"id": 1, "b": "e"},
    ]


@pytest.mark.fault("F101")
def test_an_enum_gains_a_value_that_is_used_at_once(database15: str) -> None:
    run(database15, "create type mood as enum ('ok')", "create table t (id int primary key, m mood, ms mood[])")
    recording = Recording(database15)

    recording.run(
        "alter type mood add value 'new one' before 'ok'", "insert into t values (1, 'new one', '{ok,new one}')"
    )

    assert shown(recording.equal_events()) == [{"id": 1, "m": "new one", "ms": ["ok", "new one"]}]


def test_a_column_that_is_added_later_is_not_missing_from_an_earlier_update(database15: str) -> None:
    run(database15, "create table t (id int primary key, a text)", "insert into t values (1, 'a')")
    recording = Recording(database15)

    recording.run("update t set a = 'b'", "alter table t add column b int default 7", "update t set a = 'c'")
    first, second = recording.equal_events()

    assert (first["new"], first["missing"]) == ({"id": 1, "a": "b"}, [])
    assert (second["new"], second["missing"]) == ({"id": 1, "a": "c", "b": 7}, [])


def test_full_identity_fills_in_toasted_values_whatever_becomes_of_the_table(database15: str) -> None:
    run(
        database15,
        "create table t (id int primary key, body text, a int)",
        "alter table t alter column body set storage external; alter table t replica identity full",
        "insert into t values (1, repeat('x', 9000), 1)",
    )
    recording = Recording(database15)

    recording.run(
        "update t set a = 2", "alter table t drop column a", "update t set id = 3", "alter table t add b text"
    )
    first, second = recording.equal_events()

    assert first["new"] == {"id": 1, "body": "x" * 9000, "a": 2}
    assert (first["old_complete"], first["changed"], first["missing"]) == (True, ["a"], [])
    assert (second["old_complete"], second["changed"], second["missing"]) == (True, ["id"], [])


@pytest.mark.parametrize("change", ["update t set a = 'b'", "delete from t"])
@pytest.mark.parametrize(
    "later",
    ["alter table t add b text", "alter table t add b int", "alter table t drop a", "alter table t rename a to b"],
)
def test_full_identity_is_recognized_through_later_ddl(database15: str, change: str, later: str) -> None:
    run(
        database15,
        "create table t (id int primary key, n numeric, a text); alter table t replica identity full",
        "insert into t values (1, 1.50, 'a')",
    )
    recording = Recording(database15)

    recording.run(change, later)
    (event,) = recording.equal_events()

    assert (event["key"], event["old"], event["old_complete"]) == ({"id": 1}, {"id": 1, "n": "1.50", "a": "a"}, True)


@pytest.mark.parametrize("change", ["update t set a = 'b'", "delete from t"])
@pytest.mark.parametrize(
    "later", ["alter table t add b int", "alter table t drop a", "alter table t replica identity full"]
)
def test_an_index_identity_is_recognized_through_later_ddl(database15: str, change: str, later: str) -> None:
    run(
        database15,
        "create table t (id int primary key, u int not null, a text); create unique index t_u on t (u)",
        "alter table t replica identity using index t_u; insert into t values (1, 2, 'a')",
    )
    recording = Recording(database15)

    recording.run(change, later)
    (event,) = recording.equal_events()

    assert (event["key"], event["old"], event["old_complete"]) == ({"u": 2}, {"u": 2}, False)


def test_a_dropped_table_of_full_identity_keeps_its_old_rows(database15: str) -> None:
    """Its primary key is in the catalog alone, which pgoutput finds empty; wal2json may still print it."""
    run(
        database15,
        "create table t (id int primary key, body text, a int)",
        "alter table t alter column body set storage external; alter table t replica identity full",
        "insert into t values (1, repeat('x', 9000), 1)",
    )
    recording = Recording(database15)

    recording.run("update t set a = 2", "delete from t", "drop table t")

    for plugin in BOTH:
        updated, deleted = recording.events(plugin)
        assert updated["new"] == deleted["old"] == {"id": 1, "body": "x" * 9000, "a": 2}
        assert (updated["old_complete"], deleted["old_complete"], updated["changed"]) == (True, True, ["a"])


def test_a_text_column_added_later_counts_as_missing_by_wal2json(database15: str) -> None:
    """A limit: to wal2json a column that is not there yet looks like one left in the TOAST table."""
    run(database15, "create table t (id int primary key, a text)", "insert into t values (1, 'a')")
    recording = Recording(database15)

    recording.run("update t set a = 'b'", "alter table t add column b text", "update t set a = 'c'")

    assert [event["missing"] for event in recording.events("pgoutput")] == [[], []]
    assert [event["missing"] for event in recording.events("wal2json")] == [["b"], []]
    assert shown(recording.events("wal2json")) == shown(recording.events("pgoutput"))


def test_an_insert_has_the_key_of_the_later_identity_by_wal2json(database15: str) -> None:
    """A limit: wal2json says nothing of the replica identity where no old row comes with it."""
    run(database15, "create table t (id int primary key, u int not null); create unique index t_u on t (u)")
    recording = Recording(database15)

    recording.run("insert into t values (1, 2)", "alter table t replica identity using index t_u")

    assert [event["key"] for event in recording.events("pgoutput")] == [{"id": 1}]
    assert [event["key"] for event in recording.events("wal2json")] == [{"u": 2}]


def test_a_column_that_is_generated_no_more_is_told_by_wal2json(database15: str) -> None:
    """A limit: wal2json prints generated columns as others, and the catalog says which they are now."""
    run(database15, "create table t (id int primary key, a int generated always as (id * 2) stored, b int)")
    recording = Recording(database15)

    recording.run("insert into t (id, b) values (1, 3)", "alter table t alter a drop expression")

    assert shown(recording.events("pgoutput")) == [{"id": 1, "b": 3}]
    assert shown(recording.events("wal2json")) == [{"id": 1, "a": 2, "b": 3}]
