"""Which changes of which transactions become events, in what order, and what identifies them."""

import csv
import io
from contextlib import closing

import psycopg2
import pytest

from tests.integration.streaming import BOTH, Json, Recording, ask, run

SHOP = (
    "create table customers (id int primary key, name text)",
    "create table orders (id int primary key, customer int references customers on update cascade on delete cascade)",
)


def brief(events: list[Json]) -> list[tuple[str, str, Json | None]]:
    return [(event["op"], event["table"], event["key"]) for event in events]


def sequences(events: list[Json]) -> list[int]:
    return [event["tx"]["seq"] for event in events]


@pytest.mark.fault("F104", "I8")
def test_a_truncate_of_several_tables_is_one_event_each(database15: str) -> None:
    run(database15, *SHOP, "create table other (a int)", "create table own (id serial)")
    recording = Recording(database15)

    recording.run(
        "insert into other values (1); truncate own, customers restart identity cascade; insert into own values (1)"
    )
    events = recording.equal_events()

    assert brief(events) == [
        ("insert", "other", None),
        ("truncate", "own", None),
        ("truncate", "customers", None),
        ("truncate", "orders", None),
        ("insert", "own", None),
    ]
    assert sequences(events) == [1, 2, 3, 4, 5]
    assert [envelope.address.topic for envelope in recording.envelopes("wal2json")][1] == "public.own.truncate"


@pytest.mark.fault("F103", "F104")
def test_a_truncate_of_a_partitioned_table_is_an_event_of_each_leaf(database15: str) -> None:
    run(
        database15,
        "create table p (id int primary key) partition by range (id)",
        "create table p1 partition of p for values from (1) to (10)",
        "create table p2 partition of p for values from (10) to (20)",
    )
    recording = Recording(database15)

    recording.run("insert into p values (1); truncate p; insert into p values (11)")
    events = recording.equal_events()

    assert [(event["op"], event["table"]) for event in events] == [
        ("insert", "p1"),
        ("truncate", "p1"),
        ("truncate", "p2"),
        ("insert", "p2"),
    ]


@pytest.mark.fault("F48")
def test_a_materialized_view_gives_no_events_and_shifts_no_number(database15: str) -> None:
    run(
        database15,
        "create table t (id int primary key)",
        "create materialized view v as select id from t",
        "create unique index on v (id)",
    )
    recording = Recording(database15)

    recording.run("insert into t values (1); refresh materialized view concurrently v; insert into t values (2)")
    recording.run("insert into t values (3); refresh materialized view v; insert into t values (4)")
    events = recording.equal_events()

    assert [(event["table"], event["new"]["id"]) for event in events] == [("t", 1), ("t", 2), ("t", 3), ("t", 4)]
    assert sequences(events) == [1, 2, 1, 2]


def test_unlogged_and_temporary_tables_give_no_events(database15: str) -> None:
    run(database15, "create unlogged table u (a int)", "create table t (a int)")
    recording = Recording(database15)

    recording.run(
        "create temporary table s (a int); insert into s values (1); insert into u values (1);"
        "truncate s; truncate u, t; insert into t values (1)"
    )

    assert [(event["op"], event["table"]) for event in recording.equal_events()] == [
        ("truncate", "t"),
        ("insert", "t"),
    ]


@pytest.mark.fault("F108")
def test_a_logical_message_of_a_transaction_is_one_of_its_changes(database15: str) -> None:
    run(database15, "create table t (a int)")
    recording = Recording(database15)

    recording.run(
        "insert into t values (1);"
        "select pg_logical_emit_message(true, 'my.prefix', E'{\"a\": 1}\\n\\t\\\\ \"ü🐘'); insert into t values (2)"
    )
    first, message, last = recording.equal_events()

    assert message["message"] == {
        "prefix": "my.prefix",
        "content": '{"a": 1}\n\t\\ "ü🐘',
        "encoding": "text",
        "transactional": True,
    }
    assert sequences([first, message, last]) == [1, 2, 3]
    assert recording.envelopes("pgoutput")[1].address.topic == "_.my%2Eprefix.message"


@pytest.mark.fault("F108")
def test_a_message_outside_any_transaction_outlives_the_rollback(database15: str) -> None:
    run(database15, "create table t (a int)")
    recording = Recording(database15)

    recording.run(
        "begin; insert into t values (1); select pg_logical_emit_message(false, 'kept', 'a');"
        "select pg_logical_emit_message(true, 'lost', 'b'); rollback"
    )
    recording.run("insert into t values (2)")  # which flushes the message to disk
    message, _ = recording.equal_events()

    assert message["message"] == {"prefix": "kept", "content": "a", "encoding": "text", "transactional": False}
    assert (message["tx"]["xid"], message["tx"]["seq"], message["tx"]["committed_at"]) == (None, 0, None)


@pytest.mark.fault("F108", "I8")
def test_messages_outside_transactions_keep_their_place_and_own_ids(database15: str) -> None:
    run(database15, "create table t (a int)")
    recording = Recording(database15)

    recording.run(
        "begin; insert into t values (1);"
        "select pg_logical_emit_message(false, 'p', n::text) from generate_series(1, 20) n;"
        "insert into t values (2); commit"
    )
    recording.run("select pg_logical_emit_message(false, 'p', '')", "select pg_logical_emit_message(true, '', '')")
    events = recording.equal_events()

    contents = [event["message"]["content"] for event in events if event["op"] == "message"]
    assert contents == [*map(str, range(1, 21)), "", ""]
    assert len({event["id"] for event in events}) == len(events) == 24


@pytest.mark.parametrize("content", [b"\xff\x00", b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80", b"a\xc3"])
@pytest.mark.fault("F108")
def test_a_message_that_is_not_utf_8_is_given_in_hex(database15: str, content: bytes) -> None:
    recording = Recording(database15)

    recording.run(f"select pg_logical_emit_message(true, 'binary', '\\x{content.hex()}'::bytea)")
    (full,), (cut,) = recording.events("pgoutput"), recording.events("wal2json")

    until_nul = content.partition(b"\0")[0]
    assert full["message"] | {"content": "\\x" + content.hex(), "encoding": "hex"} == full["message"]
    assert cut["message"] | {"content": "\\x" + until_nul.hex(), "encoding": "hex"} == cut["message"]


def test_wal2json_cuts_a_message_at_its_first_nul(database15: str) -> None:
    """The documented loss; pgoutput gives all of it."""
    recording = Recording(database15)

    recording.run("select pg_logical_emit_message(true, 'binary', 'ab\\000cd'::bytea)")

    assert [recording.events(plugin)[0]["message"]["content"] for plugin in BOTH] == ["ab", "ab\0cd"]


@pytest.mark.fault("F108")
def test_a_message_may_hold_what_looks_like_the_plug_ins_own_output(database15: str) -> None:
    recording = Recording(database15)

    recording.run("""select pg_logical_emit_message(true, 'p"}', '"}{"action":"C","nextlsn":"F/0"}')""")
    (message,) = recording.equal_events()

    assert message["message"]["content"] == '"}{"action":"C","nextlsn":"F/0"}'


@pytest.mark.fault("F106", "I7")
def test_what_was_rolled_back_never_appears(database15: str) -> None:
    run(database15, "create table t (id int primary key)")
    recording = Recording(database15)

    recording.run(
        "begin; insert into t values (1); rollback",
        "begin; insert into t values (2); savepoint a; insert into t values (3); savepoint b;"
        "insert into t values (4);"
        "rollback to a; insert into t values (5); savepoint c; insert into t values (6); release c; commit",
        """do $$ begin
            insert into t values (7);
            for n in 100..200 loop
                begin
                    insert into t values (n);
                    if n % 2 = 0 then insert into t values (7); end if;
                exception when unique_violation then null;
                end;
            end loop;
        end $$""",
    )
    events = recording.equal_events()

    assert [event["new"]["id"] for event in events] == [2, 5, 6, 7, *range(101, 200, 2)]
    assert sequences(events) == [1, 2, 3, *range(1, 52)]


@pytest.mark.fault("F109")
def test_transactions_without_row_changes_give_no_events(database15: str) -> None:
    run(database15, "create table t (id int primary key)")
    recording = Recording(database15)

    recording.run(
        "select pg_current_xact_id()",
        "create table u (id int)",
        "alter table t add column a int default 1",
        "begin; create table v (id int); drop table v; commit",
        "analyze t",
        "update t set a = 2",
        "insert into t values (1)",
    )

    assert brief(recording.equal_events()) == [("insert", "t", {"id": 1})]


@pytest.mark.fault("F110")
def test_one_row_may_be_inserted_updated_and_deleted_in_one_transaction(database15: str) -> None:
    run(database15, "create table t (id int primary key, a int)")
    recording = Recording(database15)

    recording.run(
        "insert into t values (1, 1); update t set a = 2; update t set id = 9;"
        "delete from t; insert into t values (9, 0)"
    )
    events = recording.equal_events()

    assert brief(events) == [
        ("insert", "t", {"id": 1}),
        ("update", "t", {"id": 1}),
        ("update", "t", {"id": 9}),
        ("delete", "t", {"id": 9}),
        ("insert", "t", {"id": 9}),
    ]
    assert sequences(events) == [1, 2, 3, 4, 5]
    assert len({event["tx"]["lsn"] for event in events}) == 1


@pytest.mark.fault("F110")
def test_on_conflict_is_an_insert_or_an_update(database15: str) -> None:
    run(database15, "create table t (id int primary key, a int)")
    recording = Recording(database15)

    recording.run("insert into t values (1, 1)")
    recording.run("insert into t values (1, 2), (2, 2) on conflict (id) do update set a = excluded.a")
    recording.run("insert into t values (1, 3), (3, 3) on conflict do nothing")

    assert brief(recording.equal_events()) == [
        ("insert", "t", {"id": 1}),
        ("update", "t", {"id": 1}),
        ("insert", "t", {"id": 2}),
        ("insert", "t", {"id": 3}),
    ]


@pytest.mark.fault("F110")
def test_cascades_and_triggers_are_changes_of_the_same_transaction(database15: str) -> None:
    run(
        database15,
        *SHOP,
        "create table log (line text)",
        "create function note() returns trigger language plpgsql as"
        " $$ begin insert into log values (tg_op); return null; end $$",
        "create trigger noting after delete on orders for each row execute function note()",
        "insert into customers values (1, 'a'); insert into orders values (10, 1), (11, 1)",
    )
    recording = Recording(database15)

    recording.run("update customers set id = 2", "delete from customers")
    events = recording.equal_events()

    assert brief(events[:3]) == [
        ("update", "customers", {"id": 2}),
        ("update", "orders", {"id": 10}),
        ("update", "orders", {"id": 11}),
    ]
    assert sorted((event["op"], event["table"]) for event in events[3:]) == [
        ("delete", "customers"),
        ("delete", "orders"),
        ("delete", "orders"),
        ("insert", "log"),
        ("insert", "log"),
    ]
    assert sequences(events) == [1, 2, 3, 1, 2, 3, 4, 5]


def copy(dsn: str, count: int) -> None:
    rows = io.StringIO()
    csv.writer(rows).writerows((n, f"row {n}") for n in range(1, count + 1))
    rows.seek(0)
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.copy_expert("copy t from stdin with (format csv)", rows)


@pytest.mark.fault("F105", "I8")
def test_the_rows_of_a_copy_share_lsns_and_have_ids_of_their_own(database15: str) -> None:
    run(database15, "create table t (id int primary key, note text)")
    recording = Recording(database15)

    copy(database15, 10_000)
    events = recording.equal_events()

    assert [event["new"]["id"] for event in events] == list(range(1, 10_001))
    assert sequences(events) == list(range(1, 10_001))
    assert len({event["id"] for event in events}) == 10_000


@pytest.mark.fault("I6", "I7")
def test_overlapping_transactions_come_whole_and_in_the_order_of_their_commits(database15: str) -> None:
    run(database15, "create table t (id int primary key)")
    recording = Recording(database15)

    with closing(psycopg2.connect(database15)) as early, closing(psycopg2.connect(database15)) as late:
        for n in range(3):
            early.cursor().execute(f"insert into t values ({n})")
            late.cursor().execute(f"insert into t values ({n + 10})")
        late.commit()
        early.commit()
    events = recording.equal_events()

    assert [event["key"]["id"] for event in events] == [10, 11, 12, 0, 1, 2]
    assert sequences(events) == [1, 2, 3, 1, 2, 3]


def test_a_replication_origin_is_named(database15: str) -> None:
    run(database15, "create table t (id int primary key)")
    recording = Recording(database15)
    origin = f"{ask(database15, 'select current_database()')} ü"

    recording.run(
        f"select pg_replication_origin_create('{origin}');"
        f"select pg_replication_origin_session_setup('{origin}'); insert into t values (1), (2)"
    )
    recording.run("insert into t values (3)")
    events = recording.equal_events()
    recording.run(f"select pg_replication_origin_drop('{origin}')")

    assert [event["tx"]["origin"] for event in events] == [origin, origin, None]


MIXED = (
    "insert into kept select n, repeat('x', n) from generate_series(1, 7) n",
    (
        "insert into other values (1); insert into kept values (8);"
        "insert into other values (2); insert into kept values (9)"
    ),
    "insert into other select generate_series(3, 9)",
    "update kept set a = 'y' where id < 4; truncate other; select pg_logical_emit_message(true, 'p', 'c')",
    "select pg_logical_emit_message(false, 'p', 'd')",
    "delete from kept where id > 5; insert into other values (1)",
)


@pytest.fixture
def mixed(database15: str) -> Recording:
    run(database15, "create table kept (id int primary key, a text)", "create table other (id int primary key)")
    recording = Recording(database15)
    recording.run(*MIXED)
    return recording


@pytest.mark.parametrize("plugin", BOTH)
@pytest.mark.fault("I8")
def test_a_redelivery_is_the_same_in_every_byte(mixed: Recording, plugin: str) -> None:
    assert mixed.envelopes(plugin) == mixed.envelopes(plugin)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.fault("I8")
def test_the_size_of_a_batch_changes_nothing_that_is_stored(mixed: Recording, size: int) -> None:
    whole = mixed.envelopes("wal2json", batch_events=1000)

    assert mixed.envelopes("wal2json", batch_events=size) == whole
    assert mixed.envelopes("pgoutput", batch_events=size) == whole
    assert mixed.largest_batch("wal2json", batch_events=size) == size


def test_a_batch_is_cut_by_its_bytes(mixed: Recording) -> None:
    whole = mixed.envelopes("wal2json")

    assert mixed.envelopes("wal2json", batch_bytes=1) == whole
    assert mixed.largest_batch("wal2json", batch_bytes=1) == 1


@pytest.mark.fault("I8", "I20")
def test_a_table_filter_leaves_the_other_events_as_they_are(mixed: Recording) -> None:
    everything = mixed.envelopes("wal2json")

    kept = mixed.equal_events(tables=("kept",))
    without = mixed.equal_events(exclude_tables=("other",))

    expected = [envelope.message_id for envelope in everything if ".other." not in envelope.address.topic]
    assert [event["id"] for event in kept] == expected
    assert kept == without
    assert mixed.envelopes("pgoutput", tables=("kept",)) == [e for e in everything if e.message_id in expected]


@pytest.mark.fault("I8")
def test_ids_are_unique_and_name_their_commit(mixed: Recording) -> None:
    events = mixed.equal_events()

    assert len({event["id"] for event in events}) == len(events)
    for event in events:
        high, low = event["tx"]["lsn"].split("/")
        commit = int(high, 16) << 32 | int(low, 16)
        assert event["id"].split("-")[1:] == ["1", f"{commit:X}", str(event["tx"]["seq"])]
