"""Transactions that hold up the making of a slot, and keep WAL that a slot may need."""

from collections.abc import Iterator

from pgevents.doctor.database import Database
from pgevents.doctor.finding import Finding, ok, unseen, warning

OLD_S = 60
OLD_PREPARED_S = 5
"""A prepared transaction is the coordinator's for milliseconds; one that stays has been forgotten."""

_PREPARED = """
select gid, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - prepared)::int, database::text
from pg_catalog.pg_prepared_xacts
where prepared < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %s) order by prepared
"""
_OPEN = """
select pid, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - xact_start)::int, state
from pg_catalog.pg_stat_activity
where backend_xid is not null and pid <> pg_catalog.pg_backend_pid()
    and xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %s)
order by xact_start
"""
# Whoever may not see the sessions of others still sees that they hold the lock on a transaction id of theirs.
_SEES_ALL = "select pg_catalog.pg_has_role('pg_read_all_stats', 'usage')"
_WRITING = """
select count(*) from pg_catalog.pg_locks
where locktype = 'transactionid' and mode = 'ExclusiveLock' and granted and pid <> pg_catalog.pg_backend_pid()
"""


def check_prepared(database: Database) -> Iterator[Finding]:
    found = database.sql.rows(_PREPARED, OLD_PREPARED_S)
    for gid, age_s, in_database in found:
        yield warning(
            "prepared transactions",
            f"{gid!r} in database {in_database}",
            f"prepared {age_s} s ago and not finished: it keeps WAL, and no slot can be made meanwhile",
            fix=f"Ask its coordinator, then in {in_database} run ROLLBACK PREPARED or COMMIT PREPARED.",
        )
    if not found:
        yield ok("prepared transactions", "none is left open")


def check_open(database: Database) -> Iterator[Finding]:
    """Long transactions that have written something."""
    sql = database.sql
    found = sql.rows(_OPEN, OLD_S)
    for pid, age_s, state in found:
        yield warning(
            "open transactions",
            f"PID {pid}, {state}",
            f"a transaction has been open for {age_s} s: it keeps WAL, and no slot can be made meanwhile",
            fix=f"Have it end, or end it: SELECT pg_terminate_backend({pid})",
        )
    if found:
        return
    if sql.rows(_SEES_ALL)[0][0] or not sql.rows(_WRITING)[0][0]:
        yield ok("open transactions", f"none has been writing for more than {OLD_S} s")
    else:
        yield unseen(
            "open transactions",
            f"role {database.role}",
            "how long the transactions have been running that write now",
            fix="Run this again when nobody writes, or as a member of pg_read_all_stats.",
        )


CHECKS = (check_prepared, check_open)
