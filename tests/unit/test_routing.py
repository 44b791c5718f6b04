"""Routing keys, and which route fits a change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.condition import Condition, Unsent
from pgevents.errors import ConfigError
from pgevents.event import Address
from pgevents.filters import TableFilter
from pgevents.routing import MESSAGE_SCHEMA, Decide, Route, Router, RoutingKey, exchanges
from pgevents.rule import OPERATIONS, Action, Missing, RouteRule, Rules, SkipRule

INT4, TEXT = 23, 25
TYPES = {"id": INT4, "total": INT4, "status": TEXT}
ORDERS = TableFilter(["public.orders"])
EVERYTHING = TableFilter()


def content_type(format: str) -> str:
    return f"application/{format or 'json'}"


def router(*rules: RouteRule, exchange: str = "", routing_key: str = "") -> Router:
    return Router(rules, RoutingKey(), content_type, exchange=exchange, routing_key=routing_key)


def decided(rules: Router, op: str = "update", schema: str = "public", table: str = "orders") -> Route:
    """The route, which is one for all rows."""
    planned = rules.plan(schema, table, op, TYPES)
    assert isinstance(planned, Route)
    return planned


def deciding(rules: Router, op: str = "update") -> Decide:
    planned = rules.plan("public", "orders", op, TYPES)
    assert not isinstance(planned, Route)
    return planned


def when(text: str) -> Condition:
    return Condition.parse(text)


def test_without_routes_an_event_goes_where_the_default_says() -> None:
    assert decided(router()) == Route(
        Address("public.orders.update", "pgevents.update", "application/json"), "", "", ""
    )


def test_a_route_says_everything_of_an_address() -> None:
    rule = RouteRule(
        "big",
        ORDERS,
        exchange="archive",
        routing_key="all.{table}",
        headers=(("tenant", "größer"),),
        priority=5,
        expiration_ms=1500,
        format="debezium",
        compression="gzip",
    )

    assert decided(router(rule)) == Route(
        Address(
            "all.orders",
            "pgevents.update",
            "application/debezium",
            "archive",
            (("tenant", "größer"),),
            5,
            "1500",
            "gzip",
        ),
        "debezium",
        "gzip",
        "big",
    )


def test_the_first_route_that_fits_is_taken() -> None:
    rules = router(
        RouteRule("others", TableFilter(["public.items"]), exchange="a"),
        RouteRule("deletes", ORDERS, operations=frozenset({"delete"}), exchange="b"),
        RouteRule("orders", ORDERS, exchange="c"),
        RouteRule("all", EVERYTHING, exchange="d"),
    )

    taken = {op: decided(rules, op).rule for op in ("insert", "update", "delete", "truncate")}

    assert taken == {"insert": "orders", "update": "orders", "delete": "deletes", "truncate": "orders"}
    assert decided(rules, table="customers").rule == "all"


def test_a_condition_decides_by_the_row_and_what_follows_holds_for_the_rest() -> None:
    decide = deciding(
        router(
            RouteRule("big", ORDERS, when=when("new.total > 100"), exchange="big"),
            RouteRule("paid", ORDERS, when=when("new.status = 'paid'"), exchange="paid"),
            RouteRule("rest", ORDERS, exchange="rest"),
            RouteRule("never", ORDERS, when=when("new.total < 0"), exchange="never"),
        )
    )

    routes = [
        decide({"id": "1", "total": total, "status": status}, None).rule
        for total, status in (("101", "paid"), ("100", "paid"), ("100", "new"), (None, None), ("-1", "new"))
    ]

    assert routes == ["big", "paid", "rest", "rest", "rest"]


def test_a_condition_may_look_at_both_images() -> None:
    decide = deciding(router(RouteRule("risen", ORDERS, when=when("new.total > old.total"))))

    assert decide({"total": "2"}, {"total": "1"}).rule == "risen"
    assert decide({"total": "1"}, {"total": "1"}).rule == ""


def test_addresses_are_one_object_however_often_they_are_asked_for() -> None:
    rules = router(RouteRule("big", ORDERS, when=when("new.total > 100")), RouteRule("rest", ORDERS))

    one, other = deciding(rules), deciding(rules)

    for total in ("1", "101"):
        row = {"total": total}
        assert one(row, None).address is other(row, None).address


def test_a_value_that_was_not_sent_stops_a_route_unless_it_says_otherwise() -> None:
    def rule(on_missing: Missing) -> RouteRule:
        return RouteRule("risen", ORDERS, when=when("new.total > old.total"), on_missing=on_missing)

    with pytest.raises(Unsent):
        deciding(router(rule(Missing.STOP)))({"total": "2"}, {"id": "1"})
    for missing in (Missing.PUBLISH, Missing.DROP):
        assert deciding(router(rule(missing)))({"total": "2"}, {"id": "1"}).rule == ""
        assert deciding(router(rule(missing)))({"total": "2"}, {"total": "1"}).rule == "risen"


@pytest.mark.parametrize(
    ("schema", "table", "op"), [("public", "orders", "truncate"), (MESSAGE_SCHEMA, "a", "message")]
)
def test_what_has_no_rows_fits_no_condition(schema: str, table: str, op: str) -> None:
    rules = router(
        RouteRule("row", EVERYTHING, when=when("old.total IS NULL")), RouteRule("rest", EVERYTHING, exchange="rest")
    )

    planned = rules.plan(schema, table, op)

    assert isinstance(planned, Route)
    assert planned.rule == "rest"


def test_a_logical_message_is_routed_by_its_prefix() -> None:
    rules = router(RouteRule("bills", TableFilter([f"{MESSAGE_SCHEMA}.bill*"]), routing_key="bills.{table}"))

    assert decided(rules, "message", MESSAGE_SCHEMA, "bill.due").address.topic == "bills.bill%2Edue"
    assert decided(rules, "message", MESSAGE_SCHEMA, "other").address.topic == "_.other.message"


@pytest.mark.parametrize("op", ["summary", "skipped"])
def test_evidence_takes_no_route(op: str) -> None:
    assert op not in OPERATIONS
    assert decided(router(RouteRule("all", EVERYTHING, exchange="elsewhere")), op).rule == ""


def test_a_slow_lane_has_its_own_exchange_and_key_and_all_else_of_the_route() -> None:
    rule = RouteRule("all", EVERYTHING, exchange="fast", headers=(("a", "b"),), format="maxwell")

    slow = decided(router(rule, exchange="slow", routing_key="slow.{table}")).address
    same_key = decided(router(rule, exchange="slow")).address

    assert (slow.exchange, slow.topic, slow.headers) == ("slow", "slow.orders", (("a", "b"),))
    assert slow.content_type == "application/maxwell"
    assert (same_key.exchange, same_key.topic) == ("slow", "public.orders.update")


def test_every_exchange_that_rules_name_is_known_once() -> None:
    rules = Rules(
        skip=(SkipRule("bulk", Action.SLOW_LANE, rows=9, exchange="slow"), SkipRule("marked", marked=True)),
        route=(
            RouteRule("a", ORDERS, exchange="x"),
            RouteRule("b", ORDERS),
            RouteRule("c", ORDERS, exchange="slow"),
            RouteRule("d", ORDERS, exchange="x"),
        ),
    )

    assert exchanges(rules) == ("x", "slow")


@given(st.lists(st.tuples(st.sampled_from([None, 0, 10, 20]), st.booleans()), max_size=6), st.integers(-5, 30))
def test_the_route_is_that_of_trying_the_rules_one_by_one(rules: list[tuple[int | None, bool]], total: int) -> None:
    """``rules`` are the least total of each, None for a rule without a condition, and whether it is of the table."""
    made = [
        RouteRule(
            str(at),
            ORDERS if is_ours else TableFilter(["public.items"]),
            when=None if least is None else when(f"new.total >= {least}"),
        )
        for at, (least, is_ours) in enumerate(rules)
    ]
    fitting = (str(at) for at, (least, ours) in enumerate(rules) if ours and (least is None or total >= least))

    planned = router(*made).plan("public", "orders", "update", TYPES)
    route = planned if isinstance(planned, Route) else planned({"total": str(total)}, None)

    assert route.rule == next(fitting, "")


@pytest.mark.parametrize("template", ["{tabel}", "{schema", "{}"])
def test_a_template_that_cannot_be_filled_is_refused(template: str) -> None:
    with pytest.raises(ConfigError):
        RoutingKey(template)


def test_static_text_and_fields_make_a_key() -> None:
    assert RoutingKey("eu.{table}.x").fill("public", "or.ders", "insert") == "eu.or%2Eders.x"
    assert RoutingKey("constant").fill("public", "orders", "insert") == "constant"
