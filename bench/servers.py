"""The private servers everything is measured on, and what they run on."""

import os
import platform
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import connection

from bench.broker import Queue
from pgevents.demo.postgres import Postgres
from pgevents.demo.rabbitmq import RabbitMQ

SETTINGS = {
    # Nothing but what is measured shall use the processors.
    "autovacuum": "off",
    "max_wal_size": "8GB",
    # The plug-in options of the stream are read from the server's log, so that pg_recvlogical gets the same.
    "log_replication_commands": "on",
}


@dataclass(frozen=True, slots=True)
class Servers:
    """Both servers, running, a connection to the database, and a queue."""

    folder: Path
    postgres: Postgres
    rabbitmq: RabbitMQ
    database: connection
    queue: Queue

    @property
    def dsn(self) -> str:
        return self.postgres.dsn()

    @property
    def plugins(self) -> tuple[str, ...]:
        """The output plug-ins to be had, the one a stream prefers first."""
        return ("wal2json", "pgoutput") if self.postgres.has_wal2json else ("pgoutput",)


@contextmanager
def serving(folder: Path) -> Iterator[Servers]:
    """Start both in ``folder``. Commits are flushed to the disk, as they would be outside a benchmark."""
    # As many schedulers as processors is what a broker starts with: fewer would lower its ceiling.
    rabbitmq = RabbitMQ(folder / "rabbitmq", schedulers=os.cpu_count() or 1)
    with (
        Postgres(folder / "postgres", fsync=True, settings=SETTINGS) as postgres,
        rabbitmq,
        closing(psycopg2.connect(postgres.dsn())) as database,
    ):
        database.autocommit = True
        yield Servers(folder, postgres, rabbitmq, database, Queue(rabbitmq.url()))


def describe(servers: Servers) -> dict[str, Any]:
    """What ran where: figures of different machines cannot be compared."""
    return {
        "postgresql": _setting(servers.database, "server_version"),
        "fsync": _setting(servers.database, "fsync"),
        "synchronous_commit": _setting(servers.database, "synchronous_commit"),
        "plugins": servers.plugins,
        "rabbitmq": servers.rabbitmq.ctl("version").strip(),
        "rabbitmq_schedulers": servers.rabbitmq.settings.schedulers,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _setting(database: connection, name: str) -> str:
    with database.cursor() as cursor:
        cursor.execute("SELECT current_setting(%s)", (name,))
        return str((cursor.fetchone() or ("",))[0])
