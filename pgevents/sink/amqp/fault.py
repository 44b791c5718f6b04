"""What pika's and the broker's errors mean to an operator, in our words. Pure."""

import re
import socket
import ssl
from collections.abc import Iterable

from pika.adapters.utils import connection_workflow
from pika.exceptions import (
    AMQPConnectionError,
    AMQPHeartbeatTimeout,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from pgevents.errors import PublishRejected, SinkError, SinkRefused, SinkUnavailable
from pgevents.event import Envelope
from pgevents.sink.amqp.url import AmqpUrl, BrokerAddress

ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED = 403, 404, 406

# pika hands on a refusal during the handshake as the repr of what the broker closed the connection with.
_REFUSAL = re.compile(r"ConnectionClosedByBroker: \(\d+\) (?P<text>.*)", re.DOTALL)
_TOO_LARGE = re.compile(r"message size \d+ .*larger than", re.DOTALL)

_AGAIN = "A stream that was running tries again by itself."


def connect_fault(error: BaseException, url: AmqpUrl, address: BrokerAddress) -> SinkError:
    """Why ``address`` gave no connection."""
    cause = _cause(error)
    refusal = _REFUSAL.search(str(cause))
    match cause:
        case ProbableAuthenticationError() if refusal:
            return SinkRefused(
                f"user {url.user!r} was refused by {address}: {_words(refusal['text'])}",
                hint="Check user and password of the RabbitMQ URL; the user guest may come from localhost only.",
            )
        case ProbableAccessDeniedError() if refusal:
            return SinkRefused(
                f"virtual host {url.vhost!r} was refused by {address}: {_words(refusal['text'])}",
                hint=f"Create it (rabbitmqctl add_vhost) or let user {url.user!r} in (rabbitmqctl set_permissions).",
            )
        case ssl.SSLCertVerificationError():
            return SinkRefused(
                f"the certificate of {address} was refused: {cause.verify_message}",
                hint="Give the CA that signed it as cacertfile=, and a name it holds as server_name_indication=.",
            )
        case ssl.SSLError() if not isinstance(cause, ssl.SSLEOFError):
            return SinkRefused(
                f"no TLS with {address}: {cause.reason or cause}",
                hint="Check that the port is the broker's TLS port, and what it wants of certfile= and keyfile=.",
            )
    return SinkUnavailable(
        f"cannot reach RabbitMQ at {address}: {_reason(cause, url)}",
        hint=f"Check host and port, and that the broker runs. {_AGAIN}",
    )


def lost_fault(error: BaseException, url: AmqpUrl, unconfirmed: Iterable[Envelope]) -> SinkError:
    """Why an open channel ended; everything ``unconfirmed`` may or may not have arrived."""
    match error:
        case ChannelClosedByBroker(reply_code=code, reply_text=text) if code == NOT_FOUND:
            return SinkUnavailable(f"exchange {url.exchange!r} is gone: {text}")
        case ChannelClosedByBroker(reply_code=code, reply_text=text) if code == ACCESS_REFUSED:
            return _no_permission(url, text)
        case ChannelClosedByBroker(reply_code=code, reply_text=text) if _TOO_LARGE.search(text):
            return _too_large(text, unconfirmed)
        case ChannelClosedByBroker(reply_text=text):
            return SinkUnavailable(f"RabbitMQ closed the channel: {text}")
        case ConnectionClosedByBroker(reply_text=text):
            return SinkUnavailable(f"RabbitMQ closed the connection: {text}", hint=_AGAIN)
        case AMQPHeartbeatTimeout():
            return SinkUnavailable("RabbitMQ sent no heartbeat in time", hint=_AGAIN)
    return SinkUnavailable(f"the connection to RabbitMQ was lost: {_words(str(error) or repr(error))}", hint=_AGAIN)


def declare_fault(error: BaseException, url: AmqpUrl) -> SinkError:
    """Why the exchange could not be declared, or is not there."""
    match error:
        case ChannelClosedByBroker(reply_code=code, reply_text=text) if code == PRECONDITION_FAILED:
            return SinkRefused(
                f"exchange {url.exchange!r} exists, but is no durable topic exchange: {text}",
                hint="Name another exchange=, or use --no-declare to publish to it as it is.",
            )
        case ChannelClosedByBroker(reply_code=code, reply_text=text) if code == NOT_FOUND:
            return SinkRefused(
                f"there is no exchange {url.exchange!r}: {text}",
                hint="Create it, or leave out --no-declare to have it declared as a durable topic exchange.",
            )
        case ChannelClosedByBroker(reply_code=code, reply_text=text) if code == ACCESS_REFUSED:
            return _no_permission(url, text)
    return lost_fault(error, url, ())


def _no_permission(url: AmqpUrl, text: str) -> SinkRefused:
    return SinkRefused(
        f"user {url.user!r} has no permission on exchange {url.exchange!r}: {text}",
        hint="Grant configure (or use --no-declare) and write on it with rabbitmqctl set_permissions.",
    )


def _too_large(text: str, unconfirmed: Iterable[Envelope]) -> SinkError:
    largest = max(unconfirmed, key=lambda envelope: len(envelope.body), default=None)
    if largest is None:
        return SinkUnavailable(f"RabbitMQ closed the channel: {text}")
    hint = "Raise max_message_size in rabbitmq.conf, or leave the wide column or table out."
    return PublishRejected(largest.message_id, text, hint=hint)


def _cause(error: BaseException) -> BaseException:
    """The error at the bottom of pika's connection workflow."""
    match error:
        case connection_workflow.AMQPConnectionWorkflowFailed():
            return _cause(error.exceptions[-1])
        case connection_workflow.AMQPConnectorPhaseErrorBase():
            return _cause(error.exception)
        case AMQPConnectionError(args=(BaseException() as inner,)):
            return _cause(inner)
    return error


def _reason(cause: BaseException, url: AmqpUrl) -> str:
    match cause:
        case TimeoutError():
            return f"no answer within {url.connection_timeout_s:g} s"
        case socket.gaierror():
            return f"{cause.strerror}"
        case IncompatibleProtocolError():
            return "it closed the connection before the handshake; perhaps this is another service, or its TLS port"
        case OSError(strerror=str(words)):
            return words
    return _words(str(cause) or repr(cause))


def _words(text: str) -> str:
    """The broker's sentence on one line, without the quotes and brackets of a repr."""
    return " ".join(text.split()).strip("'\")(")
