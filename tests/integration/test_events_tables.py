"""Which table an event names: partitions, generated columns, identifiers of every kind."""

import pytest

from tests.integration.streaming import Json, Recording, ask, run

PARTITIONED = (
    "create table p (id int, region text, note text, primary key (id, region)) partition by list (region)",
    "create table p_north partition of p for values in ('n')",
    "create table p_south partition of p for values in ('s') partition by range (id)",
    "create table p_south_1 partition of p_south for values from (0) to (100)",
)


@pytest.mark.fault("F103")
def test_rows_of_partitions_are_told_under_the_name_of_the_leaf(database15: str) -> None:
    run(database15, *PARTITIONED)
    recording = Recording(database15)

    recording.run(
        "insert into p values (1, 'n', 'a'), (2, 's', 'b')", "update p set note = 'c'", "delete from p where id = 2"
    )

    assert [(event["op"], event["table"], event["key"]) for event in recording.equal_events()] == [
        ("insert", "p_north", {"id": 1, "region": "n"}),
        ("insert", "p_south_1", {"id": 2, "region": "s"}),
        ("update", "p_north", {"id": 1, "region": "n"}),
        ("update", "p_south_1", {"id": 2, "region": "s"}),
        ("delete", "p_south_1", {"id": 2, "region": "s"}),
    ]


@pytest.mark.fault("F103")
def test_a_row_that_moves_between_partitions_is_deleted_and_inserted(database15: str) -> None:
    run(database15, *PARTITIONED)
    recording = Recording(database15)

    recording.run("insert into p values (1, 'n', 'a')", "update p set region = 's'")
    _, *moved = recording.equal_events()

    assert [(event["op"], event["table"], event["tx"]["seq"]) for event in moved] == [
        ("delete", "p_north", 1),
        ("insert", "p_south_1", 2),
    ]
    assert moved[1]["new"] == {"id": 1, "region": "s", "note": "a"}


@pytest.mark.fault("F103")
def test_partitions_attached_with_another_order_of_columns(database15: str) -> None:
    run(
        database15,
        *PARTITIONED,
        "create table late (note text, gone int, region text not null, id int not null, primary key (id, region))",
        "alter table late drop column gone",
    )
    recording = Recording(database15)

    recording.run(
        "alter table p attach partition late for values in ('l')",
        "insert into p values (1, 'l', 'a')",
        "alter table p detach partition late",
        "insert into late values ('b', 'l', 2)",
    )
    events = recording.equal_events()

    assert [list(event["new"].items()) for event in events] == [
        [("note", "a"), ("region", "l"), ("id", 1)],
        [("note", "b"), ("region", "l"), ("id", 2)],
    ]


def test_tables_that_inherit_are_told_under_their_own_names(database15: str) -> None:
    run(
        database15,
        "create table base (id int primary key)",
        "create table derived (extra int, primary key (id)) inherits (base)",
    )
    recording = Recording(database15)

    recording.run("insert into base values (1); insert into derived values (2, 3); update base set id = id + 10")
    events = recording.equal_events()

    assert [(event["table"], event["new"]) for event in events] == [
        ("base", {"id": 1}),
        ("derived", {"id": 2, "extra": 3}),
        ("base", {"id": 11}),
        ("derived", {"id": 12, "extra": 3}),
    ]


@pytest.mark.parametrize("identity", ["default", "full"])
@pytest.mark.fault("F102")
def test_stored_generated_columns_are_absent(database15: str, identity: str) -> None:
    run(
        database15,
        "create table t (g1 numeric generated always as (n * 2) stored, id int primary key, n numeric,"
        " g2 float8 generated always as (n * -0.0) stored, m numeric)",
        f"alter table t replica identity {identity}",
    )
    recording = Recording(database15)

    recording.run("insert into t values (default, 1, 1.50, default, 2.5)", "update t set n = 3.50", "delete from t")
    inserted, updated, deleted = recording.equal_events()

    assert inserted["new"] == {"id": 1, "n": "1.50", "m": "2.5"}
    assert updated["new"] == {"id": 1, "n": "3.50", "m": "2.5"}
    assert updated["missing"] == []
    assert deleted["old"] == ({"id": 1, "n": "3.50", "m": "2.5"} if identity == "full" else {"id": 1})


@pytest.mark.fault("F102")
def test_identity_columns_are_ordinary_columns(database15: str) -> None:
    run(database15, "create table t (id int generated always as identity primary key, s serial, a text default 'x')")
    recording = Recording(database15)

    recording.run("insert into t default values", "insert into t overriding system value values (9)")

    assert [event["new"] for event in recording.equal_events()] == [
        {"id": 1, "s": 1, "a": "x"},
        {"id": 9, "s": 2, "a": "x"},
    ]


IDENTIFIERS = (
    ("dots.in.it", "dots%2Ein%2Eit"),
    ("spaces and, commas", "spaces%20and%2C%20commas"),
    ('double " quote', "double%20%22%20quote"),
    ("single ' quote", "single%20%27%20quote"),
    ("back\\slash \\u0041 \\n", "back%5Cslash%20%5Cu0041%20%5Cn"),
    ("percent %s %20", "percent%20%25s%20%2520"),
    ("wild * card #", "wild%20%2A%20card%20%23"),
    ("braces {table} [1]", "braces%20%7Btable%7D%20%5B1%5D"),
    ("line\nbreak\tand\x01control", "line%0Abreak%09and%01control"),
    ("größe_日本", "größe_日本"),
    ("🐘", "%F0%9F%90%98"),
    ("select", "select"),
    ("1st-column", "1st-column"),
    ("Ü" * 31, "Ü" * 31),
    ('","value":1},{"name":"x', "%22%2C%22value%22%3A1%7D%2C%7B%22name%22%3A%22x"),
)


@pytest.mark.fault("F100")
def test_identifiers_of_every_kind(database15: str) -> None:
    run(database15, "create schema types")
    recording = Recording(database15)

    for name, _ in IDENTIFIERS:
        quoted = '"' + name.replace('"', '""') + '"'
        recording.run(
            f"create schema {quoted}; create type types.{quoted} as enum ('a');"
            f"create table {quoted}.{quoted} ({quoted} int primary key, v types.{quoted}, n numeric);"
            f"alter table {quoted}.{quoted} replica identity full"
        )
        recording.run(f"insert into {quoted}.{quoted} values (1, 'a', 1.50); update {quoted}.{quoted} set n = 2.50")
        recording.run(f"truncate {quoted}.{quoted}")
    events = recording.equal_events()

    for (name, _), (inserted, updated, truncated) in zip(IDENTIFIERS, batched(events, 3), strict=True):
        assert (inserted["schema"], inserted["table"], inserted["key"]) == (name, name, {name: 1})
        assert (truncated["schema"], truncated["table"]) == (name, name)
        assert updated["new"] == {name: 1, "v": "a", "n": "2.50"}
    assert [envelope.address.topic for envelope in recording.envelopes("pgoutput")] == [
        f"{escaped}.{escaped}.{op}" for _, escaped in IDENTIFIERS for op in ("insert", "update", "truncate")
    ]


def batched(events: list[Json], size: int) -> list[list[Json]]:
    return [events[at : at + size] for at in range(0, len(events), size)]


@pytest.mark.fault("F100")
def test_one_name_in_many_schemas_and_in_upper_and_lower_case(database15: str) -> None:
    recording = Recording(database15)

    for schema in ("a", "A", "b.a"):
        recording.run(f'create schema "{schema}"')
        for table in ("t", "T", "a.t"):
            recording.run(f'create table "{schema}"."{table}" (id int primary key, "ID" text)')
            recording.run(f"""insert into "{schema}"."{table}" values (1, '{schema}/{table}')""")
    events = recording.equal_events()

    assert [event["new"]["ID"] for event in events] == [f"{event['schema']}/{event['table']}" for event in events]
    assert len({envelope.address.topic for envelope in recording.envelopes("wal2json")}) == 9


@pytest.mark.fault("F95")
def test_a_table_of_1600_columns(database15: str) -> None:
    recording = Recording(database15)

    recording.run(
        f"create table wide ({', '.join(f'c{n} int' for n in range(1600))})",
        f"insert into wide values ({', '.join('1' for _ in range(1600))})",
    )
    (event,) = recording.equal_events()

    assert sum(event["new"].values()) == 1600


@pytest.mark.fault("F95")
def test_a_table_without_columns(database15: str) -> None:
    recording = Recording(database15)

    recording.run(
        "create table nothing ()", "insert into nothing default values", "insert into nothing default values"
    )

    assert [event["new"] for event in recording.equal_events()] == [{}, {}]


@pytest.mark.fault("F95")
def test_a_row_of_several_megabytes(database15: str) -> None:
    run(database15, "create table t (id int primary key, a text, b bytea)", "alter table t replica identity full")
    recording = Recording(database15)

    recording.run("insert into t values (1, repeat('é\"\\', 1000000), decode(repeat('00ff', 1000000), 'hex'))")
    (event,) = recording.equal_events()

    assert event["new"]["a"] == ask(database15, "select a from t")
    assert event["new"]["b"] == "\\x" + "00ff" * 1_000_000
