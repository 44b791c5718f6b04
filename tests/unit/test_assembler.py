"""Transactions sent in pieces while they run: what goes on of them is what goes on when they are sent whole."""

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgevents.assembler import Assembler
from pgevents.decoder.pgoutput import PgoutputDecoder
from pgevents.errors import DecodeError, PiecesUnusable, SourceUnavailable
from pgevents.filters import TableFilter
from pgevents.foresight import Foresight
from pgevents.gate import Gate
from pgevents.look_ahead import Item
from pgevents.lsn import NOWHERE, Lsn
from pgevents.mark import PREFIX
from pgevents.rule import Action, SkipRule
from pgevents.sift import MAX_HELD_BYTES, Sift
from pgevents.skip import MARKED_LOOK_AHEAD, Rulebook
from pgevents.tally import Counts, Skipped, Summary
from pgevents.testing import (
    IDENTITY,
    INT4_OID,
    TEXT_OID,
    MemoryCatalog,
    begin,
    commit,
    delete,
    insert,
    logical_message,
    relation,
    truncate,
    update,
)
from pgevents.wal import Begin, Change, Keepalive, Outline, Passed, RawMessage, Relation, WalMessage

TABLES = ("orders", "items", "secrets")
KEEP = TableFilter((), ("secrets",))
RELATIONS = {
    oid: relation(oid, name, [("id", INT4_OID, True), ("note", TEXT_OID, False)]) for oid, name in enumerate(TABLES)
}
MARKED = SkipRule("marked", marked=True)
# Transactions of these tests commit at the beginning of 2000.
NOW, BEFORE, AFTER = (f"{day}T00:00:00.000000Z" for day in ("1999-12-31", "1999-12-30", "2000-01-02"))


def mark(*tables: str) -> bytes:
    return logical_message(
        9, PREFIX, json.dumps({"v": 1, "reason": "a test", "tables": list(tables) or None}).encode()
    )


@dataclass
class Written:
    """A transaction and what it did, in order: each change in savepoint 1 or 2, or in none, 0.

    Changes in a row with the same number are one savepoint, which is rolled back where ``rolled_back`` has the
    number. The server sends what it holds when it holds ``size`` changes.
    """

    xid: int
    changes: Sequence[tuple[int, bytes]]
    rolled_back: frozenset[int] = frozenset()
    commits: bool = True
    origin: str = ""
    size: int = 100

    @property
    def lsn(self) -> int:
        return self.xid * 100

    @property
    def may_be_unclear(self) -> bool:
        """Whether it rolls savepoints back and wrote messages, which may have gone with them."""
        lost = any(number in self.rolled_back for number, _ in self.changes)
        return lost and any(payload[:1] == b"M" for _, payload in self.changes)

    def messages(self) -> list[RawMessage]:
        """As it is sent when it is sent at its commit."""
        kept = [payload for number, payload in self.changes if number not in self.rolled_back]
        beginning = [begin(self.lsn, xid=self.xid), *([origin(self.origin)] if self.origin else [])]
        end = commit(self.lsn, self.lsn + 9)
        return [RawMessage(self.lsn, payload) for payload in (*beginning, *RELATIONS.values(), *kept, end)]

    def pieces(self) -> Iterator[list[bytes]]:
        """As it is sent while it runs."""
        sender = Sender(self)
        for subxid, (number, run) in enumerate(groupby(self.changes, key=itemgetter(0)), self.xid + 1):
            xid = subxid if number else self.xid
            for _, payload in run:
                sender.held.append((xid, payload))
                if len(sender.held) >= self.size:
                    yield sender.chunk()
            if number in self.rolled_back:
                sender.held = [each for each in sender.held if each[0] != xid]
                if xid in sender.sent:
                    yield [stream_abort(self.xid, xid)]
        if sender.held or not sender.sent:
            yield sender.chunk()
        yield [stream_commit(self.xid, self.lsn) if self.commits else stream_abort(self.xid, self.xid)]


class Sender:
    """What a walsender holds of a transaction, and what it has sent of it."""

    def __init__(self, written: Written) -> None:
        self._written = written
        self._known: set[int] = set()
        self._is_first = True
        self.held: list[tuple[int, bytes]] = []
        self.sent: set[int] = set()

    def chunk(self) -> list[bytes]:
        written, held = self._written, self.held
        chunk = [stream_start(written.xid, first=self._is_first)]
        if self._is_first and written.origin:
            chunk.append(origin(written.origin))
        for xid, payload in held:
            tables = {b"M": [], b"T": list(RELATIONS)}.get(payload[:1], [int.from_bytes(payload[1:5], "big")])
            chunk += [in_stream(xid, RELATIONS[oid]) for oid in tables if oid not in self._known]
            self._known.update(tables)
            # A logical message does not tell its savepoint.
            chunk.append(in_stream(written.xid if payload[:1] == b"M" else xid, payload))
        self.sent.update(xid for xid, _ in held)
        self._is_first, self.held = False, []
        return [*chunk, b"E"]


def stream_start(xid: int, *, first: bool) -> bytes:
    return struct.pack("!cIB", b"S", xid, first)


def stream_abort(xid: int, subxid: int) -> bytes:
    return struct.pack("!cII", b"A", xid, subxid)


def stream_commit(xid: int, lsn: int) -> bytes:
    return struct.pack("!cIBQQq", b"c", xid, 0, lsn, lsn + 9, 0)


def in_stream(xid: int, payload: bytes) -> bytes:
    return payload[:1] + struct.pack("!I", xid) + payload[1:]


def origin(name: str) -> bytes:
    return b"O" + bytes(8) + name.encode() + b"\0"


class MemorySpool:
    def __init__(self) -> None:
        self.entries: list[tuple[int, int, bytes]] = []

    def add(self, lsn: int, xid: int, payload: bytes) -> None:
        self.entries.append((lsn, xid, payload))

    def read(self) -> Iterator[tuple[int, int, bytes]]:
        return iter(self.entries)

    def close(self) -> None:
        self.entries.clear()


class Reader:
    """The way of a message from the server past the rules."""

    def __init__(self, *rules: SkipRule, max_bytes: int = MAX_HELD_BYTES) -> None:
        self.book, self.counts = Rulebook(rules), Counts()
        self.decoder = PgoutputDecoder(MemoryCatalog())
        self.gate = Gate(IDENTITY, sift=Sift(self.book, keep=KEEP, counts=self.counts, max_bytes=max_bytes))
        self.max_bytes = max_bytes
        self.assembler = Assembler(self.foresee, MemorySpool)
        self.spooled: list[RawMessage] = []
        self.passed: list[Passed] = []

    def foresee(self, xid: int) -> Foresight:
        return Foresight(self.book, KEEP, Begin(xid, NOWHERE, NOW), max_bytes=self.max_bytes)

    def assemble(self, payloads: Iterable[bytes]) -> list[WalMessage]:
        fed = self.assembler.feed([RawMessage(1, payload) for payload in payloads])
        return [message for message in fed if message is not None]

    def read(self, messages: Iterable[WalMessage]) -> list[tuple[tuple[object, ...], int | None, int]]:
        """What goes on, comparable, with its transaction's xid and its number in it."""
        gone_on: list[tuple[tuple[object, ...], int | None, int]] = []
        for message in messages:
            if isinstance(message, Passed):
                self.passed.append(message)
                self.gate.count(message)
            elif isinstance(message, RawMessage):
                self.spooled.append(message)
                decoded = self.decoder.decode(message)
                admitted = self.gate.admit(decoded) if decoded is not None else ()
                gone_on += [(comparable(item), transaction.xid, seq) for item, transaction, seq in admitted]
        # Where there is no rule, it is the shape that leaves out what is not streamed.
        return [each for each in gone_on if "public.secrets" not in each[0]]


def comparable(item: Item) -> tuple[object, ...]:
    match item:
        case Change(op, table, new, old):
            return op, str(table), new, old
        case Relation():
            return ("truncate", str(item))
        case Summary(relation=table):
            return str(table), *item[1:]
    return item


def row(table: int, number: int, size: int = 1) -> bytes:
    return insert(table, [str(number), "x" * size])


CHANGES = st.one_of(
    st.builds(row, st.integers(0, 2), st.integers(0, 9), st.sampled_from([1, 300])),
    st.builds(lambda table, number: update(table, [str(number), "y"]), st.integers(0, 2), st.integers(0, 9)),
    st.builds(lambda table: delete(table, key=["1", None]), st.integers(0, 2)),
    st.builds(truncate, st.integers(0, 2)),
    st.sampled_from([mark(), mark("public.orders"), logical_message(9, PREFIX, b"-"), logical_message(9, "a", b"b")]),
)
WRITTEN = st.builds(
    Written,
    xid=st.just(0),
    changes=st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 2]), CHANGES), max_size=12),
    rolled_back=st.frozensets(st.integers(1, 2)),
    commits=st.sampled_from([True, True, True, False]),
    origin=st.sampled_from(["", "", "bulk"]),
    size=st.integers(1, 6),
)
RULES = st.lists(
    st.sampled_from(
        [
            MARKED,
            SkipRule("summarised", Action.SUMMARISE, marked=True),
            SkipRule("large", rows=2),
            SkipRule("larger", rows=5),
            SkipRule("large orders", rows=1, tables=TableFilter(["orders"])),
            SkipRule("large items", Action.PARK, rows=3, tables=TableFilter(["items"])),
            SkipRule("window", xid=1000),
            SkipRule("items of it", xid=2000, tables=TableFilter(["items"])),
            SkipRule("a day's window", xid=1000, until=AFTER),
            SkipRule("over", xid=1000, until=BEFORE),
            SkipRule("lsn", first=Lsn(200_000)),
            SkipRule("time", since=BEFORE, until=AFTER),
        ]
    ),
    max_size=3,
)


@given(
    written=st.lists(WRITTEN, min_size=1, max_size=3),
    rules=RULES,
    max_bytes=st.sampled_from([700, 3000, MAX_HELD_BYTES]),
    order=st.randoms(use_true_random=False),
)
def test_what_goes_on_is_what_goes_on_at_the_commit(
    written: list[Written], rules: list[SkipRule], max_bytes: int, order: Random
) -> None:
    for number, each in enumerate(written):
        each.xid = 1000 * (number + 1)
    sent, committed = interleaved(written, order)

    whole = Reader(*rules, max_bytes=max_bytes)
    pieces = Reader(*rules, max_bytes=max_bytes)

    try:
        messages = pieces.assemble(sent)
    except PiecesUnusable:
        assert any(each.may_be_unclear for each in written)
        return

    assert pieces.read(messages) == whole.read(message for each in committed for message in each.messages())
    assert pieces.counts == whole.counts


def interleaved(written: Sequence[Written], order: Random) -> tuple[list[bytes], list[Written]]:
    """The messages of all of them, and those that committed in the order of their commits."""
    sent: list[bytes] = []
    committed: list[Written] = []
    left = {each.xid: (each, list(each.pieces())) for each in written}
    while left:
        xid = order.choice(sorted(left))
        each, chunks = left[xid]
        sent += chunks.pop(0)
        if not chunks:
            del left[xid]
            committed += [each] if each.commits else []
    return sent, committed


def dropped(*rules: SkipRule, beginning: Sequence[bytes] = (), rows: int = 5000) -> Reader:
    """A reader that has read one transaction of so many orders."""
    changes = [*beginning, *(row(0, number) for number in range(rows))]
    reader = Reader(*rules)
    written = Written(1000, [(0, change) for change in changes], size=700)
    (record,) = reader.read(reader.assemble(message for chunk in written.pieces() for message in chunk))
    assert isinstance(record[0], Skipped)
    assert record[0].rows == {Outline("insert", "public", "orders"): rows}
    return reader


def test_of_a_marked_transaction_no_row_is_kept() -> None:
    reader = dropped(MARKED, beginning=[mark()])

    assert [message.payload[:1] for message in reader.spooled] == [b"B", b"M", b"R", b"C"]
    assert reader.passed == [Passed(Outline("insert", "public", "orders"), 5000)]


def test_of_a_large_transaction_as_many_rows_are_kept_as_make_it_large() -> None:
    reader = dropped(SkipRule("large", rows=100))

    assert sum(message.payload[:1] == b"I" for message in reader.spooled) == 101
    assert reader.passed == [Passed(Outline("insert", "public", "orders"), 4899)]


def test_rows_of_a_table_that_is_not_streamed_are_not_kept() -> None:
    reader = Reader()
    written = Written(1000, [(0, row(2, number)) for number in range(100)])

    assert reader.read(reader.assemble(message for chunk in written.pieces() for message in chunk)) == []
    assert reader.passed == [Passed(Outline("insert", "public", "secrets"), 100)]


def test_a_mark_after_the_look_ahead_is_late_then_too() -> None:
    changes = [*(row(0, number) for number in range(MARKED_LOOK_AHEAD + 1)), mark(), row(0, -1)]
    written = Written(1000, [(0, change) for change in changes], size=400)
    reader = Reader(MARKED)

    gone_on = reader.read(reader.assemble(message for chunk in written.pieces() for message in chunk))

    assert len(gone_on) == MARKED_LOOK_AHEAD + 2
    assert reader.counts.late_marks == 1


def test_a_window_that_is_added_in_mid_transaction_spares_the_rest() -> None:
    reader = Reader(SkipRule("large", rows=10_000))
    first, second, ending = Written(1000, [(0, row(0, number)) for number in range(10)], size=5).pieces()

    messages = reader.assemble(first)
    reader.gate.take_up((SkipRule("flood", xid=1000),))
    messages += reader.assemble([*second, *ending])

    ((record, _, _),) = reader.read(messages)
    assert isinstance(record, Skipped)
    assert record.rows == {Outline("insert", "public", "orders"): 10}
    assert sum(passed.rows for passed in reader.passed) == 5


@pytest.mark.parametrize(
    "later",
    [
        pytest.param((), id="it is removed"),
        pytest.param((SkipRule("other", Action.PUBLISH, xid=1000),), id="another publishes"),
        pytest.param((SkipRule("other", xid=1000, tables=TableFilter(["items"])),), id="another is about less"),
    ],
)
def test_what_was_left_out_by_a_window_that_changes_before_the_commit_is_read_once_more(
    later: tuple[SkipRule, ...],
) -> None:
    reader = Reader()
    reader.gate.take_up((SkipRule("flood", xid=1000),))
    first, second, ending = Written(1000, [(0, row(0, number)) for number in range(10)], size=5).pieces()

    messages = reader.assemble(first)
    reader.gate.take_up(later)
    messages += reader.assemble([*second, *ending])

    with pytest.raises(SourceUnavailable, match=r"5 changes of public\.orders were left out before they committed"):
        reader.read(messages)


NOTE = logical_message(9, "note", b"-")


@pytest.mark.parametrize(
    "before",
    [
        pytest.param([(0, mark()), (0, row(0, 1))], id="before any savepoint"),
        pytest.param([(1, NOTE), (1, row(0, 1)), (0, row(0, 2))], id="in a savepoint that has ended"),
    ],
)
def test_a_message_is_certain_once_something_stands_in_no_savepoint(before: list[tuple[int, bytes]]) -> None:
    written = Written(1000, [*before, (2, row(0, 3)), (0, row(0, 4))], frozenset({2}), size=1)
    reader, whole = Reader(MARKED), Reader(MARKED)

    messages = reader.assemble(message for piece in written.pieces() for message in piece)

    assert reader.read(messages) == whole.read(written.messages())


@pytest.mark.parametrize(
    "before",
    [
        pytest.param([(2, mark()), (2, row(0, 1))], id="of the savepoint"),
        pytest.param([(0, mark()), (2, row(0, 1))], id="before it"),
        pytest.param([(0, row(0, 0)), (1, NOTE), (2, row(0, 1))], id="of another before it"),
    ],
)
def test_a_message_that_may_have_gone_with_a_savepoint_ends_the_session(before: list[tuple[int, bytes]]) -> None:
    written = Written(1000, [*before, (0, row(0, 2))], frozenset({2}), size=1)

    with pytest.raises(PiecesUnusable, match="transaction 1000 rolled a savepoint back") as caught:
        Reader(MARKED).assemble(message for piece in written.pieces() for message in piece)

    assert caught.value.transient
    assert caught.value.until == written.lsn + 9


def test_a_message_that_may_have_gone_with_a_savepoint_matters_not_where_nothing_commits() -> None:
    written = Written(1000, [(2, mark()), (2, row(0, 1))], frozenset({2}), commits=False, size=1)

    assert Reader(MARKED).assemble(message for piece in written.pieces() for message in piece) == []


def test_of_what_is_sent_again_only_relations_go_on() -> None:
    """Torn or not: it was confirmed, and is let go of. To read it at its commit would never get past it."""
    torn = Written(1000, [(0, row(0, 0)), (2, mark()), (2, row(1, 1)), (0, row(0, 2))], frozenset({2}), size=1)
    assembler = Assembler(Reader(MARKED).foresee, MemorySpool, Lsn(torn.lsn + 9))

    sent = assembler.feed([RawMessage(1, payload) for piece in torn.pieces() for payload in piece])

    kinds = [message.payload[:1] for message in sent if isinstance(message, RawMessage)]
    assert kinds == [b"B", b"R", b"R", b"C"]


def test_a_relation_that_came_meanwhile_holds_behind_the_commit() -> None:
    """The table was seen in a savepoint that was rolled back, which let others alter it."""
    old, *_, ending = Written(1000, [(1, row(0, 1)), (0, row(1, 2))], frozenset({1}), size=1).pieces()
    new = relation(0, "orders", [("id", INT4_OID, True), ("text", TEXT_OID, False)])
    reader = Reader()

    sent = reader.assemble([*old, stream_abort(1000, 1001), new, *ending])

    relations = [
        message.payload for message in sent if isinstance(message, RawMessage) and message.payload[:1] == b"R"
    ]
    assert relations == [new, RELATIONS[0], new]


def test_a_record_says_where_it_begins_among_rows_that_are_not_streamed() -> None:
    changes = [(0, row(table, number)) for number in range(3) for table in (2, 2, 0)]
    written = Written(1000, changes, size=4)
    flood = SkipRule("flood", xid=1000)
    reader, whole = Reader(flood), Reader(flood)

    messages = reader.assemble(message for piece in written.pieces() for message in piece)

    assert reader.read(messages) == whole.read(written.messages())
    assert [passed.rows for passed in reader.passed] == [2, 1, 2, 1, 2, 1]


def test_another_window_that_is_added_in_mid_commit_changes_nothing() -> None:
    reader = dropped(MARKED, beginning=[mark()])
    written = Written(2000, [(0, mark()), *((0, row(0, number)) for number in range(9))], size=3)
    messages = reader.assemble(message for piece in written.pieces() for message in piece)

    before = reader.read(messages[:3])
    reader.gate.take_up((SkipRule("other", xid=4242),))
    ((record, _, _),) = before + reader.read(messages[3:])

    assert isinstance(record, Skipped)
    assert record.rows == {Outline("insert", "public", "orders"): 9}


def test_what_was_rolled_back_is_passed_over_in_steps() -> None:
    """So that whoever reads is not kept waiting by a million rows of which nothing is left."""
    written = Written(1000, [(1, row(0, number)) for number in range(50)] + [(0, row(0, 1))], frozenset({1}), size=10)
    reader = Reader()

    steps = list(reader.assembler.feed([RawMessage(1, each) for piece in written.pieces() for each in piece]))

    assert steps.count(None) == 50


def test_a_keepalive_passes_between_two_pieces() -> None:
    reader = Reader()
    first, second, _ = Written(1000, [(0, row(0, 1)), (0, row(0, 2))], size=1).pieces()
    pieces = [RawMessage(1, payload) for payload in (*first, *second)]

    passed = list(reader.assembler.feed([*pieces[:3], Keepalive(7), *pieces[3:], Keepalive(8)]))

    assert passed == [Keepalive(7), Keepalive(8)]


@pytest.mark.parametrize(
    "payloads",
    [
        pytest.param([b"c" + bytes(28)], id="a commit of a transaction that never began"),
        pytest.param([stream_abort(1, 1)], id="an abort of one"),
        pytest.param([stream_start(1, first=True)[:4]], id="a start without its xid"),
        pytest.param([stream_start(1, first=True), b""], id="nothing at all"),
        pytest.param([stream_start(1, first=True), in_stream(1, row(0, 1))], id="a row of an unknown relation"),
        pytest.param([stream_start(1, first=True), b"X" + bytes(20)], id="an unknown kind"),
        pytest.param([stream_start(1, first=True), in_stream(1, RELATIONS[0])[:9]], id="half a relation"),
        pytest.param([stream_start(1, first=True), in_stream(1, mark())[:12]], id="half a message"),
    ],
)
def test_a_message_that_breaks_the_layout_stops_the_stream(payloads: list[bytes]) -> None:
    with pytest.raises(DecodeError, match="cannot decode the message"):
        Reader().assemble(payloads)


@example(changes=[mark()], at=14, byte=0)
@given(changes=st.lists(CHANGES, min_size=1, max_size=4), at=st.integers(0, 400), byte=st.integers(0, 255))
def test_no_byte_makes_it_fail_otherwise(changes: list[bytes], at: int, byte: int) -> None:
    reader = Reader(MARKED, SkipRule("large", rows=1))
    for chunk in Written(1000, [(0, change) for change in changes]).pieces():
        for payload in chunk:
            bent = bytearray(payload)
            if at < len(bent):
                bent[at] = byte
            try:
                reader.read(reader.assemble([bytes(bent)]))
            except (DecodeError, SourceUnavailable):
                return
