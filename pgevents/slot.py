"""Slots and publications: what is there, creating them, and dropping a slot when a person asks for it."""

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import psycopg2
from psycopg2 import sql

from pgevents.errors import (
    ConfigError,
    PluginRefused,
    PrivilegeError,
    SlotInUse,
    SlotLost,
    SlotMismatch,
    SlotMissing,
    SourceRefused,
)
from pgevents.filters import TableFilter
from pgevents.postgres import connect, translated

PLUGINS = ("wal2json", "pgoutput")

# Creating a slot waits for every running transaction that writes; this says so instead of hanging.
CREATE_TIMEOUT = "60s"

_SLOT = """
select slot_name, plugin, slot_type, database, active, active_pid, restart_lsn::text, confirmed_flush_lsn::text,
    wal_status, pg_catalog.pg_wal_lsn_diff(
        case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_receive_lsn()
        else pg_catalog.pg_current_wal_lsn() end, restart_lsn)::bigint
from pg_catalog.pg_replication_slots where slot_name = %s
"""

# Only superusers and pg_read_all_settings may read output_plugin_libraries: the view leaves it out for others, where
# current_setting would raise.
_SERVER = """
select pg_catalog.current_database(), pg_catalog.current_setting('wal_level'),
    (select setting from pg_catalog.pg_settings where name = 'output_plugin_libraries'),
    (select rolsuper or rolreplication from pg_catalog.pg_roles where rolname = current_user)
    or coalesce((select pg_catalog.pg_has_role(oid, 'member') from pg_catalog.pg_roles
        where rolname = 'rds_replication'), false)
"""

_TABLES = """
select n.nspname, c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relpersistence = 'p' and n.nspname <> 'information_schema'
    and n.nspname not like 'pg\\_%%' order by 1, 2
"""


# numeric, real and double precision, in the tables that can be streamed. Domains over them print as text.
_INEXACT = r"""
select n.nspname, c.relname, a.attname from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relkind = 'r' and c.relpersistence = 'p' and a.atttypid in (700, 701, 1700)
    and n.nspname <> 'information_schema' and n.nspname not like 'pg\_%' order by 1, 2, a.attnum
"""


@dataclass(frozen=True, slots=True)
class SlotReport:
    """A slot as ``pg_replication_slots`` shows it; ``retained_bytes`` of WAL are kept for it.

    ``inexact_columns`` names the columns that wal2json before 2.6 may print as null: see ``prepare``.
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

    def as_dict(self) -> dict[str, Any]:
        """The columns of the view and ours, without what only ``stream`` asks for."""
        shown = asdict(self)
        del shown["inexact_columns"]
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


class SlotAdmin:
    """The slot life-cycle over one ordinary connection. Every method raises SourceError."""

    def __init__(self, dsn: str) -> None:
        self._connection = connect(dsn)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def find(self, slot: str) -> SlotReport | None:
        rows = self._rows(_SLOT, slot)
        return SlotReport(*rows[0]) if rows else None

    def report(self, slot: str) -> SlotReport:
        found = self.find(slot)
        if found is None:
            raise SlotMissing(
                f"there is no replication slot {slot}",
                hint=f"Create it with `pgevents slot create --slot {slot}`, or stream with --create-slot.",
            )
        return found

    def current_lsn(self) -> str:
        lsn: str = self._rows("select pg_catalog.pg_current_wal_lsn()::text")[0][0]
        return lsn

    def check_server(self) -> None:
        """Raises when the server could not stream to this role at all."""
        _, wal_level, _, may_replicate = self._rows(_SERVER)[0]
        if wal_level != "logical":
            raise SourceRefused(
                f"wal_level is {wal_level}, and logical replication needs logical",
                hint="ALTER SYSTEM SET wal_level = 'logical'; then restart the server "
                "(on RDS: rds.logical_replication = 1 in the parameter group, then reboot).",
            )
        if not may_replicate:
            raise PrivilegeError(
                "the role may not use replication slots",
                hint="As an administrator: ALTER ROLE … WITH REPLICATION; on RDS: GRANT rds_replication TO …;",
            )

    def check_slot(self, found: SlotReport, plugin: str) -> None:
        """Raises when the slot cannot be streamed with ``plugin``, which may be ``auto``."""
        if found.slot_type != "logical":
            raise SlotMismatch(f"slot {found.slot} is a physical slot", hint="Choose another --slot.")
        database = self._rows(_SERVER)[0][0]
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
                hint="Changes are gone. Drop the slot, create it again and reload what depends on it.",
            )
        if found.active:
            raise SlotInUse(
                f"slot {found.slot} is being read by PID {found.active_pid}",
                hint="Stop that process; after a crash it may take wal_sender_timeout to be let go.",
            )

    def create(self, slot: str, *, plugin: str, publication: str, tables: Sequence[str]) -> tuple[str, ...]:
        """Create the slot and what its plug-in needs; returns what was done and why."""
        if plugin != "auto":
            return self._create(slot, plugin, publication, tables)
        reason = self._wal2json_refusal()
        if not reason:
            try:
                return (*self._create(slot, "wal2json", publication, tables), "it is installed and allowed")
            except PluginRefused as error:
                reason = str(error)
        return (*self._create(slot, "pgoutput", publication, tables), f"because {reason}")

    def _wal2json_refusal(self) -> str:
        """Why the server would refuse wal2json, where a setting we may read says so (CVE-2026-6471)."""
        allowed = self._rows(_SERVER)[0][2]
        if allowed is None or "wal2json" in {name.strip(" \"'") for name in allowed.split(",")}:
            return ""
        return f"output_plugin_libraries allows only {allowed}"

    def _create(self, slot: str, plugin: str, publication: str, tables: Sequence[str]) -> tuple[str, ...]:
        notes: tuple[str, ...] = ()
        if plugin == "pgoutput":
            # Before the slot: pgoutput fails on changes that are older than the publication.
            notes = self.ensure_publication(publication, tables)
        self._rows(f"set statement_timeout = '{CREATE_TIMEOUT}'; select 1")
        try:
            self._rows("select pg_catalog.pg_create_logical_replication_slot(%s, %s)", slot, plugin, tag=plugin)
        finally:
            self._rows("set statement_timeout = 0; select 1")
        return (*notes, f"created slot {slot} for {plugin}")

    def has_publication(self, publication: str) -> bool:
        return bool(self._rows("select 1 from pg_catalog.pg_publication where pubname = %s", publication))

    def check_publication(self, publication: str, tables: Sequence[str]) -> None:
        if not self.has_publication(publication):
            raise SourceRefused(
                f"there is no publication {publication}",
                hint=f"Stream with --create-slot, or run: {self.publication_sql(publication, tables)}",
            )

    def ensure_publication(self, publication: str, tables: Sequence[str]) -> tuple[str, ...]:
        if self.has_publication(publication):
            return ()
        statement = self.publication_sql(publication, tables)
        try:
            self._rows(statement.replace("%", "%%") + "; select 1")
        except PrivilegeError as error:
            raise PrivilegeError(
                f"the role may not create the publication {publication}: {error}",
                hint=f"Ask the tables' owner, or for all tables a superuser, to run: {statement}",
            ) from error
        return (f"created publication {publication}",)

    def publication_sql(self, publication: str, tables: Sequence[str]) -> str:
        """The statement that publishes the tables the patterns match now, or all tables without patterns."""
        name = sql.Identifier(publication).as_string(self._connection)
        if not tables:
            return f"CREATE PUBLICATION {name} FOR ALL TABLES"
        keep = TableFilter(tables)
        listed = [sql.Identifier(*table).as_string(self._connection) for table in self.tables() if keep(*table)]
        return f"CREATE PUBLICATION {name} FOR TABLE {', '.join(listed)}"

    def tables(self) -> list[tuple[str, str]]:
        """Every table that can be streamed, as (schema, name)."""
        return [(schema, name) for schema, name in self._rows(_TABLES.replace("%%", "%"))]

    def inexact_columns(self, keep: TableFilter) -> tuple[str, ...]:
        """The columns of the kept tables that may hold NaN or an infinity, as ``schema.table.column``."""
        return tuple(".".join(row) for row in self._rows(_INEXACT) if keep(row[0], row[1]))

    def check_tables(self, patterns: Sequence[str]) -> None:
        """Raises ConfigError for a pattern that matches no table, naming the nearest one."""
        names = [f"{schema}.{name}" for schema, name in self.tables()]
        for pattern in TableFilter(patterns).unmatched(names):
            near = difflib.get_close_matches(pattern, names, 1, 0.5)
            raise ConfigError(
                f"the table pattern {pattern} matches no table",
                hint=f"Did you mean {near[0]}?" if near else "A pattern is SCHEMA.TABLE; * and ? are wildcards.",
            )

    def drop(self, slot: str, *, terminate: bool) -> None:
        found = self.report(slot)
        if found.active and terminate:
            self._rows("select pg_catalog.pg_terminate_backend(%s, 5000)", found.active_pid)
        self._rows("select pg_catalog.pg_drop_replication_slot(%s)", slot)

    def _rows(self, query: str, *parameters: Any, tag: str = "") -> list[tuple[Any, ...]]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(query, parameters or None)
                rows: list[tuple[Any, ...]] = cursor.fetchall()
                return rows
        except psycopg2.Error as error:
            if error.pgcode == "57014":
                raise SourceRefused(
                    f"creating the slot took longer than {CREATE_TIMEOUT}",
                    hint="It waits for every transaction that was running when it began: end the long ones.",
                ) from error
            raise translated(error, plugin=tag) from error


def create(dsn: str, *, slot: str, plugin: str, publication: str, tables: Sequence[str]) -> SlotReport:
    """Create a slot that must not exist yet."""
    with SlotAdmin(dsn) as admin:
        admin.check_server()
        if admin.find(slot) is not None:
            raise ConfigError(f"slot {slot} exists already", hint=f"pgevents slot status --slot {slot} shows it.")
        admin.check_tables(tables)
        notes = admin.create(slot, plugin=plugin, publication=publication, tables=tables)
        return replace(admin.report(slot), notes=notes)


def status(dsn: str, slot: str) -> SlotReport:
    with SlotAdmin(dsn) as admin:
        return admin.report(slot)


def drop(dsn: str, slot: str, *, terminate: bool) -> None:
    """Drop a slot; with ``terminate`` also end the process that reads it."""
    with SlotAdmin(dsn) as admin:
        admin.drop(slot, terminate=terminate)


def prepare(
    dsn: str,
    *,
    slot: str,
    plugin: str,
    publication: str,
    tables: Sequence[str],
    excluded: Sequence[str],
    missing: Literal["create", "fail"],
) -> SlotReport:
    """The slot to stream from, checked, and created where it is missing and ``missing`` says so."""
    with SlotAdmin(dsn) as admin:
        admin.check_server()
        admin.check_tables(tables)
        found = admin.find(slot)
        notes: tuple[str, ...] = ()
        if found is None and missing == "create":
            notes = admin.create(slot, plugin=plugin, publication=publication, tables=tables)
        elif found is not None and plugin == "auto":
            notes = ("the slot was created for it",)
        report = admin.report(slot)
        admin.check_slot(report, plugin)
        if report.plugin == "pgoutput" and missing == "create":
            notes = (*notes, *admin.ensure_publication(publication, tables))
        elif report.plugin == "pgoutput":
            admin.check_publication(publication, tables)
        inexact = admin.inexact_columns(TableFilter(tables, excluded)) if report.plugin == "wal2json" else ()
        return replace(report, notes=notes, inexact_columns=inexact)
