"""From an event and its route to the envelopes a sink carries."""

from collections.abc import Callable, Sequence

from pgevents.compression import compressed
from pgevents.event import Body, Envelope, Event
from pgevents.interfaces import Codec
from pgevents.routing import Route
from pgevents.wal import made


class Encoder:
    """Encodes events. ``codec`` is the usual one, ``codec_of`` opens those that routes name."""

    def __init__(self, codec: Codec, codec_of: Callable[[str], Codec] | None = None) -> None:
        self._codec_of = codec_of or (lambda _: codec)
        self._codecs = {"": codec}

    def content_type_of(self, name: str) -> str:
        """The content type of a format, the usual one's for the empty name. Raises ConfigError for an unknown one."""
        return self._codec(name).content_type

    def envelopes(self, event: Event, route: Route) -> Sequence[Envelope]:
        """The messages of ``event`` in order: none where its format has no word for it."""
        address, name, compression, _ = route
        encoded, timestamp = self._codec(name).encode(event), event.transaction.timestamp
        if type(encoded) is bytes and not compression:
            return (made(Envelope, (event.id, address, timestamp, encoded, ())),)
        bodies = (Body(encoded),) if isinstance(encoded, bytes) else encoded
        return [
            Envelope(
                event.id + body.suffix,
                address,
                timestamp,
                compressed(compression, body.data) if compression else body.data,
                body.headers,
            )
            for body in bodies
        ]

    def _codec(self, name: str) -> Codec:
        try:
            return self._codecs[name]
        except KeyError:
            codec = self._codecs[name] = self._codec_of(name)
            return codec
