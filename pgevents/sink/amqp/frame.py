"""AMQP 0-9-1 frames of published envelopes, marshalled by hand.

pika marshals a message in about 10 µs. All that differs between two events of one address is the message id, the
time and the body, so everything else is made once per address and length of message id, and the frames of a batch
are joined into one write. Headers of a message's own come at the price of putting its properties together anew.
Layout: AMQP 0-9-1 specification, 2.3.5 and 4.2.
"""

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from pgevents.errors import PublishRejected
from pgevents.event import Address, Envelope, Headers
from pgevents.sink.amqp.property import Properties, properties_of, short_string

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_BASIC, _PUBLISH, _MANDATORY = 60, 40, 1

_FRAME = Struct(">BHI")
_METHOD_ID = Struct(">HHH")
_CONTENT = Struct(">HH")
_HEAD = Struct(">BHIHH")
_U64 = Struct(">Q").pack
_U32 = Struct(">I").pack
_U16 = Struct(">H").pack
_FRAME_OVERHEAD = 8  # type, channel, size and the end octet
# Above it all is made anew; an address per relation, operation and route never comes near.
_MAX_ADDRESSES = 10_000


class Template(NamedTuple):
    """What surrounds body size, message id, timestamp, and body of a message.

    head · body size · properties · message id · (timestamp) · tail · body size · body · end
    """

    head: bytes
    properties: bytes
    tail: bytes


class _Addressed(NamedTuple):
    """What is made once per address: the frame of the method, the properties, and the templates of both.

    A template is for messages without headers of their own, found by the length of the message id, negative where
    there is no timestamp.
    """

    address: Address
    method: bytes
    properties: Properties
    templates: dict[int, Template]


class Framer:
    """Makes the frames that publish envelopes on one channel; ``exchange`` is for addresses without one.

    ``frame_max`` as negotiated.
    """

    __slots__ = ("_addressed", "_body_head", "_body_max", "_channel", "_exchange", "_flags")

    def __init__(self, channel: int, exchange: str, *, frame_max: int, mandatory: bool) -> None:
        self._channel = channel
        self._exchange = exchange
        self._flags = bytes([_MANDATORY if mandatory else 0])
        self._body_max = frame_max - _FRAME_OVERHEAD
        # Type and channel of a body frame; its size follows.
        self._body_head = bytes([_BODY]) + _U16(channel)
        # By identity, which an address keeps as long as it stands here: hashing all it holds would cost more.
        self._addressed: dict[int, _Addressed] = {}

    def frames(self, envelopes: Sequence[Envelope]) -> bytes:
        """The bytes that publish ``envelopes`` in order.

        Raises PublishRejected, before anything is written, for an envelope AMQP cannot carry.
        """
        pieces: list[bytes] = []
        extend, body_max, addresses = pieces.extend, self._body_max, self._addressed
        current, told, time = None, 0, b""
        for message_id, address, timestamp, body, headers in envelopes:
            if address is not current:
                current = address
                addressed = addresses.get(id(address)) or self._of(address, message_id)
                templates = addressed[3]
            if timestamp != told:
                told, time = timestamp, _U64(timestamp) if timestamp > 0 else b""
            key = message_id.encode()
            template = templates.get(len(key) if time else -len(key))
            if template is None or headers:
                template = self._template(addressed, message_id, headers, timed=time != b"")
            size = len(body)
            if 0 < size <= body_max:
                extend((template[0], _U64(size), template[1], key, time, template[2], _U32(size), body, _END))
            else:
                extend((template[0], _U64(size), template[1], key, time, template[2][: -len(self._body_head)]))
                extend(self._bodies(body))
        return b"".join(pieces)

    def _bodies(self, body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), self._body_max):
            part = body[start : start + self._body_max]
            yield _FRAME.pack(_BODY, self._channel, len(part))
            yield part
            yield _END

    def _of(self, address: Address, message_id: str) -> _Addressed:
        if len(self._addressed) >= _MAX_ADDRESSES:
            self._addressed.clear()
        method, properties = self._method(address, message_id), properties_of(address, message_id)
        made = self._addressed[id(address)] = _Addressed(address, method, properties, {})
        return made

    def _method(self, address: Address, message_id: str) -> bytes:
        exchange = short_string(address.exchange or self._exchange, "exchange name", message_id)
        topic = short_string(address.topic, "routing key", message_id, routing_key=address.topic)
        payload = _METHOD_ID.pack(_BASIC, _PUBLISH, 0) + exchange + topic + self._flags
        return _FRAME.pack(_METHOD, self._channel, len(payload)) + payload + _END

    def _template(self, addressed: _Addressed, message_id: str, headers: Headers, *, timed: bool) -> Template:
        """Kept for the next message, but where it has headers of its own."""
        properties, size = addressed.properties, len(short_string(message_id, "message id", message_id)) - 1
        before_id = properties.before_id(headers, timed=timed, message_id=message_id)
        content_size = _CONTENT.size + 8 + len(before_id) + size + (8 if timed else 0) + len(properties.tail)
        if content_size > self._body_max:
            raise PublishRejected(
                message_id,
                f"its properties are {content_size} bytes long; the broker takes {self._body_max}",
                hint="Take headers out, or raise frame_max in rabbitmq.conf.",
            )
        head = addressed.method + _HEAD.pack(_HEADER, self._channel, content_size, _BASIC, 0)
        template = Template(head, before_id, properties.tail + _END + self._body_head)
        if not headers:
            addressed.templates[size if timed else -size] = template
        return template
