"""PostgreSQL's own output plug-in, protocol version 1 with text values.

Source of every layout: PostgreSQL manual, "Logical Replication Message Formats". Integers are big-endian,
strings end with a NUL byte, times are microseconds since 2000-01-01 UTC.
"""

import struct
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Never

from pgevents.decoder.values import converters_of
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
    LogicalMessage,
    Outline,
    RawMessage,
    Relation,
    Row,
    Truncate,
    WalItem,
    made,
)

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_u16 = struct.Struct("!H").unpack_from
_u32 = struct.Struct("!I").unpack_from
_begin = struct.Struct("!QqI").unpack
_commit = struct.Struct("!BQQq").unpack
_message = struct.Struct("!BQ").unpack_from
_column_end = struct.Struct("!Ii").unpack_from
_truncate = struct.Struct("!IB").unpack_from

_INSERT, _UPDATE, _DELETE = ord("I"), ord("U"), ord("D")
_OPERATIONS = {b"I": "insert", b"U": "update", b"D": "delete"}
_HEAD = 5
"""Bytes of a row change up to its tuples: the tag and the relation's oid."""

_NEW, _OLD, _KEY = ord("N"), ord("O"), ord("K")
_TEXT, _NULL, _UNCHANGED = ord("t"), ord("n"), ord("u")
_IDENTITIES = {IDENTITY_DEFAULT, IDENTITY_NOTHING, IDENTITY_FULL, IDENTITY_INDEX}


class _Malformed(ValueError):
    """A message that breaks the layout."""


class PgoutputDecoder:
    """Decoder of one replication session: it remembers the Relation messages that came before a row."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._relations: dict[int, tuple[Relation, tuple[str, ...]]] = {}
        self._outlines: dict[bytes, Outline] = {}
        self._begin = Begin(0, Lsn(0), "")

    def skim(self, message: RawMessage) -> Outline | None:
        head = message.payload[:_HEAD]
        outline = self._outlines.get(head)
        if outline is None and (op := _OPERATIONS.get(head[:1])) and len(head) == _HEAD:
            found = self._relations.get(_u32(head, 1)[0])
            if found is not None:
                outline = self._outlines[head] = Outline(op, found[0].schema, found[0].name)
        return outline

    def decode(self, message: RawMessage) -> WalItem | None:
        payload = message.payload
        try:
            tag = payload[0]
            if tag == _INSERT:
                return self._insert(payload)
            if tag == _UPDATE:
                return self._update(payload)
            if tag == _DELETE:
                return self._delete(payload)
            return self._rare(payload)
        except (_Malformed, IndexError, struct.error, ValueError, OverflowError) as error:
            # The cause is cut off: a UnicodeDecodeError carries the row's bytes.
            reason = str(error) if isinstance(error, _Malformed) else "it does not have its documented layout"
            raise DecodeError(reason, lsn=message.lsn, tag=chr(payload[0]) if payload else "") from None

    def _insert(self, payload: bytes) -> Change:
        relation, names = self._relation(_u32(payload, 1)[0])
        _expect(payload, 5, _NEW)
        new, end = _row(payload, 6, names)
        _expect_end(payload, end)
        return made(Change, ("insert", relation, new, None))

    def _update(self, payload: bytes) -> Change:
        relation, names = self._relation(_u32(payload, 1)[0])
        old, at = None, 5
        if payload[5] in (_OLD, _KEY):
            old, at = _row(payload, 6, names)
            if payload[5] == _KEY:
                old = {name: old[name] for name in relation.key}
        _expect(payload, at, _NEW)
        new, end = _row(payload, at + 1, names)
        _expect_end(payload, end)
        return made(Change, ("update", relation, new, old))

    def _delete(self, payload: bytes) -> Change:
        relation, names = self._relation(_u32(payload, 1)[0])
        old, end = _row(payload, 6, names)
        _expect_end(payload, end)
        if payload[5] == _KEY:
            old = {name: old[name] for name in relation.key}
        elif payload[5] != _OLD:
            raise _Malformed("a deleted row without an old tuple")
        return made(Change, ("delete", relation, None, old))

    def _relation(self, oid: int) -> tuple[Relation, tuple[str, ...]]:
        try:
            return self._relations[oid]
        except KeyError:
            raise _Malformed(f"no Relation message came before relation {oid}") from None

    def _rare(self, payload: bytes) -> WalItem | None:
        body = payload[1:]
        match chr(payload[0]):
            case "B":
                self._begin = parse_begin(body)
                self._catalog.begin(self._begin.xid)
                return self._begin
            case "C":
                return parse_commit(body)
            case "R":
                oid, relation = parse_relation(body, self._catalog)
                self._relations[oid] = (relation, relation.names)
                self._outlines.clear()
            case "O":
                self._begin = self._begin._replace(origin=_string(body, 8)[0])
                return self._begin
            case "T":
                return Truncate(tuple(self._relation(oid)[0] for oid in parse_truncate(body)))
            case "M":
                return parse_message(body)
            case "Y":  # a type's name: the catalog tells what we need to know of types
                return None
            case _:
                raise _Malformed("an unknown kind of message")
        return None


def parse_begin(body: bytes) -> Begin:
    """Layout: commit LSN u64, commit time i64, xid u32."""
    commit_lsn, time, xid = _begin(body)
    return made(Begin, (xid, Lsn(commit_lsn), _timestamp(time), None))


def parse_commit(body: bytes) -> Commit:
    """Layout: flags u8, commit LSN u64, end LSN u64, commit time i64."""
    return made(Commit, (Lsn(_commit(body)[2]),))


def parse_relation(body: bytes, catalog: Catalog) -> tuple[int, Relation]:
    """Layout: oid u32, schema, name, replica identity u8, columns u16 × column.

    Column: flags u8, name, type u32, modifier i32. Flag 1 marks the columns of the replica identity, under
    FULL all of them.
    """
    oid, schema, name, at = parse_relation_head(body)
    identity = chr(body[at])
    if identity not in _IDENTITIES:
        raise _Malformed("an unknown replica identity")
    columns, marked = _columns(body, at + 1)
    if identity in (IDENTITY_FULL, IDENTITY_NOTHING):
        facts = catalog.table(schema, name)
        marked = facts.primary_key if facts else ()
    key = tuple(column.name for column in columns if column.name in marked)
    return oid, Relation(schema, name, columns, identity, key, converters_of(columns, catalog))


def parse_relation_head(body: bytes) -> tuple[int, str, str, int]:
    """Oid, schema and name of a Relation, and where its replica identity stands. An empty schema is pg_catalog."""
    schema, at = _string(body, 4)
    name, at = _string(body, at)
    return _u32(body)[0], schema or "pg_catalog", name, at


def _columns(body: bytes, at: int) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The columns, and the names of those with flag 1."""
    columns: list[Column] = []
    marked: list[str] = []
    count, at = _u16(body, at)[0], at + 2
    for _ in range(count):
        flags = body[at]
        name, at = _string(body, at + 1)
        type_oid, _modifier = _column_end(body, at)
        at += 8
        columns.append(Column(name, type_oid))
        if flags & 1:
            marked.append(name)
    _expect_end(body, at)
    return tuple(columns), tuple(marked)


def parse_truncate(body: bytes) -> tuple[int, ...]:
    """Layout: relations u32, flags u8 (1 CASCADE, 2 RESTART IDENTITY), then that many oids u32."""
    count, _flags = _truncate(body)
    return struct.unpack(f"!{count}I", body[5:])


def parse_message(body: bytes) -> LogicalMessage:
    """Layout: flags u8 (1 transactional), LSN u64, prefix, length u32, content."""
    flags, lsn = _message(body)
    prefix, at = _string(body, 9)
    length = _u32(body, at)[0]
    _expect_end(body, at + 4 + length)
    return LogicalMessage(Lsn(lsn), bool(flags & 1), prefix, body[at + 4 :])


def _row(payload: bytes, at: int, names: tuple[str, ...]) -> tuple[Row, int]:
    """The tuple at ``at`` and where it ends. Layout: columns u16 × (kind u8 [, length u32, text])."""
    if _u16(payload, at)[0] != len(names):
        raise _Malformed("a row with another number of columns than its relation")
    at += 2
    row: Row = {}
    for name in names:
        kind = payload[at]
        if kind == _TEXT:
            start = at + 5
            at = start + _u32(payload, at + 1)[0]
            row[name] = payload[start:at].decode()
        elif kind == _NULL:
            row[name] = None
            at += 1
        elif kind == _UNCHANGED:
            at += 1
        else:
            raise _Malformed("a column that is neither text nor NULL nor unchanged TOAST")
    return row, at


def _string(body: bytes, at: int) -> tuple[str, int]:
    end = body.index(0, at)
    return body[at:end].decode(), end + 1


def _expect(payload: bytes, at: int, kind: int) -> None:
    if payload[at] != kind:
        _unexpected(chr(kind))


def _unexpected(kind: str) -> Never:
    raise _Malformed(f"a row without its {kind!r} tuple")


def _expect_end(payload: bytes, at: int) -> None:
    if at != len(payload):
        raise _Malformed("it is longer or shorter than its parts")


def _timestamp(microseconds: int) -> str:
    second, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(second)}.{fraction:06d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """Remembered because a busy server commits thousands of transactions in the same second."""
    return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(timespec="seconds")
