"""The tables of a database as rules are checked against them."""

from dataclasses import dataclass, field

from pgevents.condition import Enum
from pgevents.postgres import Sql, quoted
from pgevents.table import streamable
from pgevents.wal import IDENTITY_DEFAULT, IDENTITY_FULL, IDENTITY_INDEX, Column, Relation

PARTITIONED = "p"
_DEFAULT_COLLATION = 100  # that of the database

_COLUMNS = r"""
select n.nspname, c.relname, c.relkind::text, c.relreplident::text, a.attname::text, a.atttypid::bigint,
    t.typcategory = 'S', a.attstorage in ('x', 'e') and c.reltoastrelid <> 0,
    exists (select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisprimary
        and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])),
    exists (select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisreplident
        and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])),
    a.attcollation::bigint
from pg_catalog.pg_namespace n
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relkind in ('r', 'p') and c.relpersistence = 'p'
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
join pg_catalog.pg_type t on t.oid = a.atttypid
where n.nspname <> 'information_schema' and n.nspname not like 'pg\_%'
order by n.nspname, c.relname, a.attnum
"""

_DOMAINS = "select oid::bigint, typbasetype::bigint from pg_catalog.pg_type where typtype = 'd'"

_ENUMS = """
select t.oid::bigint, t.typname::text, array(
    select e.enumlabel::text from pg_catalog.pg_enum e where e.enumtypid = t.oid order by e.enumsortorder)
from pg_catalog.pg_type t where t.typtype = 'e'
"""

_ORIGINS = "select roname, roident::int from pg_catalog.pg_replication_origin"


@dataclass(slots=True)
class Table:
    """A table, or a partitioned one. ``types`` are of the columns that events have, domains as what they are over.

    ``sent`` are the columns of an update's or delete's old row that PostgreSQL sends; ``toastable`` those that may
    not come with a new row, but for types such as numeric, whose values leave a row as the last resort.
    ``collations`` are OIDs, of the columns that have another than the database's.
    """

    schema: str
    name: str
    kind: str
    identity: str
    columns: list[Column] = field(default_factory=list)
    types: dict[str, int] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    toastable: set[str] = field(default_factory=set)
    primary_key: list[str] = field(default_factory=list)
    index_key: list[str] = field(default_factory=list)
    collations: dict[str, int] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        return self.identity == IDENTITY_FULL

    @property
    def sent(self) -> frozenset[str]:
        keys = {IDENTITY_FULL: self.types, IDENTITY_DEFAULT: self.primary_key, IDENTITY_INDEX: self.index_key}
        return frozenset(keys.get(self.identity, ()))

    @property
    def relation(self) -> Relation:
        key = self.index_key if self.identity == IDENTITY_INDEX else self.primary_key
        return Relation(self.schema, self.name, tuple(self.columns), self.identity, tuple(key), ())

    @property
    def full_identity(self) -> str:
        """The statement that has PostgreSQL send whole old rows."""
        return f"ALTER TABLE {quoted(self.schema, self.name)} REPLICA IDENTITY FULL"

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def tables(sql: Sql) -> list[Table]:
    """Every table that can be streamed, in order of their names. Blocks; raises SourceError."""
    bases = dict(sql.rows(_DOMAINS))
    found = {names: Table(*names, PARTITIONED, IDENTITY_DEFAULT) for names in streamable(sql)}
    for schema, name, kind, identity, column, oid, is_text, is_toastable, in_key, in_index, collation in sql.rows(
        _COLUMNS
    ):
        table = found.setdefault((schema, name), Table(schema, name, kind, identity))
        table.kind, table.identity = kind, identity
        table.columns.append(Column(column, oid))
        table.types[column] = _without_domains(oid, bases)
        if collation not in (0, _DEFAULT_COLLATION):
            table.collations[column] = collation
        for columns, holds in ((table.texts, is_text), (table.toastable, is_toastable)):
            if holds:
                columns.add(column)
        for key, holds in ((table.primary_key, in_key), (table.index_key, in_index)):
            if holds:
                key.append(column)
    return list(found.values())


def _without_domains(oid: int, bases: dict[int, int]) -> int:
    while oid in bases:
        oid = bases[oid]
    return oid


def enums(sql: Sql) -> dict[int, Enum]:
    """The enums by their OIDs."""
    return {oid: Enum(name, tuple(labels)) for oid, name, labels in sql.rows(_ENUMS)}


def origins(sql: Sql) -> dict[str, int]:
    """The replication origins there are, by name, and their numbers."""
    return dict(sql.rows(_ORIGINS))
