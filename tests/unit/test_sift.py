"""Whole transactions against skip rules: what goes on, what is counted, and how much is held meanwhile."""

import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.batch import Cutter
from pgevents.codec.native import NativeCodec
from pgevents.decoder.pgoutput import PgoutputDecoder
from pgevents.errors import DecodeError
from pgevents.filters import TableFilter
from pgevents.gate import Gate
from pgevents.look_ahead import Item, memory_of
from pgevents.lsn import Lsn
from pgevents.mark import PREFIX
from pgevents.routing import RoutingKey
from pgevents.rule import Action, SkipRule
from pgevents.shape import Shape
from pgevents.sift import MAX_HELD_BYTES, Sift
from pgevents.skip import Rulebook
from pgevents.tally import Counts, Skipped, Summary
from pgevents.testing import (
    INT4_OID,
    TEXT_OID,
    MemoryCatalog,
    commit,
    delete,
    insert,
    logical_message,
    relation,
    truncate,
    update,
)
from pgevents.testing import begin as begin_message
from pgevents.wal import Change, Outline, RawMessage, Relation

MARKED = SkipRule("migrations", marked=True)
ORDERS, ITEMS = 1, 2
RELATIONS = (
    relation(ORDERS, "orders", [("id", INT4_OID, True), ("note", TEXT_OID, False)]),
    relation(ITEMS, "items", [("id", INT4_OID, True)]),
)


def mark(*tables: str, reason: str = "backfill") -> bytes:
    content = {"v": 1, "reason": reason, "tables": list(tables) or None, "by": "deploy", "application": "psql"}
    return logical_message(9, PREFIX, json.dumps(content).encode())


def order(number: int) -> bytes:
    return insert(ORDERS, [str(number), "a note"])


def item(number: int) -> bytes:
    return insert(ITEMS, [str(number)])


class Stream:
    """A gate with skip rules behind the decoder, as the pipeline joins them; ``skimmed`` changes were not decoded."""

    def __init__(self, *rules: SkipRule, tables: TableFilter | None = None, max_bytes: int = MAX_HELD_BYTES) -> None:
        self.counts = Counts()
        self.book = Rulebook(rules)
        sift = Sift(self.book, keep=tables or TableFilter(), counts=self.counts, max_bytes=max_bytes)
        self.decoder, self.gate = PgoutputDecoder(MemoryCatalog()), Gate("7-1", sift=sift)
        self.skimmed = 0

    def feed(self, *payloads: bytes) -> list[tuple[Item, int]]:
        """What goes on, with its number."""
        passed: list[tuple[Item, int]] = []
        for payload in payloads:
            message = RawMessage(1, payload)
            if self.gate.skims and (outline := self.decoder.skim(message)) and self.gate.passes_over(outline):
                self.skimmed += 1
            elif decoded := self.decoder.decode(message):
                passed += [(each, seq) for each, _, seq in self.gate.admit(decoded)]
        return passed

    def transaction(self, *changes: bytes, xid: int = 812, lsn: int = 100) -> list[tuple[Item, int]]:
        return self.feed(begin_message(lsn, xid=xid), *RELATIONS, *changes, commit(lsn, lsn + 10))


def numbers(passed: Sequence[tuple[Item, int]]) -> list[int]:
    return [seq for each, seq in passed if isinstance(each, Change)]


def record(passed: Sequence[tuple[Item, int]]) -> Skipped:
    [found] = [each for each, _ in passed if isinstance(each, Skipped)]
    return found


def test_a_marked_transaction_leaves_nothing_but_its_record() -> None:
    stream = Stream(MARKED)

    passed = stream.transaction(mark(), *(order(each) for each in range(5)), delete(ORDERS, key=["1", None]))

    assert record(passed) == Skipped(
        rule="migrations",
        action="drop",
        reason="backfill",
        by="deploy",
        application="psql",
        rows={Outline("insert", "public", "orders"): 5, Outline("delete", "public", "orders"): 1},
        from_seq=2,
    )
    assert len(passed) == 1
    assert stream.skimmed == 6
    assert stream.counts.rows == {"migrations": 6}


def test_a_mark_in_the_look_ahead_covers_what_came_before_it() -> None:
    passed = Stream(MARKED).transaction(order(1), order(2), mark(), order(3))

    assert record(passed).rows == {Outline("insert", "public", "orders"): 3}
    assert len(passed) == 1


def test_a_mark_that_names_tables_lets_the_others_through_with_their_numbers() -> None:
    passed = Stream(MARKED).transaction(mark("public.orders"), order(1), item(1), order(2), item(2))

    assert numbers(passed) == [3, 5]
    assert record(passed).rows == {Outline("insert", "public", "orders"): 2}


def test_a_mark_behind_the_look_ahead_is_reported_and_not_obeyed(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(MARKED)

    passed = stream.transaction(*(order(each) for each in range(1_001)), mark(), order(7))

    assert numbers(passed) == [*range(1, 1_002), 1_003]
    assert [each for each, _ in passed if isinstance(each, Skipped)] == []
    assert stream.counts.late_marks == 1
    assert "a mark came too late and was not obeyed" in caplog.messages


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"v":1}', b'{"v":2,"reason":"x"}'])
def test_a_malformed_mark_stops_nothing(content: bytes) -> None:
    stream = Stream(MARKED)

    passed = stream.transaction(logical_message(9, PREFIX, content), order(1))

    assert numbers(passed) == [2]
    assert stream.counts.malformed_marks == 1


def test_a_mark_is_an_ordinary_message_where_no_rule_heeds_marks() -> None:
    passed = Stream(SkipRule("large", rows=10)).transaction(mark(), order(1))

    assert [seq for _, seq in passed] == [1, 2]


def test_the_next_transaction_is_published_again() -> None:
    stream = Stream(MARKED)

    stream.transaction(mark(), order(1))

    assert numbers(stream.transaction(order(1), lsn=200)) == [1]


def test_a_transaction_of_as_many_rows_as_the_rule_allows_is_published() -> None:
    passed = Stream(SkipRule("large", rows=3)).transaction(order(1), order(2), order(3))

    assert numbers(passed) == [1, 2, 3]


def test_one_row_more_and_it_is_dropped_whole() -> None:
    stream = Stream(SkipRule("large", rows=3))

    passed = stream.transaction(*(order(each) for each in range(10)))

    assert record(passed).rows == {Outline("insert", "public", "orders"): 10}
    assert record(passed).from_seq == 1
    assert stream.skimmed == 6


def test_a_size_rule_with_tables_counts_and_covers_these_alone() -> None:
    rule = SkipRule("large", rows=2, tables=TableFilter(["public.items"]))

    passed = Stream(rule).transaction(order(1), item(1), item(2), order(2), item(3), order(3))

    assert numbers(passed) == [1, 4, 6]
    assert record(passed).rows == {Outline("insert", "public", "items"): 3}


def test_rows_of_tables_that_are_not_streamed_count_for_nothing() -> None:
    stream = Stream(SkipRule("large", rows=2), tables=TableFilter(["public.orders"]))

    passed = stream.transaction(*(item(each) for each in range(9)), order(1))

    assert numbers(passed) == [10]


def test_a_truncated_table_counts_as_a_row_of_it() -> None:
    passed = Stream(MARKED).transaction(mark(), truncate(ORDERS, ITEMS))

    assert record(passed).rows == {
        Outline("truncate", "public", "orders"): 1,
        Outline("truncate", "public", "items"): 1,
    }


def test_a_summary_has_counts_key_range_and_changed_columns_of_each_table() -> None:
    whole = relation(3, "notes", [("id", INT4_OID, True), ("a", TEXT_OID, True), ("b", TEXT_OID, True)], identity="f")
    rule = SkipRule("large", Action.SUMMARISE, rows=1)

    passed = Stream(rule).transaction(
        whole,
        order(9),
        order(10),
        update(ORDERS, ["100", "x"], key=["2", None]),
        *(update(3, [str(each), "new", "same"], old=[str(each), "old", "same"]) for each in range(4)),
    )

    orders, notes = (each for each, _ in passed if isinstance(each, Summary))
    assert (orders.operations, orders.first, orders.last) == ({"insert": 2, "update": 1}, {"id": 2}, {"id": 100})
    assert orders.columns is None
    assert (notes.operations, notes.first, notes.columns) == ({"update": 4}, None, ("a",))
    assert record(passed).action == "summarise"


def test_a_slow_lane_takes_every_row_of_the_transaction_and_none_of_the_next() -> None:
    rule = SkipRule("large", Action.SLOW_LANE, rows=1, exchange="slow", routing_key="slow.{table}")
    stream = Stream(rule)
    shape = Shape(TableFilter(), RoutingKey(), NativeCodec())
    payloads = [begin_message(100), *RELATIONS, order(1), order(2), order(3), commit(100, 110)]
    payloads += [begin_message(200), order(4), commit(200, 210)]

    addresses = []
    for payload in payloads:
        if decoded := stream.decoder.decode(RawMessage(1, payload)):
            for numbered in stream.gate.admit(decoded):
                addresses += [envelope.address for envelope in shape(numbered)]

    assert [(each.exchange, each.topic) for each in addresses] == [
        ("slow", "slow.orders"),
        ("slow", "slow.orders"),
        ("slow", "slow.orders"),
        ("", "public.orders.insert"),
    ]


def test_a_window_by_xid_skips_that_transaction_alone() -> None:
    stream = Stream()
    stream.gate.take_up((SkipRule("now", xid=812),))

    assert record(stream.transaction(order(1))).rule == "now"
    assert numbers(stream.transaction(order(1), xid=813, lsn=200)) == [1]


def test_a_window_added_in_mid_transaction_skips_the_rest_and_says_from_where() -> None:
    stream = Stream()
    before = stream.feed(begin_message(100, xid=812), *RELATIONS, order(1), order(2))

    stream.gate.take_up((SkipRule("now", reason="flood", xid=812),))
    after = stream.feed(order(3), order(4), order(5), commit(100, 110))

    assert numbers(before) == [1, 2]
    assert record(after).from_seq == 3
    assert record(after).rows == {Outline("insert", "public", "orders"): 3}
    assert len(after) == 1


def test_a_window_added_while_the_transaction_is_held_skips_all_of_it() -> None:
    stream = Stream(SkipRule("large", rows=100))
    before = stream.feed(begin_message(100, xid=812), *RELATIONS, order(1), order(2))

    stream.gate.take_up((SkipRule("now", xid=812),))
    after = stream.feed(order(3), commit(100, 110))

    assert before == []
    assert record(after).from_seq == 1


@pytest.mark.parametrize(
    ("rule", "is_skipped"),
    [
        (SkipRule("w", first=Lsn(100), last=Lsn(100)), True),
        (SkipRule("w", first=Lsn(101), last=Lsn(300)), False),
        (SkipRule("w", first=Lsn(50), last=Lsn(99)), False),
        (SkipRule("w", since="2000-01-01T00:00:00.000000Z"), True),
        (SkipRule("w", until="2000-01-01T00:00:00.000000Z"), False),
        (SkipRule("w", since="1999-01-01T00:00:00.000000Z", until="2000-01-01T00:00:00.000001Z"), True),
    ],
)
def test_a_window_is_a_range_of_commit_lsns_or_times(rule: SkipRule, is_skipped: bool) -> None:
    passed = Stream(rule).transaction(order(1))

    assert numbers(passed) == ([] if is_skipped else [1])


def test_a_window_leaves_no_record_of_a_transaction_it_took_nothing_from() -> None:
    rule = SkipRule("w", since="2000-01-01T00:00:00.000000Z")

    assert Stream(rule, tables=TableFilter(["public.orders"])).transaction(item(1)) == []


def test_an_origin_is_skipped_by_its_name() -> None:
    stream = Stream(SkipRule("bulk", origin="loader"))
    origin = b"O" + bytes(8) + b"loader\0"

    passed = stream.feed(begin_message(100), origin, *RELATIONS, order(1), commit(100, 110))

    assert record(passed).rule == "bulk"
    assert numbers(stream.transaction(order(1), lsn=200)) == [1]


def test_what_outgrows_the_look_ahead_is_published_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(SkipRule("large", rows=100), max_bytes=10_000)

    passed = stream.transaction(*(insert(ORDERS, [str(each), "x" * 500]) for each in range(200)))

    assert numbers(passed) == list(range(1, 201))
    assert any("outgrew the look-ahead" in message for message in caplog.messages)


def test_the_first_rule_that_is_known_decides() -> None:
    exempt = SkipRule("loader is fine", Action.PUBLISH, xid=812)

    passed = Stream(SkipRule("large", rows=1), exempt, MARKED).transaction(mark(), *map(order, range(9)))

    assert numbers(passed) == list(range(2, 11))


def test_every_skip_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    Stream(MARKED).transaction(mark(), order(1))

    [line] = [each for each in caplog.records if each.message == "transaction skipped"]
    assert line.__dict__["rows"] == {"public.orders insert": 1}


PLAN = st.lists(st.sampled_from(["order", "item", "mark", "truncate"]), max_size=12)


@given(st.lists(PLAN, max_size=4), st.integers(1, 6))
def test_every_change_is_published_or_counted_and_its_number_is_the_same_as_without_rules(
    plans: list[list[str]], rows: int
) -> None:
    made = {"order": order(1), "item": item(1), "mark": mark("public.items"), "truncate": truncate(ORDERS, ITEMS)}
    plain, ruled = Stream(), Stream(MARKED, SkipRule("large", rows=rows))
    for at, plan in enumerate(plans):
        changes, lsn = [made[name] for name in plan], 100 * (at + 1)
        expected = [(each, seq) for each, seq in plain.transaction(*changes, lsn=lsn) if not is_mark(each)]

        passed = ruled.transaction(*changes, lsn=lsn)

        published = [(each, seq) for each, seq in passed if not isinstance(each, Skipped)]
        counted = sum(sum(each.rows.values()) for each, _ in passed if isinstance(each, Skipped))
        assert {seq for _, seq in published} <= {seq for _, seq in expected}
        assert len(published) + counted == len(expected)


def is_mark(item: Any) -> bool:
    return getattr(item, "prefix", "") == PREFIX


@given(st.lists(st.integers(0, 8), min_size=1, max_size=6), st.integers(1, 4))
def test_no_lsn_is_let_go_of_before_what_was_held_is_in_a_batch(sizes: list[int], most: int) -> None:
    stream, cutter = Stream(SkipRule("large", rows=100)), Cutter(max_events=most, max_bytes=10**9)
    shape = Shape(TableFilter(), RoutingKey(), NativeCodec())
    due: dict[int, int] = {}
    added = 0
    for at, size in enumerate(sizes):
        lsn = 100 * (at + 1)
        due[lsn + 10] = sum(sizes[: at + 1])
        for payload in (begin_message(lsn), *RELATIONS, *map(order, range(size)), commit(lsn, lsn + 10)):
            decoded = stream.decoder.decode(RawMessage(1, payload))
            before = stream.gate.end_lsn
            for numbered in stream.gate.admit(decoded) if decoded else ():
                for envelope in shape(numbered):
                    added += 1
                    if cutter.add(envelope) and (batch := cutter.cut(before)):
                        assert batch.end_lsn == 0 or due[batch.end_lsn] <= added
        batch = cutter.cut(stream.gate.end_lsn)
        assert batch is None or due[batch.end_lsn] == added


def test_a_partial_mark_gives_way_to_a_window_for_the_whole_transaction() -> None:
    stream = Stream(MARKED)
    stream.feed(begin_message(100, xid=812), *RELATIONS, mark("public.items"), order(1), item(1))

    stream.gate.take_up((SkipRule("now", xid=812),))
    after = stream.feed(order(2), item(2), commit(100, 110))

    assert [(each.rule, each.from_seq) for each, _ in after if isinstance(each, Skipped)] == [
        ("migrations", 3),
        ("now", 4),
    ]
    assert [seq for _, seq in after] == [0, 1]
    assert sum(sum(each.rows.values()) for each, _ in after if isinstance(each, Skipped)) == 3


def test_what_was_parked_before_a_window_took_over_is_in_a_record_of_its_own() -> None:
    stream = Stream(SkipRule("large", Action.PARK, rows=1))
    before = stream.feed(begin_message(100, xid=812), *RELATIONS, order(1), order(2), order(3))

    stream.gate.take_up((SkipRule("other", xid=5),))
    stream.feed(order(4))
    stream.gate.take_up((SkipRule("now", xid=812),))
    after = stream.feed(order(5), commit(100, 110))

    records = [each for each, _ in after if isinstance(each, Skipped)]
    assert len(before) == 3
    assert [(each.rule, each.action, each.from_seq, sum(each.rows.values())) for each in records] == [
        ("large", "park", 1, 4),
        ("now", "drop", 5, 1),
    ]


def test_a_window_that_is_added_before_the_commit_is_read_covers_what_is_held() -> None:
    stream = Stream(SkipRule("large", rows=100))
    stream.feed(begin_message(100, xid=812), *RELATIONS, order(1), order(2))

    stream.gate.take_up((SkipRule("now", xid=812),))

    assert record(stream.feed(commit(100, 110))).from_seq == 1


def test_a_mark_after_a_rule_has_decided_is_not_called_late(caplog: pytest.LogCaptureFixture) -> None:
    """Whichever rule it was: another kind, or another mark."""
    stream = Stream(MARKED, SkipRule("large", Action.SLOW_LANE, rows=1))

    stream.transaction(order(1), order(2), mark(), order(3))
    stream.transaction(mark(), order(1), mark())

    assert stream.counts.overruled_marks == 2
    assert stream.counts.late_marks == 0
    assert [each.rule for each in caplog.records if "a rule had decided before" in each.message] == ["large"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("tables", "words"), [((), "changed nothing that is streamed"), (("public.other",), "names tables in which")]
)
def test_a_mark_that_takes_nothing_is_warned_of(
    tables: tuple[str, ...], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    Stream(MARKED).transaction(mark(*tables))

    assert words in caplog.text


def test_rows_that_are_counted_by_rule_are_no_messages() -> None:
    stream = Stream(MARKED)

    stream.transaction(mark(), order(1), order(2), logical_message(9, "other", b"hello"))

    assert stream.counts.rows == {MARKED.name: 2}
    assert list(stream.counts.by_rule()) == [("skipped by rule", {"rule": MARKED.name, "transactions": 1, "rows": 2})]


def test_what_is_filtered_is_counted_by_rule_and_table_the_most_first() -> None:
    counts = Counts()
    for number in range(1, 13):
        counts.filtered["paid", f"public.t{number}"] += number
    counts.filtered["other", "public.t1"] += 1

    paid, other = counts.by_rule()

    assert paid[0] == other[0] == "filtered by rule"
    assert (paid[1]["rule"], paid[1]["changes"]) == ("paid", 78)
    assert list(paid[1]["tables"].items())[:2] == [("public.t12", 12), ("public.t11", 11)]
    assert len(paid[1]["tables"]) == 10
    assert other[1] == {"rule": "other", "changes": 1, "tables": {"public.t1": 1}}


def test_a_million_late_marks_make_a_handful_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(MARKED)

    stream.transaction(*(logical_message(9, PREFIX, b"x") for _ in range(1_000)))

    assert stream.counts.malformed_marks == 1_000
    assert len(caplog.records) == 4


def test_a_change_outside_a_transaction_is_never_passed_over() -> None:
    stream = Stream(MARKED)
    stream.transaction(mark(), order(1))

    with pytest.raises(DecodeError, match="outside any transaction"):
        stream.feed(order(2))


def test_a_key_of_another_kind_in_mid_transaction_leaves_no_range() -> None:
    rule = SkipRule("large", Action.SUMMARISE, rows=1)
    before = relation(3, "people", [("ssn", TEXT_OID, True), ("id", INT4_OID, False)])
    after = relation(3, "people", [("ssn", TEXT_OID, False), ("id", INT4_OID, True)])

    passed = Stream(rule).transaction(
        before, insert(3, ["078-05-1120", "1"]), insert(3, ["x", "2"]), after, insert(3, ["y", "3"])
    )

    [summary] = [each for each, _ in passed if isinstance(each, Summary)]
    assert (summary.first, summary.last) == (None, None)
    assert summary.operations == {"insert": 3}


def test_numeric_keys_are_in_the_order_of_numbers() -> None:
    table = relation(3, "amounts", [("n", 1700, True)])

    passed = Stream(SkipRule("large", Action.SUMMARISE, rows=1)).transaction(
        table, *(insert(3, [str(each)]) for each in (20, 9, 1.5, 100))
    )

    [summary] = [each for each, _ in passed if isinstance(each, Summary)]
    assert (summary.first, summary.last) == ({"n": "1.5"}, {"n": "100"})


def test_what_is_held_is_counted_alike_whichever_plug_in_printed_it() -> None:
    table = Relation("public", "t", (), "d", (), ())
    pgoutput = Change("insert", table, {"id": "7", "on": "t", "note": "x" * 99}, None)
    wal2json = Change("insert", table, {"id": 7, "on": True, "note": "x" * 99}, None)

    assert abs(memory_of(pgoutput) - memory_of(wal2json)) < 10


def test_a_thousand_size_rules_over_a_thousand_tables_ask_few_of_them() -> None:
    asked = 0

    class Counting(TableFilter):
        def __call__(self, schema: str, table: str) -> bool:
            nonlocal asked
            asked += 1
            return super().__call__(schema, table)

    book = Rulebook(SkipRule(f"r{each}", rows=5, tables=Counting([f"public.t{each}"])) for each in range(1_000))

    for count in range(1, 50):
        book.of_size(count * 10, ("public", "t7"), min(count, 5))

    assert asked == 1_000
    assert book.of_size(100, ("public", "t7"), 6) is not None
