"""The slot: whether a stream can read it, and how long the server keeps what it needs."""

from collections.abc import Iterator

from pgevents.doctor.database import Database
from pgevents.doctor.finding import Finding, ok, refusal, unseen, warning
from pgevents.errors import ConfigError, PGEventsError, SlotInUse
from pgevents.plugin import streaming_options
from pgevents.slot import SlotReport, check_slot, report

OUR_NAME = "pgevents"
_SMALL_LIMIT_MB = 1024
_SUGGESTED_LIMIT = "16GB"

_TWO_PHASE_SINCE = 140_000

_FACTS = (
    "select temporary, safe_wal_size::bigint, {two_phase} from pg_catalog.pg_replication_slots where slot_name = %s"
)
_READER = "select application_name, usename::text from pg_catalog.pg_stat_activity where pid = %s"


def check_readable(database: Database) -> Iterator[Finding]:
    """What ``stream`` itself refuses; that somebody reads the slot now is not among it."""
    settings = database.settings
    if database.slot is None and settings.create_slot:
        yield ok("slot", f"{database.slot_name} will be created")
        return
    try:
        found = report(database.sql, settings.slot)
        check_slot(found, plugin=settings.plugin, database=database.server.database)
    except SlotInUse:
        yield _reader(database, database.slot)
    except PGEventsError as error:
        yield refusal("slot", database.slot_name, error, sql=_creation(database))
    else:
        yield ok("slot", f"{database.slot_name} for {found.plugin} is not being read")


def _creation(database: Database) -> tuple[str, ...]:
    if database.slot is not None:
        return ()
    slot, plugin = database.settings.slot, database.plugin.name
    return (f"SELECT pg_catalog.pg_create_logical_replication_slot('{slot}', '{plugin}')",)


def _reader(database: Database, slot: SlotReport | None) -> Finding:
    pid = slot.active_pid if slot else None
    found = database.sql.rows(_READER, pid)
    name, role = found[0] if found else (None, None)
    if name is None:
        return unseen("slot", database.slot_name, f"who reads it as PID {pid}", fix="Make sure it is PGEvents.")
    if name != OUR_NAME:
        return warning(
            "slot",
            database.slot_name,
            f"it is being read by PID {pid}, role {role}, which calls itself {name!r}: what it reads is gone for us",
            fix="Stop it, or choose another --slot.",
        )
    return ok("slot", f"{database.slot_name} is being read by PGEvents, PID {pid}")


def check_kind(database: Database) -> Iterator[Finding]:
    if database.slot is None:
        return
    two_phase = "two_phase" if database.version >= _TWO_PHASE_SINCE else "false"
    ((temporary, safe_bytes, is_two_phase),) = database.sql.rows(
        _FACTS.format(two_phase=two_phase), database.settings.slot
    )
    if temporary:
        yield warning(
            "slot kind",
            database.slot_name,
            "it is temporary: it ends with another's session",
            fix="Choose another --slot.",
        )
    elif is_two_phase:
        yield warning(
            "slot kind",
            database.slot_name,
            "it was made for two-phase commit, which PGEvents does not read",
            fix="Finish what is prepared, let the stream catch up, drop the slot and create it without two_phase.",
        )
    else:
        yield ok("slot kind", f"{database.slot_name} is permanent, one phase")
    yield from _check_wal(database, database.slot, safe_bytes)


def check_streaming(database: Database) -> Iterator[Finding]:
    """Whether large transactions can be read while they run, where that is wanted."""
    if not database.settings.streaming:
        return
    plugin = database.slot.plugin if database.slot is not None else database.settings.new_plugin
    try:
        streaming_options(plugin, database.version)
    except ConfigError as error:
        yield refusal("streaming", database.slot_name, error)
    else:
        yield ok("streaming", "large transactions can be read while they run")


def _check_wal(database: Database, slot: SlotReport, safe_bytes: int | None) -> Iterator[Finding]:
    limit_mb = database.number("max_slot_wal_keep_size") or 0
    is_near = safe_bytes is not None and safe_bytes < limit_mb * 2**20 // 10
    if slot.wal_status == "unreserved" or is_near:
        yield warning(
            "WAL of the slot",
            database.slot_name,
            f"WAL status {slot.wal_status}; it is lost after {max(safe_bytes or 0, 0) / 2**20:,.0f} MiB more",
            fix="Stream at once, and raise max_slot_wal_keep_size meanwhile.",
            sql=(
                f"ALTER SYSTEM SET max_slot_wal_keep_size = '{limit_mb * 4}MB'",
                "SELECT pg_catalog.pg_reload_conf()",
            ),
        )
    elif slot.wal_status != "lost":
        retained = (slot.retained_bytes or 0) / 2**20
        yield ok("WAL of the slot", f"status {slot.wal_status}, {retained:,.0f} MiB are kept for it")


def check_retention(database: Database) -> Iterator[Finding]:
    limit_mb = database.number("max_slot_wal_keep_size")
    sql = (
        f"ALTER SYSTEM SET max_slot_wal_keep_size = '{_SUGGESTED_LIMIT}'",
        "SELECT pg_catalog.pg_reload_conf()",
    )
    if limit_mb is None or limit_mb < 0:
        yield warning(
            "WAL retention",
            "max_slot_wal_keep_size has no limit",
            "a slot that nobody reads keeps WAL until the disk is full and the server stops",
            fix="Limit it to less than the disk has free, and more than is written while a stream may be down.",
            sql=sql,
        )
    elif limit_mb < _SMALL_LIMIT_MB:
        yield warning(
            "WAL retention",
            f"max_slot_wal_keep_size is {limit_mb} MB",
            "when a stream is down while that much is written, the slot is lost and changes with it",
            fix="Raise it to more than is written while a stream may be down.",
            sql=sql,
        )
    else:
        yield ok("WAL retention", f"max_slot_wal_keep_size is {limit_mb} MB")


CHECKS = (check_readable, check_kind, check_streaming, check_retention)
