"""pika's errors, handed to the policy: the broker's reply code, its sentence, and the stage they are met at. Pure."""

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

from pgevents import policy
from pgevents.errors import PublishRejected, SinkError, SinkUnavailable
from pgevents.event import Envelope
from pgevents.sink.amqp.url import AmqpUrl, BrokerAddress

# pika hands on a refusal during the handshake as the repr of what the broker closed the connection with.
_REFUSAL = re.compile(r"""ConnectionClosedByBroker: \((?P<code>\d+)\) (['"])(?P<text>.*)\2""", re.DOTALL)
_EXCHANGE = re.compile(r"exchange (?:name )?'(?P<name>.*)' (?:in vhost '|contains reserved prefix )")
_ALERT = re.compile(r"\[SSL: (?P<reason>\w*ALERT\w*)\]")
_SIZES = re.compile(r"message size (?P<size>\d+) .*larger than\D*(?P<most>\d+)")


def connect_fault(error: BaseException, url: AmqpUrl, address: BrokerAddress) -> SinkError:
    """Why ``address`` gave no connection."""
    code, text = _refusal(_cause(error), url)
    return _fault(policy.of_rabbitmq(code, text, stage="connect"), text, url, address)


def declare_fault(error: BaseException, url: AmqpUrl) -> SinkError:
    """Why the exchange could not be declared, or is not there."""
    code, text = _ending(error)
    return _fault(policy.of_rabbitmq(code, text, stage="declare"), text, url)


def lost_fault(
    error: BaseException, url: AmqpUrl, unconfirmed: Iterable[Envelope], *, exchanges: Iterable[str] = ()
) -> SinkError:
    """Why an open channel ended; everything ``unconfirmed`` may or may not have arrived.

    The URL's exchange and ``exchanges`` were there when it was opened: another one is not gone, but was never there.
    """
    code, text = _ending(error)
    was_there = _exchange(text, url) in (url.exchange, *exchanges)
    rule = policy.of_rabbitmq(code, text, stage="publishing" if was_there else "declare")
    if rule.error is PublishRejected:
        return _too_large(text, unconfirmed)
    return _fault(rule, text, url)


def _fault(rule: policy.Rule[SinkError], text: str, url: AmqpUrl, address: BrokerAddress | None = None) -> SinkError:
    exchange = _exchange(text, url)
    return rule.fault(text=text, user=url.user, vhost=url.vhost, exchange=exchange, address=address)


def _exchange(text: str, url: AmqpUrl) -> str:
    """The exchange that a sentence of the broker's is about."""
    named = _EXCHANGE.search(text)
    return named["name"] if named else url.exchange


def _too_large(text: str, unconfirmed: Iterable[Envelope]) -> SinkError:
    """The broker does not say which event it was; its size tells, or that no other is as large."""
    sizes = _SIZES.search(text)
    sized = sorted(unconfirmed, key=lambda envelope: len(envelope.body), reverse=True)
    refused = next((envelope for envelope in sized if not sizes or len(envelope.body) == int(sizes["size"])), None)
    if refused is None:
        return SinkUnavailable(f"RabbitMQ closed the channel: {text}")
    hint = "Raise max_message_size in rabbitmq.conf, or leave the wide column or table out."
    return PublishRejected(refused.message_id, text, hint=hint, max_bytes=int(sizes["most"]) if sizes else None)


def _refusal(cause: BaseException, url: AmqpUrl) -> tuple[str, str]:
    """The code and the sentence of what went wrong before there was a connection."""
    match cause:
        case ProbableAuthenticationError() | ProbableAccessDeniedError() if refusal := _REFUSAL.search(cause.args[0]):
            return refusal["code"], " ".join(refusal["text"].split())
        case ConnectionClosedByBroker():
            return _ending(cause)
        case ssl.SSLCertVerificationError():
            return "certificate", cause.verify_message
        case ssl.SSLError() if not isinstance(cause, ssl.SSLEOFError):
            return "no TLS", f"{cause.reason or cause}"
        # In TLS 1.3 the broker looks at our certificate when for us the handshake is over.
        case IncompatibleProtocolError() if alert := _ALERT.search(str(cause)):
            return "no TLS", alert["reason"]
    return "unreachable", _reason(cause, url)


def _ending(error: BaseException) -> tuple[str, str]:
    """The code and the sentence of what ended a connection or a channel."""
    match error:
        case ChannelClosedByBroker() | ConnectionClosedByBroker():
            return str(error.reply_code), " ".join(error.reply_text.split())
        case AMQPHeartbeatTimeout():
            return "no heartbeat", ""
    return "lost", _words(str(error) or repr(error))


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
    """A sentence of pika's on one line, without the quotes and brackets of a repr."""
    return " ".join(text.split()).strip("'\")(")
