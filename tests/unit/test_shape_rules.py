"""What rules make of one change: filtered, masked, routed, encoded, and the policy where a rule cannot decide."""

from typing import Any

import orjson
import pytest

from pgevents.codec.native import NativeCodec
from pgevents.compression import compressed
from pgevents.decoder.pgoutput import PgoutputDecoder
from pgevents.encoder import Encoder
from pgevents.errors import EXIT_REFUSED, RuleFailed
from pgevents.event import Body, Envelope, Event
from pgevents.filters import TableFilter
from pgevents.gate import Gate
from pgevents.interfaces import Codec
from pgevents.routing import RoutingKey
from pgevents.rules import parse_rules
from pgevents.shape import Shape
from pgevents.tally import Counts
from pgevents.testing import (
    INT4_OID,
    TEXT_OID,
    MemoryCatalog,
    begin,
    delete,
    insert,
    logical_message,
    relation,
    truncate,
    update,
)
from pgevents.wal import UNCHANGED_TOAST, RawMessage

COLUMNS = [("id", INT4_OID, True), ("status", TEXT_OID, True), ("total", INT4_OID, True), ("seen", TEXT_OID, True)]
ORDERS = relation(1, "orders", COLUMNS, identity="f")
KEY = b"0123456789abcdef"


class Twice:
    """A codec of two messages an event, the second with a header."""

    content_type = "text/plain"

    def encode(self, event: Event) -> list[Body]:
        return [Body(event.op.encode()), Body(b"again", headers=(("x", event.op),), suffix="-2")]


def codec_of(name: str) -> Codec:
    return Twice() if name == "maxwell" else NativeCodec()


def shaped(*messages: bytes, counts: Counts | None = None, key: bytes = KEY, **tables: Any) -> list[Envelope]:
    """The envelopes of one transaction under these rules; the tables are those of pgevents.toml."""
    rules = parse_rules(tables, "pgevents.toml")
    catalog = MemoryCatalog(tables={})
    decoder, gate = PgoutputDecoder(catalog), Gate("7-1")
    encoder = Encoder(NativeCodec(), codec_of)
    shape = Shape(TableFilter(), RoutingKey(), encoder, rules=rules, hash_key=key, counts=counts)
    made: list[Envelope] = []
    for payload in (begin(0x16B374D848), *messages):
        if item := decoder.decode(RawMessage(1, payload)):
            made += [envelope for numbered in gate.admit(item) for envelope in shape(numbered)]
    return made


def order(number: int, status: str = "new", total: int = 5, seen: str = "-") -> list[object]:
    return [str(number), status, str(total), seen]


def changed(before: list[object], after: list[object]) -> bytes:
    return update(1, after, old=before)


def body_of(envelope: Envelope) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(envelope.body)
    return body


def numbers(envelopes: list[Envelope]) -> list[int]:
    return [body_of(each)["tx"]["seq"] for each in envelopes]


WHEN = {
    "name": "paid",
    "tables": ["orders"],
    "operations": ["update"],
    "when": "new.status IS DISTINCT FROM old.status AND new.total > 100",
}


def test_only_changes_for_which_the_condition_is_true_go_on_with_their_numbers() -> None:
    counts = Counts()

    made = shaped(
        ORDERS,
        insert(1, order(1)),
        changed(order(1), order(1, "paid", 200)),
        changed(order(1), order(1, "paid", 5)),
        changed(order(1, total=200), order(1, total=200)),
        counts=counts,
        filter=[WHEN],
    )

    assert numbers(made) == [2]
    assert counts.filtered == {("paid", "public.orders"): 3}


def test_a_change_must_pass_every_filter_of_its_table() -> None:
    other = {"tables": ["orders"], "when": "new.id < 10"}

    made = shaped(
        ORDERS,
        changed(order(1), order(1, "paid", 200)),
        changed(order(11), order(11, "paid", 200)),
        filter=[WHEN, other],
    )

    assert numbers(made) == [1]


def test_updates_of_ignored_columns_alone_are_dropped_where_the_old_row_is_known() -> None:
    rule = {"tables": ["*"], "drop_unchanged": True, "ignore": ["seen"]}
    keyed = relation(2, "keyed", [("id", INT4_OID, True), ("seen", TEXT_OID, False)])

    made = shaped(
        ORDERS,
        keyed,
        changed(order(1), order(1)),
        changed(order(1), order(1, seen="now")),
        changed(order(1), order(1, total=6)),
        update(2, ["1", "same"]),
        filter=[rule],
    )

    assert numbers(made) == [3, 4]


def test_truncates_and_messages_are_filtered_by_operation() -> None:
    rule = {"tables": ["orders", "_.audit"], "operations": ["insert"]}

    made = shaped(
        ORDERS,
        truncate(1),
        logical_message(5, "audit", b"x"),
        logical_message(5, "other", b"x"),
        insert(1, order(1)),
        filter=[rule],
    )

    assert numbers(made) == [3, 4]


PLACE = r" \(xid 1, commit LSN 16/B374D848\)$"
TOAST_WHEN = {"name": "seen", "tables": ["orders"], "when": "new.seen = 'x'"}
KEYED = relation(1, "orders", [("id", INT4_OID, True), ("seen", TEXT_OID, False)])
UNSENT = update(1, ["1", UNCHANGED_TOAST])


def test_a_value_that_was_not_sent_stops_the_stream_and_names_rule_table_and_column() -> None:
    with pytest.raises(RuleFailed, match=r"filter seen cannot decide .* public\.orders: .*new\.seen"):
        shaped(KEYED, UNSENT, filter=[TOAST_WHEN])


@pytest.mark.parametrize(("policy", "expected"), [("publish", [1]), ("drop", [])])
def test_or_the_filter_says_what_becomes_of_it(policy: str, expected: list[int]) -> None:
    assert numbers(shaped(KEYED, UNSENT, filter=[TOAST_WHEN | {"on_missing": policy}])) == expected


def test_a_column_that_was_dropped_stops_the_stream_at_the_first_change_without_it() -> None:
    with pytest.raises(RuleFailed, match="filter seen cannot decide") as raised:
        shaped(relation(1, "orders", [("id", INT4_OID, True)]), insert(1, ["1"]), filter=[TOAST_WHEN])

    assert "nothing is lost" in raised.value.hint.lower()
    assert raised.value.exit_code == 4


@pytest.mark.parametrize(("policy", "expected"), [("publish", [1]), ("drop", [])])
def test_or_the_policy_holds_for_dropped_columns_too(policy: str, expected: list[int]) -> None:
    table = relation(1, "orders", [("id", INT4_OID, True)])

    assert numbers(shaped(table, insert(1, ["1"]), filter=[TOAST_WHEN | {"on_missing": policy}])) == expected


def test_columns_are_left_out_masked_hashed_and_cut_in_both_images_and_the_key() -> None:
    table = relation(1, "users", COLUMNS, identity="f")
    rule = {"tables": ["users"], "exclude": ["total"], "mask": ["status"], "truncate": {"seen": 2}}

    [made] = shaped(table, update(1, ["1", "b", "6", "long"], old=["1", "a", "5", "longer"]), columns=[rule])

    event = body_of(made)
    assert event["new"] == {"id": 1, "status": "***", "seen": "lo"}
    assert event["old"] == {"id": 1, "status": "***", "seen": "lo"}
    assert event["changed"] == ["status", "seen"]


def test_a_hashed_key_is_hashed_in_key_old_and_new() -> None:
    table = relation(1, "users", [("email", TEXT_OID, True), ("n", INT4_OID, False)])

    [made] = shaped(table, update(1, ["a@b.c", "5"]), columns=[{"tables": ["users"], "hash": ["email"]}])

    event = body_of(made)
    assert event["key"] == event["old"] == {"email": event["new"]["email"]}
    assert len(event["key"]["email"]) == 64
    assert b"a@b.c" not in made.body


def test_a_masked_column_that_was_not_sent_is_missing_and_an_excluded_one_is_not_named() -> None:
    table = relation(1, "users", [("id", INT4_OID, True), ("a", TEXT_OID, False), ("b", TEXT_OID, False)])
    rule = {"tables": ["users"], "exclude": ["a"], "mask": ["b"]}

    [made] = shaped(table, update(1, ["1", UNCHANGED_TOAST, UNCHANGED_TOAST]), columns=[rule])

    assert body_of(made)["missing"] == ["b"]


ROUTES = [
    {
        "tables": ["orders"],
        "when": "new.total > 100",
        "exchange": "big",
        "routing_key": "orders.{op}",
        "priority": 5,
        "expiration": 60,
        "headers": {"team": "sales"},
    },
    {"tables": ["orders"], "operations": ["delete", "truncate"], "routing_key": "gone"},
]


def test_the_first_route_that_fits_gives_the_address() -> None:
    big, small, gone = shaped(ORDERS, insert(1, order(1, total=200)), insert(1, order(2)), truncate(1), route=ROUTES)

    assert (big.address.exchange, big.address.topic, big.address.priority) == ("big", "orders.insert", 5)
    assert (big.address.expiration, big.address.headers) == ("60000", (("team", "sales"),))
    assert (small.address.exchange, small.address.topic) == ("", "public.orders.insert")
    assert gone.address.topic == "gone"


def test_addresses_are_the_same_object_for_every_event_of_a_kind() -> None:
    first, second = shaped(ORDERS, insert(1, order(1, total=200)), insert(1, order(2, total=300)), route=ROUTES)

    assert first.address is second.address


def test_a_route_that_asks_for_what_was_not_sent_stops_the_stream_unless_it_says_otherwise() -> None:
    route = {"tables": ["orders"], "when": "new.seen = 'x'", "routing_key": "seen"}

    with pytest.raises(RuleFailed, match=r"route 1 cannot decide on a change of public\.orders: .*new\.seen"):
        shaped(KEYED, UNSENT, route=[route])
    [made] = shaped(KEYED, UNSENT, route=[route | {"on_missing": "publish"}])

    assert made.address.topic == "public.orders.update"


def test_a_route_may_give_another_format_of_several_messages() -> None:
    first, second = shaped(ORDERS, insert(1, order(1)), route=[{"tables": ["orders"], "format": "maxwell"}])

    assert (first.body, second.body, second.headers) == (b"insert", b"again", (("x", "insert"),))
    assert second.message_id == first.message_id + "-2"
    assert first.address.content_type == "text/plain"


def test_a_route_may_compress_and_declares_it() -> None:
    [plain] = shaped(ORDERS, insert(1, order(1)))
    [made] = shaped(ORDERS, insert(1, order(1)), route=[{"tables": ["orders"], "compression": "gzip"}])

    assert made.body == compressed("gzip", plain.body)
    assert made.address.content_encoding == "gzip"


def test_the_old_row_of_an_update_is_never_taken_for_null_where_it_was_not_sent() -> None:
    rule = {"name": "moved", "tables": ["orders"], "when": "new.seen IS DISTINCT FROM old.seen"}

    with pytest.raises(RuleFailed, match=r"old\.seen"):
        shaped(KEYED, update(1, ["1", "x"]), filter=[rule])


def test_an_old_key_that_did_not_change_is_known() -> None:
    rule = {"tables": ["orders"], "when": "new.id = old.id"}

    assert numbers(shaped(KEYED, update(1, ["1", "x"]), filter=[rule])) == [1]


def test_unchanged_toast_is_known_under_full() -> None:
    rule = {"tables": ["orders"], "when": "new.seen = '-'"}

    made = shaped(ORDERS, update(1, ["1", "new", "6", UNCHANGED_TOAST], old=order(1)), filter=[rule])

    assert body_of(made[0])["changed"] == ["total"]


def test_an_insert_has_an_old_row_of_nulls_and_a_delete_a_new_one() -> None:
    rule = {"tables": ["orders"], "when": "old.status IS NULL OR new.status IS NULL"}

    assert numbers(shaped(ORDERS, insert(1, order(1)), delete(1, old=order(1)), filter=[rule])) == [1, 2]


def test_a_route_whose_condition_no_longer_fits_the_table_decides_by_its_policy() -> None:
    route = {"tables": ["orders"], "when": "new.seen = 'x'", "routing_key": "seen"}
    table = relation(1, "orders", [("id", INT4_OID, True)])

    with pytest.raises(RuleFailed, match="seen"):
        shaped(table, insert(1, ["1"]), route=[route])
    [made] = shaped(table, insert(1, ["1"]), route=[route | {"on_missing": "publish"}])

    assert made.address.topic == "public.orders.insert"


def test_a_truncate_asks_no_condition() -> None:
    route = {"tables": ["orders"], "when": "new.gone = 'x'", "routing_key": "seen"}

    [made] = shaped(relation(1, "orders", []), truncate(1), route=[route])

    assert made.address.topic == "public.orders.truncate"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"filter": [TOAST_WHEN]}, "filter seen cannot decide"),
        ({"filter": [{key: TOAST_WHEN[key] for key in ("tables", "when")}]}, "filter 1 cannot decide"),
        ({"route": [TOAST_WHEN | {"routing_key": "x"}]}, "route seen cannot decide"),
        ({"columns": [{"name": "hidden", "tables": ["orders"], "mask": ["id"]}]}, "columns hidden masks id of"),
    ],
)
def test_a_rule_that_stops_the_stream_is_named_with_the_transaction(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(RuleFailed, match=PLACE) as caught:
        shaped(KEYED, UNSENT, **rules)

    assert str(caught.value).startswith(said)
    assert "nothing is lost" in caught.value.hint.lower()
    assert caught.value.exit_code == EXIT_REFUSED


def test_of_several_routes_the_one_that_cannot_decide_is_named() -> None:
    routes = [{"when": "new.id = 2"}, {"when": "new.seen = 'x'", "on_missing": "drop"}, {"when": "new.seen = 'y'"}]

    with pytest.raises(RuleFailed, match=r"^route 3 cannot decide"):
        shaped(KEYED, UNSENT, route=[{"tables": ["orders"]} | route for route in routes])


def test_a_column_rule_that_the_table_outgrew_stops_the_stream_only_at_a_change_of_it() -> None:
    rule = {"tables": ["orders"], "mask": ["id"]}
    others = relation(2, "others", [("id", INT4_OID, True)])

    assert numbers(shaped(KEYED, others, insert(2, ["1"]), columns=[rule])) == [1]
