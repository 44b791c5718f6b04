"""What cannot work ends with one line, a hint and the documented exit code, and the slot stays where it was."""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually, free_ports
from pgevents.errors import PluginRefused
from pgevents.fault import translated
from pgevents.lsn import Lsn
from pgevents.postgres import Sql
from pgevents.slot import find
from tests.integration.command import Command, Shop, pgevents, stored
from tests.integration.role import as_role
from tests.integration.streaming import ask, run

FAILED, USAGE, GAP, REFUSED = 1, 2, 3, 4
SOON = ("--start-timeout", "0.5", "--retry-max", "0.2")
TO_FILE = ("--sink", "file:events.ndjson")

PASSWORD = "hunter2-of-nobody"


@pytest.fixture
def shop(database15: str) -> Shop:
    return Shop(database15)


@pytest.fixture(scope="module")
def strict(services: Path) -> Iterator[Postgres]:
    """A server that wants passwords and has no logical decoding."""
    with Postgres(services / "strict", auth="scram-sha-256", settings={"wal_level": "replica"}) as server:
        yield server


@pytest.fixture
def role(database15: str) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"app_{secrets.token_hex(4)}"
    run(database15, f"CREATE ROLE {name} LOGIN")
    yield name
    run(database15, f"DROP ROLE {name}")


@contextmanager
def ascii_database(dsn: str) -> Iterator[str]:
    """A database beside another whose server does not look at the bytes of a text."""
    name = f"ascii_{secrets.token_hex(4)}"
    run(dsn, f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0")
    try:
        yield make_dsn(dsn, dbname=name)
    finally:
        run(
            dsn,
            f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{name}'",
            f"DROP DATABASE {name} WITH (FORCE)",
        )


# PostgreSQL: who is there, and may we come in?


@pytest.mark.fault("F36", "I21")
def test_a_wrong_password_is_refused_at_once(strict: Postgres, tmp_path: Path) -> None:
    dsn = strict.dsn(password=PASSWORD)

    outcome = pgevents(tmp_path, "stream", "--dsn", dsn, *TO_FILE)

    outcome.refused(REFUSED, error='password authentication failed for user "postgres"', hint="password")
    assert f"port {strict.port}" in outcome.stderr
    assert PASSWORD not in outcome.stderr
    assert strict.password not in outcome.stderr


@pytest.mark.fault("F36")
def test_a_missing_password_is_refused_at_once(strict: Postgres, tmp_path: Path) -> None:
    dsn = make_dsn(host="127.0.0.1", port=strict.port, user="postgres", dbname="postgres")

    outcome = pgevents(tmp_path, "stream", "--dsn", dsn, *TO_FILE)

    outcome.refused(REFUSED, error="no password supplied", hint="password")


@pytest.mark.fault("F36")
def test_a_server_without_logical_decoding_is_refused(strict: Postgres, tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "stream", "--dsn", strict.dsn(), "--create-slot", *TO_FILE)

    outcome.refused(REFUSED, error="wal_level is replica", hint=r"ALTER SYSTEM SET wal_level = 'logical'.*restart")
    assert strict.password not in outcome.stderr


@pytest.mark.fault("F36")
def test_an_unknown_role_is_refused(shop: Shop, tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "stream", *shop.with_dsn(user="nobody_at_all"), *TO_FILE)

    outcome.refused(REFUSED, error='role "nobody_at_all" does not exist', hint=r"pg_hba\.conf")


def test_an_unknown_database_is_refused(shop: Shop, tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "stream", *shop.with_dsn(dbname="no_such_shop"), *TO_FILE)

    outcome.refused(REFUSED, error='database "no_such_shop" does not exist', hint="PGDATABASE")


@pytest.mark.fault("F57")
def test_an_unknown_host_is_tried_again_and_then_given_up(tmp_path: Path) -> None:
    dsn = f"postgresql://app:{PASSWORD}@no-such-host.invalid/shop"

    outcome = pgevents(tmp_path, "stream", "--dsn", dsn, *TO_FILE, *SOON)

    outcome.refused(FAILED, error=r'host name "no-such-host\.invalid"', hint="Check host and port")
    assert "trying again" in outcome.stderr
    assert PASSWORD not in outcome.stderr


def test_a_port_where_nobody_listens_is_tried_again_and_then_given_up(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    dsn = f"postgresql://app:{PASSWORD}@127.0.0.1:{port}/shop"

    outcome = pgevents(tmp_path, "stream", "--dsn", dsn, *TO_FILE, *SOON)

    outcome.refused(FAILED, error=f"port {port} failed: Connection refused", hint="Check host and port")
    assert "trying again" in outcome.stderr
    assert PASSWORD not in outcome.stderr


@pytest.mark.parametrize("command", [("slot", "status"), ("slot", "create"), ("slot", "drop", "--yes"), ("tail",)])
def test_every_command_says_that_a_server_is_not_there(command: tuple[str, ...], tmp_path: Path) -> None:
    (port,) = free_ports(1)

    outcome = pgevents(tmp_path, *command, "--dsn", f"host=127.0.0.1 port={port} password={PASSWORD}")

    outcome.refused(FAILED, error=f"port {port} failed: Connection refused", hint="Check host and port")
    assert PASSWORD not in outcome.stderr


@pytest.mark.fault("F36")
def test_a_role_without_replication_is_refused(shop: Shop, role: str, tmp_path: Path) -> None:
    before = shop.confirmed

    outcome = pgevents(tmp_path, "stream", *shop.with_dsn(user=role), *TO_FILE)

    outcome.refused(REFUSED, error="role .*may not use replication slots", hint=r"ALTER ROLE .* REPLICATION")
    assert shop.confirmed == before


# The slot.


@pytest.mark.fault("I12")
def test_a_missing_slot_is_not_created_unasked(shop: Shop, tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "stream", "--dsn", shop.role_dsn, "--slot", "no_such_slot", *TO_FILE)

    outcome.refused(REFUSED, error="no replication slot no_such_slot", hint="--create-slot")
    with Sql(shop.dsn) as sql:
        assert find(sql, "no_such_slot") is None


@pytest.mark.fault("F33")
def test_a_slot_of_another_plug_in_is_refused(shop: Shop, tmp_path: Path) -> None:
    before = shop.confirmed

    outcome = pgevents(tmp_path, "stream", *shop.options, "--plugin", "pgoutput", *TO_FILE)

    outcome.refused(
        REFUSED, error=f"slot {shop.slot} was created for .* wal2json, not pgoutput", hint="--plugin wal2json"
    )
    assert shop.confirmed == before


@pytest.mark.fault("F33")
def test_a_slot_of_a_plug_in_we_cannot_read_is_refused(shop: Shop, tmp_path: Path) -> None:
    name = f"{shop.slot}_t"
    run(shop.dsn, f"SELECT pg_create_logical_replication_slot('{name}', 'test_decoding')")

    outcome = pgevents(tmp_path, "stream", "--dsn", shop.role_dsn, "--slot", name, *TO_FILE)

    outcome.refused(REFUSED, error=f"slot {name} was created for .* test_decoding", hint="another --slot")


@pytest.mark.fault("F33")
def test_a_slot_of_another_database_is_refused(shop: Shop, tmp_path: Path) -> None:
    before = shop.confirmed

    outcome = pgevents(tmp_path, "stream", *shop.with_dsn(dbname="postgres"), *TO_FILE)

    outcome.refused(
        REFUSED,
        error=f"slot {shop.slot} belongs to database {shop.database}, not postgres",
        hint=f"Connect to {shop.database}",
    )
    assert shop.confirmed == before


@pytest.mark.fault("F33")
def test_a_physical_slot_is_refused(shop: Shop, tmp_path: Path) -> None:
    name = f"{shop.slot}_p"
    run(shop.dsn, f"SELECT pg_create_physical_replication_slot('{name}')")
    try:
        outcome = pgevents(tmp_path, "stream", "--dsn", shop.role_dsn, "--slot", name, *TO_FILE)
    finally:
        run(shop.dsn, f"SELECT pg_drop_replication_slot('{name}')")

    outcome.refused(REFUSED, error=f"slot {name} is a physical slot", hint="another --slot")


@pytest.mark.fault("F14", "I17")
def test_a_slot_in_use_is_waited_for_and_then_given_up(shop: Shop, tmp_path: Path) -> None:
    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as first:
        first.ready()
        second = pgevents(tmp_path, "stream", *shop.options, "--sink", "null:", *SOON)
        shop.add(1)
        assert eventually(lambda: len(stored(tmp_path / "events.ndjson")) == 1, deadline_s=20), first.stderr
        ended = first.stopped()

    second.refused(FAILED, error=rf"slot {shop.slot} is being read by PID \d+", hint="Stop that process")
    assert "trying again" in second.stderr
    assert ended.code == 0


@pytest.mark.fault("I13")
def test_a_slot_in_use_is_not_dropped_unless_its_reader_may_be_ended(shop: Shop, tmp_path: Path) -> None:
    drop = ("slot", "drop", *shop.options, "--yes")
    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream:
        stream.ready()
        pgevents(tmp_path, *drop).refused(FAILED, error=f"slot {shop.slot} is being read by PID", hint="--terminate")
        terminated = pgevents(tmp_path, *drop, "--terminate")
        ended = stream.ended()

    assert terminated.code == 0
    assert terminated.stderr.startswith(f"dropped slot {shop.slot}\nIts watermark stays in ")
    ended.refused(GAP, error=f"slot {shop.slot} is gone: .* it was dropped", hint="--create-slot --accept-gap")


# The output plug-in and its publication.


@pytest.mark.fault("F37")
def test_a_plug_in_that_the_server_does_not_allow_is_refused(database18: str, tmp_path: Path) -> None:
    outcome = pgevents(
        tmp_path, "slot", "create", "--dsn", as_role(database18), "--slot", "refused", "--plugin", "wal2json"
    )

    outcome.refused(
        REFUSED, error='library "wal2json" may not be used as an output plugin', hint="--plugin pgoutput works"
    )


# What holds for the role; a role that is no superuser may not ask for it itself.
ALLOWED = """
SELECT concat(current_setting('output_plugin_libraries'), setconfig) FROM pg_roles
LEFT JOIN pg_db_role_setting ON setrole = pg_roles.oid WHERE rolname = 'pgevents'
"""


@pytest.mark.parametrize("undo", ["ALTER SYSTEM RESET", "ALTER ROLE pgevents RESET"])
@pytest.mark.fault("F37")
def test_the_statements_in_the_hint_allow_the_plug_in(database18: str, undo: str, tmp_path: Path) -> None:
    create = ("slot", "create", "--dsn", as_role(database18), "--slot", "refused", "--plugin", "wal2json")
    hint = pgevents(tmp_path, *create).refusal(REFUSED)[1].replace("ROLE …", "ROLE pgevents")
    statements = re.findall(rf"{undo.removesuffix(' RESET')} SET [^;]+;", hint)

    try:
        run(database18, *statements, "SELECT pg_reload_conf()")
        # The server reads its files again in its own time.
        assert eventually(lambda: "wal2json" in ask(database18, ALLOWED), deadline_s=10)
        outcome = pgevents(tmp_path, *create)
    finally:
        run(database18, f"{undo} output_plugin_libraries", "SELECT pg_reload_conf()")

    assert len(statements) == 1
    # The wheel has no wal2json: once the name is allowed, it is the file that is missed.
    outcome.refused(REFUSED, error='could not access file "wal2json"', hint="Install wal2json.*--plugin pgoutput")


def test_a_publication_that_is_missing_is_not_created_unasked(database18: str, tmp_path: Path) -> None:
    shop = Shop(database18, plugin="pgoutput")
    before = shop.confirmed

    outcome = pgevents(tmp_path, "stream", *shop.options, "--publication", "Other One", *TO_FILE)

    outcome.refused(REFUSED, error="no publication Other One", hint='CREATE PUBLICATION "Other One" FOR ALL TABLES')
    assert shop.confirmed == before


class OtherServer(psycopg2.Error):
    """An error as psycopg2 gives it, of a server version that is not here."""

    pgcode = "42501"


@pytest.mark.parametrize("plugin", ["wal2json", ""])
def test_the_sentence_of_a_server_that_does_not_allow_the_plug_in_is_known(plugin: str) -> None:
    sentence = 'library "wal2json" may not be used as an output plugin'

    error = translated(OtherServer(sentence), plugin=plugin)

    assert isinstance(error, PluginRefused)
    assert str(error) == sentence
    assert "ALTER SYSTEM SET output_plugin_libraries = pgoutput, test_decoding, wal2json;" in error.hint
    assert "ALTER ROLE … SET output_plugin_libraries = pgoutput, wal2json;" in error.hint
    assert "--plugin pgoutput" in error.hint


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
@pytest.mark.fault("F94", "I21")
def test_text_that_is_not_utf_8_stops_the_stream_and_is_not_shown(
    database15: str, plugin: str, tmp_path: Path
) -> None:
    with ascii_database(database15) as dsn:
        shop = Shop(dsn, plugin=plugin)
        run(dsn, "INSERT INTO orders VALUES (1, 'secret' || E'\\xff' || 'secret')")

        outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE)

        error, hint = outcome.refusal(FAILED)
        named = re.search(r"cannot decode the message '\w+' at LSN ([0-9A-F]+/[0-9A-F]+): it", error)
        assert named, error
        assert shop.confirmed <= Lsn.parse(named[1])
        assert "Keep the slot" in hint
        assert not re.search("secret|0xff", outcome.stderr)
        assert stored(tmp_path / "events.ndjson") == []


# What the command line and the configuration say.


def test_an_unknown_table_pattern_names_the_nearest_table(shop: Shop, tmp_path: Path) -> None:
    before = shop.confirmed

    outcome = pgevents(tmp_path, "stream", *shop.options, "--table", "public.ordrs", *TO_FILE)

    outcome.refused(USAGE, error=r"table pattern public\.ordrs matches no table", hint=r"public\.orders")
    assert shop.confirmed == before


@pytest.mark.parametrize(("wrong", "right"), [("--tabel", "--table"), ("--create-slots", "--create-slot")])
def test_an_unknown_flag_names_the_nearest_one(wrong: str, right: str, tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "stream", wrong, "x")

    assert outcome.code == USAGE
    assert re.search(rf"^Error: No such option:? .*{wrong}.*{right}\b", outcome.stderr, re.MULTILINE)


def test_an_unknown_key_in_the_file_names_the_nearest_one(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "pgevents.toml").write_text('slto = "shop"\n')

    outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE)

    outcome.refused(USAGE, error=r"unknown key 'slto' in pgevents\.toml", hint="slot")


def test_an_unknown_variable_names_the_nearest_one(shop: Shop, tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE, env={"PGEVENTS_SLTO": "shop"})

    outcome.refused(USAGE, error="unknown environment variable PGEVENTS_SLTO", hint="PGEVENTS_SLOT")


@pytest.mark.parametrize(
    ("sink", "error", "hint"),
    [
        ("ampq://localhost/", "'ampq' is not the scheme of a sink", "amqp"),
        ("file:", "names no file", "file:PATH"),
        (f"amqp://app:{PASSWORD}@localhost/?exchnage=x", "unknown parameter 'exchnage'", "exchange"),
        (f"amqp://app:{PASSWORD}@localhost/?routing_key={{tabel}}", "unknown field {tabel}", "{table}"),
    ],
)
def test_a_sink_url_that_cannot_be_meant(shop: Shop, sink: str, error: str, hint: str, tmp_path: Path) -> None:
    before = shop.confirmed

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", sink, *SOON)

    outcome.refused(USAGE, error=error, hint=hint)
    assert PASSWORD not in outcome.stderr
    assert shop.confirmed == before
