"""CloudEvents 1.0 in binary mode: the event is the body, its attributes are headers.

CloudEvents has a binding for AMQP 1.0 and none for AMQP 0-9-1. The headers are named as that binding names
application properties, which is what RabbitMQ makes of them for a consumer that speaks AMQP 1.0.
Source: CloudEvents specification 1.0.2, "AMQP Protocol Binding for CloudEvents".
"""

from pgevents.codec._cloudevent import DATA_TYPE, attributes, source_of
from pgevents.codec.native import NativeCodec
from pgevents.event import Body, Event
from pgevents.format import CodecContext


def open(context: CodecContext) -> "BinaryCloudEventsCodec":
    return BinaryCloudEventsCodec(context)


class BinaryCloudEventsCodec:
    """One CloudEvent an event; the content type is its ``datacontenttype``."""

    content_type = DATA_TYPE
    operations = NativeCodec.operations

    def __init__(self, context: CodecContext) -> None:
        self._source = source_of(context)
        self._native = NativeCodec()

    def encode(self, event: Event) -> tuple[Body, ...]:
        headers = [(f"cloudEvents:{name}", value) for name, value in attributes(event, self._source).items()]
        return (Body(self._native.encode(event), tuple(headers)),)
