"""Where an event goes: routing keys filled once per relation and operation, and the first route that fits."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from string import Formatter
from typing import NamedTuple

from pgevents.condition import Condition, ConditionError, ConditionFailed, Unsent
from pgevents.errors import ConfigError
from pgevents.event import Address
from pgevents.filters import TableFilter
from pgevents.rule import Missing, RouteRule, Rules
from pgevents.wal import Row

DEFAULT_TEMPLATE = "{schema}.{table}.{op}"
FIELDS = ("schema", "table", "op")

MESSAGE_SCHEMA = "_"
"""Stands for the schema of a logical message, whose table is its prefix."""

# Prefixes of logical messages are made by applications.
MAX_ROUTES = 10_000

_SPECIAL = re.compile(r"[^\w-]")


def escaped(identifier: str) -> str:
    """The identifier with every character that is not a letter, digit, ``_`` or ``-`` as ``%XX`` of its UTF-8.

    A dot would add a word to the routing key, ``*`` and ``#`` read as wildcards where a key is copied into a
    binding.
    """
    return _SPECIAL.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), identifier)


class RoutingKey:
    """A template such as ``{schema}.{table}.{op}``. Raises ConfigError for an unknown field or a bad brace."""

    def __init__(self, template: str = DEFAULT_TEMPLATE) -> None:
        self.template = template
        try:
            fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
        except ValueError as error:
            raise ConfigError(f"the routing key template {template!r} is broken: {error}") from error
        for field in fields:
            _check(field, template)

    def fill(self, schema: str, table: str, op: str) -> str:
        return self.template.format(schema=escaped(schema), table=escaped(table), op=op)


def _check(field: str, template: str) -> None:
    if field not in FIELDS:
        near = difflib.get_close_matches(field, FIELDS, 1, 0.0)[0]
        raise ConfigError(
            f"the routing key template {template!r} has the unknown field {{{field}}}",
            hint=f"Did you mean {{{near}}}? The fields are {', '.join(FIELDS)}.",
        )


class Route(NamedTuple):
    """Where a change goes and as what. ``rule`` names the route of the configuration, and is empty without one.

    ``format`` and ``compression`` are empty for what holds without a route.
    """

    address: Address
    format: str
    compression: str
    rule: str


Test = Callable[[Row | None, Row | None], bool | None]
Decide = Callable[[Row | None, Row | None], Route]
"""From the raw rows ``new`` and ``old``. Raises Unsent."""


class Candidate(NamedTuple):
    """A route that is taken where ``when`` is true."""

    route: Route
    when: Condition
    on_missing: Missing

    def bound(self, types: Mapping[str, int], *, enums: frozenset[int] = frozenset()) -> Test:
        """The condition for a relation, not true without a value that it asks for, unless it is to stop there."""
        try:
            test = self.when.bind(types, enums=enums)
        except ConditionError as error:
            test = _unfit(error)
        if self.on_missing is Missing.STOP:
            return test

        def fits(new: Row | None, old: Row | None) -> bool | None:
            try:
                return test(new, old)
            except (Unsent, ConditionError, ConditionFailed):
                return False

        return fits


def _unfit(error: ConditionError) -> Test:
    """What stands for a condition that does not fit the table as it was: it fails only where it is asked."""

    def fits(_: Row | None, __: Row | None) -> bool:
        raise error

    return fits


_NO_RULE = RouteRule("", TableFilter())


class Router:
    """Decides as much of a route as it can once per relation and operation.

    ``default`` is the routing key of what no route gives another one. ``content_type_of`` is asked with the name of
    a format, empty where a route names none. ``exchange`` and ``routing_key``, where they are given, are those of a
    slow lane: they take the place of what the routes say, and everything else is as they say. ``parked_by`` names
    the rule that puts all of it aside.
    """

    def __init__(
        self,
        rules: Sequence[RouteRule],
        default: RoutingKey,
        content_type_of: Callable[[str], str],
        *,
        exchange: str = "",
        routing_key: str = "",
        parked_by: str = "",
    ) -> None:
        self._rules = tuple(rules)
        self._default = default
        self._content_type_of = content_type_of
        self._exchange = exchange
        self._key = RoutingKey(routing_key) if routing_key else None
        self._parked_by = parked_by
        self._routes: dict[tuple[str, str, str, str], Route] = {}

    def plan(
        self,
        schema: str,
        table: str,
        op: str,
        types: Mapping[str, int] | None = None,
        *,
        enums: frozenset[int] = frozenset(),
    ) -> Route | Decide:
        """The route of every change of this table and operation, or what decides for one of them by its rows.

        ``types`` are the columns' types by name, ``enums`` those of them that are enums; None where there are no
        rows, and then no route with a condition fits. For a logical message ``table`` is its prefix, and ``schema``
        MESSAGE_SCHEMA. Routes are the same object each time. Raises what binding a condition does.
        """
        candidates, otherwise = self.candidates(schema, table, op, has_rows=types is not None)
        return _decided([(each.bound(types or {}, enums=enums), each.route) for each in candidates], otherwise)

    def candidates(self, schema: str, table: str, op: str, *, has_rows: bool) -> tuple[list[Candidate], Route]:
        """The routes that a change takes where their condition is true, in order, and the one it takes otherwise."""
        found: list[Candidate] = []
        for rule in self._rules:
            if op in rule.operations and rule.tables(schema, table):
                if rule.when is None:
                    return found, self._route(rule, schema, table, op)
                if has_rows:
                    found.append(Candidate(self._route(rule, schema, table, op), rule.when, rule.on_missing))
        return found, self._route(_NO_RULE, schema, table, op)

    def _route(self, rule: RouteRule, schema: str, table: str, op: str) -> Route:
        key = (rule.name, schema, table, op)
        if key not in self._routes:
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            self._routes[key] = Route(
                self._address(rule, schema, table, op), rule.format, rule.compression, rule.name
            )
        return self._routes[key]

    def _address(self, rule: RouteRule, schema: str, table: str, op: str) -> Address:
        key = self._key or (RoutingKey(rule.routing_key) if rule.routing_key else self._default)
        return Address(
            key.fill(schema, table, op),
            f"pgevents.{op}",
            self._content_type_of(rule.format),
            self._exchange or rule.exchange,
            rule.headers,
            rule.priority,
            "" if rule.expiration_ms is None else str(rule.expiration_ms),
            rule.compression,
            self._parked_by,
        )


def exchanges(rules: Rules) -> tuple[str, ...]:
    """Every exchange that a route or a slow lane names, once, in the order of the file."""
    named = [rule.exchange for rule in rules.route] + [rule.exchange for rule in rules.skip]
    return tuple(dict.fromkeys(filter(None, named)))


def _decided(tests: Sequence[tuple[Test, Route]], otherwise: Route) -> Route | Decide:
    if not tests:
        return otherwise

    def decide(new: Row | None, old: Row | None) -> Route:
        for fits, route in tests:
            if fits(new, old):
                return route
        return otherwise

    return decide
