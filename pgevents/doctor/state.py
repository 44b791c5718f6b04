"""The watermark: whether it can be kept, and whether the slot still agrees with it; and the windows beside it."""

from collections.abc import Iterator, Sequence
from contextlib import closing

from pgevents.doctor.database import Database
from pgevents.doctor.finding import Finding, fatal, ok, refusal
from pgevents.errors import GapDetected, PGEventsError
from pgevents.lsn import Lsn
from pgevents.postgres import quoted
from pgevents.session import open_state, open_windows
from pgevents.start import check_state, gap_found, look_around
from pgevents.watermark import Watermark

_TABLE = "select pg_catalog.to_regclass(%s) is not null"
_MAY_CREATE = "select pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')"
_MAY_WRITE = "select pg_catalog.has_table_privilege(%s, %s)"
_RIGHTS = {
    "pgevents.watermark": ("SELECT", "INSERT", "UPDATE"),
    "pgevents.skip_window": ("SELECT", "INSERT", "DELETE"),
}


def check_watermark(database: Database) -> Iterator[Finding]:
    """What ``stream`` would find out, with the same rules. Nothing is made and nothing is moved."""
    subject = f"state {database.settings.state}"
    try:
        if database.settings.state == "postgres" and not database.sql.rows(_TABLE, "pgevents.watermark")[0][0]:
            yield _no_table(database)
            return
        with closing(open_state(database.settings)) as state:
            found, watermark, server = look_around(database.sql, database.settings.slot, state)
            check_state(watermark, database.settings.slot, state)
        if database.settings.state == "postgres":
            for table, rights in _RIGHTS.items():
                yield from _check_rights(database, table, rights)
        yield _compared(database, watermark, gap_found(watermark, server, found) if watermark else None)
    except PGEventsError as error:
        yield refusal("watermark", subject, error)


def check_windows(database: Database) -> Iterator[Finding]:
    """Whether those of ``pgevents skip`` can be read: a stream does not start where they cannot."""
    with closing(open_windows(database.settings)) as windows:
        try:
            count = len(windows.windows())
            yield ok("skip windows", f"{count} in {windows}" if count else "there is none")
        except PGEventsError as error:
            yield refusal("skip windows", str(windows), error)


def _compared(database: Database, watermark: Watermark | None, gap: GapDetected | None) -> Finding:
    if watermark is None:
        return ok("watermark", f"there is none yet in {database.settings.state}")
    if gap:
        return refusal("watermark", database.slot_name, gap)
    return ok("watermark", f"{database.slot_name} was acknowledged up to {Lsn(watermark.end_lsn)}, and agrees")


def _no_table(database: Database) -> Finding:
    if database.sql.rows(_MAY_CREATE)[0][0]:
        return ok("watermark", "the table pgevents.watermark will be created")
    return fatal(
        "watermark",
        "state postgres",
        f"there is no table pgevents.watermark, and role {database.role} may not create it",
        fix="Run deploy/sql/role.sql as the database's owner, or keep the watermark in a file.",
    )


def _check_rights(database: Database, table: str, rights: Sequence[str]) -> Iterator[Finding]:
    if not database.sql.rows(_TABLE, table)[0][0]:  # of windows, where none was ever added
        return
    lacking = [each for each in rights if not database.sql.rows(_MAY_WRITE, table, each)[0][0]]
    if lacking:
        yield fatal(
            "state tables",
            f"role {database.role}",
            f"it may not {', '.join(lacking)} on {table}",
            fix="Grant it.",
            sql=(f"GRANT {', '.join(lacking)} ON {table} TO {quoted(database.role)}",),
        )
    else:
        yield ok("state tables", f"role {database.role} may write to {table}")


CHECKS = (check_watermark, check_windows)
