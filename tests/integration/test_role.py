"""deploy/sql/role.sql: what its role may do, what it may not, and that it is all that PGEvents needs."""

import shutil
import subprocess
from pathlib import Path

import psycopg2
import pytest

from pgevents.demo.process import eventually
from tests.integration.command import Command, Shop, ids_of, pgevents, stored
from tests.integration.role import SCRIPT, as_role, install_role
from tests.integration.streaming import BOTH, ask, run

MIGRATIONS = Path(__file__).parents[2] / "migrations"
REFUSED = 4


def statements(script: Path) -> list[str]:
    """What a script of plain statements runs, without comments."""
    lines = [line for line in script.read_text().splitlines() if not line.startswith("--")]
    return [each.strip() for each in "\n".join([*lines, ""]).split(";\n") if each.strip()]


def test_the_role_can_log_in_and_replicate_and_nothing_else(database15: str) -> None:
    row = ask(
        database15,
        "SELECT rolcanlogin, rolreplication, rolsuper, rolcreatedb, rolcreaterole, rolbypassrls"
        " FROM pg_roles WHERE rolname = 'pgevents'",
    )

    assert row == (True, True, False, False, False, False)
    assert not ask(database15, "SELECT count(*) FROM pg_auth_members WHERE member = 'pgevents'::regrole")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM orders",
        "INSERT INTO orders VALUES (9, 'x')",
        "DROP TABLE orders",
        "DELETE FROM pgevents.watermark",
        "DROP TABLE pgevents.watermark",
        "UPDATE pgevents.skip_window SET name = 'other'",
        "CREATE TABLE pgevents.mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE PUBLICATION mine FOR ALL TABLES",
        "CREATE PUBLICATION mine FOR TABLE orders",
        "CREATE ROLE mine",
        "ALTER SYSTEM SET wal_level = 'minimal'",
    ],
)
def test_the_role_is_refused_what_it_does_not_need(database15: str, statement: str) -> None:
    run(database15, "CREATE TABLE orders (id int PRIMARY KEY, note text)")

    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        run(as_role(database15), statement)


def test_the_script_can_be_run_again_and_leaves_a_role_as_it_is(database15: str) -> None:
    run(database15, "ALTER ROLE pgevents CONNECTION LIMIT 7")
    try:
        install_role(database15)

        assert ask(database15, "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'pgevents'") == 7
    finally:
        run(database15, "ALTER ROLE pgevents CONNECTION LIMIT -1")


def test_psql_runs_the_script(database15: str) -> None:
    psql = shutil.which("psql")
    assert psql

    ran = subprocess.run(
        [psql, "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--dbname", database15, "--file", str(SCRIPT)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("migration", ["0001_watermark.sql", "0003_skip_window.sql"])
def test_the_tables_are_those_of_the_migrations(migration: str) -> None:
    wanted = statements(MIGRATIONS / migration)[:3]

    assert [each.split()[0] for each in wanted] == ["CREATE", "CREATE", "COMMENT"]
    assert [each for each in wanted if each not in statements(SCRIPT)] == []


@pytest.mark.parametrize("plugin", BOTH)
def test_the_role_creates_reads_and_drops_a_slot_and_keeps_its_watermark_in_the_table(
    database15: str, plugin: str, tmp_path: Path
) -> None:
    shop = Shop(database15, plugin=plugin)
    pgevents(tmp_path, "slot", "drop", *shop.options, "--yes")
    options = (*shop.options, "--state", "postgres", "--plugin", plugin, "--sink", "file:events.ndjson")

    with Command(tmp_path, "stream", "--create-slot", *options) as stream:
        stream.ready()
        shop.add(1)
        assert eventually(lambda: ids_of(stored(tmp_path / "events.ndjson")) == [1], deadline_s=20), stream.stderr
        dropped = pgevents(tmp_path, "slot", "drop", *shop.options, "--yes", "--terminate")

    assert dropped.code == 0, dropped.stderr
    assert ask(database15, "SELECT count(*) FROM pgevents.watermark") == 1


def test_a_publication_that_the_role_may_not_create_is_asked_for_in_sql(database15: str, tmp_path: Path) -> None:
    run(database15, "CREATE TABLE orders (id int PRIMARY KEY)")
    create = ("slot", "create", "--dsn", as_role(database15), "--slot", "of_role", "--plugin", "pgoutput")

    outcome = pgevents(tmp_path, *create, "--table", "public.orders")

    _, hint = outcome.refusal(REFUSED)
    run(database15, hint.partition("run: ")[2])
    again = pgevents(tmp_path, *create, "--table", "public.orders")
    assert again.code == 0, again.stderr
