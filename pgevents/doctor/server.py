"""The server: its version, its settings, and whether it has room for a slot and its reader."""

from collections.abc import Iterator

from pgevents.doctor.database import Database
from pgevents.doctor.finding import Finding, fatal, ok, refusal, warning
from pgevents.errors import PGEventsError
from pgevents.postgres import quoted
from pgevents.server import check_server

OLDEST_MAINTAINED = 14

# Minors since which ALTER PUBLICATION neither loses changes of running transactions (2025-05), nor makes decoding
# fail on the invalidations of many of them (2025-08). Source: release notes of 17.5 and 17.6.
_SOUND_SINCE = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}

_STANDBY_SINCE = 160_000
_RESTART = "restart the server afterwards"
_SMALL_DECODING_KB = 16 * 1024
_SHORT_SENDER_TIMEOUT_MS = 10_000
_LONG_STALL_S = 300


def check_version(database: Database) -> Iterator[Finding]:
    major, minor = divmod(database.version, 10_000)
    name = f"PostgreSQL {database.version_name}"
    if major < OLDEST_MAINTAINED:
        yield warning("version", name, "its makers mend nothing in it any more", fix="Upgrade the server.")
    elif minor < _SOUND_SINCE.get(major, 0):
        yield warning(
            "version",
            name,
            "it may lose changes of transactions that run during an ALTER PUBLICATION, or fail to decode them",
            fix=f"Update to {major}.{_SOUND_SINCE[major]} or newer.",
        )
    else:
        yield ok("version", name)


def check_decoding(database: Database) -> Iterator[Finding]:
    """What ``stream`` itself refuses: no logical decoding, or not for this role."""
    try:
        check_server(database.server)
    except PGEventsError as error:
        mends_level = database.server.wal_level != "logical"
        sql = ("ALTER SYSTEM SET wal_level = 'logical'",) if mends_level else ()
        yield refusal("logical decoding", "the server" if mends_level else f"role {database.role}", error, sql=sql)
    else:
        yield ok("logical decoding", f"wal_level is {database.server.wal_level}, role {database.role} may use slots")


def check_standby(database: Database) -> Iterator[Finding]:
    if not database.is_standby:
        yield ok("standby", "the server takes writes")
    elif database.version < _STANDBY_SINCE:
        yield fatal(
            "standby",
            "the server",
            "it is a standby, which decodes nothing before PostgreSQL 16",
            fix="Name the primary.",
        )
    else:
        yield warning(
            "standby",
            "the server",
            "it is a standby: a conflict with recovery can cost a slot, and one is made only when the primary writes",
            fix="Name the primary, or keep hot_standby_feedback on.",
        )


def check_slots_free(database: Database) -> Iterator[Finding]:
    used, limit = _count(database, "pg_replication_slots"), database.number("max_replication_slots") or 0
    if used >= limit and database.slot is None:
        yield fatal(
            "free slots",
            f"max_replication_slots is {limit}",
            f"all of them are in use, and slot {database.settings.slot} is still to be made",
            fix=f"Drop a slot that nobody reads (pgevents slot drop), or raise the limit and {_RESTART}.",
            sql=(f"ALTER SYSTEM SET max_replication_slots = {limit + 10}",),
        )
    else:
        yield ok("free slots", f"{used} of {limit} in use")


def check_senders_free(database: Database) -> Iterator[Finding]:
    used, limit = _count(database, "pg_stat_replication"), database.number("max_wal_senders") or 0
    is_ours = database.slot is not None and database.slot.active
    if used >= limit and not is_ours:
        yield fatal(
            "free WAL senders",
            f"max_wal_senders is {limit}",
            "all of them are in use",
            fix=f"End a reader that is not needed, or raise the limit and {_RESTART}.",
            sql=(f"ALTER SYSTEM SET max_wal_senders = {limit + 10}",),
        )
    else:
        yield ok("free WAL senders", f"{used} of {limit} in use")


def _count(database: Database, view: str) -> int:
    return int(database.sql.rows(f"select count(*) from pg_catalog.{view}")[0][0])


def check_sender_timeout(database: Database) -> Iterator[Finding]:
    timeout_ms = database.number("wal_sender_timeout") or 0
    subject = f"wal_sender_timeout is {timeout_ms / 1000:g} s"
    sql = (f"ALTER ROLE {quoted(database.role)} SET wal_sender_timeout = '60s'",)
    if timeout_ms == 0:
        yield warning(
            "reader time-out",
            "wal_sender_timeout is 0",
            "the server never notices that a reader's machine died, and keeps the slot in its name",
            fix="Set it, for this role or for all.",
            sql=sql,
        )
    elif timeout_ms < _SHORT_SENDER_TIMEOUT_MS:
        yield warning(
            "reader time-out",
            subject,
            "a pause of that length ends the connection, and what was unconfirmed is sent again",
            fix="Raise it, for this role or for all.",
            sql=sql,
        )
    else:
        yield ok("reader time-out", subject)


def check_stall_timeout(database: Database) -> Iterator[Finding]:
    stall_s = database.settings.stall_timeout_s
    if stall_s > _LONG_STALL_S:
        yield warning(
            "stall time-out",
            f"stall_timeout is {stall_s:g} s",
            "for so long PostgreSQL would wait for a sink that confirms nothing before it can be stopped",
            fix="Lower --stall-timeout.",
        )
    else:
        yield ok("stall time-out", f"{stall_s:g} s")


def check_idle_slot_timeout(database: Database) -> Iterator[Finding]:
    # In seconds; the setting came with PostgreSQL 18.
    timeout_s = database.number("idle_replication_slot_timeout")
    if timeout_s:
        yield warning(
            "idle slots",
            f"idle_replication_slot_timeout is {timeout_s} s",
            "a slot that nobody reads for so long is lost, and changes with it",
            fix="Set it to 0, or to longer than any stream will ever be down.",
            sql=("ALTER SYSTEM SET idle_replication_slot_timeout = 0", "SELECT pg_catalog.pg_reload_conf()"),
        )
    else:
        yield ok("idle slots", "none is dropped for being idle")


def check_decoding_memory(database: Database) -> Iterator[Finding]:
    memory_kb = database.number("logical_decoding_work_mem") or 0
    if memory_kb < _SMALL_DECODING_KB:
        yield warning(
            "decoding memory",
            f"logical_decoding_work_mem is {memory_kb} kB",
            "transactions larger than that are written to disk and read back",
            fix="Raise it; each WAL sender may use that much.",
            sql=("ALTER SYSTEM SET logical_decoding_work_mem = '64MB'", "SELECT pg_catalog.pg_reload_conf()"),
        )
    else:
        yield ok("decoding memory", f"logical_decoding_work_mem is {memory_kb} kB")


def check_encoding(database: Database) -> Iterator[Finding]:
    encoding = database.parameters.get("server_encoding", "")
    if encoding == "SQL_ASCII":
        yield warning(
            "encoding",
            f"database {database.server.database} is SQL_ASCII",
            "the server does not look at the bytes of a text: one that is not UTF-8 stops the stream",
            fix="Move the data to a database with ENCODING 'UTF8'.",
        )
    else:
        yield ok("encoding", encoding)


CHECKS = (
    check_version,
    check_decoding,
    check_standby,
    check_slots_free,
    check_senders_free,
    check_sender_timeout,
    check_stall_timeout,
    check_idle_slot_timeout,
    check_decoding_memory,
    check_encoding,
)
