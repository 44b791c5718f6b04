"""The public, versioned event, and the envelope a sink carries it in."""

from typing import Any, NamedTuple

VERSION = 1


class Transaction(NamedTuple):
    """What all events of a transaction share, made once for it.

    ``id_prefix`` is an event's id without its number; ``lsn`` the commit LSN as PostgreSQL prints it;
    ``timestamp`` the commit time in whole seconds since 1970. A non-transactional logical message stands in one
    of its own that has neither ``xid`` nor ``committed_at``, and timestamp 0.
    """

    id_prefix: str
    xid: int | None
    lsn: str
    committed_at: str | None
    timestamp: int
    origin: str | None


class Event(NamedTuple):
    """One change of one row, a truncated table, or a logical message. docs/event.md has every field.

    ``id`` is the same on every redelivery. ``seq`` counts the changes of the transaction from 1, before any
    filter; it is 0 for a non-transactional message. Column values are ready for orjson.
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
    transaction: Transaction
    seq: int
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
