"""Rows, messages and transactions of unusual size or fate: both plug-ins give the same bytes, and lose none."""

import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest

from pgevents.demo.postgres import Postgres
from pgevents.demo.postgres_binaries import find_binaries
from pgevents.errors import DecodeError
from pgevents.lsn import Lsn
from tests.integration.command import KILL, Command, Shop, ids_of, pgevents, stored
from tests.integration.streaming import BOTH, Recording, run
from tests.integration.test_events_values import encoded

# As large as can be decoded, compared and checked twice within seconds. PostgreSQL's own limit is 1 GB of output.
LARGE = 32 * 2**20
ROWS = 10_000


@pytest.mark.fault("F95", "I10")
def test_a_row_of_many_megabytes(database15: str) -> None:
    """A quarter of each character is worth one, two, three and four bytes of UTF-8."""
    run(database15, "create table t (id int primary key, a text, b bytea)")
    recording = Recording(database15)

    recording.run(
        f"insert into t values (1, repeat('a\"é日🐘', {LARGE // 11}), decode(repeat('00ff', {LARGE // 8}), 'hex'))",
        "insert into t values (2, 'small', '\\x00')",
    )
    large, small = recording.equal_events()

    assert large["new"]["a"] == 'a"é日🐘' * (LARGE // 11)
    assert large["new"]["b"] == "\\x" + "00ff" * (LARGE // 8)
    assert small["new"] == {"id": 2, "a": "small", "b": "\\x00"}


@pytest.mark.fault("F95")
def test_a_row_of_1600_columns_that_is_updated_and_deleted(database15: str) -> None:
    """Most of them null: a page has no room for so many values, only for their absence."""
    columns = ", ".join(f"c{n} varchar" for n in range(1599))
    run(database15, f"create table wide (id int primary key, {columns})", "alter table wide replica identity full")
    recording = Recording(database15)

    recording.run("insert into wide (id, c0, c1598) values (1, 'first', 'last')", "update wide set c700 = ''")
    recording.run("delete from wide")
    inserted, updated, deleted = recording.equal_events()

    assert [name for name, value in inserted["new"].items() if value is not None] == ["id", "c0", "c1598"]
    assert (len(inserted["new"]), updated["changed"]) == (1600, ["c700"])
    assert deleted["old"] == inserted["new"] | {"c700": ""}


@pytest.mark.fault("F95", "F98")
def test_a_table_loses_its_last_column(database15: str) -> None:
    run(database15, "create table t (a int)")
    recording = Recording(database15)

    recording.run("insert into t values (1)", "alter table t drop a", "insert into t default values", "truncate t")

    assert [(event["op"], event["new"]) for event in recording.equal_events()] == [
        ("insert", {"a": 1}),
        ("insert", {}),
        ("truncate", None),
    ]


@pytest.mark.fault("F108", "I7")
def test_a_message_of_many_megabytes(database15: str) -> None:
    recording = Recording(database15)

    recording.run(
        f"select pg_logical_emit_message(true, 'large', repeat('é\"\\', {LARGE // 16}))",
        f"select pg_logical_emit_message(true, 'bytes', decode(repeat('01ff', {LARGE // 16}), 'hex'))",
    )
    text, content = recording.equal_events()

    assert text["message"]["content"] == 'é"\\' * (LARGE // 16)
    assert content["message"]["content"] == "\\x" + "01ff" * (LARGE // 16)


@pytest.mark.fault("F106", "F108", "I7")
def test_a_message_of_a_savepoint_that_is_rolled_back_never_appears(database15: str) -> None:
    run(database15, "create table t (id int primary key)")
    recording = Recording(database15)

    recording.run(
        "begin; insert into t values (1); savepoint a;"
        "select pg_logical_emit_message(true, 'p', 'undone'); insert into t values (2); rollback to a;"
        "select pg_logical_emit_message(true, 'p', 'kept'); insert into t values (3); commit"
    )
    events = recording.equal_events()

    assert [event["new"] and event["new"]["id"] for event in events] == [1, None, 3]
    assert events[1]["message"]["content"] == "kept"
    assert [event["tx"]["seq"] for event in events] == [1, 2, 3]


@pytest.mark.fault("F106", "F43", "I7")
def test_many_subtransactions_that_spill_to_disk_come_in_order(database15: str) -> None:
    """More than fit into shared memory, half of them undone, and more changes than decoding has memory for."""
    run(database15, "create table t (id int primary key, pad text)")
    recording = Recording(database15)
    recording.role_dsn += " options='-c logical_decoding_work_mem=64kB'"

    recording.run(
        """do $$ begin
            for n in 1..400 loop
                begin
                    insert into t select n * 10 + m, repeat('x', 500) from generate_series(0, 9) m;
                    if n % 2 = 0 then raise exception 'undone'; end if;
                exception when raise_exception then null;
                end;
            end loop;
        end $$"""
    )
    events = recording.equal_events()

    assert [event["new"]["id"] for event in events] == [n * 10 + m for n in range(1, 400, 2) for m in range(10)]
    assert [event["tx"]["seq"] for event in events] == list(range(1, 2001))


@pytest.fixture
def preparing(services: Path) -> Iterator[Postgres]:
    """A server that allows two-phase commit."""
    folder = services / f"preparing-{secrets.token_hex(4)}"
    with Postgres(folder, binaries=find_binaries(), settings={"max_prepared_transactions": "10"}) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.fault("F107", "I6", "I7")
def test_a_prepared_transaction_comes_when_it_is_committed_whatever_happens_between(preparing: Postgres) -> None:
    run(preparing.dsn(), "create table t (id int primary key)")
    recording = Recording(preparing.dsn())

    recording.run(
        "begin; insert into t values (1); savepoint a; insert into t values (2); rollback to a;"
        "insert into t values (3); prepare transaction 'kept'",
        "begin; insert into t values (4); prepare transaction 'undone'",
        "insert into t values (5)",
    )
    before = recording.equal_events()
    preparing.restart("immediate")
    recording.run("insert into t values (6)", "commit prepared 'kept'", "rollback prepared 'undone'")
    recording.run("insert into t values (7)")
    after = recording.equal_events()

    assert [event["new"]["id"] for event in before] == [5]
    assert [event["new"]["id"] for event in after] == [5, 6, 1, 3, 7]
    assert [event["tx"]["seq"] for event in after] == [1, 1, 1, 2, 1]
    assert after[0] == before[0]


@contextmanager
def pipe(path: Path) -> Iterator[None]:
    """A named pipe, open for both so that it outlives its writer; it holds what a writer left in it."""
    os.mkfifo(path)
    held = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield
    os.close(held)


def lines_of(path: Path, count: int) -> list[bytes]:
    with path.open("rb") as pipe:
        return [pipe.readline() for _ in range(count)]


@pytest.mark.fault("F03", "F105", "I1", "I7", "I8")
@pytest.mark.parametrize("plugin", BOTH)
def test_a_kill_in_the_middle_of_a_copy_repeats_it_whole_with_the_same_ids(
    database15: str, tmp_path: Path, plugin: str
) -> None:
    """Into a pipe, that nobody reads any more after a third of the rows, so that it is killed among them."""
    shop = Shop(database15, plugin=plugin)
    copy(database15)
    to_pipe = ("stream", *shop.options, "--sink", "file:pipe", "--batch-events", "100", "--window", "2")

    with pipe(tmp_path / "pipe"), Command(tmp_path, *to_pipe) as stream:
        first = lines_of(tmp_path / "pipe", ROWS // 3)
        stream.send(KILL)
        stream.ended()
    confirmed = shop.confirmed
    again = pgevents(
        tmp_path, *("stream", *shop.options, "--sink", "file:events", "--batch-events", "37", "--until-lsn", "now")
    )

    assert again.code == 0, again.stderr
    events = stored(tmp_path / "events")
    assert confirmed <= Lsn.parse(events[0]["tx"]["lsn"])
    assert ids_of(events) == list(range(ROWS))
    assert [event["tx"]["seq"] for event in events] == list(range(1, ROWS + 1))
    assert len({event["id"] for event in events}) == ROWS
    assert first == (tmp_path / "events").read_bytes().splitlines(keepends=True)[: ROWS // 3]


def copy(dsn: str) -> None:
    rows = io.StringIO("".join(f"{n}\tnote {n}\n" for n in range(ROWS)))
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.copy_expert("copy orders from stdin", rows)


@pytest.fixture
def win1252(postgres15: Postgres, database15: str) -> Iterator[str]:
    with encoded(postgres15, database15, "WIN1252") as dsn:
        yield dsn


@pytest.mark.fault("F94", "I10")
@pytest.mark.parametrize("plugin", BOTH)
def test_a_byte_that_is_no_character_of_its_encoding_stops_the_stream_before_it(win1252: str, plugin: str) -> None:
    """The server takes any byte for text of a one-byte encoding, and finds out when it has to be put into UTF-8."""
    recording = Recording(win1252)

    recording.run("create table t (a text)", "insert into t values (E'\\x81')")

    with pytest.raises(DecodeError, match="at LSN"):
        recording.events(plugin)


@pytest.mark.fault("F38", "F92", "I10", "I22")
def test_an_option_that_an_older_plug_in_does_not_know_is_left_out_and_what_that_loses_is_said(
    database15: str, tmp_path: Path
) -> None:
    """wal2json 2.5 has no numeric-data-types-as-string. Its digits are kept all the same, NaN is not."""
    shop = Shop(database15)
    run(database15, "create table t (n numeric, f float8)", "insert into t values (1.50, 'NaN')")

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", "stdout:", "--until-lsn", "now")

    assert outcome.code == 0, outcome.stderr
    assert "this wal2json prints NaN and the infinities as null" in outcome.stderr
    assert "columns=2 such_as=" in outcome.stderr
    assert [event["new"] for event in outcome.events] == [{"n": "1.50", "f": None}]
