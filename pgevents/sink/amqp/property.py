"""The properties of a message in AMQP 0-9-1: what its address says of them, and its headers.

Layout: AMQP 0-9-1 specification, 4.2.5.5 (field tables) and 4.2.6 (properties). Pure.
"""

from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from pgevents.errors import PublishRejected
from pgevents.event import Address, Headers
from pgevents.sink.amqp.url import SHORT_STRING_BYTES

APP_ID = b"pgevents"

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_PRIORITY, _EXPIRATION, _MESSAGE_ID, _TIMESTAMP, _TYPE, _APP_ID = 1 << 11, 1 << 8, 1 << 7, 1 << 6, 1 << 5, 1 << 3
_ALWAYS = _CONTENT_TYPE | _DELIVERY_MODE | _MESSAGE_ID | _TYPE | _APP_ID
_PERSISTENT = b"\x02"

_U32 = Struct(">I").pack
_U16 = Struct(">H").pack


class Properties(NamedTuple):
    """What all messages of an address share of their properties, in the order of the wire.

    flags · opening · (headers) · closing · message id · (timestamp) · tail
    """

    flags: int
    opening: bytes
    headers: dict[str, bytes]
    closing: bytes
    tail: bytes

    def before_id(self, headers: Headers, *, timed: bool, message_id: str) -> bytes:
        """Everything before the message id, its length included; ``headers`` hide those of that name.

        Raises PublishRejected.
        """
        table = self.headers | marshalled(headers, message_id) if headers else self.headers
        flags = self.flags | (_HEADERS if table else 0) | (_TIMESTAMP if timed else 0)
        size = bytes([len(message_id.encode())])
        return b"".join((_U16(flags), self.opening, _table(table), self.closing, size))


def properties_of(address: Address, message_id: str) -> Properties:
    """Raises PublishRejected, naming ``message_id``, for what AMQP cannot carry."""

    def short(text: str, what: str) -> bytes:
        return short_string(text, what, message_id)

    flags = _ALWAYS
    opening, closing = short(address.content_type, "content type"), _PERSISTENT
    if address.content_encoding:
        flags |= _CONTENT_ENCODING
        opening += short(address.content_encoding, "content encoding")
    if address.priority is not None:
        flags |= _PRIORITY
        closing += bytes([address.priority])
    if address.expiration:
        flags |= _EXPIRATION
        closing += short(address.expiration, "expiration")
    tail = short(address.kind, "type") + bytes([len(APP_ID)]) + APP_ID
    return Properties(flags, opening, marshalled(address.headers, message_id), closing, tail)


def marshalled(headers: Headers, message_id: str) -> dict[str, bytes]:
    """Each header by its name, of which a table holds one. Raises PublishRejected."""
    table = {}
    for name, value in headers:
        text = value.encode()
        table[name] = (_name(name) or short_string(name, "header name", message_id)) + _U32(len(text)) + text
    return table


@lru_cache(maxsize=1000)
def _name(name: str) -> bytes:
    """A header's name, and that its value is a long string; empty for a name that is too long."""
    octets = name.encode()
    return bytes([len(octets)]) + octets + b"S" if len(octets) <= SHORT_STRING_BYTES else b""


def _table(headers: dict[str, bytes]) -> bytes:
    if not headers:
        return b""
    entries = b"".join(headers.values())
    return _U32(len(entries)) + entries


def short_string(text: str, what: str, message_id: str, *, routing_key: str | None = None) -> bytes:
    """Length and octets of ``text``. Raises PublishRejected for one that is too long."""
    octets = text.encode()
    if len(octets) > SHORT_STRING_BYTES:
        raise _too_long(octets, what, message_id, routing_key=routing_key)
    return bytes([len(octets)]) + octets


def _too_long(octets: bytes, what: str, message_id: str, *, routing_key: str | None = None) -> PublishRejected:
    return PublishRejected(
        message_id,
        f"its {what} is {len(octets)} bytes long; AMQP allows {SHORT_STRING_BYTES}",
        hint=f"Shorten what the {what} is made of, or leave the table out.",
        routing_key=routing_key,
    )
