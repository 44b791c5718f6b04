"""The way to the server: the replication connection, what may stand in between, encryption, and the clocks."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg2

from pgevents.doctor.database import Database
from pgevents.doctor.finding import Finding, fatal, ok, refusal, warning
from pgevents.doctor.host import is_loopback
from pgevents.errors import PGEventsError
from pgevents.fault import translated
from pgevents.postgres import PINNED_SETTINGS, Sql, connect_replication

MOST_SKEW_S = 1.0
_TRIES = 3

_DIRECT = "Connect to the server itself, not to a pooler or a proxy of connections."

# What poolers answer to a replication connection: RDS Proxy, PgBouncer, Pgpool-II, Odyssey, Supavisor.
_POOLER = re.compile(
    r"RDS Proxy|pgbouncer|pgpool|odyssey|supavisor|unsupported startup parameter|"
    r"(?:does(?: not|n't)|not) (?:currently )?support(?:ed)?\b.*replication|replication\b.*not supported",
    re.IGNORECASE,
)


def check_replication(database: Database) -> Iterator[Finding]:
    """Connect as a stream does: pg_hba.conf, a pooler and the settings of a role may treat it otherwise."""
    subject = f"role {database.role}, database {database.server.database}"
    try:
        connection = connect_replication(database.settings.dsn)
    except PGEventsError as error:
        if is_poolers(str(error)):
            yield fatal("replication connection", subject, f"a pooler is in the way: {error}", fix=_DIRECT)
        else:
            yield refusal("replication connection", subject, error)
        return
    with closing(connection), _faults():
        yield from _identity(database, connection)
        yield from pins(_shown(connection))


def is_poolers(sentence: str) -> bool:
    """Whether it is how a pooler refuses a replication connection."""
    return _POOLER.search(sentence) is not None


def _identity(database: Database, connection: Any) -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute("IDENTIFY_SYSTEM")
        system_id, timeline = cursor.fetchone()[:2]
    expected = (database.server.system_id, database.server.timeline)
    if (system_id, timeline) != expected:
        yield fatal(
            "replication connection",
            f"system {system_id}, timeline {timeline}",
            f"it reaches another server than ordinary connections do, which is {expected[0]}, timeline {expected[1]}",
            fix="Name one host in the DSN, or let target_session_attrs choose the same one each time.",
        )
    else:
        yield ok("replication connection", f"system {system_id}, timeline {timeline}")


def _shown(connection: Any) -> dict[str, str]:
    """What is in force on a replication connection."""
    shown = {}
    with connection.cursor() as cursor:
        for name in PINNED_SETTINGS:
            with suppress(psycopg2.Error):
                cursor.execute(f"SHOW {name}")
                shown[name] = cursor.fetchone()[0]
    return shown


def pins(shown: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the settings that decide how values print are those that were asked for."""
    wrong = [
        f"{name} is {shown.get(name, 'not to be seen')!r} instead of {wanted!r}"
        for name, wanted in PINNED_SETTINGS.items()
        if shown.get(name, "").partition(",")[0].lower() != wanted.lower()
    ]
    if wrong:
        yield fatal(
            "printed form of values",
            "the replication connection",
            f"settings did not take effect: {'; '.join(wrong)}",
            fix=f"Something drops the options of a connection. {_DIRECT}",
        )
    else:
        yield ok("printed form of values", "all settings that it depends on are in force")


def check_pooler(database: Database) -> Iterator[Finding]:
    """The server's own process id beside the one that the other end of the line gave."""
    with _faults(), closing(_probe(database.settings.dsn)) as connection:
        cursor = connection.cursor()
        pids = {_one(cursor, "select pg_catalog.pg_backend_pid()") for _ in range(_TRIES)}
        port = _one(cursor, "select pg_catalog.inet_server_port()")
        given, dialled = connection.info.backend_pid, connection.info.port
    if pids != {given}:
        how = "each statement may go to another session" if len(pids) > 1 else "it answered in place of the server"
        yield warning(
            "pooler",
            "ordinary connections",
            f"something between us and the server speaks for it: {how}",
            fix=_DIRECT,
        )
    elif port is not None and port != dialled:
        yield ok("pooler", f"none is seen; port {dialled} is forwarded to the server's {port}")
    else:
        yield ok("pooler", "none is seen")


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        raise translated(error) from error


def _probe(dsn: str) -> Any:
    connection = psycopg2.connect(dsn, connect_timeout=10)
    connection.autocommit = True
    return connection


def _one(cursor: Any, query: str) -> Any:
    cursor.execute(query)
    return cursor.fetchone()[0]


def check_encryption(database: Database) -> Iterator[Finding]:
    with _faults(), closing(_probe(database.settings.dsn)) as connection:
        host, is_encrypted = connection.info.host or "", connection.info.ssl_in_use
        mode = connection.info.dsn_parameters.get("sslmode", "")
    yield encryption(host, is_encrypted=is_encrypted, mode=mode)


def encryption(host: str, *, is_encrypted: bool, mode: str) -> Finding:
    """Of a connection to ``host``, with ``mode`` as libpq's sslmode."""
    if not host or host.startswith("/") or is_loopback(host):
        return ok("encryption to PostgreSQL", f"{host or 'a socket'} is this machine")
    if not is_encrypted:
        return warning(
            "encryption to PostgreSQL",
            host,
            "rows travel in clear",
            fix="sslmode=verify-full with sslrootcert in the DSN; on the server ssl = on and hostssl in pg_hba.conf.",
        )
    if mode != "verify-full":
        return warning(
            "encryption to PostgreSQL",
            host,
            f"sslmode={mode} does not verify who the server is",
            fix="sslmode=verify-full with sslrootcert in the DSN.",
        )
    return ok("encryption to PostgreSQL", f"TLS to {host}, verified")


def check_clock(database: Database) -> Iterator[Finding]:
    skew_s = measured_skew(lambda: _server_time(database.sql), now=time.time)
    if abs(skew_s) > MOST_SKEW_S:
        yield warning(
            "clocks",
            "the server and this machine",
            f"the server's clock is {abs(skew_s):.1f} s {'ahead' if skew_s > 0 else 'behind'}: what is told of "
            "delays is wrong by as much",
            fix="Run NTP on both.",
        )
    else:
        yield ok("clocks", f"they agree to {MOST_SKEW_S:g} s")


def _server_time(sql: Sql) -> float:
    return float(sql.rows("select pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())")[0][0])


def measured_skew(server: Callable[[], float], *, now: Callable[[], float]) -> float:
    """How far the server's clock is ahead, in seconds, by the quickest of a few round trips."""
    measured = []
    for _ in range(_TRIES):
        before, there, after = now(), server(), now()
        measured.append((after - before, there - (before + after) / 2))
    trip_s, skew_s = min(measured)
    # Half the trip is what the answer may have been on its way.
    return 0.0 if abs(skew_s) <= trip_s / 2 else skew_s


CHECKS = (check_replication, check_pooler, check_encryption, check_clock)
