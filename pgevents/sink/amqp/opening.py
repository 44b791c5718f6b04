"""Opening the sink of an ``amqp(s)://`` URL."""

import logging

from pgevents.errors import ConfigError
from pgevents.interfaces import Sink, SinkOptions
from pgevents.sink.amqp.careful import CarefulSink
from pgevents.sink.amqp.connection import open_link
from pgevents.sink.amqp.sink import OUTCOMES, AmqpSink
from pgevents.sink.amqp.url import parse


async def open(url: str, options: SinkOptions) -> Sink:
    """Raises ConfigError, SinkUnavailable or SinkRefused, such as ExchangeMissing."""
    if options.on_unroutable not in OUTCOMES:
        raise ConfigError(f"on-unroutable is {options.on_unroutable!r}, not one of {', '.join(OUTCOMES)}")
    if options.on_unroutable == "park" and options.park is None:
        raise ConfigError("on-unroutable is park, and there is nowhere to park events")
    # Every error of pika's reaches the user once, as one of ours.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    parsed = parse(url)
    sink = AmqpSink(await open_link(parsed, declare=options.declare, exchanges=options.exchanges), parsed, options)
    return CarefulSink(sink, hold_s=options.hold_s, on_calm=options.on_calm) if options.on_calm else sink
