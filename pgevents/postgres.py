"""Connections to PostgreSQL."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    "idle_in_transaction_session_timeout": "0",
}

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

    Every method blocks and raises SourceError.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
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
            self._connection = _connect(self._dsn, options=_options(self._dsn, {"statement_timeout": "0"}))
            self._connection.autocommit = True
        try:
            with self._connection.cursor() as cursor:
                yield cursor
        except psycopg2.Error as error:
            raise translated(error, plugin=plugin) from error


def _connect(dsn: str, **more: Any) -> Any:
    try:
        given = psycopg2.extensions.parse_dsn(dsn)
        settings: dict[str, Any] = {name: value for name, value in DEFAULTS.items() if name not in given}
        return psycopg2.connect(dsn, client_encoding="UTF8", **settings, **more)
    except psycopg2.Error as error:
        raise translated(error) from error
