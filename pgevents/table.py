"""The tables of a database: which can be streamed, what patterns match them, what wal2json cannot print of them."""

import difflib
from collections.abc import Sequence

from pgevents.errors import ConfigError
from pgevents.filters import TableFilter
from pgevents.postgres import Sql

# Permanent tables of users, which are what the WAL tells of.
_FROM_TABLES = r"""
from pg_catalog.pg_namespace n join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relpersistence = 'p'
    and n.nspname <> 'information_schema' and n.nspname not like 'pg\_%'
"""

_TABLES = f"select n.nspname, c.relname {_FROM_TABLES} where c.relkind in ('r', 'p') order by 1, 2"

INEXACT_TYPES = "(700, 701, 1700)"
"""real, double precision and numeric. Domains over them print as text."""

_INEXACT = f"""
select n.nspname, c.relname, a.attname {_FROM_TABLES}
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relkind = 'r' and a.atttypid in {INEXACT_TYPES} order by 1, 2, a.attnum
"""


def streamable(sql: Sql) -> list[tuple[str, str]]:
    """Every table that can be streamed, as (schema, name)."""
    return [(schema, name) for schema, name in sql.rows(_TABLES)]


def check_patterns(sql: Sql, patterns: Sequence[str]) -> None:
    """Raises ConfigError for a pattern that matches no table, naming the nearest one."""
    names = [f"{schema}.{name}" for schema, name in streamable(sql)] if patterns else []
    for pattern in TableFilter(patterns).unmatched(names):
        near = difflib.get_close_matches(pattern, names, 1, 0.5)
        raise ConfigError(
            f"the table pattern {pattern} matches no table",
            hint=f"Did you mean {near[0]}?" if near else "A pattern is SCHEMA.TABLE; * and ? are wildcards.",
        )


# A deferrable primary key cannot tell which row it was, and an index that identified rows may have been dropped.
KEYLESS = """
(c.relreplident = 'n' or c.relreplident = 'd' and not exists (select from pg_catalog.pg_index i
        where i.indrelid = c.oid and i.indisprimary and i.indimmediate and i.indisvalid)
    or c.relreplident = 'i' and not exists (select from pg_catalog.pg_index i
        where i.indrelid = c.oid and i.indisreplident and i.indisvalid))
"""
"""Whether a table ``c`` has neither a primary key nor another replica identity, as SQL.

wal2json leaves updates and deletes of it out, and says so only in the server's log.
"""

_KEYLESS_TABLES = f"select n.nspname, c.relname {_FROM_TABLES} where c.relkind = 'r' and {KEYLESS} order by 1, 2"


def keyless_tables(sql: Sql, keep: TableFilter) -> tuple[str, ...]:
    """The kept tables of whose updates and deletes wal2json sends nothing, as ``schema.table``."""
    return tuple(".".join(row) for row in sql.rows(_KEYLESS_TABLES) if keep(*row))


def inexact_columns(sql: Sql, keep: TableFilter) -> tuple[str, ...]:
    """The columns of the kept tables that may hold NaN or an infinity, as ``schema.table.column``."""
    return tuple(".".join(row) for row in sql.rows(_INEXACT) if keep(row[0], row[1]))
