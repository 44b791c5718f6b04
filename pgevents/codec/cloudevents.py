"""CloudEvents 1.0 in structured mode: attributes and event in one JSON object.

Source: CloudEvents specification 1.0.2, "JSON Event Format for CloudEvents".
"""

import orjson

from pgevents.codec._cloudevent import DATA_TYPE, attributes, source_of
from pgevents.codec.native import NativeCodec
from pgevents.event import Event
from pgevents.format import CodecContext


def open(context: CodecContext) -> "CloudEventsCodec":
    return CloudEventsCodec(context)


class CloudEventsCodec:
    """One CloudEvent an event; its ``data`` is the event in our own format."""

    content_type = "application/cloudevents+json; charset=utf-8"
    operations = NativeCodec.operations

    def __init__(self, context: CodecContext) -> None:
        self._source = source_of(context)
        self._native = NativeCodec()

    def encode(self, event: Event) -> bytes:
        document = {
            **attributes(event, self._source),
            "datacontenttype": DATA_TYPE,
            "data": orjson.Fragment(self._native.encode(event)),
        }
        return orjson.dumps(document)
