"""How wal2json's messages of one table look, learned from a message and from the catalog.

A message shows names, types, the primary key and, for an UPDATE or DELETE, what the replica identity holds. The
catalog adds the replica identity itself and which columns are generated. It may be ahead of the stream, so what
a message shows weighs more.
"""

from dataclasses import dataclass, field
from typing import Any

from pgevents.decoder.values import (
    BOOL,
    BYTEA,
    FLOAT4,
    FLOAT8,
    INT2,
    INT4,
    INT8,
    NUMERIC,
    OID,
    floating,
    text_converter,
)
from pgevents.interfaces import Catalog
from pgevents.wal import (
    IDENTITY_DEFAULT,
    IDENTITY_FULL,
    IDENTITY_INDEX,
    Column,
    Converter,
    Relation,
    TableFacts,
)

Message = dict[str, Any]
Parts = list[Message]
"""The columns of a message: name, type OID and value of each."""

ABSENCE_USES = 100
"""So often an absence of columns is taken for unchanged TOAST before the catalog is asked again."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How messages of one table look, and the relation they mean."""

    names: list[str]
    oids: list[int]
    identity_names: list[str]
    pk: list[Any] | None
    numerics: tuple[str, ...]
    reals: tuple[str, ...]
    generated: tuple[str, ...]
    published: bool
    relation: Relation
    absences: dict[frozenset[str], int] = field(default_factory=dict)

    def lacks_toast(self, columns: Parts, old: list[str], catalog: Catalog) -> bool:
        """Whether an UPDATE is of this layout but for columns that were left in the TOAST table.

        A dropped column looks the same, so the catalog is asked whether the absent ones still exist, and asked
        again every ``ABSENCE_USES`` updates.
        """
        if old != self.identity_names or not columns or len(columns) >= len(self.names):
            return False
        known = dict(zip(self.names, self.oids, strict=True))
        if any(known.get(column["name"]) != column["typeoid"] for column in columns):
            return False
        absent = frozenset(known.keys() - {column["name"] for column in columns})
        return absent <= set(self.identity_names) or self._still_exist(absent, catalog)

    def _still_exist(self, absent: frozenset[str], catalog: Catalog) -> bool:
        uses = self.absences.get(absent, 0)
        if uses == 0:
            facts = catalog.table(self.relation.schema, self.relation.name)
            if facts is not None and not absent <= {column.name for column in facts.columns}:
                return False
            uses = ABSENCE_USES
        self.absences[absent] = uses - 1
        return True


class Layouts:
    """The layout of each table seen in a session. ``quoted``: numeric-data-types-as-string is on."""

    def __init__(self, catalog: Catalog, *, quoted: bool) -> None:
        self._catalog = catalog
        self._bases = _base_converters(quoted=quoted)
        self._known: dict[tuple[str, str], Layout] = {}

    def get(self, message: Message) -> Layout | None:
        return self._known.get((message["schema"], message["table"]))

    def learn(self, message: Message, columns: Parts | None, identity: Parts | None) -> Layout:
        """The layout of a table from a message that does not fit the known one, and from the catalog."""
        schema, name = message["schema"], message["table"]
        facts = self._catalog.table(schema, name)
        new, old = _columns(columns or []), _columns(identity or [])
        pk = tuple(column["name"] for column in message.get("pk") or ()) or (facts.primary_key if facts else ())
        whole = identity is not None and _is_whole(old, new, pk, facts)
        every = old if whole else _complete(new or old, facts, inserted=identity is None)
        replica_identity, key = (IDENTITY_FULL, pk) if whole else _identity(old, pk, facts)
        generated = facts.generated if facts else frozenset[str]()
        sent = tuple(column for column in every if column.name not in generated)
        layout = Layout(
            names=[column.name for column in every],
            oids=[column.type_oid for column in every],
            identity_names=_identity_names(every, replica_identity, key),
            pk=message.get("pk"),
            numerics=tuple(column.name for column in every if column.type_oid == NUMERIC),
            reals=tuple(column.name for column in every if column.type_oid in (FLOAT4, FLOAT8)),
            generated=tuple(column.name for column in every if column.name in generated),
            published=facts is None or facts.published,
            relation=Relation(
                schema,
                name,
                sent,
                replica_identity,
                key=tuple(column.name for column in sent if column.name in key),
                converters=self._converters(sent),
            ),
        )
        self._known[schema, name] = layout
        return layout

    def _converters(self, columns: tuple[Column, ...]) -> tuple[tuple[str, Converter], ...]:
        found = ((column.name, self._converter(column.type_oid)) for column in columns)
        return tuple((name, convert) for name, convert in found if convert is not None)

    def _converter(self, oid: int) -> Converter | None:
        if oid in self._bases:
            return self._bases[oid]
        return text_converter(oid, self._catalog)


def _hex(text: str) -> str:
    return "\\x" + text


def _base_converters(*, quoted: bool) -> dict[int, Converter | None]:
    """How wal2json prints base types otherwise than PostgreSQL's text. Domains over them print as text."""
    integer = int if quoted else None
    real = floating if quoted else float
    return {
        BOOL: None,
        BYTEA: _hex,
        INT2: integer,
        INT4: integer,
        INT8: integer,
        OID: str,
        FLOAT4: real,
        FLOAT8: real,
    }


def _columns(parts: list[Message]) -> tuple[Column, ...]:
    # wal2json up to 2.6 prints OIDs above 2^31 as negative numbers.
    return tuple(Column(part["name"], part["typeoid"] & 0xFFFFFFFF) for part in parts)


def _is_whole(
    old: tuple[Column, ...], new: tuple[Column, ...], pk: tuple[str, ...], facts: TableFacts | None
) -> bool:
    """Whether the old tuple of an UPDATE or DELETE is all of the row, as under REPLICA IDENTITY FULL."""
    names = {column.name for column in old}
    if facts is None:
        return names != set(pk) and set(new) <= set(old)
    if names in (set(pk), set(facts.index_key)):
        return facts.identity == IDENTITY_FULL and old == facts.columns
    if new:
        return set(new) <= set(old)
    # The catalog may have more columns, added since: they stand last.
    added = facts.identity == IDENTITY_FULL and old == facts.columns[: len(old)]
    return added or not set(old) < set(facts.columns)


def _complete(shown: tuple[Column, ...], facts: TableFacts | None, *, inserted: bool) -> tuple[Column, ...]:
    """All columns of the table: an INSERT shows them; other messages may lack some that the catalog has.

    Columns that the catalog does not know were renamed, retyped or dropped since; only where they may all have been
    dropped does it still tell which others there were.
    """
    unknown = set(shown) - set(facts.columns) if facts else set()
    if inserted or facts is None or len(unknown) > facts.dropped:
        return shown
    if not unknown:
        return tuple(column for column in facts.columns if column in shown or column.name not in facts.inline)
    names = {column.name for column in shown}
    lacking = (column for column in facts.columns if column.name not in names and column.name not in facts.inline)
    return (*shown, *lacking)


def _identity(old: tuple[Column, ...], pk: tuple[str, ...], facts: TableFacts | None) -> tuple[str, tuple[str, ...]]:
    """Replica identity and key: what the old tuple shows, and the catalog where that leaves a choice."""
    said = facts.identity if facts else IDENTITY_DEFAULT
    index_key = facts.index_key if facts else ()
    if not old:
        return said, (index_key if said == IDENTITY_INDEX else pk)
    shown = tuple(column.name for column in old)
    if set(shown) == set(pk) and not (said == IDENTITY_INDEX and set(shown) == set(index_key)):
        return IDENTITY_DEFAULT, shown
    return IDENTITY_INDEX, shown


def _identity_names(every: tuple[Column, ...], identity: str, key: tuple[str, ...]) -> list[str]:
    """The columns an ``identity`` shows, in the table's order."""
    return [column.name for column in every if identity == IDENTITY_FULL or column.name in key]
