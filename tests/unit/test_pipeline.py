"""The loop's invariants, on messages as a server sends them and the real decoder, gate and shape."""

import asyncio
import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgevents.errors import DecodeError, RuleFailed, SinkStalled, SinkUnavailable
from pgevents.lsn import Lsn
from pgevents.pipeline import Limits, Progress
from pgevents.testing import (
    INT4_OID,
    TEXT_OID,
    MemoryServer,
    MemorySink,
    MemorySource,
    Transaction,
    begin,
    commit,
    insert,
    logical_message,
    pipeline,
    relation,
    run,
)
from pgevents.wal import Keepalive, RawMessage

ORDERS = relation(1, "orders", [("id", INT4_OID, True), ("status", TEXT_OID, False)])
NOISE = relation(2, "noise", [("id", INT4_OID, True)])


def transactions(sizes: list[int], *, table: int = 1) -> list[Transaction]:
    """One transaction a size; commit LSNs 100 apart, ending 10 later."""
    made = []
    for number, size in enumerate(sizes, 1):
        rows = [insert(table, [row, "new"][: 2 if table == 1 else 1]) for row in range(size)]
        made.append(Transaction(number * 100, number * 100 + 10, (ORDERS, NOISE, *rows)))
    return made


def ids(sink: MemorySink) -> list[str]:
    return [envelope.message_id for envelope in sink.stored]


def expected_ids(sizes: list[int]) -> list[str]:
    return [
        f"7000000000000000001-1-{number * 100:X}-{seq}"
        for number, size in enumerate(sizes, 1)
        for seq in range(1, size + 1)
    ]


SIZES = st.lists(st.integers(0, 7), min_size=1, max_size=6)


@given(SIZES, st.integers(1, 9), st.integers(1, 12))
@pytest.mark.fault("I8")
def test_batch_and_chunk_size_change_nothing_that_is_stored(sizes: list[int], batch: int, chunk: int) -> None:
    server, sink = MemoryServer(transactions(sizes)), MemorySink()

    limits = Limits(batch_events=batch, until=Lsn(len(sizes) * 100 + 10))
    asyncio.run(pipeline(server.connect(chunk=chunk), sink, limits=limits).run(asyncio.Event()))

    assert ids(sink) == expected_ids(sizes)
    assert server.confirmed_flush_lsn == len(sizes) * 100 + 10


@given(SIZES, st.integers(1, 9), st.integers(1, 12))
@pytest.mark.fault("I4")
def test_acknowledged_lsns_are_commit_ends_and_never_decrease(sizes: list[int], batch: int, chunk: int) -> None:
    server = MemoryServer(transactions(sizes))

    limits = Limits(batch_events=batch, until=Lsn(len(sizes) * 100 + 10))
    asyncio.run(pipeline(server.connect(chunk=chunk), MemorySink(), limits=limits).run(asyncio.Event()))

    assert set(server.acknowledged) <= {each.end_lsn for each in server.transactions}
    assert server.acknowledged == sorted(set(server.acknowledged))


async def crash_after(
    server: MemoryServer, sink: MemorySink, *, steps: int, chunk: int, confirm: random.Random
) -> None:
    """Run for so many turns of the event loop, confirming at random, then cancel where it stands."""
    limits = Limits(batch_events=2, window=2)
    running = asyncio.ensure_future(pipeline(server.connect(chunk=chunk), sink, limits=limits).run(asyncio.Event()))
    for _ in range(steps):
        await asyncio.sleep(0)
        if sink.unconfirmed and confirm.random() < 0.3:
            sink.confirm(confirm.randrange(len(sink.unconfirmed)))
        assert covers(sink, server)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def covers(sink: MemorySink, server: MemoryServer) -> bool:
    """Whether every event of the acknowledged transactions is stored."""
    sizes = [len(each.changes) - 2 for each in server.transactions if each.end_lsn <= server.confirmed_flush_lsn]
    return set(expected_ids(sizes)) <= set(ids(sink))


@settings(max_examples=200)
@given(SIZES, st.lists(st.integers(0, 40), max_size=5), st.integers(1, 12), st.integers(0, 2**32))
@pytest.mark.fault("F02", "I1", "I2")
def test_a_crash_at_any_await_repeats_but_never_loses(
    sizes: list[int], crashes: list[int], chunk: int, seed: int
) -> None:
    server, stored, confirm = MemoryServer(transactions(sizes)), MemorySink().stored, random.Random(seed)

    for steps in crashes:
        sink = MemorySink(confirms=False, stored=stored)
        asyncio.run(crash_after(server, sink, steps=steps, chunk=chunk, confirm=confirm))
    last = MemorySink(stored=stored)
    run(server.connect(chunk=chunk), last, until=len(sizes) * 100 + 10)

    assert set(ids(last)) == set(expected_ids(sizes))
    assert server.acknowledged == sorted(server.acknowledged)


@given(st.permutations(range(5)))
@pytest.mark.fault("F78", "I3")
def test_confirms_in_any_order_acknowledge_a_contiguous_prefix(order: list[int]) -> None:
    server, sink = MemoryServer(transactions([1] * 5)), MemorySink(confirms=False)

    async def scenario() -> None:
        running = asyncio.ensure_future(pipeline(server.connect(chunk=3 + 2), sink).run(asyncio.Event()))
        while len(sink.unconfirmed) < 5:
            await asyncio.sleep(0)
        batches = list(sink.unconfirmed)
        confirmed: set[int] = set()
        for index in order:
            batches[index][1].set_result(None)
            confirmed.add(index)
            for _ in range(10):
                await asyncio.sleep(0)
            prefix = next((hole for hole in range(5) if hole not in confirmed), 5)
            assert server.confirmed_flush_lsn == (prefix * 100 + 10 if prefix else 0)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(scenario())


@pytest.mark.fault("F109", "I20")
def test_a_fully_filtered_transaction_is_acknowledged() -> None:
    server, sink = MemoryServer(transactions([3], table=2)), MemorySink()

    run(server.connect(), sink, until=110, keep=lambda _schema, table: table != "noise")

    assert sink.stored == []
    assert server.acknowledged == [110]


@given(SIZES)
@pytest.mark.fault("I8", "I20")
def test_filters_do_not_change_the_ids_of_what_is_left(sizes: list[int]) -> None:
    mixed = [
        Transaction(each.commit_lsn, each.end_lsn, (*each.changes[:2], insert(2, [0]), *each.changes[2:]))
        for each in transactions(sizes)
    ]
    until = len(sizes) * 100 + 10
    everything, orders = MemorySink(), MemorySink()

    run(MemoryServer(mixed).connect(), everything, until=until)
    run(MemoryServer(mixed).connect(), orders, until=until, keep=lambda _schema, table: table == "orders")

    assert ids(orders) == [e.message_id for e in everything.stored if e.address.topic == "public.orders.insert"]
    assert len(set(ids(everything))) == len(everything.stored)


@pytest.mark.fault("I5")
def test_a_keepalive_outside_a_transaction_is_acknowledged() -> None:
    source = MemorySource([*transactions([1])[0].messages(), Keepalive(500)])

    run(source, MemorySink(), until=500)

    assert source.acknowledged[-1] == 500


@pytest.mark.fault("I2")
def test_a_keepalive_waits_for_the_events_before_it() -> None:
    source, sink = MemorySource([*transactions([1])[0].messages(), Keepalive(500)]), MemorySink(confirms=False)

    async def scenario() -> None:
        running = asyncio.ensure_future(pipeline(source, sink).run(asyncio.Event()))
        while not sink.unconfirmed:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert source.acknowledged == []
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(scenario())


@pytest.mark.fault("I4", "I7")
def test_a_keepalive_inside_a_transaction_is_not_acknowledged() -> None:
    first, second = transactions([1, 1])
    half = second.messages()[:-1]
    source = MemorySource([*first.messages(), *half, Keepalive(250), second.messages()[-1]])

    run(source, MemorySink(), until=210)

    assert source.acknowledged == [210]


def test_a_lone_logical_message_is_published_and_acknowledged() -> None:
    message = RawMessage(300, logical_message(300, "audit", b"hello", transactional=False))
    source, sink = MemorySource([message]), MemorySink()

    run(source, sink, until=300)

    assert ids(sink) == ["7000000000000000001-1-12C-0"]
    assert source.acknowledged == [300]


def test_a_change_outside_a_transaction_stops_the_stream() -> None:
    source = MemorySource([RawMessage(1, ORDERS), RawMessage(2, insert(1, [1, "new"]))])

    with pytest.raises(DecodeError, match="outside any transaction"):
        run(source, MemorySink(), until=10)


@pytest.mark.fault("I15")
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_what_comes_before_a_change_that_no_rule_can_decide_on_is_confirmed_and_acknowledged(chunk: int) -> None:
    server = MemoryServer([*transactions([2, 1]), *transactions([0, 0, 1], table=2)[2:]])
    sink = MemorySink()

    def keep(_: str, table: str) -> bool:
        if table == "noise":
            raise RuleFailed("a filter cannot decide")
        return True

    with pytest.raises(RuleFailed):
        run(server.connect(chunk=chunk), sink, until=310, keep=keep)

    assert ids(sink) == expected_ids([2, 1])
    assert server.confirmed_flush_lsn == 210


def test_the_window_bounds_what_is_in_flight() -> None:
    server, sink = MemoryServer(transactions([1] * 50)), MemorySink(confirms=False)

    async def scenario() -> None:
        limits = Limits(batch_events=1, window=3)
        running = asyncio.ensure_future(pipeline(server.connect(), sink, limits=limits).run(asyncio.Event()))
        for _ in range(500):
            await asyncio.sleep(0)
        # The window, the batch that settle awaits, and the one that waits for room.
        assert len(sink.unconfirmed) == 3 + 2
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(scenario())


def test_an_error_of_the_sink_ends_the_loop_and_acknowledges_nothing() -> None:
    server, sink = MemoryServer(transactions([1, 1])), MemorySink(confirms=False)

    async def scenario() -> None:
        running = asyncio.ensure_future(pipeline(server.connect(), sink).run(asyncio.Event()))
        while not sink.unconfirmed:
            await asyncio.sleep(0)
        sink.fail(SinkUnavailable("gone"))
        with pytest.raises(SinkUnavailable, match="gone"):
            await running

    asyncio.run(scenario())

    assert server.acknowledged == []


def test_a_sink_that_confirms_nothing_is_left() -> None:
    server, sink = MemoryServer(transactions([2])), MemorySink(confirms=False)

    async def scenario() -> None:
        with pytest.raises(SinkStalled, match=r"2 events unconfirmed for 0\.05 s"):
            await pipeline(server.connect(), sink, limits=Limits(stall_timeout_s=0.05)).run(asyncio.Event())

    asyncio.run(scenario())

    assert server.acknowledged == []


@pytest.mark.fault("I9")
def test_a_stop_drains_and_acknowledges_the_transaction_being_read() -> None:
    server, sink, progress = MemoryServer(transactions([5, 5])), MemorySink(), Progress()

    async def scenario() -> None:
        stop = asyncio.Event()
        made = pipeline(server.connect(chunk=3), sink, progress=progress)
        running = asyncio.ensure_future(made.run(stop))
        while not made.gate.inside:
            await asyncio.sleep(0)
        stop.set()
        await running

    asyncio.run(scenario())

    whole = [expected_ids([5]), expected_ids([5, 5])]
    assert ids(sink) in whole
    assert progress.acknowledged == server.confirmed_flush_lsn == (110 if len(sink.stored) == 5 else 210)


def test_a_stop_with_a_blocked_sink_says_what_is_unconfirmed() -> None:
    server, sink = MemoryServer(transactions([2])), MemorySink(confirms=False)

    async def scenario() -> None:
        stop = asyncio.Event()
        running = asyncio.ensure_future(
            pipeline(server.connect(), sink, limits=Limits(drain_timeout_s=0.05)).run(stop)
        )
        while not sink.unconfirmed:
            await asyncio.sleep(0)
        stop.set()
        with pytest.raises(SinkStalled, match=r"2 events unconfirmed 0\.05 s after the stop"):
            await running

    asyncio.run(scenario())

    assert server.acknowledged == []


def test_until_leaves_later_transactions_alone() -> None:
    server, sink = MemoryServer(transactions([1, 1, 1])), MemorySink()

    run(server.connect(), sink, until=210)

    assert ids(sink) == expected_ids([1, 1])
    assert server.confirmed_flush_lsn == 210


def test_a_transaction_may_begin_and_end_without_changes() -> None:
    source = MemorySource([RawMessage(5, begin(100)), RawMessage(110, commit(100, 110))])

    run(source, MemorySink(), until=110)

    assert source.acknowledged == [110]


def test_a_stop_while_the_window_is_full_still_drains() -> None:
    server, sink = MemoryServer(transactions([1] * 20)), MemorySink(confirms=False)

    async def scenario() -> None:
        stop = asyncio.Event()
        limits = Limits(batch_events=1, window=2)
        running = asyncio.ensure_future(pipeline(server.connect(chunk=30), sink, limits=limits).run(stop))
        while len(sink.unconfirmed) < 4:
            await asyncio.sleep(0)
        stop.set()
        while not running.done():
            await asyncio.sleep(0)
            if sink.unconfirmed:
                sink.confirm()
        await running

    asyncio.run(scenario())

    assert ids(sink) == expected_ids([1] * len(sink.stored))
    assert len(sink.stored) >= 4
    assert server.confirmed_flush_lsn == len(sink.stored) * 100 + 10


def test_a_stop_ends_at_the_first_commit_though_every_read_ends_inside_a_transaction() -> None:
    server, sink, progress = MemoryServer(transactions([4] * 50)), MemorySink(), Progress()

    async def scenario() -> None:
        stop = asyncio.Event()
        # A transaction is 8 messages, and 9 at a time never end with a commit until the last.
        made = pipeline(server.connect(chunk=9), sink, progress=progress)
        running = asyncio.ensure_future(made.run(stop))
        while not sink.stored:
            await asyncio.sleep(0)
        stop.set()
        await running

    asyncio.run(scenario())

    assert 0 < len(sink.stored) < 4 * 50
    assert len(sink.stored) % 4 == 0
    assert progress.acknowledged == server.confirmed_flush_lsn == len(sink.stored) // 4 * 100 + 10
