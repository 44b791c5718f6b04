"""The replication slot: what is there, creating it, and dropping it when a person asks for it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pgevents import publication as publications
from pgevents.errors import PluginRefused, SlotInUse, SlotLost, SlotMismatch, SlotMissing
from pgevents.postgres import Sql
from pgevents.server import look

PLUGINS = ("wal2json", "pgoutput")

# Creating a slot waits for every running transaction that writes; this says so instead of hanging.
CREATE_TIMEOUT = "60s"

# A stream that was ended connects again, and may do so before the slot is dropped.
DROP_ATTEMPTS = 20

_SLOT = """
select slot_name, plugin, slot_type, database, active, active_pid, restart_lsn::text, confirmed_flush_lsn::text,
    wal_status, pg_catalog.pg_wal_lsn_diff(
        case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_receive_lsn()
        else pg_catalog.pg_current_wal_lsn() end, restart_lsn)::bigint
from pg_catalog.pg_replication_slots where slot_name = %s
"""


@dataclass(frozen=True, slots=True)
class SlotReport:
    """A slot as ``pg_replication_slots`` shows it; ``retained_bytes`` of WAL are kept for it.

    ``inexact_columns`` may be printed as null by wal2json before 2.6, and of ``keyless_tables`` it sends no updates
    and deletes; ``prepare`` fills in both.
    """

    slot: str
    plugin: str
    slot_type: str
    database: str
    active: bool
    active_pid: int | None
    restart_lsn: str | None
    confirmed_flush_lsn: str | None
    wal_status: str | None
    retained_bytes: int | None
    notes: tuple[str, ...] = ()
    inexact_columns: tuple[str, ...] = ()
    keyless_tables: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The columns of the view and ours, without what only ``stream`` asks for."""
        shown = asdict(self)
        del shown["inexact_columns"], shown["keyless_tables"]
        return shown

    def lines(self) -> list[str]:
        """What a person wants to know, retained WAL first."""
        reader = f"read by PID {self.active_pid}" if self.active else "not being read"
        retained = "no" if self.retained_bytes is None else f"{self.retained_bytes / 2**20:,.1f} MiB of"
        return [
            f"slot {self.slot} ({self.plugin}) in database {self.database}: {reader}",
            f"keeps {retained} WAL, status {self.wal_status}",
            f"confirmed flush LSN {self.confirmed_flush_lsn}, restart LSN {self.restart_lsn}",
            *self.notes,
        ]


def find(sql: Sql, slot: str) -> SlotReport | None:
    found = sql.rows(_SLOT, slot)
    return SlotReport(*found[0]) if found else None


def report(sql: Sql, slot: str) -> SlotReport:
    """Raises SlotMissing."""
    found = find(sql, slot)
    if found is None:
        raise SlotMissing(
            f"there is no replication slot {slot}",
            hint=f"Create it with `pgevents slot create --slot {slot}`, or stream with --create-slot.",
        )
    return found


def check_slot(found: SlotReport, *, plugin: str, database: str) -> None:
    """Raises when the slot cannot be streamed from ``database`` with ``plugin``, which may be ``auto``."""
    if found.slot_type != "logical":
        raise SlotMismatch(f"slot {found.slot} is a physical slot", hint="Choose another --slot.")
    if found.database != database:
        raise SlotMismatch(
            f"slot {found.slot} belongs to database {found.database}, not {database}",
            hint=f"Connect to {found.database}, or choose another --slot.",
        )
    if found.plugin not in PLUGINS or plugin not in {"auto", found.plugin}:
        raise SlotMismatch(
            f"slot {found.slot} was created for the output plug-in {found.plugin}"
            + ("" if plugin == "auto" else f", not {plugin}"),
            hint="Choose another --slot" + (f", or --plugin {found.plugin}." if found.plugin in PLUGINS else "."),
        )
    if found.wal_status == "lost":
        raise SlotLost(
            f"slot {found.slot} is lost: the server removed WAL it needed",
            hint=f"Changes are gone. Reload what depends on the events, drop the slot (pgevents slot drop --slot "
            f"{found.slot}), and start with --create-slot --accept-gap, which records the decision.",
        )
    if found.active:
        raise SlotInUse(
            f"slot {found.slot} is being read by PID {found.active_pid}",
            hint="Stop that process; after a crash it may take wal_sender_timeout to be let go.",
        )


def create(sql: Sql, slot: str, *, plugin: str, publication: str, tables: Sequence[str]) -> tuple[str, ...]:
    """Create the slot and what its plug-in needs; returns what was done and why."""
    if plugin == "wal2json":
        return _create_slot(sql, slot, plugin)
    if plugin == "pgoutput":
        # The publication first: pgoutput fails on changes that are older.
        return (*publications.ensure(sql, publication, tables), *_create_slot(sql, slot, plugin))
    reason = _wal2json_refusal(sql)
    if not reason:
        try:
            return (*_create_slot(sql, slot, "wal2json"), "it is installed and allowed")
        except PluginRefused as error:
            reason = str(error)
    done = create(sql, slot, plugin="pgoutput", publication=publication, tables=tables)
    return (*done, f"no wal2json: {reason}")


def _wal2json_refusal(sql: Sql) -> str:
    """Why the server would refuse wal2json, where a setting we may read says so (CVE-2026-6471)."""
    allowed = look(sql).plugins_allowed
    if allowed is None or "wal2json" in {name.strip(" \"'") for name in allowed.split(",")}:
        return ""
    return f"output_plugin_libraries allows only {allowed}"


def _create_slot(sql: Sql, slot: str, plugin: str) -> tuple[str, ...]:
    sql.run(f"set statement_timeout = '{CREATE_TIMEOUT}'")
    try:
        sql.rows("select pg_catalog.pg_create_logical_replication_slot(%s, %s)", slot, plugin, plugin=plugin)
    finally:
        sql.run("set statement_timeout = 0")
    return (f"created slot {slot} for {plugin}",)


def status(dsn: str, slot: str) -> SlotReport:
    with Sql(dsn) as sql:
        return report(sql, slot)


def drop(dsn: str, slot: str, *, terminate: bool) -> None:
    """Drop a slot; with ``terminate`` also end the process that reads it, again if it comes back in between."""
    with Sql(dsn) as sql:
        for attempt in range(1, DROP_ATTEMPTS + 1):
            found = report(sql, slot)
            if found.active and not terminate:
                raise SlotInUse(
                    f"slot {slot} is being read by PID {found.active_pid}",
                    hint="Stop that process, or end it with --terminate. What the slot has not acknowledged is lost.",
                )
            if found.active:
                sql.rows("select pg_catalog.pg_terminate_backend(%s, 5000)", found.active_pid)
            try:
                sql.rows("select pg_catalog.pg_drop_replication_slot(%s)", slot)
            except SlotInUse:
                if not terminate or attempt == DROP_ATTEMPTS:
                    raise
            else:
                return


def current_lsn(dsn: str) -> str:
    """Where the server writes at this moment."""
    with Sql(dsn) as sql:
        lsn: str = sql.rows("select pg_catalog.pg_current_wal_lsn()::text")[0][0]
        return lsn
