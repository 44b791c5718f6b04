"""The oracle finds whatever is planted: it is worth nothing if it could not fail."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest

from chaos.arrival import Arrival, Kind
from chaos.ledger import COLUMNS, TABLES, Entry, Tables
from chaos.oracle import Verdict, judge

Json = dict[str, Any]


def row(key: int, op: int, **more: Any) -> Json:
    return {**dict.fromkeys(COLUMNS), "id": key, "op": op, "version": 1, **more}


@dataclass
class History:
    """Transactions as a database would commit them: the ledger's lines, the events, and the rows that are left."""

    entries: list[Entry] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    tables: Tables = field(default_factory=lambda: {table: {} for table in TABLES})
    xid: int = 700

    def commit(self, *changes: tuple[str, str, int | None, Json | None]) -> "History":
        """Each change: table, op, old key, new row."""
        self.xid += 1
        for seq, (table, op, old_key, new) in enumerate(changes, 1):
            self._change(table, op, old_key, new, seq=seq)
        return self

    def _change(self, table: str, op: str, old_key: int | None, new: Json | None, *, seq: int) -> None:
        key = new["id"] if new else old_key
        rows = self.tables[table]
        if old_key is not None:
            del rows[old_key]
        if new:
            rows[new["id"]] = new
        if op == "truncate":
            rows.clear()
        self.entries.append(
            Entry(len(self.entries) + 1, self.xid, table, op, key, old_key, new["op"] if new else None)
        )
        self.events.append(
            {
                "id": f"1-1-{self.xid:X}-{seq}",
                "op": op,
                "table": table,
                "key": key and {"id": key},
                "new": new,
                "old": old_key and {"id": old_key},
                "old_complete": False,
                "missing": [],
                "tx": {"xid": self.xid, "lsn": f"0/{self.xid:X}", "seq": seq},
            }
        )

    def judged(self, events: Sequence[Json] | None = None) -> Verdict:
        return self.judged_arrivals([arrived(event) for event in (self.events if events is None else events)])

    def judged_arrivals(self, arrivals: Sequence[Arrival]) -> Verdict:
        return judge(self.entries, arrivals, self.tables, attempted=99)


def arrived(event: Json, kind: Kind = Kind.FIRST) -> Arrival:
    return Arrival(kind, orjson.dumps(event))


def wrong(verdict: Verdict) -> Json:
    """The counters that are not zero, of those that should be."""
    counters = verdict.counters()
    return {name: counters[name] for name in ("lost", "unexpected", "reordered", "differing") if counters[name]}


@pytest.fixture
def history() -> History:
    """Five transactions, among them a key change, and a row that lives and dies within one."""
    history = History()
    history.commit(("account", "insert", None, row(1, 1)), ("document", "insert", None, row(1, 2)))
    history.commit(("account", "update", 1, row(1, 3, note="x")))
    history.commit(
        ("account", "update", 1, row(2, 4)), ("bulk", "insert", None, row(7, 5)), ("bulk", "delete", 7, None)
    )
    history.commit(("document", "delete", 1, None), ("scratch", "insert", None, row(5, 6)))
    history.commit(("scratch", "truncate", None, None), ("account", "update", 2, row(2, 7, version=2)))
    return history


def test_what_was_committed_and_delivered_once_in_order_is_good(history: History) -> None:
    verdict = history.judged()

    assert verdict.is_good
    assert verdict.counters() == {
        "attempted": 99,
        "committed": 10,
        "delivered": 10,
        "lost": 0,
        "duplicated": 0,
        "acknowledged_again": 0,
        "requeued": 0,
        "unexpected": 0,
        "reordered": 0,
        "differing": 0,
        "transactions": 5,
    }
    assert verdict.examples == ()


def test_a_planted_loss_is_found_even_where_the_tables_are_equal(history: History) -> None:
    """What happened in between is not to be seen in the rows that are left."""
    verdict = history.judged([event for event in history.events if event["id"] != "1-1-2BE-1"])

    assert wrong(verdict) == {"lost": 1}
    assert "702, 'account', 'update', 1, 1, 3" in verdict.examples[0]
    assert not verdict.is_good


@pytest.mark.parametrize("index", range(10))
def test_the_loss_of_any_event_is_found(history: History, index: int) -> None:
    assert history.judged([*history.events[:index], *history.events[index + 1 :]]).lost == 1


def test_the_loss_of_everything_is_found(history: History) -> None:
    assert history.judged([]).lost == 10


def test_duplicates_are_counted_and_are_good(history: History) -> None:
    verdict = history.judged([*history.events[:4], *history.events[1:4], *history.events[1:]])

    assert verdict.duplicated == 6
    assert verdict.is_good


def test_what_the_broker_gives_again_is_no_duplicate_of_the_streams(history: History) -> None:
    arrivals = [arrived(event) for event in history.events]

    verdict = history.judged_arrivals([*arrivals, arrived(history.events[-1], Kind.AGAIN)])

    assert (verdict.duplicated, verdict.requeued) == (0, 1)
    assert verdict.is_good


def test_a_duplicate_of_what_was_acknowledged_is_told_from_others(history: History) -> None:
    """The mark lies behind the third transaction: the fourth was not acknowledged when it came again."""
    arrivals = [arrived(event) for event in history.events]
    third, fourth = arrivals[3], arrivals[6]

    verdict = history.judged_arrivals([*arrivals, Arrival(Kind.MARK, b"0/2C0"), third, fourth])

    assert (verdict.duplicated, verdict.acknowledged_again) == (2, 1)
    assert any("0-1-2BF-1" in example or "1-1-2BF-1" in example for example in verdict.examples)


def test_two_swapped_transactions_are_found(history: History) -> None:
    events = history.events

    verdict = history.judged([*events[:6], *events[8:], *events[6:8]])

    assert verdict.reordered == 2
    assert verdict.lost == verdict.unexpected == 0


def test_two_swapped_changes_of_one_transaction_are_found(history: History) -> None:
    events = history.events

    verdict = history.judged([events[1], events[0], *events[2:]])

    assert wrong(verdict) == {"reordered": 1}


def test_an_order_is_checked_against_the_ledger_and_not_only_by_the_events_own_word(history: History) -> None:
    """Numbers in ascending order, on the wrong changes."""
    first, second, *rest = history.events
    swapped = [{**second, "id": first["id"], "tx": first["tx"]}, {**first, "id": second["id"], "tx": second["tx"]}]

    assert wrong(history.judged([*swapped, *rest])) == {"reordered": 1}


def test_a_later_first_delivery_is_no_excuse_for_an_earlier_duplicate(history: History) -> None:
    """A replay that begins too late, and then again at the right place: the hole is filled out of order."""
    events = history.events

    verdict = history.judged([*events[:2], *events[6:], *events[2:]])

    assert verdict.reordered == 4
    assert verdict.duplicated == 4


def test_a_hole_that_is_filled_by_sending_everything_again_is_in_order_by_last_copies(history: History) -> None:
    arrivals = [arrived(event) for event in history.events]
    filled = [*arrivals[:3], *arrivals[5:], *arrivals[2:]]

    by_first = judge(history.entries, filled, history.tables)
    by_last = judge(history.entries, filled, history.tables, by_last_copy=True)

    assert by_first.reordered == 2
    assert by_last.is_good
    assert by_last.duplicated == by_first.duplicated == 6


def test_last_copies_in_the_wrong_order_are_found(history: History) -> None:
    arrivals = [arrived(event) for event in history.events]

    verdict = judge(history.entries, [*arrivals, arrivals[0]], history.tables, by_last_copy=True)

    assert verdict.reordered == 1


def test_an_event_that_was_not_committed_is_found(history: History) -> None:
    rolled_back = {**history.events[2], "id": "1-1-2BE-2", "tx": {"xid": 702, "lsn": "0/2BE", "seq": 2}}

    verdict = history.judged([*history.events[:3], rolled_back, *history.events[3:]])

    assert wrong(verdict) == {"unexpected": 1}


def test_a_change_under_another_id_is_not_taken_for_the_same(history: History) -> None:
    again = {**history.events[0], "id": "1-2-2BD-1"}

    assert history.judged([*history.events, again]).unexpected == 1


def test_an_id_that_comes_again_with_another_content_is_found(history: History) -> None:
    altered = {**history.events[2], "new": row(1, 3, note="y")}

    assert wrong(history.judged([*history.events, altered])) == {"unexpected": 1}


def test_two_changes_with_one_id_are_found(history: History) -> None:
    """Where a consumer drops duplicates, the second one would be lost."""
    first, second, *rest = history.events

    verdict = history.judged([first, {**second, "id": first["id"]}, *rest])

    assert verdict.lost == 1
    assert verdict.unexpected == 1


def test_a_wrong_value_is_found_by_rebuilding_the_tables(history: History) -> None:
    *rest, last = history.events

    verdict = history.judged([*rest, {**last, "new": row(2, 7, version=3)}])

    assert wrong(verdict) == {"differing": 1}
    assert verdict.examples == ("differing: row account 2",)


def test_an_unchanged_toast_value_is_kept_from_before() -> None:
    history = History()
    history.commit(("account", "insert", None, row(1, 1, body="large")))
    history.commit(("account", "update", 1, row(1, 2, body="large")))
    insert, update = history.events
    del update["new"]["body"]
    history.tables["account"][1] = row(1, 2, body="large")

    assert history.judged([insert, {**update, "missing": ["body"]}]).is_good
    assert wrong(history.judged([insert, update])) == {"differing": 1}


def test_a_complete_old_row_must_be_the_one_that_was_there() -> None:
    history = History()
    history.commit(("document", "insert", None, row(1, 1)))
    history.commit(("document", "update", 1, row(1, 2)))
    insert, update = history.events

    right = {**update, "old_complete": True, "old": row(1, 1)}
    stale = {**update, "old_complete": True, "old": row(1, 1, note="stale")}

    assert history.judged([insert, right]).is_good
    assert wrong(history.judged([insert, stale])) == {"differing": 1}


def test_columns_that_come_and_go_do_not_matter() -> None:
    history = History()
    history.commit(("side", "insert", None, row(1, 1)))
    (insert,) = history.events

    assert history.judged([{**insert, "new": {**insert["new"], "extra": 7}}]).is_good


def test_a_logical_message_is_known_by_its_number() -> None:
    entry = Entry(1, 701, "chaos", "message", key=12)
    event = {
        "id": "1-1-2BD-1",
        "op": "message",
        "table": None,
        "new": None,
        "old": None,
        "tx": {"xid": 701, "lsn": "0/2BD", "seq": 1},
        "message": {"prefix": "chaos", "content": "12 xxx"},
    }
    tables: Tables = {table: {} for table in TABLES}

    assert judge([entry], [arrived(event)], tables).is_good
    assert judge([entry._replace(key=13)], [arrived(event)], tables).lost == 1


def test_a_verdict_is_good_only_with_all_four_counters_at_zero(history: History) -> None:
    verdict = history.judged()

    assert not replace(verdict, lost=1).is_good
    assert not replace(verdict, unexpected=1).is_good
    assert not replace(verdict, reordered=1).is_good
    assert not replace(verdict, differing=1).is_good
