"""Poison is parked, everything else is published in order, and nothing is confirmed before both have happened."""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgevents.batch import Batch
from pgevents.errors import PublishRejected, SinkUnavailable
from pgevents.event import Address, Envelope
from pgevents.interfaces import Reason, Unpublished
from pgevents.lsn import Lsn
from pgevents.park import ParkFile
from pgevents.parked import open_events
from pgevents.poison import Parking, Poison, Sieve
from pgevents.testing import MemorySink

MOST = 100


def envelope(name: str, *, size: int = 10, topic: str = "public.orders.insert") -> Envelope:
    return Envelope(name, Address(topic, "insert", "application/json"), 0, b"x" * size)


def rejected(
    name: str, *, transient: bool = False, max_bytes: int | None = None, routing_key: str | None = None
) -> PublishRejected:
    return PublishRejected(
        name, "no", hint="Change it.", transient=transient, max_bytes=max_bytes, routing_key=routing_key
    )


def found(poison: Poison, *envelopes: Envelope) -> list[tuple[str, Reason]]:
    return [(event.envelope.message_id, event.reason) for event in poison.found_in(envelopes)]


def test_without_parking_a_final_rejection_is_raised_with_the_way_to_park() -> None:
    with pytest.raises(PublishRejected) as raised:
        Poison(nack_limit=None).judge(rejected("1"))

    assert raised.value.hint.startswith("Change it. ")
    assert "--on-poison park" in raised.value.hint


def test_without_parking_a_nack_is_tried_again_for_ever() -> None:
    poison = Poison(nack_limit=None)

    for _ in range(100):
        with pytest.raises(PublishRejected) as raised:
            poison.judge(rejected("1", transient=True))
        assert raised.value.hint == "Change it."


def test_an_event_is_poison_after_so_many_nacks_in_a_row() -> None:
    poison = Poison(nack_limit=3)
    for _ in range(2):
        with pytest.raises(PublishRejected):
            poison.judge(rejected("1", transient=True))
    assert found(poison, envelope("1")) == []

    poison.judge(rejected("1", transient=True))

    assert found(poison, envelope("1"), envelope("2")) == [("1", Reason.NACKED)]
    assert poison.found_in([envelope("1")])[0].detail == "nacked 3 times in a row"


def test_a_confirm_in_between_begins_the_count_anew() -> None:
    poison = Poison(nack_limit=2)
    with pytest.raises(PublishRejected):
        poison.judge(rejected("1", transient=True))

    poison.confirmed([envelope("1")])

    with pytest.raises(PublishRejected):
        poison.judge(rejected("1", transient=True))


def test_what_is_larger_than_a_limit_that_was_met_is_poison_at_once() -> None:
    poison = Poison(nack_limit=1)

    poison.judge(rejected("1", max_bytes=MOST))

    others = [envelope("2", size=MOST), envelope("3", size=MOST + 1)]
    assert found(poison, envelope("1", size=MOST + 5), *others) == [("1", Reason.TOO_LARGE), ("3", Reason.TOO_LARGE)]
    assert poison.found_in([others[1]])[0].detail == "101 bytes; the sink takes 100"


def test_a_limit_is_asked_for_again_after_a_while() -> None:
    now = [0.0]
    poison = Poison(nack_limit=1, now=lambda: now[0])
    poison.judge(rejected("1", max_bytes=MOST))

    now[0] = 601.0

    assert found(poison, envelope("2", size=MOST + 1)) == []


def test_all_events_of_a_routing_key_that_was_refused_are_poison() -> None:
    poison = Poison(nack_limit=1)

    poison.judge(rejected("1", routing_key="long"))

    assert found(poison, envelope("2", topic="long"), envelope("3")) == [("2", Reason.UNPUBLISHABLE)]


def test_an_event_that_was_refused_for_good_is_poison_alone() -> None:
    poison = Poison(nack_limit=1)

    poison.judge(rejected("1"))

    assert found(poison, envelope("1"), envelope("2")) == [("1", Reason.UNPUBLISHABLE)]


def test_a_rejection_of_what_was_not_published_is_not_turned_into_an_endless_loop() -> None:
    poison = Poison(nack_limit=1)
    poison.judge(rejected("1"))

    with pytest.raises(PublishRejected):
        poison.judge(rejected("1"))


class Disk:
    """A park whose adds end when they are told to."""

    def __init__(self) -> None:
        self.parked: list[str] = []
        self.waiting: list[tuple[Sequence[Unpublished], asyncio.Future[None]]] = []

    async def add(self, events: Sequence[Unpublished], *, sink: str) -> None:  # noqa: ARG002
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((events, done))
        await done
        self.parked += [event.envelope.message_id for event in events]

    def sync(self) -> None:
        self.waiting.pop(0)[1].set_result(None)

    async def close(self) -> None:
        self.waiting.clear()


def batch(*envelopes: Envelope) -> Batch:
    return Batch(list(envelopes), Lsn(1))


def knowing(*names: str) -> Poison:
    poison = Poison(nack_limit=1)
    for name in names:
        poison.judge(rejected(name))
    return poison


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("first", ["sink", "disk"])
@pytest.mark.fault("I18")
def test_a_batch_is_confirmed_when_its_poison_is_parked_and_the_rest_published(first: str) -> None:
    async def scenario() -> None:
        sink, disk = MemorySink(confirms=False), Disk()
        confirmation = asyncio.ensure_future(
            Sieve(sink, disk, knowing("2")).publish(batch(*map(envelope, ("1", "2", "3"))))
        )
        await turns()
        assert [each.message_id for each in sink.unconfirmed[0][0].envelopes] == ["1", "3"]

        steps = [sink.confirm, disk.sync]
        for step in steps if first == "sink" else reversed(steps):
            assert not confirmation.done()
            step()
            await turns()

        assert confirmation.done()
        assert disk.parked == ["2"]

    asyncio.run(scenario())


def test_a_batch_of_nothing_but_poison_is_not_published() -> None:
    async def scenario() -> None:
        sink, disk = MemorySink(), Disk()
        confirmation = Sieve(sink, disk, knowing("1", "2")).publish(batch(envelope("1"), envelope("2")))
        await turns()
        disk.sync()
        await confirmation

        assert disk.parked == ["1", "2"]
        assert sink.stored == []

    asyncio.run(scenario())


@pytest.mark.fault("F13", "I18")
def test_a_park_that_cannot_be_written_confirms_nothing() -> None:
    async def scenario() -> None:
        sink, disk = MemorySink(), Disk()
        confirmation = Sieve(sink, disk, knowing("2")).publish(batch(envelope("1"), envelope("2")))
        await turns()
        disk.waiting[0][1].set_exception(SinkUnavailable("cannot write: No space left on device"))

        with pytest.raises(SinkUnavailable, match="No space left"):
            await confirmation

    asyncio.run(scenario())


def test_an_event_that_is_sent_again_is_parked_once_a_process(tmp_path: Path) -> None:
    path, poison = tmp_path / "parked", knowing("1")

    async def session() -> None:
        sieve = Sieve(MemorySink(), Parking(ParkFile(path), poison), poison)
        await sieve.publish(batch(envelope("1"), envelope("2")))
        await sieve.close()

    for _ in range(3):
        asyncio.run(session())

    assert path.read_bytes().count(b"\n") == 1
    assert poison.parked == 1


ENVELOPES = st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=5)
"""Batches: how many envelopes, and whether every second one is too large."""


def made(batches: list[tuple[int, bool]]) -> list[Batch]:
    return [
        batch(*(envelope(f"{at}-{each}", size=MOST + 1 if spiked and each % 2 else 1) for each in range(size)))
        for at, (size, spiked) in enumerate(batches)
    ]


class Crash:
    """One process after another publishes all batches from the first unconfirmed one, as the pipeline does."""

    def __init__(self, batches: list[Batch], path: Path, seed: int) -> None:
        self.batches, self.path, self.random = batches, path, random.Random(seed)
        self.stored: list[Envelope] = []
        self.acknowledged = 0

    @property
    def kept(self) -> set[str]:
        return {each.message_id for each in self.stored} | {each.message_id for each in open_events(self.path)}

    async def run(self, steps: int | None) -> None:
        poison = Poison(nack_limit=1)
        poison.judge(rejected("none", max_bytes=MOST))
        sink = MemorySink(confirms=False, stored=self.stored)
        sieve = Sieve(sink, Parking(ParkFile(self.path), poison), poison)
        start = self.acknowledged
        confirmations = [asyncio.ensure_future(sieve.publish(each)) for each in self.batches[start:]]
        while self.acknowledged < len(self.batches) and steps != 0:
            steps = None if steps is None else steps - 1
            await asyncio.sleep(0.0002)
            if sink.unconfirmed and self.random.random() < 0.5:
                sink.confirm(self.random.randrange(len(sink.unconfirmed)))
            while self.acknowledged < len(self.batches) and confirmations[self.acknowledged - start].done():
                confirmations[self.acknowledged - start].result()
                assert {each.message_id for each in self.batches[self.acknowledged].envelopes} <= self.kept
                self.acknowledged += 1
        await sieve.close()
        for confirmation in confirmations:
            confirmation.cancel()
            with contextlib.suppress(asyncio.CancelledError, SinkUnavailable):
                await confirmation


@settings(max_examples=60, deadline=None)
@given(ENVELOPES, st.lists(st.integers(0, 12), max_size=3), st.integers(0, 2**32))
@pytest.mark.fault("I18")
def test_a_crash_at_any_moment_leaves_each_event_stored_or_parked(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, bool]], crashes: list[int], seed: int
) -> None:
    world = Crash(made(shapes), tmp_path_factory.mktemp("park") / "parked", seed)

    for steps in (*crashes, None):
        asyncio.run(world.run(steps))

    everything = [each for batch in world.batches for each in batch.envelopes]
    large = [each.message_id for each in everything if len(each.body) > MOST]
    assert [each.message_id for each in open_events(world.path)] == large
    assert {each.message_id for each in world.stored} == {each.message_id for each in everything} - set(large)


@given(st.lists(st.booleans(), min_size=1, max_size=8))
@pytest.mark.fault("I18")
def test_what_is_no_poison_keeps_its_order(poisonous: list[bool]) -> None:
    envelopes = [envelope(str(at), size=MOST + 1 if bad else 1) for at, bad in enumerate(poisonous)]

    async def scenario() -> list[str]:
        poison = Poison(nack_limit=1)
        poison.judge(rejected("none", max_bytes=MOST))
        sink, disk = MemorySink(), Disk()
        confirmation = asyncio.ensure_future(Sieve(sink, disk, poison).publish(batch(*envelopes)))
        await turns()
        if disk.waiting:
            disk.sync()
        await confirmation
        return [each.message_id for each in sink.stored]

    stored = asyncio.run(scenario())

    assert stored == [str(at) for at, bad in enumerate(poisonous) if not bad]
