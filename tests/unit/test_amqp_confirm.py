"""Acks, nacks and returns in any order resolve each flight once, and only when all of it is confirmed."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.event import Address, Envelope
from pgevents.sink.amqp.confirm import Confirms

ADDRESS = Address("public.orders.insert", "insert", "application/json")
Tag = tuple[int, bool]


def batch(first: int, size: int) -> list[Envelope]:
    """Envelopes whose message ids are the delivery tags they get."""
    return [Envelope(str(tag), ADDRESS, 0, b"{}") for tag in range(first, first + size)]


def confirms_of(sizes: Sequence[int]) -> tuple[Confirms[int], list[range]]:
    confirms: Confirms[int] = Confirms()
    tags = []
    for at, size in enumerate(sizes):
        flight = confirms.published(batch(sum(sizes[:at]) + 1, size), at)
        tags.append(range(flight.first, flight.last + 1))
    return confirms, tags


@st.composite
def acks(draw: st.DrawFn) -> tuple[list[int], list[Tag]]:
    """Sizes of flights, and acks of all their tags: any order, single and multiple, some of them twice."""
    sizes = draw(st.lists(st.integers(min_value=1, max_value=5), min_size=1, max_size=5))
    order = draw(st.permutations(range(1, sum(sizes) + 1)))
    mixed = [(tag, draw(st.booleans())) for tag in order]
    return sizes, mixed + [(tag, False) for tag in draw(st.permutations(range(1, sum(sizes) + 1)))]


@given(acks())
@pytest.mark.fault("F78", "I3")
def test_a_flight_is_reported_once_when_all_its_tags_are_acked(given_acks: tuple[list[int], list[Tag]]) -> None:
    sizes, order = given_acks
    confirms, tags = confirms_of(sizes)
    acked: set[int] = set()
    reported: list[int] = []

    for tag, multiple in order:
        done = confirms.acked(tag, multiple=multiple)
        acked |= set(range(1, tag + 1)) if multiple else {tag}

        assert [flight.first for flight in done] == sorted(flight.first for flight in done)
        reported += [flight.owner for flight in done]
        assert sorted(reported) == [at for at, owned in enumerate(tags) if acked.issuperset(owned)]

    assert confirms.is_idle


@given(acks(), st.data())
@pytest.mark.fault("F79", "I3")
def test_a_nack_hits_the_flights_whose_unconfirmed_tags_it_covers(
    given_acks: tuple[list[int], list[Tag]], data: st.DataObject
) -> None:
    sizes, order = given_acks
    confirms, tags = confirms_of(sizes)
    before = data.draw(st.integers(min_value=0, max_value=sum(sizes) - 1))
    acked: set[int] = set()
    for tag, multiple in order[:before]:
        confirms.acked(tag, multiple=multiple)
        acked |= set(range(1, tag + 1)) if multiple else {tag}
    nack, multiple = data.draw(st.integers(min_value=1, max_value=sum(sizes))), data.draw(st.booleans())

    refused = confirms.nacked(nack, multiple=multiple)

    hit = (set(range(1, nack + 1)) if multiple else {nack}) - acked
    expected = {at: min(hit & set(owned)) for at, owned in enumerate(tags) if hit & set(owned)}
    assert {flight.owner: int(envelope.message_id) for flight, envelope in refused} == expected
    rest = confirms.acked(sum(sizes), multiple=True)
    assert not {flight.owner for flight in rest} & set(expected), "a refused flight is not confirmed later"


@pytest.mark.fault("F80", "I19")
def test_a_returned_message_is_marked_before_its_ack() -> None:
    confirms, _ = confirms_of([3, 3])

    returned = confirms.returned("5")

    assert returned is not None
    assert returned.message_id == "5"
    first, second = confirms.acked(6, multiple=True)
    assert first.returned == set()
    assert second.returned == {1}


def test_a_message_published_again_is_found_in_its_new_flight() -> None:
    confirms, _ = confirms_of([1])
    confirms.returned("1")
    confirms.acked(1, multiple=False)
    confirms.published(batch(1, 1), 7)

    confirms.returned("1")

    [flight] = confirms.acked(2, multiple=False)
    assert (flight.owner, flight.returned) == (7, {0})


def test_the_return_of_an_unknown_message_changes_nothing() -> None:
    confirms, _ = confirms_of([2])

    assert confirms.returned("another") is None
    assert [flight.returned for flight in confirms.acked(2, multiple=True)] == [set()]


def test_an_ack_of_everything_outstanding_confirms_nothing_that_may_still_be_on_its_way() -> None:
    confirms, _ = confirms_of([2, 2])

    assert confirms.acked(0, multiple=True) == []
    assert len(confirms.acked(4, multiple=True)) == 2


def test_a_nack_of_everything_outstanding_hits_every_flight() -> None:
    confirms, _ = confirms_of([2, 2])

    assert len(confirms.nacked(0, multiple=False)) == 2
    assert confirms.is_idle
