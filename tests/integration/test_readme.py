"""The README's commands, typed into a shell by a new user who has a checkout, a PostgreSQL and a RabbitMQ."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DEADLINE_S = 120.0

NOT_OF_A_CLONE = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")


def block(name: str) -> str:
    """The shell commands the README marks with a name."""
    (found,) = re.findall(rf"^```sh {name}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout without what git ignores, and beside it an empty virtual environment."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(ROOT, folder / "pgevents", ignore=NOT_OF_A_CLONE)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    return folder / "pgevents"


@contextmanager
def shell(clone: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    """A shell in the clone with the virtual environment active; what it prints goes to ``log``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "RABBITMQ"))}
    path = f"{clone.parent / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bash", "-e"],
            cwd=clone,
            env=kept | {"PATH": path},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    with process:
        try:
            yield process
        finally:
            # With what the shell has left in the background, where the test failed.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def type_into(process: subprocess.Popen[str], commands: str) -> None:
    assert process.stdin
    process.stdin.write(commands)
    process.stdin.flush()


def has_ended(process: subprocess.Popen[str]) -> bool:
    return process.poll() is not None


def with_addresses(commands: str, *, dsn: str, sink: str) -> str:
    """What the README asks for: "Put your addresses into the second line"."""
    lines = commands.splitlines(keepends=True)
    lines[1], count = re.subn(r"(PGEVENTS_DSN)=\S+ (PGEVENTS_SINK)=\S+", rf"\1='{dsn}' \2='{sink}'", lines[1])
    assert count == 1
    return "".join(lines)


def url_of(dsn: str) -> str:
    parts = parse_dsn(dsn)
    return f"postgresql://{quote(parts['user'])}@{parts['host']}:{parts['port']}/{parts['dbname']}"


def left_behind(dsn: str) -> list[tuple[str]]:
    """Slots, publications and tables in a database that was empty."""
    query = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
    query += " UNION ALL SELECT pubname FROM pg_publication UNION ALL SELECT tablename FROM pg_tables"
    query += " WHERE schemaname = 'public'"
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


@pytest.mark.parametrize(("database", "plugin"), [("database15", "wal2json"), ("database18", "pgoutput")])
def test_the_first_event_takes_five_lines_and_three_clean_up_after_it(
    clone: Path, database: str, plugin: str, vhost: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dsn: str = request.getfixturevalue(database)
    commands = with_addresses(block("first-event"), dsn=url_of(dsn), sink=vhost)
    log = tmp_path / "shell.log"
    line = re.compile(r"^[\d:.]{12}  INSERT +public\.hello #1  word=world  [0-9A-F]+/[0-9A-F]+$", re.MULTILINE)

    with shell(clone, log) as terminal:
        type_into(terminal, commands)
        seen = eventually(lambda: bool(line.search(log.read_text())) or has_ended(terminal), deadline_s=DEADLINE_S)
        assert seen, log.read_text()
        assert not has_ended(terminal), log.read_text()

        type_into(terminal, block("clean-up") + "exit\n")
        code = terminal.wait(DEADLINE_S)

    assert len(commands.splitlines()) == 5
    assert code == 0, log.read_text()
    assert left_behind(dsn) == []
    assert f"created slot pgevents for {plugin}" in log.read_text()
    assert "confirmed=1" in log.read_text()


def test_the_line_the_readme_shows_is_what_tail_prints() -> None:
    assert re.search(r"^[\d:.]{12}  INSERT    public\.hello #1  word=world  16/B374D848$", README, re.MULTILINE)


def test_the_statement_that_allows_wal2json_does(postgres18: Postgres) -> None:
    (statements,) = re.findall(r"^```sql\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

    with closing(psycopg2.connect(postgres18.dsn())) as connection:
        connection.autocommit = True
        cursor = connection.cursor()

        def is_allowed() -> bool:
            # The wheel has no wal2json: once the name is allowed, it is the file that is missed.
            with pytest.raises(psycopg2.Error) as refusal:
                cursor.execute("SELECT pg_create_logical_replication_slot('s', 'wal2json')")
            return refusal.type is psycopg2.errors.UndefinedFile

        assert not is_allowed()
        for statement in statements.strip().splitlines():
            cursor.execute(statement)
        assert eventually(is_allowed, deadline_s=10)
        cursor.execute("ALTER SYSTEM RESET output_plugin_libraries")
        cursor.execute("SELECT pg_reload_conf()")
        assert eventually(lambda: not is_allowed(), deadline_s=10)
