"""The public, versioned event, and the envelope a sink carries it in."""

from typing import Any, NamedTuple

VERSION = 1


class Lane(NamedTuple):
    """Where a rule sends changes instead: to another exchange and routing key, or aside into the park.

    ``rule`` names it. ``routing_key`` is a template, empty for the usual one.
    """

    rule: str
    exchange: str = ""
    routing_key: str = ""
    is_park: bool = False


class Transaction(NamedTuple):
    """What all events of a transaction share, made once for it.

    ``id_prefix`` is an event's id without its number; ``lsn`` the commit LSN as PostgreSQL prints it;
    ``timestamp`` the commit time in whole seconds since 1970. A non-transactional logical message stands in one
    of its own that has neither ``xid`` nor ``committed_at``, and timestamp 0. ``lane`` is that of a skip rule.
    """

    id_prefix: str
    xid: int | None
    lsn: str
    committed_at: str | None
    timestamp: int
    origin: str | None
    lane: Lane | None = None


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
    skip: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None


Headers = tuple[tuple[str, str], ...]


class Address(NamedTuple):
    """What all events of one relation and operation share: where they go and what they are.

    One object per combination, so that a sink may cache what it derives from it by identity.
    ``topic`` is the routing key; ``kind`` the AMQP ``type``; ``exchange`` is empty for the sink's own.
    ``expiration`` is in milliseconds, as text; a sink without headers, priorities or expiry ignores them.
    ``parked_by`` names the rule that puts such events aside, empty where they are published. ``is_optional``: nobody
    need have asked for them; where no queue is bound that is said, and they count as delivered.
    """

    topic: str
    kind: str
    content_type: str
    exchange: str = ""
    headers: Headers = ()
    priority: int | None = None
    expiration: str = ""
    content_encoding: str = ""
    parked_by: str = ""
    is_optional: bool = False


class Body(NamedTuple):
    """One encoded message of an event: ``suffix`` goes behind the event's id where one event makes several.

    ``headers`` are this message's own, besides those of its address.
    """

    data: bytes
    headers: Headers = ()
    suffix: str = ""


class Envelope(NamedTuple):
    """What a sink carries. ``timestamp`` is the commit time in whole seconds since 1970, 0 if unknown.

    ``headers`` are this message's own, besides those of its address.
    """

    message_id: str
    address: Address
    timestamp: int
    body: bytes
    headers: Headers = ()
