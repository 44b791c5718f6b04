"""What may match the table patterns, streamed or not, and how an update of it can be told."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from pgevents.postgres import Sql, quoted
from pgevents.table import INEXACT_TYPES, KEYLESS

_RELATIONS = rf"""
select n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text, {KEYLESS},
    case when c.relispartition then array(select unnest(array[rn.nspname, r.relname]::text[])
        from pg_catalog.pg_class r join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
        where r.oid = pg_catalog.pg_partition_root(c.oid)) end,
    array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0
        and not a.attisdropped and a.attgenerated <> '' order by a.attnum),
    array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0
        and not a.attisdropped and a.attstorage in ('x', 'e', 'm') and a.attgenerated = '' and c.reltoastrelid <> 0
        order by a.attnum),
    array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0
        and not a.attisdropped and a.atttypid in {INEXACT_TYPES} order by a.attnum)
from pg_catalog.pg_namespace n join pg_catalog.pg_class c on c.relnamespace = n.oid
where c.relkind in ('r', 'p', 'f', 'm') and n.nspname <> 'information_schema' and n.nspname not like 'pg\_toast%'
    and (n.nspname not like 'pg\_%' or c.relpersistence = 't')
order by 1, 2
"""


class Names(NamedTuple):
    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or what looks like one. ``kind``, ``persistence`` and ``identity`` are the catalog's letters.

    ``is_keyless``: an update does not tell which row it was. ``root`` is the table that it is a partition of.
    """

    schema: str
    name: str
    kind: str
    persistence: str
    identity: str
    is_keyless: bool
    root: Names | None
    generated: tuple[str, ...]
    toastable: tuple[str, ...]
    inexact: tuple[str, ...]

    @property
    def names(self) -> Names:
        return Names(self.schema, self.name)

    @property
    def is_streamed(self) -> bool:
        """Whether the WAL tells of its rows, or of those of its partitions."""
        return self.kind in "rp" and self.persistence == "p"

    @property
    def holds_rows(self) -> bool:
        return self.kind == "r" and self.is_streamed

    @property
    def sql(self) -> str:
        """As SQL writes it."""
        return quoted(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def relations(sql: Sql) -> list[Relation]:
    """Every table, foreign table and materialized view of users, in order of their names."""
    return [_relation(*row) for row in sql.rows(_RELATIONS)]


def _relation(*row: Any) -> Relation:
    schema, name, kind, persistence, identity, is_keyless, root, *columns = row
    generated, toastable, inexact = map(tuple, columns)
    return Relation(
        schema=schema,
        name=name,
        kind=kind,
        persistence=persistence,
        identity=identity,
        is_keyless=is_keyless,
        root=Names(*root) if root else None,
        generated=generated,
        toastable=toastable,
        inexact=inexact,
    )
