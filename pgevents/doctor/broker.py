"""RabbitMQ: whether it can be reached and published to, and by whom."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pika

from pgevents.doctor.finding import Finding, fatal, ok, refusal, unseen, warning
from pgevents.doctor.host import is_loopback
from pgevents.doctor.management import Management, NotSeenError
from pgevents.doctor.topology import ManagedTopology
from pgevents.errors import SinkError
from pgevents.settings import Settings
from pgevents.sink.amqp.blocking import dial
from pgevents.sink.amqp.fault import declare_fault
from pgevents.sink.amqp.url import SHORT_STRING_BYTES, AmqpUrl, BrokerAddress

BLOCKED_TIMEOUT_S = 3.0
OLDEST_MAINTAINED = 4
_NOT_FOUND = 404
_PROBE_KEY = "pgevents.doctor"


@dataclass(frozen=True, slots=True)
class Broker:
    """An open connection to a broker that greeted with ``version``.

    ``keys`` are the routing keys to come, each with what it is for; None: not known.
    """

    settings: Settings
    url: AmqpUrl
    version: str
    connection: Any
    management: Management
    topology: ManagedTopology
    keys: Mapping[str, str] | None

    @property
    def major(self) -> int:
        digits = self.version.partition(".")[0]
        return int(digits) if digits.isdecimal() else 0


def reach(url: AmqpUrl) -> tuple[list[Finding], Any, BrokerAddress]:
    """A finding for each broker of the URL, and a connection to the first that answers, or None."""
    findings, connection, reached = [], None, url.addresses[0]
    for address in url.addresses:
        try:
            dialled = dial(url, address, blocked_timeout_s=BLOCKED_TIMEOUT_S)
        except SinkError as error:
            findings.append(refusal("broker", str(address), error))
            continue
        findings.append(ok("broker", f"{address} lets user {url.user} in to virtual host {url.vhost}"))
        if connection is None:
            connection, reached = dialled, address
        else:
            dialled.close()
    if connection is not None:  # a stream would take the one that answers
        findings = [replace(each, level="warning") if each.level == "fatal" else each for each in findings]
    return findings, connection, reached


def version_of(connection: Any) -> str:
    """As an open connection was greeted with; pika forgets it when the connection ends."""
    version: str = connection._impl.server_properties.get("version", "0")  # noqa: SLF001 - pika hides it
    return version


def check_version(broker: Broker) -> Iterator[Finding]:
    name = f"RabbitMQ {broker.version}"
    if broker.major < OLDEST_MAINTAINED:
        yield warning("broker version", name, "its makers mend nothing in 3.x any more", fix="Upgrade to 4.")
    else:
        yield ok("broker version", name)


def check_exchange(broker: Broker) -> Iterator[Finding]:
    """Ask for it, and where it is and ``stream`` would declare it, whether it is as that would have it."""
    url, subject = broker.url, f"exchange {broker.url.exchange}"
    error = _declare(broker, passive=True)
    if error is None and broker.settings.declare:
        error = _declare(broker, passive=False)
    if error is None:
        yield ok("exchange", f"{subject} is there" + (", durable, of type topic" if broker.settings.declare else ""))
    elif getattr(error, "reply_code", 0) == _NOT_FOUND and broker.settings.declare:
        yield _may_declare(broker)
    else:
        yield refusal("exchange", subject, declare_fault(error, url))


def _declare(broker: Broker, *, passive: bool) -> pika.exceptions.AMQPError | None:
    """The broker's refusal. What exists is never changed by it."""
    try:
        channel = broker.connection.channel()
        channel.exchange_declare(broker.url.exchange, exchange_type="topic", durable=True, passive=passive)
        channel.close()
    except pika.exceptions.AMQPError as error:
        return error
    return None


def _may_declare(broker: Broker) -> Finding:
    subject, user = f"exchange {broker.url.exchange}", broker.url.user
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
    if any(permits(pattern, broker.url.exchange) for pattern in patterns):
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
    if _declare(broker, passive=True) is not None:
        return
    subject = f"exchange {broker.url.exchange}"
    try:
        channel = broker.connection.channel()
        channel.tx_select()
        for key in broker.keys or (_PROBE_KEY,):  # the keys to come: permissions of topics go by them
            if len(key.encode()) <= SHORT_STRING_BYTES:
                channel.basic_publish(broker.url.exchange, key, b"")
        channel.tx_rollback()
        channel.close()
    except pika.exceptions.ConnectionBlockedTimeout:
        yield fatal(
            "publishing",
            subject,
            "the broker takes nothing now: it is out of memory or disk",
            fix="rabbitmq-diagnostics alarms names the node; free memory or disk there.",
        )
    except pika.exceptions.AMQPError as error:
        yield refusal("publishing", subject, declare_fault(error, broker.url))
    else:
        yield ok("publishing", f"user {broker.url.user} may publish to {subject}")


def _alarms(management: Management) -> list[dict[str, str]]:
    answer = management.get("health", "checks", "alarms")
    if not isinstance(answer, dict) or "status" not in answer:
        raise NotSeenError("what answers as its management API is something else")
    alarms: list[dict[str, str]] = answer.get("alarms", [])
    return alarms


def check_alarms(broker: Broker) -> Iterator[Finding]:
    try:
        # Not what is told of the nodes, which is seconds old.
        alarms = _alarms(broker.management)
    except NotSeenError as reason:
        yield unseen("alarms", "nodes of the broker", reason, fix=management_fix(broker))
        return
    for alarm in alarms:
        yield fatal(
            "alarms",
            f"node {alarm['node']}",
            f"its {alarm['resource']} alarm is in force: nothing can be published",
            fix=f"Free {alarm['resource']} there, or give it more.",
        )
    if not alarms:
        yield ok("alarms", "none is in force")


def management_fix(_broker: Broker) -> str:
    """What lets the management API be asked."""
    return (
        "Name it with --management; it takes the plug-in (rabbitmq-plugins enable rabbitmq_management), and a user "
        "tagged monitoring besides what it is tagged already (rabbitmqctl set_user_tags replaces all tags)."
    )


def check_transport(url: AmqpUrl) -> Iterator[Finding]:
    """Of each address, whether others can read along, and whether the user is one everybody knows."""
    for address in url.addresses:
        if is_loopback(address.host):
            yield ok("encryption to RabbitMQ", f"{address} is this machine")
        elif url.tls is None:
            yield warning(
                "encryption to RabbitMQ",
                str(address),
                "password and rows travel in clear",
                fix="Write amqps:// and give cacertfile=.",
            )
        elif not url.tls.verify:
            yield warning(
                "encryption to RabbitMQ",
                str(address),
                "verify_none does not verify who the broker is",
                fix="Leave verify= out and give cacertfile=.",
            )
        else:
            yield ok("encryption to RabbitMQ", f"TLS to {address}, verified")
        if url.user == "guest" and not is_loopback(address.host):
            yield warning(
                "broker user",
                f"user guest at {address}",
                "everybody knows its password, and by default it may come from the broker's machine only",
                fix="rabbitmqctl add_user and set_permissions for one of its own.",
            )


def check_options(settings: Settings, url: AmqpUrl) -> Iterator[Finding]:
    """What the URL and the options say that may lose events in silence."""
    found = False
    if url.heartbeat_s == 0:
        found = True
        yield warning(
            "sink options",
            "heartbeat=0",
            "a broker that went away without a word is noticed only by the stall time-out",
            fix="Leave heartbeat= out of the URL.",
        )
    if not url.mandatory:
        found = True
        yield warning(
            "sink options",
            "mandatory=false",
            "an event that no queue gets counts as delivered, in silence",
            fix="Leave mandatory= out of the URL.",
        )
    if settings.on_unroutable == "drop":
        found = True
        yield warning(
            "sink options",
            "--on-unroutable drop",
            "an event that no queue gets is given up",
            fix="Use wait or park.",
        )
    if not found:
        yield ok("sink options", "none of them gives up an event")


CHECKS = (check_version, check_exchange, check_publishing, check_alarms)
