"""The park file: what is parked stays, whole, and can be published again byte for byte."""

import asyncio
import json
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.errors import SinkRefused, SinkUnavailable
from pgevents.event import Address, Envelope
from pgevents.interfaces import Reason, Unpublished
from pgevents.park import ParkFile, check, line_of, parse

DEADLINE_S = 20.0
SINK = "amqp://app:***@broker:5672/%2F?exchange=pgevents"


def envelope(message_id: str, topic: str = "public.orders.insert") -> Envelope:
    address = Address(topic, "insert", "application/json")
    return Envelope(message_id, address, 1_790_000_000, f'{{"id":"{message_id}"}}'.encode())


def unroutable(*message_ids: str) -> list[Unpublished]:
    return [Unpublished(envelope(each), Reason.NO_ROUTE, "no queue") for each in message_ids]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def park(path: Path, *batches: list[Unpublished]) -> None:
    async def run() -> None:
        file = ParkFile(path)
        try:
            for events in batches:
                await file.add(events, sink=SINK)
        finally:
            await file.close()

    asyncio.run(run())


HEADERS = st.lists(st.tuples(st.text(), st.text()), max_size=4).map(tuple)
ADDRESSES = st.builds(
    Address,
    st.text(),
    st.text(),
    st.text(),
    exchange=st.text(),
    headers=HEADERS,
    priority=st.none() | st.integers(0, 255),
    expiration=st.just("") | st.integers(0, 2**32 - 1).map(str),
    content_encoding=st.text(),
    parked_by=st.just(""),
    is_optional=st.just(False),
)
ENVELOPES = st.builds(
    Envelope,
    st.text(min_size=1),
    ADDRESSES,
    st.integers(0, 2**53),
    st.binary() | st.text().map(str.encode),
    headers=HEADERS,
)


@given(ENVELOPES, st.sampled_from(Reason), st.text(), st.text())
def test_a_parked_event_is_read_back_byte_for_byte(
    envelope: Envelope, reason: Reason, detail: str, sink: str
) -> None:
    line = line_of(Unpublished(envelope, reason, detail), sink=sink, parked_at="2026-01-01T00:00:00Z")

    read = parse(line)

    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert read.envelope == envelope
    assert (read.reason, read.detail, read.sink, read.parked_at) == (reason, detail, sink, "2026-01-01T00:00:00Z")


def test_a_parked_event_is_one_line_with_all_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "parked.ndjson"

    park(path, unroutable("1", "2"), unroutable("3"))

    parked = lines(path)
    assert [line["message_id"] for line in parked] == ["1", "2", "3"]
    assert len({line.pop("park_id") for line in parked}) == 3
    assert str(parked[0].pop("parked_at")).endswith("Z")
    assert parked[0] == {
        "reason": "NO_ROUTE",
        "detail": "no queue",
        "sink": SINK,
        "message_id": "1",
        "routing_key": "public.orders.insert",
        "type": "insert",
        "content_type": "application/json",
        "timestamp": 1_790_000_000,
        "body": '{"id":"1"}',
    }


def test_a_line_of_old_has_an_id_that_stays_the_same() -> None:
    line = (
        b'{"parked_at":"2026-01-01T00:00:00Z","reason":"NO_ROUTE","exchange":"pgevents","routing_key":"a.b.insert",'
        b'"message_id":"7-1-A-1","content_type":"application/json","body":"{\\"op\\":\\"insert\\"}"}\n'
    )

    old, again = parse(line), parse(line)

    assert old == again
    assert len(old.park_id) == 16
    assert old.envelope == Envelope(
        "7-1-A-1", Address("a.b.insert", "pgevents.insert", "application/json"), 0, b'{"op":"insert"}'
    )


def test_what_a_rule_put_aside_is_read_back_as_what_is_published() -> None:
    event = envelope("1")
    put_aside = event._replace(address=event.address._replace(parked_by="bulk"))

    line = line_of(Unpublished(put_aside, Reason.NO_ROUTE, "bulk"), sink=SINK, parked_at="2026-01-01T00:00:00Z")

    assert parse(line).envelope == event


def test_a_line_written_before_there_were_routes_is_read_as_one_without() -> None:
    line = line_of(unroutable("1")[0], sink=SINK, parked_at="2026-01-01T00:00:00Z")

    assert not {"exchange", "headers", "message_headers", "priority", "expiration"} & set(json.loads(line))
    assert parse(line).envelope == envelope("1")


@pytest.mark.parametrize("line", [b"{}", b"[]", b"1", b'{"v":1}', b"notes", b'{"parked_at":1}', b'{"body":1}'])
def test_what_is_no_line_of_ours_is_not_taken_for_one(line: bytes) -> None:
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        parse(line)


def test_only_the_account_that_streams_may_read_a_new_park_file(tmp_path: Path) -> None:
    path = tmp_path / "parked.ndjson"

    park(path, unroutable("1"))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_closing_waits_for_what_is_being_parked(tmp_path: Path) -> None:
    path = tmp_path / "parked.ndjson"

    async def scenario() -> list[BaseException | None]:
        file = ParkFile(path)
        adding = [asyncio.create_task(file.add(unroutable(*[str(at)] * 100), sink=SINK)) for at in range(3)]
        await asyncio.sleep(0)
        await file.close()
        return await asyncio.gather(*adding, return_exceptions=True)

    ended = asyncio.run(scenario())

    assert [line["message_id"] for line in lines(path)] == [
        str(at) for at, error in enumerate(ended) if error is None for _ in range(100)
    ]


def test_a_torn_parked_event_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "parked.ndjson"
    park(path, unroutable("1"))
    path.write_bytes(path.read_bytes()[:-1])

    park(path, unroutable("2"))

    assert [line["message_id"] for line in lines(path)] == ["2"]


@pytest.mark.parametrize("foreign", [b"notes", b'{"v":1'])
def test_a_park_file_that_ends_with_what_is_not_parked_is_left_alone(tmp_path: Path, foreign: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(foreign)

    with pytest.raises(SinkRefused, match="does not end with a line of ours"):
        park(path, unroutable("1"))

    assert path.read_bytes() == foreign


def test_a_park_file_on_a_disk_that_hangs_is_tried_again_until_its_last_write_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, hangs, goes_on = tmp_path / "parked.ndjson", threading.Event(), threading.Event()

    def fsync(_fd: int) -> None:
        hangs.set()
        goes_on.wait(DEADLINE_S)

    async def is_parked() -> bool:
        file = ParkFile(path)
        try:
            await file.add(unroutable("2"), sink=SINK)
        except SinkUnavailable as error:
            assert "has not ended yet" in str(error)  # noqa: PT017 - it is one of two outcomes
            return False
        finally:
            await file.close()
        return True

    async def scenario() -> None:
        file = ParkFile(path)
        adding = asyncio.create_task(file.add(unroutable("1"), sink=SINK))
        await asyncio.to_thread(hangs.wait, DEADLINE_S)
        await file.close()
        assert not await is_parked()
        goes_on.set()
        async with asyncio.timeout(DEADLINE_S):
            while not await is_parked():
                await asyncio.sleep(0.01)
        with pytest.raises(SinkUnavailable, match="was closed"):
            await adding

    monkeypatch.setattr(os, "fsync", fsync)
    asyncio.run(scenario())

    assert lines(path)[-1]["message_id"] == "2"


def test_a_park_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SinkRefused, match="No such file or directory"):
        park(tmp_path / "missing" / "parked.ndjson", unroutable("1"))


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_no_place_to_park_events(device: str) -> None:
    with pytest.raises(SinkRefused, match="is no regular file"):
        park(Path(device), unroutable("1"))
    with pytest.raises(SinkRefused, match="is no regular file"):
        check(Path(device))


def test_a_pipe_is_no_place_to_park_events(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(SinkRefused, match="is no regular file"):
        park(tmp_path / "pipe", unroutable("1"))


def test_a_park_file_is_checked_without_being_made(tmp_path: Path) -> None:
    check(tmp_path / "parked.ndjson")

    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SinkRefused, match="there is no folder"):
        check(tmp_path / "missing" / "parked.ndjson")
