"""The publication that pgoutput reads: whether it is there, and the statement that makes it."""

from collections.abc import Sequence

from pgevents.errors import PrivilegeError, SourceRefused
from pgevents.filters import TableFilter
from pgevents.postgres import Sql, quoted
from pgevents.table import streamable

WILDCARDS = frozenset("*?[")

# A partition is published through its parents, and pg_publication_tables lists either. Joined by name, because
# regclass would ask for USAGE on the schema.
_HELD = """
select n.nspname, c.relname from pg_catalog.pg_publication_tables p
join pg_catalog.pg_namespace s on s.nspname = p.schemaname
join pg_catalog.pg_class t on t.relnamespace = s.oid and t.relname = p.tablename
cross join lateral (
    select t.oid union select relid from pg_catalog.pg_partition_tree(t.oid)
    union select relid from pg_catalog.pg_partition_ancestors(t.oid)) held
join pg_catalog.pg_class c on c.oid = held.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.pubname = %s
"""


def exists(sql: Sql, publication: str) -> bool:
    return bool(sql.rows("select 1 from pg_catalog.pg_publication where pubname = %s", publication))


def check(sql: Sql, publication: str, tables: Sequence[str]) -> None:
    """Raises SourceRefused, with the statement that would help, when it is not there or lacks a table asked for."""
    if not exists(sql, publication):
        raise SourceRefused(
            f"there is no publication {publication}",
            hint=f"Stream with --create-slot, or run: {statement(sql, publication, tables)}",
        )
    lacking = unpublished(sql, publication, tables)
    if lacking:
        names = ", ".join(quoted(*table) for table in lacking)
        raise SourceRefused(
            f"publication {publication} lacks {'.'.join(lacking[0])}, which --table asks for"
            + (f", and {len(lacking) - 1} more" if lacking[1:] else ""),
            hint=f"Run: ALTER PUBLICATION {quoted(publication)} ADD TABLE {names}",
        )


def unpublished(sql: Sql, publication: str, tables: Sequence[str]) -> list[tuple[str, str]]:
    """The tables that the patterns match and the publication does not hold. Without patterns it decides alone."""
    if not tables:
        return []
    keep, published = TableFilter(tables), held(sql, publication)
    return [table for table in streamable(sql) if keep(*table) and table not in published]


def held(sql: Sql, publication: str) -> set[tuple[str, str]]:
    """The tables that it publishes, partitions and what they are partitions of among them."""
    return {(schema, name) for schema, name in sql.rows(_HELD, publication)}


def ensure(sql: Sql, publication: str, tables: Sequence[str]) -> tuple[str, ...]:
    """Create the publication if it is missing, and say so. Raises PrivilegeError, with the statement to run."""
    if exists(sql, publication):
        check(sql, publication, tables)
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
    """What publishes the tables named, or all tables where a pattern may match one that is created later."""
    if not tables or any(set(pattern) & WILDCARDS for pattern in tables):
        return f"CREATE PUBLICATION {quoted(publication)} FOR ALL TABLES"
    keep = TableFilter(tables)
    listed = (quoted(*table) for table in streamable(sql) if keep(*table))
    return f"CREATE PUBLICATION {quoted(publication)} FOR TABLE {', '.join(listed)}"
