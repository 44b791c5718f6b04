"""The wal2json output plug-in, format-version 2: one JSON object a message.

Begin and Commit bracket a transaction and carry its LSNs; a change holds its columns with type OIDs, the
replica identity's old values under ``identity`` and the primary key's names under ``pk``. What wal2json does
not say (replica identity, generated columns) is learned from the catalog once per shape of a table, and
what a message shows weighs more than the catalog, which may be ahead of the stream.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

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
from pgevents.errors import DecodeError
from pgevents.interfaces import Catalog
from pgevents.lsn import Lsn
from pgevents.wal import (
    IDENTITY_DEFAULT,
    IDENTITY_FULL,
    IDENTITY_INDEX,
    IDENTITY_NOTHING,
    Begin,
    Change,
    Column,
    Commit,
    Converter,
    LogicalMessage,
    RawMessage,
    Relation,
    Row,
    TableFacts,
    Truncate,
    WalItem,
)

Message = dict[str, Any]

# orjson has already read a numeric as a float, or rounded it, when its digits are looked up again here. Inside
# a JSON string a quote is escaped, so this can only be found where a numeric's value begins.
_NUMERIC_VALUE: Final = b'"typeoid":1700,"value":'

_NUMERIC_NUMBER = re.compile(_NUMERIC_VALUE + rb"(-?[0-9.]+)")

_REAL_VALUES = re.compile(rb'"typeoid":70[01],"value":([^,}]*)').findall

_INSERT, _UPDATE, _DELETE, _BEGIN, _COMMIT, _TRUNCATE, _MESSAGE = b"IUDBCTM"
_TAG_AT = len('{"action":"')


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


@dataclass(frozen=True, slots=True)
class _Shape:
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


class Wal2jsonDecoder:
    """Decoder of one replication session. ``quoted``: numeric-data-types-as-string is on.

    ``encoding`` is the Python codec of the database's encoding: wal2json does not convert to the client's.
    """

    def __init__(self, catalog: Catalog, *, quoted: bool = False, encoding: str = "utf-8") -> None:
        self._catalog = catalog
        self._quoted = quoted
        self._encoding = encoding
        self._bases = _base_converters(quoted=quoted)
        self._shapes: dict[tuple[str, str], _Shape] = {}

    def decode(self, message: RawMessage) -> WalItem | None:
        payload = message.payload
        tag = payload[_TAG_AT] if len(payload) > _TAG_AT else 0
        try:
            if self._encoding != "utf-8" and tag != _MESSAGE:
                payload = payload.decode(self._encoding).encode()
            if tag == _INSERT:
                return self._insert(_parsed(payload), payload)
            if tag == _UPDATE:
                return self._update(_parsed(payload), payload)
            if tag == _DELETE:
                return self._delete(_parsed(payload), payload)
            return self._rare(tag, payload)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration):
            # The cause is cut off: parsers quote the text they choke on, and that is row values.
            raise DecodeError("it is not what wal2json prints", lsn=message.lsn, tag=chr(tag)) from None

    def _rare(self, tag: int, payload: bytes) -> WalItem | None:
        if tag == _MESSAGE:
            return _logical_message(payload, self._encoding)
        message = orjson.loads(payload)
        if tag == _BEGIN:
            return self._begin(message)
        if tag == _COMMIT:
            return Commit(_lsn(message["nextlsn"]))
        if tag == _TRUNCATE:
            return self._truncate(message["schema"], message["table"])
        raise ValueError(tag)

    def _begin(self, message: Message) -> Begin:
        origin = message.get("origin") or 0
        return Begin(
            message["xid"],
            _lsn(message["lsn"]),
            _timestamp(message["timestamp"]),
            self._catalog.origin(origin) if origin else None,
        )

    def _insert(self, message: Message, payload: bytes) -> Change | None:
        columns = message["columns"]
        new = {column["name"]: column["value"] for column in columns}
        shape = self._shapes.get((message["schema"], message["table"]))
        if (
            shape is None
            or list(new) != shape.names
            or [column["typeoid"] for column in columns] != shape.oids
            or message.get("pk") != shape.pk
        ):
            shape = self._learn(message, columns, None)
        if not shape.published:
            return None
        return Change("insert", shape.relation, self._trim(shape, payload, new, None)[0], None)

    def _update(self, message: Message, payload: bytes) -> Change | None:
        columns = message["columns"]
        identity = message["identity"]
        new = {column["name"]: column["value"] for column in columns}
        old = {column["name"]: column["value"] for column in identity}
        shape = self._shapes.get((message["schema"], message["table"]))
        if (
            shape is None
            or list(old) != shape.identity_names
            or [column["typeoid"] for column in columns] != shape.oids
            or list(new) != shape.names
            or message.get("pk") != shape.pk
        ) and (shape is None or not self._lacks_toast(shape, columns, old)):
            shape = self._learn(message, columns, identity)
        if not shape.published:
            return None
        new_row, old_row = self._trim(shape, payload, new, old)
        return Change("update", shape.relation, new_row, old_row)

    def _delete(self, message: Message, payload: bytes) -> Change | None:
        identity = message["identity"]
        old = {column["name"]: column["value"] for column in identity}
        shape = self._shapes.get((message["schema"], message["table"]))
        if shape is None or list(old) != shape.identity_names or message.get("pk") != shape.pk:
            shape = self._learn(message, None, identity)
        if not shape.published:
            return None
        return Change("delete", shape.relation, None, self._trim(shape, payload, None, old)[1])

    def _trim(self, shape: _Shape, payload: bytes, new: Row | None, old: Row | None) -> tuple[Row | None, Row | None]:
        """Give numbers their exact digits back and drop generated columns, which pgoutput does not send."""
        if not self._quoted:
            if shape.numerics:
                _restore_digits((new, old), shape.numerics, payload)
            if shape.reals:
                _restore_signs((new, old), shape.reals, payload)
        for name in shape.generated:
            if new is not None:
                new.pop(name, None)
            if old is not None:
                old.pop(name, None)
        return new, old

    def _lacks_toast(self, shape: _Shape, columns: list[Message], old: Row) -> bool:
        """Whether an UPDATE has the known shape but for columns that were left in the TOAST table.

        A dropped column looks the same, so the catalog is asked whether the absent ones still exist.
        """
        if list(old) != shape.identity_names or not columns or len(columns) >= len(shape.names):
            return False
        known = dict(zip(shape.names, shape.oids, strict=True))
        present = [column["name"] for column in columns]
        if any(known.get(column["name"]) != column["typeoid"] for column in columns):
            return False
        absent = known.keys() - set(present)
        if absent <= set(shape.identity_names):
            return True
        facts = self._catalog.table(shape.relation.schema, shape.relation.name)
        return facts is None or absent <= {column.name for column in facts.columns}

    def _learn(self, message: Message, columns: list[Message] | None, identity: list[Message] | None) -> _Shape:
        """The shape of a table from a message that does not fit the known one, and from the catalog."""
        schema, name = message["schema"], message["table"]
        facts = self._catalog.table(schema, name)
        new, old = _columns(columns or []), _columns(identity or [])
        pk = tuple(column["name"] for column in message.get("pk") or ()) or (facts.primary_key if facts else ())
        whole = identity is not None and _is_whole(old, new, pk, facts)
        every = old if whole else _complete(new or old, facts, inserted=identity is None)
        replica_identity, key = (IDENTITY_FULL, pk) if whole else _identity(old, pk, facts)
        generated = facts.generated if facts else frozenset[str]()
        shape = _Shape(
            names=[column.name for column in every],
            oids=[column.type_oid for column in every],
            identity_names=_identity_names(every, replica_identity, key),
            pk=message.get("pk"),
            numerics=tuple(column.name for column in every if column.type_oid == NUMERIC),
            reals=tuple(column.name for column in every if column.type_oid in (FLOAT4, FLOAT8)),
            generated=tuple(column.name for column in every if column.name in generated),
            published=facts is None or facts.published,
            relation=self._relation(schema, name, every, generated, replica_identity, key),
        )
        self._shapes[schema, name] = shape
        return shape

    def _relation(
        self,
        schema: str,
        name: str,
        every: tuple[Column, ...],
        generated: frozenset[str],
        identity: str,
        key: tuple[str, ...],
    ) -> Relation:
        columns = tuple(column for column in every if column.name not in generated)
        found = ((column.name, self._converter(column.type_oid)) for column in columns)
        converters = tuple((column, convert) for column, convert in found if convert is not None)
        ordered = tuple(column.name for column in columns if column.name in key)
        return Relation(schema, name, columns, identity, ordered, converters)

    def _converter(self, oid: int) -> Converter | None:
        if oid in self._bases:
            return self._bases[oid]
        return text_converter(oid, self._catalog)

    def _truncate(self, schema: str, name: str) -> Truncate | None:
        shape = self._shapes.get((schema, name))
        if shape is not None:
            return Truncate((shape.relation,))
        facts = self._catalog.table(schema, name)
        if facts is not None and not facts.published:
            return None
        return Truncate((Relation(schema, name, (), IDENTITY_NOTHING, (), ()),))


def _parsed(payload: bytes) -> Message:
    """The message as Python objects. A numeric beyond a double, which orjson refuses, is read as a string."""
    try:
        message: Message = orjson.loads(payload)
    except orjson.JSONDecodeError:
        message = orjson.loads(_NUMERIC_NUMBER.sub(_NUMERIC_VALUE + rb'"\1"', payload))
    return message


def _restore_digits(rows: tuple[Row | None, ...], names: tuple[str, ...], payload: bytes) -> None:
    """Replace what orjson made of each numeric by its text; rows and columns stand in the payload's order."""
    at = 0
    for row in rows:
        if row is not None:
            for name in names:
                if name in row:
                    start = payload.index(_NUMERIC_VALUE, at) + len(_NUMERIC_VALUE)
                    at = payload.index(b"}", start)
                    if row[name] is not None:
                        row[name] = payload[start:at].decode()


def _restore_signs(rows: tuple[Row | None, ...], names: tuple[str, ...], payload: bytes) -> None:
    """Replace the zeros that PostgreSQL printed as ``-0`` by that text: orjson reads them as the integer 0,

    and a negative zero of Python's would still compare as equal to 0.
    """
    if not any(0 in map(row.get, names) for row in rows if row is not None):
        return
    values = iter(_REAL_VALUES(payload))
    for row in rows:
        for name in names:
            if row is not None and name in row and next(values) == b"-0":
                row[name] = "-0"


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
    """All columns of the table: an INSERT shows them; other messages may lack some that the catalog has."""
    if inserted or facts is None or set(shown) - set(facts.columns):
        return shown
    return tuple(column for column in facts.columns if column in shown or column.name not in facts.inline)


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


def _logical_message(payload: bytes, encoding: str) -> LogicalMessage:
    """A message's content may be any bytes, and wal2json prints them as they are, up to the first NUL.

    Read as Latin-1, a byte is a character and back again.
    """
    message = json.loads(payload.decode("latin-1"))
    prefix = message["prefix"].encode("latin-1").decode(encoding)
    content = message["content"].encode("latin-1")
    return LogicalMessage(_lsn(message["lsn"]), message["transactional"], prefix, content)


def _lsn(text: str) -> Lsn:
    high, low = text.split("/")
    return Lsn(int(high, 16) << 32 | int(low, 16))


def _timestamp(text: str) -> str:
    """From PostgreSQL's ``2026-11-20 18:02:48.63+00`` to ``2026-11-20T18:02:48.630000Z``."""
    day, clock = text.removesuffix("+00").split(" ")
    seconds, _, fraction = clock.partition(".")
    return f"{day}T{seconds}.{fraction:0<6}Z"
