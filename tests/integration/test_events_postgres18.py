"""PostgreSQL 18 without wal2json: the plug-in is chosen, and its events are as everywhere else."""

import pytest

from pgevents.errors import PluginRefused
from pgevents.start import Wish, create_slot
from tests.integration.role import as_role
from tests.integration.streaming import Recording, ask, run

PGOUTPUT = ("pgoutput",)


def test_auto_falls_back_to_pgoutput_and_says_why(database18: str) -> None:
    report = create_slot(database18, Wish("auto18", "auto", "pgevents"))

    assert report.plugin == "pgoutput"
    assert report.notes[:2] == ("created publication pgevents", "created slot auto18 for pgoutput")
    assert report.notes[2].startswith(
        ("no wal2json: output_plugin_libraries allows only", "no wal2json: could not access file")
    )


def test_auto_takes_wal2json_where_the_server_has_it(database15: str) -> None:
    report = create_slot(as_role(database15), Wish("auto15", "auto", "pgevents"))

    assert report.plugin == "wal2json"
    assert report.notes == ("created slot auto15 for wal2json", "it is installed and allowed")
    assert not ask(database15, "select count(*) from pg_publication")


def test_wal2json_asked_for_by_name_is_refused(database18: str) -> None:
    with pytest.raises(PluginRefused, match="wal2json") as refused:
        create_slot(as_role(database18), Wish("named18", "wal2json", "pgevents"))

    assert "pgoutput" in refused.value.hint
    assert not ask(database18, "select count(*) from pg_replication_slots where database = current_database()")


def test_every_identity(database18: str) -> None:
    run(
        database18,
        "create table by_key (id int primary key, a text)",
        "create table by_index (id int primary key, u text not null); create unique index by_u on by_index (u)",
        "alter table by_index replica identity using index by_u",
        "create table whole (id int primary key, a text); alter table whole replica identity full",
        "create table keyless (a text)",
    )
    recording = Recording(database18, plugins=PGOUTPUT)

    recording.run(
        "insert into by_key values (1, 'a'); update by_key set id = 2; update by_key set a = 'b'; delete from by_key",
        "insert into by_index values (1, 'u'); update by_index set id = 2; delete from by_index",
        "insert into whole values (1, 'a'); update whole set a = 'b'; delete from whole",
        "insert into keyless values ('a'); truncate keyless",
    )
    events = recording.events("pgoutput")

    assert [(event["op"], event["key"], event["old"], event["changed"]) for event in events] == [
        ("insert", {"id": 1}, None, None),
        ("update", {"id": 2}, {"id": 1}, None),
        ("update", {"id": 2}, {"id": 2}, None),
        ("delete", {"id": 2}, {"id": 2}, None),
        ("insert", {"u": "u"}, None, None),
        ("update", {"u": "u"}, {"u": "u"}, None),
        ("delete", {"u": "u"}, {"u": "u"}, None),
        ("insert", {"id": 1}, None, None),
        ("update", {"id": 1}, {"id": 1, "a": "a"}, ["a"]),
        ("delete", {"id": 1}, {"id": 1, "a": "b"}, None),
        ("insert", None, None, None),
        ("truncate", None, None, None),
    ]


@pytest.mark.fault("F102")
def test_virtual_and_stored_generated_columns_are_absent(database18: str) -> None:
    run(
        database18,
        "create table t (id int primary key, v int generated always as (id * 2),"
        " s int generated always as (id * 3) stored, a text)",
    )
    recording = Recording(database18, plugins=PGOUTPUT)

    recording.run("insert into t (id, a) values (1, 'a')", "update t set a = 'b'", "delete from t")
    inserted, updated, deleted = recording.events("pgoutput")

    assert inserted["new"] == {"id": 1, "a": "a"}
    assert (updated["new"], updated["missing"]) == ({"id": 1, "a": "b"}, [])
    assert deleted["old"] == {"id": 1}


@pytest.mark.fault("F96", "I11")
def test_an_unchanged_toasted_value_is_missing_and_never_null(database18: str) -> None:
    run(
        database18,
        "create table t (id int primary key, body text, a text)",
        "alter table t alter body set storage external",
    )
    recording = Recording(database18, plugins=PGOUTPUT)

    recording.run("insert into t values (1, repeat('x', 9000), 'a')", "update t set a = 'b'")
    _, updated = recording.events("pgoutput")

    assert (updated["new"], updated["missing"]) == ({"id": 1, "a": "b"}, ["body"])


@pytest.mark.fault("F111")
def test_infinite_intervals_and_other_new_values(database18: str) -> None:
    recording = Recording(database18, plugins=PGOUTPUT)

    recording.run("create table t (i interval, n numeric(2, 5))", "insert into t values ('infinity', 0.00012)")
    (event,) = recording.events("pgoutput")

    assert event["new"] == {"i": "infinity", "n": "0.00012"}


def test_messages_and_batch_sizes(database18: str) -> None:
    recording = Recording(database18, plugins=PGOUTPUT)

    recording.run("create table t (id int primary key)", "insert into t select generate_series(1, 10)")
    recording.run(
        "select pg_logical_emit_message(true, 'p', 'é')", "select pg_logical_emit_message(false, 'p', '\\xff'::bytea)"
    )
    recording.run("insert into t values (11)")
    whole = recording.envelopes("pgoutput")

    assert recording.envelopes("pgoutput", batch_events=3) == whole
    assert len({envelope.message_id for envelope in whole}) == 13
