"""A replication connection, and the command that begins to stream on it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg2
import psycopg2.extensions

from pgevents.fault import translated
from pgevents.postgres import connect_replication, quoted

# psycopg2's own feedback, which carries no LSN, is put off for good: ours keeps the connection alive.
_NEVER_S = 10**8


class Session(NamedTuple):
    """A replication connection before streaming, and what it told about the server."""

    connection: Any
    system_id: str
    timeline: int
    server_version: int
    encoding: str
    wal_sender_timeout_s: float

    @property
    def identity(self) -> str:
        """``{system identifier}-{timeline}``: LSNs mean the same only where this is the same."""
        return f"{self.system_id}-{self.timeline}"

    def create_temporary_slot(self, slot: str, plugin: str) -> None:
        """A slot that ends with the connection. Blocks; raises SourceError."""
        statement = f"CREATE_REPLICATION_SLOT {quoted(slot)} TEMPORARY LOGICAL {quoted(plugin)}"
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(f"{statement} NOEXPORT_SNAPSHOT")
        except psycopg2.Error as error:
            raise translated(error, slot=slot, plugin=plugin) from error

    def tell(self, statement: str, *values: str) -> None:
        """Have the server's end of it set something. Blocks; raises SourceError."""
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(statement, values)
        except psycopg2.Error as error:
            raise translated(error) from error


def connect_session(dsn: str) -> Session:
    """Connect and ask who the server is. Blocks; raises SourceError."""
    connection = connect_replication(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute("IDENTIFY_SYSTEM")
            system_id, timeline, _, _ = cursor.fetchone()
            cursor.execute("SHOW wal_sender_timeout")
            timeout_s = _seconds(cursor.fetchone()[0])
            cursor.execute("SHOW server_encoding")
            encoding = cursor.fetchone()[0]
    except psycopg2.Error as error:
        connection.close()
        raise translated(error) from error
    codec = psycopg2.extensions.encodings.get(encoding, "utf-8")
    codec = "utf-8" if codec in {"utf_8", "ascii"} else codec
    return Session(connection, system_id, timeline, connection.server_version, codec, timeout_s)


_UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(setting: str) -> float:
    """PostgreSQL's ``1min`` or ``500ms``; 0 means no time-out."""
    number = setting.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number) * _UNITS_S.get(setting[len(number) :], 0.001)


def start(session: Session, *, slot: str, plugin: str, options: Mapping[str, str]) -> Any:
    """Begin streaming where the slot stands and return the cursor. Raises SourceError.

    The start is always 0/0: the server begins at its own confirmed flush LSN, and one that we named and that
    were too high would skip changes in silence.
    """
    settings = ", ".join(f"{quoted(name)} {_literal(value)}" for name, value in options.items())
    cursor = session.connection.cursor()
    try:
        cursor.start_replication_expert(
            f"START_REPLICATION SLOT {quoted(slot)} LOGICAL 0/0 ({settings})",
            decode=False,
            status_interval=_NEVER_S,
        )
    except psycopg2.Error as error:
        cursor.close()
        raise translated(error, slot=slot, plugin=plugin) from error
    return cursor


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
