"""The queues that events reach, and whether each keeps what it gets."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgevents.doctor.broker import Broker, management_fix
from pgevents.doctor.finding import Finding, Level, ok, unseen, warning
from pgevents.doctor.management import NotSeenError
from pgevents.doctor.route import queues_for

# Since this version a quorum queue drops what was handed out that often, or dead-letters it.
_DELIVERY_LIMIT_SINCE = 4
_REDELIVERIES = 20


def check_queues(broker: Broker) -> Iterator[Finding]:
    """Every queue that one of the keys reaches; without the tables, every one that is bound."""
    exchange = broker.url.exchange
    everything = [(each, None) for each in broker.exchanges]
    try:
        names = set[str]()
        for name, key in broker.uses if broker.uses is not None else everything:
            names |= queues_for(broker.topology, name, key)
        queues = [_queue(broker.topology.queue(name)) for name in sorted(names)]
        nodes = len(broker.management.get("nodes") or [])
    except NotSeenError as reason:
        yield unseen("queues", f"exchange {exchange}", reason, fix=management_fix(broker))
        return
    for queue in queues:
        problems = list(examined(queue, vhost=broker.url.vhost, nodes=nodes, major=broker.major))
        yield from problems
        if not problems:
            yield ok("queues", f"{queue.kind} queue {queue.name} keeps what it gets")


@dataclass(frozen=True, slots=True)
class Queue:
    """``settings`` are those in force, by their names in a policy, which ``policy`` holds alone."""

    name: str
    kind: str
    durable: bool = True
    auto_delete: bool = False
    exclusive: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_dead_letters(self) -> bool:
        return "dead-letter-exchange" in self.settings


def _queue(found: Mapping[str, Any]) -> Queue:
    policy = dict(found.get("effective_policy_definition") or {})
    given = {name.removeprefix("x-"): value for name, value in dict(found.get("arguments") or {}).items()}
    return Queue(
        found["name"],
        found.get("type") or given.get("queue-type", "classic"),
        durable=found["durable"],
        auto_delete=found["auto_delete"],
        exclusive=bool(found.get("exclusive")),
        settings=_in_force(policy, given),
        policy=policy,
    )


def _in_force(policy: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Of two limits the lower one holds; else what the queue was declared with."""
    both = {
        name: min(policy[name], given[name])
        for name in policy.keys() & given.keys()
        if isinstance(policy[name], int) and isinstance(given[name], int)
    }
    return {**policy, **given, **both}


def examined(queue: Queue, *, vhost: str, nodes: int, major: int) -> Iterator[Finding]:
    """What may become of an event in it."""
    subject = f"queue {queue.name}"
    yield from _overflow(queue, subject, vhost)
    yield from _expiry(queue, subject, vhost)
    if queue.exclusive or queue.auto_delete:
        which = "exclusive" if queue.exclusive else "auto-delete"
        yield warning(
            "queues",
            subject,
            f"it is {which}: it goes with its consumer, and all in it",
            fix="Declare one that stays.",
        )
    if not queue.durable:
        yield warning(
            "queues",
            subject,
            "it is not durable: a restart of the broker deletes it and all in it",
            fix="Declare it durable, best as a quorum queue.",
        )
    if queue.kind == "classic" and nodes > 1 and "ha-mode" not in queue.settings:
        yield warning(
            "queues",
            subject,
            f"it is classic: of {nodes} nodes one alone has what is in it",
            fix="Declare it with x-queue-type=quorum.",
        )
    if queue.kind == "quorum" and not queue.has_dead_letters:
        yield from _delivery_limit(queue, subject, vhost, major)


def _overflow(queue: Queue, subject: str, vhost: str) -> Iterator[Finding]:
    limit = next((name for name in ("max-length", "max-length-bytes") if name in queue.settings), None)
    if queue.kind == "stream":
        if limit or "max-age" in queue.settings:
            yield warning(
                "queues",
                subject,
                "it is a stream that forgets its oldest events",
                fix="See that all consumers keep up.",
            )
        return
    if limit is None or queue.settings.get("overflow", "drop-head") != "drop-head":
        return
    level: Level = "warning" if queue.has_dead_letters else "fatal"
    outcome = "goes to its dead letters" if queue.has_dead_letters else "is dropped, though it was confirmed"
    yield Finding(
        "queues",
        level,
        subject,
        f"when it holds its {limit} of {queue.settings[limit]} its head {outcome}",
        _policy(queue, vhost, overflow="reject-publish"),
    )


def _expiry(queue: Queue, subject: str, vhost: str) -> Iterator[Finding]:
    if "message-ttl" in queue.settings:
        outcome = "goes to its dead letters" if queue.has_dead_letters else "is dropped"
        yield warning(
            "queues",
            subject,
            f"what is not consumed within message-ttl, {queue.settings['message-ttl']} ms, {outcome}",
            fix="Take the limit away: " + _without(queue, vhost, "message-ttl"),
        )
    if "expires" in queue.settings:
        yield warning(
            "queues",
            subject,
            f"it is deleted with all in it when nobody uses it for {queue.settings['expires']} ms",
            fix="Take the limit away: " + _without(queue, vhost, "expires"),
        )


def _delivery_limit(queue: Queue, subject: str, vhost: str, major: int) -> Iterator[Finding]:
    default = _REDELIVERIES if major >= _DELIVERY_LIMIT_SINCE else -1
    limit = queue.settings.get("delivery-limit", default)
    if isinstance(limit, int) and limit >= 0:
        yield warning(
            "queues",
            subject,
            f"what was handed out {limit} times and not acknowledged is dropped",
            fix=_policy(queue, vhost, **{"dead-letter-exchange": "DEAD-LETTERS"}),
        )


def _policy(queue: Queue, vhost: str, **changes: str) -> str:
    """One policy alone applies to a queue, so it repeats what the present one says."""
    return _set_policy(queue, vhost, {**queue.policy, **changes})


def _without(queue: Queue, vhost: str, name: str) -> str:
    if name not in queue.policy:
        return f"declare the queue again without x-{name}."
    return _set_policy(queue, vhost, {key: value for key, value in queue.policy.items() if key != name})


def _set_policy(queue: Queue, vhost: str, definition: Mapping[str, Any]) -> str:
    words = (f"pgevents-{queue.name}", f"^{re.escape(queue.name)}$", json.dumps(definition))
    return f"rabbitmqctl set_policy -p {shlex.quote(vhost)} --apply-to queues --priority 100 " + " ".join(
        map(shlex.quote, words)
    )


CHECKS = (check_queues,)
