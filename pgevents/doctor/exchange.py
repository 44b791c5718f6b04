"""The exchanges that are published to, the sink's and those of rules: whether each is there, and may be used."""

import re
from collections.abc import Iterator

import pika

from pgevents.doctor.broker import Broker
from pgevents.doctor.finding import Finding, fatal, ok, refusal, unseen
from pgevents.doctor.management import NotSeenError
from pgevents.sink.amqp.fault import declare_fault
from pgevents.sink.amqp.url import SHORT_STRING_BYTES

_NOT_FOUND = 404
_PROBE_KEY = "pgevents.doctor"


def check_exchanges(broker: Broker) -> Iterator[Finding]:
    """Ask for each, and where it is and ``stream`` would declare it, whether it is as that would have it."""
    for exchange in broker.exchanges:
        yield _check_exchange(broker, exchange)


def _check_exchange(broker: Broker, exchange: str) -> Finding:
    subject = f"exchange {exchange}"
    error = _declare(broker, exchange, passive=True)
    if error is None and broker.settings.declare:
        error = _declare(broker, exchange, passive=False)
    if error is None:
        return ok("exchange", f"{subject} is there" + (", durable, of type topic" if broker.settings.declare else ""))
    if getattr(error, "reply_code", 0) == _NOT_FOUND and broker.settings.declare:
        return _may_declare(broker, exchange)
    return refusal("exchange", subject, declare_fault(error, broker.url))


def _declare(broker: Broker, exchange: str, *, passive: bool) -> pika.exceptions.AMQPError | None:
    """The broker's refusal. What exists is never changed by it."""
    try:
        channel = broker.connection.channel()
        channel.exchange_declare(exchange, exchange_type="topic", durable=True, passive=passive)
        channel.close()
    except pika.exceptions.AMQPError as error:
        return error
    return None


def _may_declare(broker: Broker, exchange: str) -> Finding:
    subject, user = f"exchange {exchange}", broker.url.user
    try:
        rights = broker.management.get("users", user, "permissions") or []
    except NotSeenError as reason:
        return unseen(
            "exchange",
            subject,
            f"whether user {user} may declare it: {reason}",
            fix="Declare it beforehand, durable, of type topic.",
        )
    patterns = [each["configure"] for each in rights if each["vhost"] == broker.url.vhost]
    if any(permits(pattern, exchange) for pattern in patterns):
        return ok("exchange", f"{subject} will be declared")
    return fatal(
        "exchange",
        subject,
        f"it is not there, and user {user} may not declare it",
        fix=f"Declare it, durable, of type topic, or rabbitmqctl set_permissions -p '{broker.url.vhost}' '{user}' "
        "with a configure pattern that matches it.",
    )


def permits(pattern: str, name: str) -> bool:
    """Whether RabbitMQ takes a permission's regular expression for ``name``; the empty one is for nothing."""
    try:
        return bool(pattern) and re.search(pattern, name) is not None
    except re.error:
        return False


def check_publishing(broker: Broker) -> Iterator[Finding]:
    """Publish in a transaction that is rolled back: the broker looks at rights and alarms, and delivers nothing."""
    for exchange in broker.exchanges:
        if _declare(broker, exchange, passive=True) is None:
            yield _check_publishing(broker, exchange)


def _check_publishing(broker: Broker, exchange: str) -> Finding:
    subject = f"exchange {exchange}"
    # The keys to come: permissions of topics go by them.
    keys = [key for name, key in broker.uses or () if name == exchange]
    try:
        channel = broker.connection.channel()
        channel.tx_select()
        for key in keys or (_PROBE_KEY,):
            if len(key.encode()) <= SHORT_STRING_BYTES:
                channel.basic_publish(exchange, key, b"")
        channel.tx_rollback()
        channel.close()
    except pika.exceptions.ConnectionBlockedTimeout:
        return fatal(
            "publishing",
            subject,
            "the broker takes nothing now: it is out of memory or disk",
            fix="rabbitmq-diagnostics alarms names the node; free memory or disk there.",
        )
    except pika.exceptions.AMQPError as error:
        return refusal("publishing", subject, declare_fault(error, broker.url))
    return ok("publishing", f"user {broker.url.user} may publish to {subject}")


CHECKS = (check_exchanges, check_publishing)
