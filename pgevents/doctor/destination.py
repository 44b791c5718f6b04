"""Where the events to come go: each exchange and routing key, and what goes there. Asks nobody."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from pgevents.doctor.route import Destination
from pgevents.errors import ConfigError
from pgevents.format import CodecContext, open_codec
from pgevents.routing import MESSAGE_SCHEMA, Route, Router, RoutingKey, exchanges
from pgevents.row_filter import takes_operation
from pgevents.rule import Action, SkipRule
from pgevents.rule_mistake import place
from pgevents.settings import Settings
from pgevents.version import VERSION

_RECORDED = (Action.DROP, Action.SUMMARISE, Action.PARK)
_WITHOUT_ROWS = ("truncate", "message")

Names = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Use:
    """What goes there, and whether nothing waits until a queue gets it: such are records, and summaries."""

    what: str
    is_optional: bool = False


def destinations(
    settings: Settings, own: str, template: RoutingKey, names: Sequence[Names], ops: Iterable[str]
) -> dict[Destination, Use]:
    """Everything that may be published: changes of ``names`` by ``ops``, messages that a route names, and records.

    ``own`` is the sink's exchange. Where a condition decides between routes, each of them.
    """
    found: dict[Destination, Use] = {}
    changes = [(name, op) for name in names for op in ops]
    changes += [((MESSAGE_SCHEMA, prefix), "message") for prefix in _prefixes(settings)]
    for (schema, table), op in changes:
        if takes_operation(settings.rules.filter, schema, table, op) is None:
            for destination, what in _of_change(settings, own, template, schema, table, op):
                found.setdefault(destination, Use(what))
    for destination, what in _records(settings, own, template, names):
        found.setdefault(destination, Use(what, is_optional="{" in template.template))
    return found


def every_exchange(settings: Settings, own: str) -> tuple[str, ...]:
    """The sink's, and those that rules name."""
    return tuple(dict.fromkeys((own, *exchanges(settings.rules))))


def _prefixes(settings: Settings) -> list[str]:
    """The prefixes of logical messages that a route names in full."""
    patterns = [pattern for rule in settings.rules.route for pattern in rule.tables.include]
    prefixes = [
        prefix for schema, _, prefix in (each.partition(".") for each in patterns) if schema == MESSAGE_SCHEMA
    ]
    return [prefix for prefix in dict.fromkeys(prefixes) if not set(prefix) & set("*?[")]


def _of_change(
    settings: Settings, own: str, template: RoutingKey, schema: str, table: str, op: str
) -> Iterator[tuple[Destination, str]]:
    name = f"messages with the prefix {table}" if op == "message" else f"{schema}.{table}"
    for lane in (None, *_lanes(settings, schema, table)):
        for route in _routes(settings, lane, template, schema, table, op):
            yield Destination(route.address.exchange or own, route.address.topic), name + _way(route, lane)


def _way(route: Route, lane: SkipRule | None) -> str:
    if lane is not None:
        return f" in the slow lane of [[skip]] {lane.name}"
    return f" by {place('route', route.rule)}" if route.rule else ""


def _lanes(settings: Settings, schema: str, table: str) -> list[SkipRule]:
    return [
        rule
        for rule in settings.rules.skip
        if rule.action is Action.SLOW_LANE and (rule.tables is None or rule.tables(schema, table))
    ]


def _routes(
    settings: Settings, lane: SkipRule | None, template: RoutingKey, schema: str, table: str, op: str
) -> list[Route]:
    """Those that a change may take, without the ones whose format has no word for the operation."""
    router = Router(
        settings.rules.route,
        template,
        lambda _: "",
        exchange=lane.exchange if lane else "",
        routing_key=lane.routing_key if lane else "",
    )
    candidates, otherwise = router.candidates(schema, table, op, has_rows=op not in _WITHOUT_ROWS)
    routes = [*(each.route for each in candidates), otherwise]
    return [route for route in routes if op in _sayable(route.format or settings.format, op)]


@cache
def _sayable(name: str, op: str) -> frozenset[str]:
    """The operations that a format has words for; ``op`` where it cannot be opened, which is told elsewhere."""
    with suppress(ConfigError):
        return open_codec(name, CodecContext("", "", VERSION)).operations
    return frozenset({op})


def _records(
    settings: Settings, own: str, template: RoutingKey, names: Sequence[Names]
) -> Iterator[tuple[Destination, str]]:
    """No route changes where records go, and transactions that the plug-in leaves out have none."""
    recorded = [rule for rule in settings.rules.skip if rule.action in _RECORDED and not rule.push_down]
    if recorded:
        key = template.fill(MESSAGE_SCHEMA, "transaction", "skipped")
        yield Destination(own, key), "records of skipped transactions"
    for schema, table in names:
        if any(_summarises(rule, schema, table) for rule in recorded):
            yield Destination(own, template.fill(schema, table, "summary")), f"summaries of {schema}.{table}"


def _summarises(rule: SkipRule, schema: str, table: str) -> bool:
    return rule.action is Action.SUMMARISE and (rule.tables is None or rule.tables(schema, table))
