"""Connections to PostgreSQL."""

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from types import MappingProxyType
from typing import Any, Self

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from pgevents.fault import translated

# What decides how values print, so that no default of a role or database changes an event. The timeouts are
# off because a role's statement_timeout would end the replication command.
PINNED_SETTINGS = {
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    "search_path": "pg_catalog",  # regclass and its kin print a schema where it is not on the path
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}

# Older servers do not know these, and would refuse a connection that names them; they are set when it stands.
_LATER_TIMEOUTS = """
select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings
where name in ('idle_session_timeout', 'transaction_timeout')
"""

# A dead network is noticed within about half a minute instead of the kernel's two hours.
DEFAULTS: dict[str, Any] = {
    "application_name": "pgevents",
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def connect_replication(dsn: str) -> Any:
    """A logical replication connection with every output-relevant setting pinned."""
    return _connect(
        dsn,
        options=_options(dsn, PINNED_SETTINGS),
        connection_factory=psycopg2.extras.LogicalReplicationConnection,
    )


def _options(dsn: str, pinned: Mapping[str, str]) -> str:
    """The options that are given, and behind them, where they win, the settings that must hold."""
    try:
        given = psycopg2.extensions.parse_dsn(dsn).get("options")
    except psycopg2.Error as error:
        raise translated(error) from error
    given = given or os.environ.get("PGOPTIONS", "")
    return " ".join([given, *(f"-c {name}={value}" for name, value in pinned.items())]).strip()


def quoted(*names: str) -> str:
    """An identifier as SQL writes it, its parts with dots between."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


class Sql:
    """An ordinary connection in autocommit, opened at the first statement and again after a failure.

    ``settings`` hold on it whatever the defaults of role and database are. Every method blocks and raises
    SourceError; with ``answer_timeout_s`` a server that does not answer in time counts as lost.
    """

    def __init__(
        self,
        dsn: str,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        answer_timeout_s: float | None = None,
    ) -> None:
        self._dsn = dsn
        self._answer_timeout_s = answer_timeout_s
        self._settings = {"statement_timeout": "0", **settings}
        self._connection: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, query: str, *parameters: Any, plugin: str = "") -> list[tuple[Any, ...]]:
        """The rows of a query, with ``%s`` for each parameter; ``plugin`` is for the hint of an error."""
        with self._cursor(plugin) as cursor:
            cursor.execute(query, parameters or None)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def run(self, statement: str) -> None:
        with self._cursor() as cursor:
            cursor.execute(statement)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @contextmanager
    def _cursor(self, plugin: str = "") -> Iterator[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = _connect(self._dsn, options=_options(self._dsn, self._settings))
        limit_s, connection = self._answer_timeout_s, self._connection
        try:
            with connection.cursor() as cursor, _cut_after(limit_s, connection) if limit_s else nullcontext():
                yield cursor
        except psycopg2.Error as error:
            raise translated(error, plugin=plugin) from error


@contextmanager
def _cut_after(limit_s: float, connection: Any) -> Iterator[None]:
    """Shut the socket down where the block lasts longer, which ends libpq's waiting.

    A statement_timeout is the server's, which may be frozen, and TCP's time-outs are for a host that is gone.
    """
    timer = threading.Timer(limit_s, _shut_down, [connection.fileno()])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut_down(descriptor: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as end:
        end.shutdown(socket.SHUT_RDWR)


def _connect(dsn: str, *, options: str, connection_factory: Any = None) -> Any:
    try:
        given = psycopg2.extensions.parse_dsn(dsn)
        settings: dict[str, Any] = {name: value for name, value in DEFAULTS.items() if name not in given}
        settings |= {"options": options, "connection_factory": connection_factory}
        connection = psycopg2.connect(dsn, client_encoding="UTF8", **settings)
    except psycopg2.Error as error:
        raise translated(error) from error
    try:
        if connection_factory is None:  # a replication connection knows nothing else
            connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(_LATER_TIMEOUTS)
    except psycopg2.Error as error:
        connection.close()
        raise translated(error) from error
    return connection
