"""RabbitMQ: whether it can be reached and published to, and by whom."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pgevents.doctor.destination import Use, every_exchange
from pgevents.doctor.finding import Finding, fatal, ok, refusal, unseen, warning
from pgevents.doctor.host import is_loopback
from pgevents.doctor.management import Management, NotSeenError
from pgevents.doctor.route import Destination
from pgevents.doctor.topology import ManagedTopology
from pgevents.errors import SinkError
from pgevents.settings import Settings
from pgevents.sink.amqp.blocking import dial
from pgevents.sink.amqp.url import AmqpUrl, BrokerAddress

BLOCKED_TIMEOUT_S = 3.0
OLDEST_MAINTAINED = 4


@dataclass(frozen=True, slots=True)
class Broker:
    """An open connection to a broker that greeted with ``version``.

    ``uses`` are the exchanges and routing keys to come, each with what it is for; None: not known.
    """

    settings: Settings
    url: AmqpUrl
    version: str
    connection: Any
    management: Management
    topology: ManagedTopology
    uses: Mapping[Destination, Use] | None

    @property
    def exchanges(self) -> tuple[str, ...]:
        return every_exchange(self.settings, self.url.exchange)

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


CHECKS = (check_version, check_alarms)
