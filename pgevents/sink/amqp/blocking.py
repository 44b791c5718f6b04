"""A connection that blocks its caller, for what asks a broker a few questions or consumes."""

from typing import Any

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException, AMQPConnectorStackTimeout

from pgevents.sink.amqp.connection import connection_parameters
from pgevents.sink.amqp.fault import connect_fault
from pgevents.sink.amqp.url import AmqpUrl, BrokerAddress


def dial(url: AmqpUrl, address: BrokerAddress, *, blocked_timeout_s: float | None = None) -> Any:
    """A BlockingConnection to one address. Raises SinkUnavailable or SinkRefused.

    One that the broker blocks for ``blocked_timeout_s`` ends with pika's ConnectionBlockedTimeout.
    """
    parameters = connection_parameters(url, address)
    parameters.blocked_connection_timeout = blocked_timeout_s
    # A socket that connects in time may still never say a word: the second one is for TLS and the handshake.
    parameters.socket_timeout = parameters.stack_timeout = url.connection_timeout_s
    try:
        return pika.BlockingConnection(parameters)
    except AMQPConnectorStackTimeout as error:
        raise connect_fault(TimeoutError(), url, address) from error
    except (pika.exceptions.AMQPError, AMQPConnectorException, OSError) as error:
        raise connect_fault(error, url, address) from error
