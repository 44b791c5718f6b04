"""One change at a time: filter it, mask and convert its rows, build its event, route and encode it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pgevents.columns import bind_columns
from pgevents.condition import ConditionError, ConditionFailed, Unsent
from pgevents.encoder import Encoder
from pgevents.errors import RuleFailed
from pgevents.event import Address, Envelope, Lane, Transaction
from pgevents.image import Layout, layout_of, row_event, rows_of
from pgevents.interfaces import Codec
from pgevents.look_ahead import Numbered
from pgevents.record import message_event, skip_event, summary_event, truncate_event
from pgevents.routing import MESSAGE_SCHEMA, Decide, Route, Router, RoutingKey
from pgevents.row_filter import ColumnTypes, RowFilter, bind_filters, takes_operation
from pgevents.rule import Rules
from pgevents.rule_mistake import called
from pgevents.tally import Counts, Skipped, Summary
from pgevents.wal import Change, LogicalMessage, Relation, Row

# Relations are new objects after DDL and message prefixes are made by applications: caches are bounded.
MAX_PLANS = 10_000

_ROWS = ("insert", "update", "delete")

_Rows = tuple[Row | None, Row | None]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is decided once per relation. ``routes`` of each operation: one, or what chooses by the row."""

    layout: Layout
    types: ColumnTypes
    filters: Mapping[str, tuple[RowFilter, ...]]
    routes: dict[str, Route | Decide]
    truncate_filter: str | None


class Shape:
    """Makes the envelopes of a numbered change: one as a rule, none where it is filtered out.

    ``encoder`` may be one codec, for tests. ``base_type`` gives the base type of a domain's oid, and every other oid
    back; ``is_enum`` knows the oids of enums.
    """

    def __init__(
        self,
        keep: Callable[[str, str], bool],
        routing: RoutingKey,
        encoder: Encoder | Codec,
        *,
        rules: Rules | None = None,
        hash_key: bytes = b"",
        counts: Counts | None = None,
        base_type: Callable[[int], int] = int,
        is_enum: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self._keep = keep
        self._rules = rules or Rules()
        self._routing = routing
        self._hash_key = hash_key
        self._counts = counts or Counts()
        self._base_type = base_type
        self._is_enum = is_enum
        self._encoder = encoder if isinstance(encoder, Encoder) else Encoder(encoder)
        self._router = self._router_of(None)
        self._skip_route = self._record_route(
            MESSAGE_SCHEMA, "transaction", "skipped", "pgevents.transaction.skipped"
        )
        self._plans: dict[Relation, _Plan | None] = {}
        self._lanes: dict[Lane, tuple[Router, dict[tuple[Relation, str], Route | Decide]]] = {}
        self._messages: dict[tuple[str, Lane | None], Route | str] = {}

    def __call__(self, numbered: Numbered) -> Sequence[Envelope]:
        item, transaction, seq = numbered
        try:
            if type(item) is Change:
                return self._row(item, transaction, seq)
            match item:
                case Relation():
                    return self._truncated(item, transaction, seq)
                case LogicalMessage():
                    return self._message(item, transaction, seq)
                case Skipped():
                    return self._encoder.envelopes(skip_event(item, transaction, seq), self._skip_route)
                case Summary():
                    return self._summarised(item, transaction, seq)
        except RuleFailed as error:
            raise _placed(error, transaction) from error
        return ()

    def _message(self, message: LogicalMessage, transaction: Transaction, seq: int) -> Sequence[Envelope]:
        route = self._message_route(message, transaction.lane)
        if isinstance(route, Route):
            return self._encoder.envelopes(message_event(message, transaction, seq), route)
        self._counts.filtered[route, f"{MESSAGE_SCHEMA}.{message.prefix}"] += 1
        return ()

    def _row(self, change: Change, transaction: Transaction, seq: int) -> Sequence[Envelope]:
        op, relation = change.op, change.relation
        plan = self._plan(relation)
        if plan is None:
            return ()
        if filters := plan.filters[op]:
            new, old = rows_of(change, plan.layout)
            for rule, passes in filters:
                if not passes(new, old):
                    self._counts.filtered[rule, str(relation)] += 1
                    return ()
        route = (
            plan.routes[op] if transaction.lane is None else self._lane_route(transaction.lane, plan, relation, op)
        )
        if type(route) is not Route:
            rows = rows_of(change, plan.layout)
            try:
                route = _chosen(route, *rows)
            except (Unsent, ConditionError, ConditionFailed) as error:
                raise self._undecided(change, plan.types, transaction.lane, rows) from error
        return self._encoder.envelopes(row_event(change, plan.layout, transaction, seq), route)

    def _truncated(self, relation: Relation, transaction: Transaction, seq: int) -> Sequence[Envelope]:
        plan = self._plan(relation)
        if plan is None:
            return ()
        if plan.truncate_filter is not None:
            self._counts.filtered[plan.truncate_filter, str(relation)] += 1
            return ()
        lane, op = transaction.lane, "truncate"
        route = plan.routes[op] if lane is None else self._lane_route(lane, plan, relation, op)
        return self._encoder.envelopes(truncate_event(relation, transaction, seq), _chosen(route, None, None))

    def _summarised(self, summary: Summary, transaction: Transaction, number: int) -> Sequence[Envelope]:
        """Of a key that is hashed no range is left, and of columns that are not shown no name."""
        relation = summary.relation
        plan = self._plan(relation)
        if plan is None:
            return ()
        columns, shown = plan.layout.columns, plan.layout.shown
        if columns is not None:
            touched = summary.columns and tuple(name for name in summary.columns if name in shown)
            summary = summary._replace(columns=touched)
            if not columns.raw.isdisjoint(relation.key) or not shown.issuperset(relation.key):
                summary = summary._replace(first=None, last=None)
        route = self._record_route(relation.schema, relation.name, "summary", "pgevents.summary")
        return self._encoder.envelopes(summary_event(summary, transaction, number), route)

    def _plan(self, relation: Relation) -> _Plan | None:
        try:
            return self._plans[relation]
        except KeyError:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._make_plan(relation) if self._keep(relation.schema, relation.name) else None
            self._plans[relation] = plan
            return plan

    def _make_plan(self, relation: Relation) -> _Plan:
        rules, schema, table = self._rules, relation.schema, relation.name
        oids = {name: self._base_type(oid) for name, oid in relation.columns}
        types = ColumnTypes(oids, frozenset(filter(self._is_enum, oids.values())))
        filters = tuple(rule for rule in rules.filter if rule.tables(schema, table))
        return _Plan(
            layout=layout_of(relation, bind_columns(rules.columns, relation, self._hash_key)),
            types=types,
            filters={op: bind_filters(filters, relation, op, types) for op in _ROWS},
            routes={op: _planned(self._router, relation, op, types) for op in (*_ROWS, "truncate")},
            truncate_filter=takes_operation(filters, schema, table, "truncate"),
        )

    def _lane_route(self, lane: Lane, plan: _Plan, relation: Relation, op: str) -> Route | Decide:
        if lane not in self._lanes:
            self._lanes[lane] = (self._router_of(lane), {})
        router, routes = self._lanes[lane]
        if (relation, op) not in routes:
            if len(routes) >= MAX_PLANS:
                routes.clear()
            routes[relation, op] = _planned(router, relation, op, plan.types)
        return routes[relation, op]

    def _undecided(self, change: Change, types: ColumnTypes, lane: Lane | None, rows: _Rows) -> RuleFailed:
        """The route that stops is the first to fail when they are asked again, one by one."""
        relation = change.relation
        routes, _ = self._router_of(lane).candidates(relation.schema, relation.name, change.op, has_rows=True)
        for candidate in routes:
            try:
                candidate.bound(types.oids, enums=types.enums)(*rows)
            except (Unsent, ConditionError, ConditionFailed) as error:
                return RuleFailed(
                    f"{called('route', candidate.route.rule)} cannot decide on a change of {relation}: {error}",
                    hint="Nothing is lost: the slot keeps the change. Correct its condition, set REPLICA IDENTITY "
                    'FULL, or say on_missing = "publish" in the route, which then does not fit such a change.',
                )
        raise AssertionError(relation)

    def _router_of(self, lane: Lane | None) -> Router:
        content_type_of = self._encoder.content_type_of
        if lane is None:
            return Router(self._rules.route, self._routing, content_type_of)
        exchange, routing_key = lane.exchange, lane.routing_key
        parked_by = lane.rule if lane.is_park else ""
        return Router(
            self._rules.route,
            self._routing,
            content_type_of,
            exchange=exchange,
            routing_key=routing_key,
            parked_by=parked_by,
        )

    def _message_route(self, message: LogicalMessage, lane: Lane | None) -> Route | str:
        """The route, or the filter that leaves it out. A prefix stands for a table in the schema MESSAGE_SCHEMA."""
        key = (message.prefix, lane)
        if key not in self._messages:
            if len(self._messages) >= MAX_PLANS:
                self._messages.clear()
            self._messages[key] = self._planned_message(message.prefix, lane)
        return self._messages[key]

    def _planned_message(self, prefix: str, lane: Lane | None) -> Route | str:
        rule = takes_operation(self._rules.filter, MESSAGE_SCHEMA, prefix, "message")
        if rule is not None:
            return rule
        # Without rows no condition can be asked, so that one route is left.
        return _chosen(self._router_of(lane).plan(MESSAGE_SCHEMA, prefix, "message"), None, None)

    def _record_route(self, schema: str, table: str, op: str, kind: str) -> Route:
        """Where a record goes: no route changes that, and it is always of the native format."""
        topic = self._routing.fill(schema, table, op)
        # Where one routing key serves all, a record is waited for like the events beside it.
        is_optional = "{" in self._routing.template
        address = Address(topic, kind, self._encoder.content_type_of("native"), is_optional=is_optional)
        return Route(address, "native", "", "")


def _planned(router: Router, relation: Relation, op: str, types: ColumnTypes) -> Route | Decide:
    return router.plan(relation.schema, relation.name, op, types.oids if op in _ROWS else None, enums=types.enums)


def _chosen(route: Route | Decide, new: Row | None, old: Row | None) -> Route:
    return route if isinstance(route, Route) else route(new, old)


def _placed(error: RuleFailed, transaction: Transaction) -> RuleFailed:
    """With the transaction, which is what a person looks for, and may skip."""
    xid = "" if transaction.xid is None else f"xid {transaction.xid}, commit "
    return RuleFailed(f"{error} ({xid}LSN {transaction.lsn})", hint=error.hint)
