"""The public, versioned event, and the envelope a sink carries it in."""

from typing import Any, NamedTuple

VERSION = 1


class Tx(NamedTuple):
    """Where an event comes from. ``seq`` counts the changes of the transaction from 1, before any filter.

    A non-transactional logical message has ``seq`` 0 and neither ``xid`` nor ``committed_at``.
    """

    xid: int | None
    lsn: str
    seq: int
    committed_at: str | None
    origin: str | None


class Event(NamedTuple):
    """One change of one row, a truncated table, or a logical message. docs/event.md has every field.

    ``id`` is the same on every redelivery. Column values are ready for orjson.
    """

    id: str
    op: str
    schema: str | None
    table: str | None
    key: dict[str, Any] | None
    new: dict[str, Any] | None
    old: dict[str, Any] | None
    old_complete: bool
    changed: list[str] | None
    missing: list[str]
    tx: Tx
    message: dict[str, Any] | None = None


class Address(NamedTuple):
    """What all events of one relation and operation share: where they go and what they are.

    One object per combination, so that a sink may cache what it derives from it by identity.
    ``topic`` is the routing key; ``kind`` the AMQP ``type``.
    """

    topic: str
    kind: str
    content_type: str


class Envelope(NamedTuple):
    """What a sink carries. ``timestamp`` is the commit time in whole seconds since 1970, 0 if unknown."""

    message_id: str
    address: Address
    timestamp: int
    body: bytes
