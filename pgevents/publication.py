"""The publication that pgoutput reads: whether it is there, and the statement that makes it."""

from collections.abc import Sequence

from pgevents.errors import PrivilegeError, SourceRefused
from pgevents.filters import TableFilter
from pgevents.postgres import Sql, quoted
from pgevents.table import streamable


def exists(sql: Sql, publication: str) -> bool:
    return bool(sql.rows("select 1 from pg_catalog.pg_publication where pubname = %s", publication))


def check(sql: Sql, publication: str, tables: Sequence[str]) -> None:
    """Raises SourceRefused, with the statement that would help, when there is no such publication."""
    if not exists(sql, publication):
        raise SourceRefused(
            f"there is no publication {publication}",
            hint=f"Stream with --create-slot, or run: {statement(sql, publication, tables)}",
        )


def ensure(sql: Sql, publication: str, tables: Sequence[str]) -> tuple[str, ...]:
    """Create the publication if it is missing, and say so. Raises PrivilegeError, with the statement to run."""
    if exists(sql, publication):
        return ()
    wanted = statement(sql, publication, tables)
    try:
        sql.run(wanted)
    except PrivilegeError as error:
        raise PrivilegeError(
            f"the role may not create the publication {publication}: {error}",
            hint=f"Ask the tables' owner, or for all tables a superuser, to run: {wanted}",
        ) from error
    return (f"created publication {publication}",)


def statement(sql: Sql, publication: str, tables: Sequence[str]) -> str:
    """What publishes the tables that the patterns match now, or all tables without patterns."""
    if not tables:
        return f"CREATE PUBLICATION {quoted(publication)} FOR ALL TABLES"
    keep = TableFilter(tables)
    listed = (quoted(*table) for table in streamable(sql) if keep(*table))
    return f"CREATE PUBLICATION {quoted(publication)} FOR TABLE {', '.join(listed)}"
