"""What is published again when events were returned, and what is said of it."""

import logging
from collections.abc import Generator

import pytest

from pgevents.event import Address, Envelope
from pgevents.sink.amqp.confirm import Flight
from pgevents.sink.amqp.unroutable import Warnings, behind_return, still_unrouted


def envelope(message_id: str, topic: str, exchange: str = "") -> Envelope:
    address = Address(topic, "insert", "application/json", exchange)
    return Envelope(message_id, address, 0, f'{{"id":"{message_id}"}}'.encode())


class Never:
    def __await__(self) -> Generator[None, None, None]:
        yield


def flight(first: int, *envelopes: Envelope, returned: set[int]) -> Flight[int]:
    last = first + len(envelopes) - 1
    return Flight(first, envelopes, first, last, floor=last, returned=returned)


def test_a_returned_event_goes_again_with_those_of_its_key_that_followed() -> None:
    a1, b1, a2, b2, a3 = (envelope(name, name[0]) for name in ("a1", "b1", "a2", "b2", "a3"))
    before = flight(1, a1, b1, returned={1})
    after = flight(3, a2, b2, a3, returned=set())

    again = still_unrouted([before, after])

    assert [(flight.owner, envelopes) for flight, envelopes in again] == [(1, [b1]), (3, [b2])]


def test_an_event_of_the_same_key_on_another_exchange_does_not_go_again() -> None:
    a1, other, a2 = envelope("a1", "a"), envelope("o", "a", "other"), envelope("a2", "a")

    again = still_unrouted([flight(1, a1, other, a2, returned={0})])

    assert again[0][1] == [a1, a2]


def test_flights_that_were_routed_have_nothing_to_publish_again() -> None:
    assert still_unrouted([flight(1, envelope("a1", "a"), returned=set())]) == []


def test_everything_behind_the_first_return_is_repeated_when_all_is_routed() -> None:
    a, b, c, d, e = (envelope(name, name) for name in "abcde")
    routed = flight(1, a, returned=set())
    first = flight(2, b, c, d, returned={1})
    second = flight(5, e, returned=set())

    repeated = behind_return([routed, first, second])

    assert [(flight.owner, list(envelopes)) for flight, envelopes in repeated] == [(2, [c, d]), (5, [e])]


def test_the_first_warning_is_said_at_once_and_the_next_after_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    warnings = Warnings("pgevents", "dropping them")

    with caplog.at_level(logging.WARNING):
        for now in (100.0, 101.0, 109.9, 110.0):
            warnings.add([envelope("1", "public.orders.insert"), envelope("2", "public.items.insert")], now=now)

    first, second = (vars(record) for record in caplog.records)
    assert first["message"] == "no queue is bound for these events, dropping them"
    assert (first["exchange"], first["count"]) == ("pgevents", 2)
    assert (first["routing_key"], first["other_routing_keys"]) == ("public.items.insert", 1)
    assert second["count"] == 8


def test_a_warning_names_the_exchange_that_nothing_is_bound_to(caplog: pytest.LogCaptureFixture) -> None:
    warnings = Warnings("pgevents", "waiting for one")
    unrouted = [envelope("1", "b", "other"), envelope("2", "a", "other"), envelope("3", "a", "other")]

    with caplog.at_level(logging.WARNING):
        warnings.add(unrouted, now=100.0)
        warnings.routed(unrouted)
    error = warnings.error(unrouted, routed=Never())

    said, over = (vars(record) for record in caplog.records)
    assert (said["exchange"], said["routing_key"], said["other_routing_keys"]) == ("other", "a", 1)
    assert (over["exchange"], over["count"]) == ("other", 3)
    assert str(error) == "no queue of exchange other is bound for a and 1 more routing keys"
