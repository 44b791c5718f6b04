"""Which queues an event of a routing key reaches. Pure, but for the topology that is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol, TypeVar

from pgevents.doctor.management import NotSeenError

T = TypeVar("T")


class Destination(NamedTuple):
    """What an event is published to."""

    exchange: str
    key: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """``alternate`` is where what is not routed goes, empty for nowhere."""

    name: str
    type: str
    durable: bool
    alternate: str = ""


@dataclass(frozen=True, slots=True)
class Binding:
    """From an exchange to a queue, or to another exchange."""

    destination: str
    is_queue: bool
    key: str


class Topology(Protocol):
    """What is declared in a virtual host. Both raise NotSeenError."""

    def exchange(self, name: str) -> Exchange | None: ...

    def bindings(self, exchange: str) -> Sequence[Binding]: ...


def queues_for(topology: Topology, exchange: str, key: str | None) -> set[str]:
    """The queues an event is put into, those behind an alternate exchange included; for None, all there are."""
    return _reached(topology, exchange, key, seen=set())


def _reached(topology: Topology, name: str, key: str | None, *, seen: set[str]) -> set[str]:
    found = None if name in seen else topology.exchange(name)
    if found is None:
        return set()
    seen.add(name)
    queues: set[str] = set()
    for binding in topology.bindings(name):
        if key is None or _is_routed(found, binding.key, key):
            further = {binding.destination} if binding.is_queue else None
            queues |= further or _reached(topology, binding.destination, key, seen=seen)
    if found.alternate and (not queues or key is None):
        queues |= _reached(topology, found.alternate, key, seen=seen)
    return queues


def _is_routed(exchange: Exchange, pattern: str, key: str) -> bool:
    match exchange.type:
        case "topic":
            return matches(pattern, key)
        case "direct":
            return pattern == key
        case "fanout":
            return True
    raise NotSeenError(f"how exchange {exchange.name} of type {exchange.type} routes")


def matches(pattern: str, key: str) -> bool:
    """Whether a topic exchange routes ``key`` by a binding: ``*`` is one word, ``#`` any number of them."""
    patterns, words = pattern.split("."), key.split(".")

    @cache
    def fits(at: int, word: int) -> bool:
        if at == len(patterns):
            return word == len(words)
        if patterns[at] == "#":
            return fits(at + 1, word) or (word < len(words) and fits(at, word + 1))
        return word < len(words) and patterns[at] in ("*", words[word]) and fits(at + 1, word + 1)

    return fits(0, 0)


def unrouted(topology: Topology, uses: Mapping[Destination, T]) -> dict[Destination, T]:
    """Of ``uses``, each with what it is for, those that reach no queue."""
    return {to: use for to, use in uses.items() if not queues_for(topology, to.exchange, to.key)}
