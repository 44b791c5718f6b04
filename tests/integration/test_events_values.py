"""Values that need a word of their own: JSON, zeros, what is not finite, other encodings."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import format_exception

import pytest

from pgevents.demo.postgres import Postgres
from pgevents.errors import DecodeError
from tests.integration.streaming import BOTH, Recording, ask, run

DOCUMENTS = (
    '{ "a" :\t1 , "a": 2,"c":[ ] }',
    "1e400",
    "123456789012345678901234567890.10",
    '{"a":"\\u0000 \\ud83d\\ude00 \\/","b":-0.0}',
    '"text"',
    "null",
    "[]",
)


def embedded(body: bytes, column: str) -> bytes:
    """The bytes of the last column of ``new``."""
    return body.partition(b'"new":{')[2].partition(f'"{column}":'.encode())[2].partition(b'},"old":')[0]


@pytest.mark.fault("F93", "I10")
def test_json_is_embedded_as_it_was_written(database15: str) -> None:
    recording = Recording(database15)

    recording.run("create table t (doc json)", *(f"insert into t values ('{document}')" for document in DOCUMENTS))
    recording.equal_events()

    bodies = [envelope.body for envelope in recording.envelopes("pgoutput")]
    assert [embedded(body, "doc").decode() for body in bodies] == list(DOCUMENTS)


def test_line_breaks_between_the_tokens_of_json_become_spaces(database15: str) -> None:
    recording = Recording(database15)

    recording.run("""create table t (doc json); insert into t values (E'{\\n  "a": 1,\\r\\n  "b": [\\n]\\n}')""")
    recording.equal_events()

    (envelope,) = recording.envelopes("wal2json")
    assert embedded(envelope.body, "doc") == b'{   "a": 1,    "b": [ ] }'


def test_jsonb_keeps_the_scale_of_its_numbers(database15: str) -> None:
    recording = Recording(database15)

    recording.run("""create table t (doc jsonb); insert into t values ('{"b": 1.500, "a": 1e40}')""")
    recording.equal_events()

    (envelope,) = recording.envelopes("wal2json")
    assert embedded(envelope.body, "doc") == b'{"a": 1%s, "b": 1.500}' % (b"0" * 40)


@pytest.mark.fault("F92", "I10")
def test_minus_zero_keeps_its_sign(database15: str) -> None:
    run(
        database15,
        "create table t (id int primary key, a float8, b float4, c float8); alter table t replica identity full",
    )
    recording = Recording(database15)

    recording.run("insert into t values (1, '-0', '-0', 0); update t set a = 0, c = '-0'")
    inserted, updated = recording.equal_events()

    assert [math.copysign(1, inserted["new"][name]) for name in "abc"] == [-1, -1, 1]
    assert [math.copysign(1, updated["new"][name]) for name in "abc"] == [1, -1, -1]
    assert [math.copysign(1, updated["old"][name]) for name in "abc"] == [-1, -1, 1]
    assert updated["changed"] == ["a", "c"]


NOT_FINITE = """
create table t (f float8, r real, n numeric, d amount);
insert into t values ('NaN', 'NaN', 'NaN', 'NaN'), ('Infinity', 'Infinity', 'Infinity', null),
    ('-Infinity', '-Infinity', '-Infinity', null)
"""


@pytest.mark.fault("F92", "I10")
def test_pgoutput_gives_what_is_not_finite_as_strings(database15: str) -> None:
    recording = Recording(database15)

    recording.run("create domain amount as numeric;" + NOT_FINITE)

    assert [event["new"] for event in recording.events("pgoutput")] == [
        {"f": "NaN", "r": "NaN", "n": "NaN", "d": "NaN"},
        {"f": "Infinity", "r": "Infinity", "n": "Infinity", "d": None},
        {"f": "-Infinity", "r": "-Infinity", "n": "-Infinity", "d": None},
    ]


@pytest.mark.fault("F92")
def test_wal2json_up_to_2_5_loses_what_is_not_finite(database15: str) -> None:
    """The documented loss: nothing in the stream tells these values from NULL, but domains print as text."""
    recording = Recording(database15)

    recording.run("create domain amount as numeric;" + NOT_FINITE)

    nothing = {"f": None, "r": None, "n": None, "d": None}
    assert [event["new"] for event in recording.events("wal2json")] == [nothing | {"d": "NaN"}, nothing, nothing]


@contextmanager
def encoded(server: Postgres, database: str, encoding: str) -> Iterator[str]:
    """The DSN of one more database, in an encoding that is not the client's. Its slots are dropped with it."""
    name = f"{ask(database, 'select current_database()')}_{encoding.lower()}"
    run(database, f"create database {name} encoding '{encoding}' lc_collate 'C' lc_ctype 'C' template template0")
    yield server.dsn(name)
    run(
        database,
        f"select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '{name}'",
        f"drop database {name} with (force)",
    )


@pytest.fixture
def latin1(postgres15: Postgres, database15: str) -> Iterator[str]:
    with encoded(postgres15, database15, "LATIN1") as dsn:
        yield dsn


@pytest.fixture
def euc_jp(postgres15: Postgres, database15: str) -> Iterator[str]:
    with encoded(postgres15, database15, "EUC_JP") as dsn:
        yield dsn


@pytest.fixture
def sql_ascii(postgres15: Postgres, database15: str) -> Iterator[str]:
    with encoded(postgres15, database15, "SQL_ASCII") as dsn:
        yield dsn


@pytest.mark.fault("F94")
def test_a_latin1_database_gives_utf_8_events(latin1: str) -> None:
    run(latin1, 'create table "Stücke" (id int primary key, "größe" text, j json, n numeric, d float8)')
    run(latin1, 'alter table "Stücke" replica identity full')
    recording = Recording(latin1)

    recording.run("""insert into "Stücke" values (1, 'é ÿ £ © \u00a0 ', '{"ö": "ü"}', 1e400, '-0')""")
    recording.run("""update "Stücke" set "größe" = 'è'; select pg_logical_emit_message(true, 'präfix', 'grüße')""")
    inserted, updated, message = recording.equal_events()

    assert inserted["table"] == "Stücke"
    assert inserted["new"]["größe"] == "é ÿ £ © \u00a0 "
    assert inserted["new"]["j"] == {"ö": "ü"}
    assert updated["changed"] == ["größe"]
    assert message["message"]["prefix"] == "präfix"
    assert bytes.fromhex(message["message"]["content"][2:]).decode("latin-1") == "grüße"


@pytest.mark.fault("F94", "F108")
def test_a_multibyte_database_takes_messages_of_any_bytes(euc_jp: str) -> None:
    recording = Recording(euc_jp)

    recording.run("create table t (a text)", "insert into t values ('日本')")
    recording.run("""select pg_logical_emit_message(true, '日', '\\x8e228fa122ff'::bytea)""")
    inserted, message = recording.equal_events()

    assert inserted["new"] == {"a": "日本"}
    assert (message["message"]["prefix"], message["message"]["content"]) == ("日", "\\x8e228fa122ff")


@pytest.mark.fault("F94")
def test_a_database_without_an_encoding_takes_utf_8(sql_ascii: str) -> None:
    recording = Recording(sql_ascii)

    recording.run("create table t (a text)", r"insert into t values (E'\xc3\xa9\xf0\x9f\x90\x98')")

    assert [event["new"] for event in recording.equal_events()] == [{"a": "é🐘"}]


@pytest.mark.parametrize("plugin", BOTH)
@pytest.mark.fault("F94", "I21")
def test_bytes_that_are_no_text_stop_the_stream_without_being_shown(sql_ascii: str, plugin: str) -> None:
    recording = Recording(sql_ascii)

    recording.run("create table t (a text)", "insert into t values (E'secret \\xff')")

    with pytest.raises(DecodeError, match="at LSN") as stopped:
        recording.events(plugin)
    assert "secret" not in "".join(format_exception(stopped.value))
