"""The parts of the core under schedules: gate and cutter, confirms against a plain model, and the loop with a sink
that fails, stalls and confirms in any order."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.batch import Batch, Cutter
from pgevents.codec.native import NativeCodec
from pgevents.decoder.pgoutput import PgoutputDecoder
from pgevents.errors import PGEventsError, PublishRejected, SinkError, SinkUnavailable
from pgevents.event import Address, Envelope
from pgevents.filters import TableFilter
from pgevents.gate import Gate
from pgevents.lsn import Lsn
from pgevents.pipeline import Limits, Progress
from pgevents.routing import RoutingKey
from pgevents.shape import Shape
from pgevents.sink.amqp.confirm import Confirms, Flight
from pgevents.testing import IDENTITY, MemoryCatalog, MemorySink, pipeline
from pgevents.wal import Keepalive, RawMessage
from tests.faults.broker import Broker
from tests.faults.clock import VirtualLoop
from tests.faults.history import Database, Deed, Due, History
from tests.faults.strategy import DEEDS, schedules

# Gate and cutter


def batches(messages: Sequence[RawMessage | Keepalive], *, gate: Gate, max_events: int, read: int) -> list[Batch]:
    """What the loop would publish of ``messages``, ``read`` at a time."""
    decoder, shape = PgoutputDecoder(MemoryCatalog()), Shape(TableFilter(), RoutingKey(), NativeCodec())
    cutter = Cutter(max_events=max_events, max_bytes=1 << 20, end_lsn=gate.end_lsn)
    made = []
    for start in range(0, len(messages), read):
        for message in messages[start : start + read]:
            if isinstance(message, Keepalive):
                gate.keepalive(message.wal_end)
                continue
            item = decoder.decode(message)
            for numbered in gate.admit(item) if item else ():
                made += [cutter.cut(gate.end_lsn) for envelope in shape(numbered) if cutter.add(envelope)]
        made.append(cutter.cut(gate.end_lsn))
    return [batch for batch in made if batch]


@schedules(300)
@given(DEEDS, st.integers(1, 6), st.integers(1, 12))
@pytest.mark.fault("I2", "I7")
def test_a_batchs_end_lsn_covers_only_what_was_cut_by_then(deeds: list[Deed], max_events: int, read: int) -> None:
    history = History(deeds)

    made = batches(list(history.sent_after(0)), gate=Gate(IDENTITY), max_events=max_events, read=read)

    cut: list[str] = []
    for batch in made:
        cut += [envelope.message_id for envelope in batch.envelopes]
        assert {due.id for due in history.due if due.end_lsn <= batch.end_lsn} <= set(cut)
        assert batch.end_lsn in history.ends | {0}
    assert cut == [due.id for due in history.due]
    assert all(before.end_lsn <= after.end_lsn for before, after in itertools.pairwise(made))
    assert made[-1].end_lsn == history.end_lsn


@schedules(300)
@given(DEEDS, st.data(), st.integers(1, 6), st.integers(1, 12))
@pytest.mark.fault("I8", "I9")
def test_what_the_watermark_covers_is_let_go_of_and_the_rest_keeps_its_ids(
    deeds: list[Deed], data: st.DataObject, max_events: int, read: int
) -> None:
    history = History(deeds)
    watermark = data.draw(st.sampled_from(sorted(history.ends)))
    slot = data.draw(st.sampled_from([0, *sorted(end for end in history.ends if end <= watermark)]))

    gate = Gate(IDENTITY, Lsn(watermark))
    made = batches(list(history.sent_after(slot)), gate=gate, max_events=max_events, read=read)

    published = [envelope.message_id for batch in made for envelope in batch.envelopes]
    assert published == [due.id for due in history.due if due.end_lsn > watermark]
    assert all(batch.end_lsn > watermark for batch in made if not batch.envelopes)
    assert gate.end_lsn == history.end_lsn


# Confirms

ADDRESS = Address("public.orders.insert", "insert", "application/json")


@dataclass(slots=True)
class Model:
    """Confirms as one would write them without a thought for speed: a set of tags for each flight."""

    open: list[tuple[int, set[int]]] = field(default_factory=list)
    returned: dict[int, set[int]] = field(default_factory=dict)
    last: int = 0

    def publish(self, size: int, owner: int) -> None:
        self.open.append((owner, set(range(self.last + 1, self.last + size + 1))))
        self.returned[owner] = set()
        self.last += size

    def give_back(self, tag: int) -> None:
        for owner, tags in self.open:
            if tag in tags:
                self.returned[owner].add(tag)

    def ack(self, tag: int, *, multiple: bool) -> list[int]:
        for _, tags in self.open:
            tags -= {each for each in tags if each == tag or (multiple and each < tag)}
        done = [owner for owner, tags in self.open if not tags]
        self.open = [(owner, tags) for owner, tags in self.open if tags]
        return done

    def nack(self, tag: int, *, multiple: bool) -> dict[int, int]:
        hit = {
            owner: min(each for each in tags if each == tag or (multiple and each < tag))
            for owner, tags in self.open
            if any(each == tag or (multiple and each < tag) for each in tags)
        }
        self.open = [(owner, tags) for owner, tags in self.open if owner not in hit]
        return hit


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["publish", "publish", "ack", "ack", "return", "nack"]), st.integers(1, 12), st.booleans()
    ),
    max_size=30,
)


@schedules(1_000)
@given(STEPS)
@pytest.mark.fault("F78", "F80", "I3")
def test_confirms_agree_with_a_plain_model(steps: list[tuple[str, int, bool]]) -> None:
    confirms: Confirms[int] = Confirms()
    model = Model()
    flights: dict[int, Flight[int]] = {}

    for owner, (what, number, multiple) in enumerate(steps):
        tag = min(number, model.last)
        match what:
            case "publish":
                ids = range(model.last + 1, model.last + number + 1)
                flights[owner] = confirms.published([Envelope(f"{each}", ADDRESS, 0, b"") for each in ids], owner)
                model.publish(number, owner)
            case "ack" if tag:
                done = confirms.acked(tag, multiple=multiple)
                assert [flight.owner for flight in done] == model.ack(tag, multiple=multiple)
            case "return" if tag:
                confirms.returned(f"{tag}")
                model.give_back(tag)
            case "nack" if tag:
                refused = confirms.nacked(tag, multiple=multiple)
                assert {flight.owner: int(first.message_id) for flight, first in refused} == model.nack(
                    tag, multiple=multiple
                )
        assert [flight.owner for flight in confirms.open_flights] == [owner for owner, _ in model.open]

    marked = {owner: {flight.first + at for at in flight.returned} for owner, flight in flights.items()}
    assert marked == model.returned


# The loop

ERRORS = (SinkUnavailable("gone"), PublishRejected("1", "nacked", transient=True), SinkError("unknown"))


@dataclass(slots=True)
class Moves:
    """What a sink does, one move a turn: confirm or fail the so manieth batch, or nothing; then no more at all."""

    moves: tuple[tuple[str, int], ...]
    is_stopped: bool

    async def play(self, sink: MemorySink, stop: asyncio.Event) -> None:
        for what, index in self.moves:
            for _ in range(3):
                await asyncio.sleep(0)
            if sink.unconfirmed and what == "confirm":
                sink.confirm(index % len(sink.unconfirmed))
            elif sink.unconfirmed and what == "fail":
                sink.fail(ERRORS[index % len(ERRORS)], index % len(sink.unconfirmed))
                return
        if self.is_stopped:
            stop.set()


MOVES = st.builds(
    Moves,
    st.lists(st.tuples(st.sampled_from(["confirm"] * 6 + ["wait", "fail"]), st.integers(0, 5)), max_size=12).map(
        tuple
    ),
    st.booleans(),
)


@schedules(400)
@given(DEEDS, st.lists(MOVES, max_size=4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 9))
@pytest.mark.fault("I1", "I2", "I4")
def test_a_sink_that_fails_stalls_or_confirms_in_any_order_loses_nothing(
    deeds: list[Deed], sessions: list[Moves], batch_events: int, window: int, chunk: int
) -> None:
    history, stored = History(deeds), list[Envelope]()
    limits = Limits(batch_events=batch_events, window=window, until=history.end_lsn)

    def check(lsn: Lsn) -> None:
        assert lsn in history.ends
        assert lsn > database.acknowledged
        assert ids_until(history.due, lsn) <= {envelope.message_id for envelope in stored}

    async def session(sink: MemorySink, moves: Moves | None) -> None:
        stop = asyncio.Event()
        source = database.connect(chunk=chunk)
        streaming = pipeline(source, sink, limits=limits, progress=Progress(), start_lsn=database.acknowledged)
        moving = asyncio.ensure_future(moves.play(sink, stop)) if moves else None
        with suppress(PGEventsError):
            await streaming.run(stop)
        if moving:
            moving.cancel()

    database = Database(history, check)
    for moves in [*sessions, None]:
        if database.acknowledged == history.end_lsn:
            break
        loop = VirtualLoop(Broker())
        try:
            loop.run_until_complete(session(MemorySink(confirms=moves is None, stored=stored), moves))
        finally:
            loop.close()

    assert database.acknowledged == history.end_lsn
    assert {envelope.message_id for envelope in stored} == ids_until(history.due, history.end_lsn)


def ids_until(due: Sequence[Due], lsn: int) -> set[str]:
    return {each.id for each in due if each.end_lsn <= lsn}
