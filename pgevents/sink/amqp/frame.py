"""AMQP 0-9-1 frames of published envelopes, marshalled by hand.

pika marshals a message in about 10 µs. All that differs between two events of one relation is the message id, the
time and the body, so everything else is made once per address and length of message id, and the frames of a batch
are joined into one write. Layout: AMQP 0-9-1 specification, 2.3.5 and 4.2.
"""

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from pgevents.errors import PublishRejected
from pgevents.event import Address, Envelope
from pgevents.sink.amqp.url import SHORT_STRING_BYTES

APP_ID = b"pgevents"

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_BASIC, _PUBLISH, _MANDATORY = 60, 40, 1
_PERSISTENT = b"\x02"
# Bits of the properties we set: content type, delivery mode, message id, timestamp, type, app id.
_PROPERTIES = 1 << 15 | 1 << 12 | 1 << 7 | 1 << 5 | 1 << 3
_TIMESTAMP = 1 << 6

_FRAME = Struct(">BHI")
_METHOD_ID = Struct(">HHH")
_CONTENT = Struct(">HH")
_U64 = Struct(">Q").pack
_U32 = Struct(">I").pack
_U16 = Struct(">H").pack
_FRAME_OVERHEAD = 8  # type, channel, size and the end octet
# Above it the templates are made anew; an address per relation and operation never comes near.
_MAX_TEMPLATES = 10_000


class Template(NamedTuple):
    """What surrounds body size, message id, timestamp, and body of a message.

    head · body size · properties · message id · (timestamp) · tail · body size · body · end
    """

    head: bytes
    properties: bytes
    tail: bytes


class Framer:
    """Makes the frames that publish envelopes on one channel to one exchange. ``frame_max`` as negotiated."""

    __slots__ = ("_body_max", "_channel", "_exchange", "_flags", "_templates")

    def __init__(self, channel: int, exchange: str, *, frame_max: int, mandatory: bool) -> None:
        self._channel = channel
        self._exchange = exchange
        self._flags = bytes([_MANDATORY if mandatory else 0])
        self._body_max = frame_max - _FRAME_OVERHEAD
        self._templates: dict[tuple[Address, int, bool], Template] = {}

    def frames(self, envelopes: Sequence[Envelope]) -> bytes:
        """The bytes that publish ``envelopes`` in order.

        Raises PublishRejected, before anything is written, for an envelope AMQP cannot carry.
        """
        pieces: list[bytes] = []
        extend, templates, body_max = pieces.extend, self._templates, self._body_max
        for message_id, address, timestamp, body in envelopes:
            key = message_id.encode()
            size = len(body)
            template = templates.get((address, len(key), timestamp > 0)) or self._template(
                message_id, address, timestamp
            )
            time = _U64(timestamp) if timestamp > 0 else b""
            if 0 < size <= body_max:
                extend((template[0], _U64(size), template[1], key, time, template[2], _U32(size), body, _END))
            else:
                extend((template[0], _U64(size), template[1], key, time, template[2][: -len(self._body_head)]))
                extend(self._bodies(body))
        return b"".join(pieces)

    @property
    def _body_head(self) -> bytes:
        """Type and channel of a body frame; its size follows."""
        return bytes([_BODY]) + _U16(self._channel)

    def _bodies(self, body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), self._body_max):
            part = body[start : start + self._body_max]
            yield _FRAME.pack(_BODY, self._channel, len(part))
            yield part
            yield _END

    def _template(self, message_id: str, address: Address, timestamp: int) -> Template:
        if len(self._templates) >= _MAX_TEMPLATES:
            self._templates.clear()
        size = len(message_id.encode())
        template = self._marshal(message_id, size, address, timed=timestamp > 0)
        self._templates[address, size, timestamp > 0] = template
        return template

    def _marshal(self, message_id: str, size: int, address: Address, *, timed: bool) -> Template:
        def short(text: str, what: str) -> bytes:
            return _short_string(text, what, message_id)

        short(message_id, "message id")
        exchange = short(self._exchange, "exchange name")
        topic = _short_string(address.topic, "routing key", message_id, routing_key=address.topic)
        flags = _U16(_PROPERTIES | _TIMESTAMP if timed else _PROPERTIES)
        properties = flags + short(address.content_type, "content type") + _PERSISTENT + bytes([size])
        tail = short(address.kind, "type") + bytes([len(APP_ID)]) + APP_ID
        content_size = _CONTENT.size + 8 + len(properties) + size + (8 if timed else 0) + len(tail)
        method = _METHOD_ID.pack(_BASIC, _PUBLISH, 0) + exchange + topic + self._flags
        return Template(
            head=self._frame(_METHOD, method)
            + _FRAME.pack(_HEADER, self._channel, content_size)
            + _CONTENT.pack(_BASIC, 0),
            properties=properties,
            tail=tail + _END + self._body_head,
        )

    def _frame(self, kind: int, payload: bytes) -> bytes:
        return _FRAME.pack(kind, self._channel, len(payload)) + payload + _END


def _short_string(text: str, what: str, message_id: str, *, routing_key: str | None = None) -> bytes:
    octets = text.encode()
    if len(octets) > SHORT_STRING_BYTES:
        raise PublishRejected(
            message_id,
            f"its {what} is {len(octets)} bytes long; AMQP allows {SHORT_STRING_BYTES}",
            hint=f"Shorten what the {what} is made of, or leave the table out.",
            routing_key=routing_key,
        )
    return bytes([len(octets)]) + octets
