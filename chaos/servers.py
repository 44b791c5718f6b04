"""The private servers that a run breaks, and databases on them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from psycopg2 import sql

from chaos import consumer, ledger
from pgevents.demo.postgres import Postgres
from pgevents.demo.postgres_binaries import Binaries
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.demo.rabbitmq_settings import MANAGEMENT

ROLE = "pgevents"
ROLE_SCRIPT = Path(__file__).parents[1] / "deploy" / "sql" / "role.sql"
WAL_SENDER_TIMEOUT_S = 3.0

_POSTGRES = {
    "wal_sender_timeout": f"{WAL_SENDER_TIMEOUT_S:g}s",
    "deadlock_timeout": "100ms",
    # The least there is: whatever is larger goes through the disk.
    "logical_decoding_work_mem": "64kB",
}


@dataclass(frozen=True, slots=True)
class Servers:
    """A PostgreSQL and a RabbitMQ of our own, running, to be broken at will."""

    folder: Path
    postgres: Postgres
    rabbitmq: RabbitMQ


@contextmanager
def serving(folder: Path, *, binaries: Binaries | None = None) -> Iterator[Servers]:
    """Start both in ``folder``. Call it from the thread that lasts longest, which restarts them too."""
    postgres = Postgres(folder / "postgres", binaries=binaries, fsync=True, settings=_POSTGRES)
    with postgres, RabbitMQ(folder / "rabbitmq", plugins=(MANAGEMENT,)) as rabbitmq:
        yield Servers(folder, postgres, rabbitmq)


def create_database(postgres: Postgres, name: str) -> str:
    """The superuser's DSN of a new database with the tables, the ledger, and the stream's role."""
    with closing(psycopg2.connect(postgres.dsn())) as connection:
        connection.autocommit = True
        connection.cursor().execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    dsn = postgres.dsn(name)
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(ROLE_SCRIPT.read_text())
        cursor.execute("CREATE PUBLICATION pgevents FOR ALL TABLES")
    ledger.install(dsn)
    return dsn


def create_vhost(rabbitmq: RabbitMQ, name: str, queue_type: str) -> str:
    """The URL of a new virtual host with the exchange and the consumer's queue."""
    rabbitmq.api("PUT", f"/api/vhosts/{name}", {})
    url = rabbitmq.url(name)
    consumer.declare(url, queue_type)
    if queue_type == "quorum":
        # One that is killed within seconds of having been told of a quorum queue has forgotten it when it is back.
        rabbitmq.ctl("stop_app")
        rabbitmq.ctl("start_app")
    return url
