"""Whether what is published gets anywhere: a key that can be sent, and a queue that is bound for it."""

import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence

from pgevents.doctor.broker import Broker, management_fix
from pgevents.doctor.destination import Use
from pgevents.doctor.finding import Finding, Level, ok, unseen, warning
from pgevents.doctor.management import NotSeenError
from pgevents.doctor.route import Destination, unrouted
from pgevents.sink.amqp.url import SHORT_STRING_BYTES
from pgevents.spelling import some


def check_keys(broker: Broker) -> Iterator[Finding]:
    """Whether every routing key can be sent at all."""
    uses = broker.uses or {}
    long = {use.what for destination, use in uses.items() if len(destination.key.encode()) > SHORT_STRING_BYTES}
    for what in sorted(long):
        yield Finding(
            "routing keys",
            "fatal",
            what,
            f"its routing key is longer than the {SHORT_STRING_BYTES} bytes of AMQP, so it cannot be published",
            "Give the sink URL a shorter routing_key= template, or leave the table out.",
        )
    if uses and not long:
        yield ok("routing keys", f"{len(uses)} keys, all short enough")


def check_bindings(broker: Broker) -> Iterator[Finding]:
    """Whether a queue is bound for every table and operation by every route, and for records of what is skipped."""
    subject = f"exchange {broker.url.exchange}"
    if broker.uses is None:
        yield unseen("bindings", subject, "which tables there are", fix="See the line of the database.")
        return
    if not broker.uses:
        return
    missing: dict[Destination, Use] = {}
    is_seen = True
    for exchange in broker.exchanges:
        uses = {destination: use for destination, use in broker.uses.items() if destination.exchange == exchange}
        try:
            missing |= unrouted(broker.topology, uses)
        except NotSeenError as reason:
            is_seen = False
            yield unseen("bindings", f"exchange {exchange}", reason, fix=management_fix(broker))
    yield from _unbound(broker, missing)
    if is_seen and not missing:
        yield ok("bindings", f"a queue is bound for each of {len(broker.uses)} routing keys")


def _unbound(broker: Broker, missing: dict[Destination, Use]) -> Iterator[Finding]:
    keys: dict[tuple[Use, str], list[str]] = defaultdict(list)
    for (exchange, key), use in missing.items():
        keys[use, exchange].append(key)
    for (use, exchange), of_use in keys.items():
        yield _lost(broker, use, exchange, of_use) if use.is_optional else _needed(broker, use, exchange, of_use)


def _lost(broker: Broker, use: Use, exchange: str, keys: Sequence[str]) -> Finding:
    """The stream goes on without them."""
    return warning(
        "bindings",
        use.what,
        f"no queue is bound for {some(keys)}: of what is skipped nothing is left but a line in the log",
        fix=_command(broker, exchange, keys),
    )


def _needed(broker: Broker, use: Use, exchange: str, keys: Sequence[str]) -> Finding:
    level: Level = "warning"
    match broker.settings.on_unroutable:
        case _ if not broker.url.mandatory:
            level, outcome = "fatal", "such events vanish, and count as delivered"
        case "drop":
            level, outcome = "fatal", "such events are given up"
        case "park":
            outcome = "such events are parked in a file"
        case _:
            outcome = "the stream holds at the first such event until one is"
    problem = f"no queue is bound for {some(keys)}: {outcome}"
    return Finding("bindings", level, use.what, problem, _command(broker, exchange, keys))


def _command(broker: Broker, exchange: str, keys: Sequence[str]) -> str:
    pattern = f"{keys[0].rpartition('.')[0]}.#" if "." in keys[0] else keys[0]
    return (
        f"rabbitmqadmin --vhost={shlex.quote(broker.url.vhost)} declare binding "
        f"source={shlex.quote(exchange)} destination=QUEUE routing_key={shlex.quote(pattern)}"
    )


CHECKS = (check_keys, check_bindings)
