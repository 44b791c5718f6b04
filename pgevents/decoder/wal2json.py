"""The wal2json output plug-in, format-version 2: one JSON object a message.

Begin and Commit bracket a transaction and carry its LSNs; a change holds its columns with type OIDs, the
replica identity's old values under ``identity`` and the primary key's names under ``pk``. The rest of what a row
means is in its table's layout, which is learned when a message does not fit the known one.
"""

import json
import re
from typing import Final

import orjson

from pgevents.decoder.wal2json_layout import Layout, Layouts, Message
from pgevents.errors import DecodeError
from pgevents.interfaces import Catalog
from pgevents.lsn import Lsn
from pgevents.wal import (
    IDENTITY_NOTHING,
    Begin,
    Change,
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

# orjson has already read a numeric as a float, or rounded it, when its digits are looked up again here. Inside
# a JSON string a quote is escaped, so this can only be found where a numeric's value begins.
_NUMERIC_VALUE: Final = b'"typeoid":1700,"value":'

_NUMERIC_NUMBER = re.compile(_NUMERIC_VALUE + rb"(-?[0-9.]+)")

_REAL_VALUES = re.compile(rb'"typeoid":70[01],"value":([^,}]*)').findall

_END_LSN: Final = b',"nextlsn":"'

_INSERT, _UPDATE, _DELETE, _BEGIN, _COMMIT, _TRUNCATE, _MESSAGE = b"IUDBCTM"
_TAG_AT = len('{"action":"')
_OPERATIONS = {_INSERT: "insert", _UPDATE: "update", _DELETE: "delete"}

# Where the names of schema and table stand, between the LSN and the columns, or what stands in their place.
_SCHEMA: Final = b'"schema":"'
_TABLE_ENDS = {_INSERT: b',"columns":[', _UPDATE: b',"columns":[', _DELETE: b',"identity":['}


class Wal2jsonDecoder:
    """Decoder of one replication session. ``quoted``: numeric-data-types-as-string is on.

    ``encoding`` is the Python codec of the database's encoding: wal2json does not convert to the client's.
    """

    def __init__(self, catalog: Catalog, *, quoted: bool = False, encoding: str = "utf-8") -> None:
        self._catalog = catalog
        self._quoted = quoted
        self._encoding = encoding
        self._layouts = Layouts(catalog, quoted=quoted)
        self._outlines: dict[bytes, Outline | None] = {}

    def skim(self, message: RawMessage) -> Outline | None:
        payload = message.payload
        tag = payload[_TAG_AT] if len(payload) > _TAG_AT else 0
        ends = _TABLE_ENDS.get(tag)
        if ends is None or self._encoding != "utf-8":
            return None
        start = payload.find(_SCHEMA, _TAG_AT)
        # Inside a JSON string a quote is escaped, so that no name looks like the next key.
        end = payload.find(ends, start)
        if start < 0 or end < 0:
            return None
        head = payload[_TAG_AT : _TAG_AT + 1] + payload[start:end]
        if head in self._outlines:
            return self._outlines[head]
        return self._outline(head)

    def _outline(self, head: bytes) -> Outline | None:
        """Of a table that was decoded before; another must be decoded once, which shows whether it is published."""
        try:
            names = orjson.loads(b"{" + head[1:] + b"}")
        except orjson.JSONDecodeError:  # which is for decode to say
            return None
        layout = self._layouts.get(names)
        if layout is None:
            return None
        outline = Outline(_OPERATIONS[head[0]], names["schema"], names["table"]) if layout.published else None
        self._outlines[head] = outline
        return outline

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
        if tag == _COMMIT:
            return made(Commit, (_end_lsn(payload),))
        if tag == _MESSAGE:
            return _logical_message(payload, self._encoding)
        message = orjson.loads(payload)
        if tag == _BEGIN:
            return self._begin(message)
        if tag == _TRUNCATE:
            return self._truncate(message)
        raise ValueError(tag)

    def _begin(self, message: Message) -> Begin:
        origin = message.get("origin") or 0
        self._catalog.begin(message["xid"])
        return made(
            Begin,
            (
                message["xid"],
                _lsn(message["lsn"]),
                _timestamp(message["timestamp"]),
                self._catalog.origin(origin) if origin else None,
            ),
        )

    def _insert(self, message: Message, payload: bytes) -> Change | None:
        columns = message["columns"]
        new = {column["name"]: column["value"] for column in columns}
        layout = self._layouts.get(message)
        if (
            layout is None
            or list(new) != layout.names
            or [column["typeoid"] for column in columns] != layout.oids
            or message.get("pk") != layout.pk
        ):
            layout = self._layouts.learn(message, columns, None)
        if not layout.published:
            return None
        self._trim(layout, payload, new)
        return made(Change, ("insert", layout.relation, new, None))

    def _update(self, message: Message, payload: bytes) -> Change | None:
        columns = message["columns"]
        identity = message["identity"]
        new = {column["name"]: column["value"] for column in columns}
        old = {column["name"]: column["value"] for column in identity}
        layout = self._layouts.get(message)
        if (
            layout is None
            or list(old) != layout.identity_names
            or [column["typeoid"] for column in columns] != layout.oids
            or list(new) != layout.names
            or message.get("pk") != layout.pk
        ) and (layout is None or not layout.lacks_toast(columns, list(old), self._catalog)):
            layout = self._layouts.learn(message, columns, identity)
        if not layout.published:
            return None
        self._trim(layout, payload, new, old)
        return made(Change, ("update", layout.relation, new, old))

    def _delete(self, message: Message, payload: bytes) -> Change | None:
        identity = message["identity"]
        old = {column["name"]: column["value"] for column in identity}
        layout = self._layouts.get(message)
        if layout is None or list(old) != layout.identity_names or message.get("pk") != layout.pk:
            layout = self._layouts.learn(message, None, identity)
        if not layout.published:
            return None
        self._trim(layout, payload, old)
        return made(Change, ("delete", layout.relation, None, old))

    def _trim(self, layout: Layout, payload: bytes, *rows: Row) -> None:
        """Give numbers their exact digits back and drop generated columns, which pgoutput does not send."""
        if not self._quoted:
            if layout.numerics:
                _restore_digits(rows, layout.numerics, payload)
            if layout.reals:
                _restore_signs(rows, layout.reals, payload)
        for name in layout.generated:
            for row in rows:
                row.pop(name, None)

    def _truncate(self, message: Message) -> Truncate | None:
        schema, name = message["schema"], message["table"]
        layout = self._layouts.get(message)
        if layout is not None:
            return Truncate((layout.relation,))
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


def _restore_digits(rows: tuple[Row, ...], names: tuple[str, ...], payload: bytes) -> None:
    """Replace what orjson made of each numeric by its text; rows and columns stand in the payload's order."""
    at = 0
    for row in rows:
        for name in names:
            if name in row:
                start = payload.index(_NUMERIC_VALUE, at) + len(_NUMERIC_VALUE)
                at = payload.index(b"}", start)
                if row[name] is not None:
                    row[name] = payload[start:at].decode()


def _restore_signs(rows: tuple[Row, ...], names: tuple[str, ...], payload: bytes) -> None:
    """Give the zeros that PostgreSQL printed as ``-0`` their text back, which orjson reads as the integer 0.

    As text, because a column is compared with its old value before it is converted, and -0.0 equals 0.
    """
    for row in rows:
        for name in names:
            if row.get(name) == 0:
                _restore_every_sign(rows, names, payload)
                return


def _restore_every_sign(rows: tuple[Row, ...], names: tuple[str, ...], payload: bytes) -> None:
    values = iter(_REAL_VALUES(payload))
    for row in rows:
        for name in names:
            if name in row and next(values) == b"-0":
                row[name] = "-0"


def _logical_message(payload: bytes, encoding: str) -> LogicalMessage:
    """A message's content may be any bytes, and wal2json prints them as they are, up to the first NUL.

    Read as Latin-1, a byte is a character and back again.
    """
    message = json.loads(payload.decode("latin-1"))
    prefix = message["prefix"].encode("latin-1").decode(encoding)
    content = message["content"].encode("latin-1")
    return LogicalMessage(_lsn(message["lsn"]), message["transactional"], prefix, content)


def _end_lsn(payload: bytes) -> Lsn:
    """The LSN of a Commit, which ends with it: not parsing the rest of every transaction's end saves time."""
    if not payload.endswith(b'"}'):
        raise ValueError
    return _lsn(payload[payload.rindex(_END_LSN) + len(_END_LSN) : -2].decode())


def _lsn(text: str) -> Lsn:
    high, low = text.split("/")
    return Lsn(int(high, 16) << 32 | int(low, 16))


def _timestamp(text: str) -> str:
    """From PostgreSQL's ``2026-11-20 18:02:48.63+00`` to ``2026-11-20T18:02:48.630000Z``."""
    day, clock = text.removesuffix("+00").split(" ")
    seconds, _, fraction = clock.partition(".")
    return f"{day}T{seconds}.{fraction:0<6}Z"
