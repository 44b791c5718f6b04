"""One change at a time: filter its table, convert its rows, build its event, address and encode it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from pgevents.event import Address, Envelope, Event, Transaction
from pgevents.gate import Numbered
from pgevents.interfaces import Codec
from pgevents.routing import MESSAGE_SCHEMA, RoutingKey
from pgevents.wal import IDENTITY_FULL, Change, Converter, LogicalMessage, Relation, Row

# Relations are new objects after DDL and message prefixes are made by applications: both caches are bounded.
MAX_PLANS = 10_000


class _Plan(NamedTuple):
    """What is decided once per relation."""

    names: tuple[str, ...]
    key: tuple[str, ...]
    full: bool
    converters: tuple[tuple[str, Converter], ...]
    addresses: dict[str, Address]


class Shape:
    """Makes the envelope of a numbered change, or None where it is filtered out."""

    def __init__(self, keep: Callable[[str, str], bool], routing: RoutingKey, codec: Codec) -> None:
        self._keep = keep
        self._routing = routing
        self._codec = codec
        self._plans: dict[Relation, _Plan | None] = {}
        self._messages: dict[str, Address] = {}

    def __call__(self, numbered: Numbered) -> Envelope | None:
        item, transaction, seq = numbered
        match item:
            case Change():
                plan = self._plan(item.relation)
                if plan is None:
                    return None
                event, address = row_event(item, plan, transaction, seq), plan.addresses[item.op]
            case Relation():
                plan = self._plan(item)
                if plan is None:
                    return None
                event, address = truncate_event(item, transaction, seq), plan.addresses["truncate"]
            case LogicalMessage():
                event, address = message_event(item, transaction, seq), self._message_address(item.prefix)
        return Envelope(event.id, address, transaction.timestamp, self._codec.encode(event))

    def _plan(self, relation: Relation) -> _Plan | None:
        try:
            return self._plans[relation]
        except KeyError:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._make_plan(relation) if self._keep(relation.schema, relation.name) else None
            self._plans[relation] = plan
            return plan

    def _make_plan(self, relation: Relation) -> _Plan:
        return _Plan(
            names=relation.names,
            key=relation.key,
            full=relation.identity == IDENTITY_FULL,
            converters=relation.converters,
            addresses={
                op: self._address(relation.schema, relation.name, op)
                for op in ("insert", "update", "delete", "truncate")
            },
        )

    def _message_address(self, prefix: str) -> Address:
        if prefix not in self._messages:
            if len(self._messages) >= MAX_PLANS:
                self._messages.clear()
            self._messages[prefix] = self._address(MESSAGE_SCHEMA, prefix, "message")
        return self._messages[prefix]

    def _address(self, schema: str, table: str, op: str) -> Address:
        topic = self._routing.fill(schema, table, op)
        return Address(topic, f"pgevents.{op}", self._codec.content_type)


def row_event(change: Change, plan: _Plan, transaction: Transaction, seq: int) -> Event:
    """The event of an insert, update or delete."""
    op, relation, new, old = change
    missing: list[str] = []
    changed: list[str] | None = None
    if new is not None:
        new, missing, changed = _compared(new, old, plan)
        _convert(new, plan.converters)
    if old is not None:
        _convert(old, plan.converters)
    elif op == "update" and new is not None:
        # pgoutput leaves out an old key that did not change.
        old = {name: new[name] for name in plan.key}
    return Event(
        f"{transaction.id_prefix}{seq}",
        op,
        relation.schema,
        relation.name,
        _key(plan.key, new, old),
        new,
        old,
        old is not None and plan.full,
        changed,
        missing,
        transaction,
        seq,
    )


def _compared(new: Row, old: Row | None, plan: _Plan) -> tuple[Row, list[str], list[str] | None]:
    """The new image as complete as it can be, the columns it lacks, and those that changed where that is known."""
    if old is None or not plan.full:
        return new, [] if len(new) == len(plan.names) else [name for name in plan.names if name not in new], None
    if len(new) != len(plan.names):
        new = _filled(new, old, plan.names)
    # Compared as PostgreSQL printed them: embedded JSON has no equality of its own.
    return new, [], [name for name in new if new[name] != old[name]]


def _filled(new: Row, old: Row, names: tuple[str, ...]) -> Row:
    """``new`` in the table's order, its unchanged TOAST values taken from the full old image."""
    return {name: new[name] if name in new else old[name] for name in names}


def _convert(row: Row, converters: tuple[tuple[str, Converter], ...]) -> None:
    for name, convert in converters:
        value = row.get(name)
        if value is not None:
            row[name] = convert(value)


def _key(key: tuple[str, ...], new: Row | None, old: Row | None) -> dict[str, Any] | None:
    """The row's identity after the change, before it where the row is gone; None for a table without one."""
    if not key:
        return None
    if new is None:
        return {name: old[name] for name in key} if old else None
    return {name: new[name] if name in new or old is None else old[name] for name in key}


def truncate_event(relation: Relation, transaction: Transaction, seq: int) -> Event:
    return Event(
        id=f"{transaction.id_prefix}{seq}",
        op="truncate",
        schema=relation.schema,
        table=relation.name,
        key=None,
        new=None,
        old=None,
        old_complete=False,
        changed=None,
        missing=[],
        transaction=transaction,
        seq=seq,
    )


def message_event(message: LogicalMessage, transaction: Transaction, seq: int) -> Event:
    """The event of a logical message. Content that is not UTF-8 is given in hex, as bytea is."""
    try:
        content, encoding = message.content.decode(), "text"
    except UnicodeDecodeError:
        content, encoding = "\\x" + message.content.hex(), "hex"
    return Event(
        id=f"{transaction.id_prefix}{seq}",
        op="message",
        schema=None,
        table=None,
        key=None,
        new=None,
        old=None,
        old_complete=False,
        changed=None,
        missing=[],
        transaction=transaction,
        seq=seq,
        message={
            "prefix": message.prefix,
            "content": content,
            "encoding": encoding,
            "transactional": message.transactional,
        },
    )
