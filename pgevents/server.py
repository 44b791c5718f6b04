"""The PostgreSQL server: who it is, where it writes, and whether it can stream to this role at all."""

from dataclasses import dataclass

from pgevents.errors import PrivilegeError, SourceRefused
from pgevents.lsn import Lsn
from pgevents.postgres import Sql

# Only superusers and pg_read_all_settings may read output_plugin_libraries: the view leaves it out for others, where
# current_setting would raise. The timeline is that of the WAL file being written, because the control file tells of a
# promotion only after the next checkpoint.
_SERVER = """
select pg_catalog.current_database(), pg_catalog.current_setting('wal_level'),
    (select setting from pg_catalog.pg_settings where name = 'output_plugin_libraries'),
    (select rolsuper or rolreplication from pg_catalog.pg_roles where rolname = current_user)
    or coalesce((select pg_catalog.pg_has_role(oid, 'member') from pg_catalog.pg_roles
        where rolname = 'rds_replication'), false),
    (select system_identifier::text from pg_catalog.pg_control_system()),
    case when pg_catalog.pg_is_in_recovery() then (select timeline_id from pg_catalog.pg_control_checkpoint())
    else ('x' || left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8))::bit(32)::integer end,
    case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
    else pg_catalog.pg_current_wal_lsn() end::text,
    pg_catalog.pg_is_in_recovery()
"""


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself and of the role that asks.

    ``plugins_allowed`` is ``output_plugin_libraries``, None where the server has no such setting or hides it.
    ``lsn`` is where it writes, or as a standby has replayed to.
    """

    database: str
    wal_level: str
    plugins_allowed: str | None
    may_replicate: bool
    system_id: str
    timeline: int
    lsn: Lsn
    is_standby: bool


def look(sql: Sql) -> Server:
    row = sql.rows(_SERVER)[0]
    return Server(*(*row[:-2], Lsn.parse(row[-2]), row[-1]))


def check_server(server: Server) -> None:
    """Raises SourceRefused or PrivilegeError when the server could not stream to this role at all."""
    if server.wal_level != "logical":
        raise SourceRefused(
            f"wal_level is {server.wal_level}, and logical replication needs logical",
            hint="ALTER SYSTEM SET wal_level = 'logical'; then restart the server "
            "(on RDS: rds.logical_replication = 1 in the parameter group, then reboot).",
        )
    if not server.may_replicate:
        raise PrivilegeError(
            "the role may not use replication slots",
            hint="As an administrator: ALTER ROLE … WITH REPLICATION; on RDS: GRANT rds_replication TO …;",
        )
