"""What is published again when events were returned, and what is said of it."""

import asyncio
import json
import logging
import os
import threading
from pathlib import Path

import pytest

from pgevents.errors import SinkRefused, SinkUnavailable
from pgevents.event import Address, Envelope
from pgevents.sink.amqp.confirm import Flight
from pgevents.sink.amqp.unroutable import Park, Warnings, still_unrouted

DEADLINE_S = 20.0


def envelope(message_id: str, topic: str) -> Envelope:
    return Envelope(message_id, Address(topic, "insert", "application/json"), 0, f'{{"id":"{message_id}"}}'.encode())


def flight(first: int, *envelopes: Envelope, returned: set[int]) -> Flight[int]:
    last = first + len(envelopes) - 1
    return Flight(first, envelopes, first, last, floor=last, returned=returned)


def test_a_returned_event_goes_again_with_those_of_its_key_that_followed() -> None:
    a1, b1, a2, b2, a3 = (envelope(name, name[0]) for name in ("a1", "b1", "a2", "b2", "a3"))
    before = flight(1, a1, b1, returned={1})
    after = flight(3, a2, b2, a3, returned=set())

    again = still_unrouted([after, before])

    assert [(flight.owner, envelopes) for flight, envelopes in again] == [(1, [b1]), (3, [b2])]


def test_flights_that_were_routed_have_nothing_to_publish_again() -> None:
    again = still_unrouted([flight(1, envelope("a1", "a"), returned=set())])

    assert [envelopes for _, envelopes in again] == [[]]


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


def test_a_parked_event_is_one_line_with_all_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "parked.ndjson"

    async def park() -> None:
        park = Park(path, "pgevents")
        await park.add([envelope("1", "public.orders.insert"), envelope("2", "public.orders.insert")])
        await park.add([envelope("3", "public.items.insert")])
        await park.close()

    asyncio.run(park())

    parked = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["message_id"] for line in parked] == ["1", "2", "3"]
    assert parked[0].pop("parked_at").endswith("Z")
    assert parked[0] == {
        "reason": "NO_ROUTE",
        "exchange": "pgevents",
        "routing_key": "public.orders.insert",
        "message_id": "1",
        "content_type": "application/json",
        "body": '{"id":"1"}',
    }


def test_closing_waits_for_what_is_being_parked(tmp_path: Path) -> None:
    path = tmp_path / "parked.ndjson"

    async def park() -> list[BaseException | None]:
        park = Park(path, "pgevents")
        adding = [asyncio.create_task(park.add([envelope(str(at), "a")] * 100)) for at in range(3)]
        await asyncio.sleep(0)
        await park.close()
        return await asyncio.gather(*adding, return_exceptions=True)

    ended = asyncio.run(park())

    parked = [json.loads(line)["message_id"] for line in path.read_text().splitlines()]
    assert parked == [str(at) for at, error in enumerate(ended) if error is None for _ in range(100)]


def test_a_torn_parked_event_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "parked.ndjson"

    async def park() -> None:
        for message_id in ("1", "2"):
            park = Park(path, "pgevents")
            await park.add([envelope(message_id, "a")])
            await park.close()
            path.write_bytes(path.read_bytes()[:-1] if message_id == "1" else path.read_bytes())

    asyncio.run(park())

    assert [json.loads(line)["message_id"] for line in path.read_text().splitlines()] == ["2"]


@pytest.mark.parametrize("foreign", [b"notes", b'{"v":1'])
def test_a_park_file_that_ends_with_what_is_not_parked_is_left_alone(tmp_path: Path, foreign: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(foreign)

    async def park() -> None:
        await Park(path, "pgevents").add([envelope("1", "a")])

    with pytest.raises(SinkRefused, match="does not end with a line of ours"):
        asyncio.run(park())
    assert path.read_bytes() == foreign


def test_a_park_file_on_a_disk_that_hangs_is_tried_again_until_its_last_write_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, hangs, goes_on = tmp_path / "parked.ndjson", threading.Event(), threading.Event()

    def fsync(_fd: int) -> None:
        hangs.set()
        goes_on.wait(DEADLINE_S)

    async def is_parked() -> bool:
        park = Park(path, "pgevents")
        try:
            await park.add([envelope("2", "a")])
        except SinkUnavailable as error:
            assert "has not ended yet" in str(error)  # noqa: PT017 - it is one of two outcomes
            return False
        finally:
            await park.close()
        return True

    async def scenario() -> None:
        park = Park(path, "pgevents")
        adding = asyncio.create_task(park.add([envelope("1", "a")]))
        await asyncio.to_thread(hangs.wait, DEADLINE_S)
        await park.close()
        assert not await is_parked()
        goes_on.set()
        async with asyncio.timeout(DEADLINE_S):
            while not await is_parked():
                await asyncio.sleep(0.01)
        with pytest.raises(SinkUnavailable, match="was closed"):
            await adding

    monkeypatch.setattr(os, "fsync", fsync)
    asyncio.run(scenario())

    assert [json.loads(line)["message_id"] for line in path.read_text().splitlines()][-1] == "2"


def test_a_park_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    async def park() -> None:
        await Park(tmp_path / "missing" / "parked.ndjson", "pgevents").add([envelope("1", "a")])

    with pytest.raises(SinkRefused, match="No such file or directory"):
        asyncio.run(park())
