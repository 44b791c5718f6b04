"""What every sink promises. A new sink needs an ``OtherEnd`` here, or the first test fails."""

import asyncio
import gc
import importlib
import os
import pkgutil
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import urlsplit

import pytest

import pgevents.sink
from pgevents.batch import Batch
from pgevents.errors import PGEventsError
from pgevents.event import Address, Envelope
from pgevents.interfaces import Sink, SinkOptions
from pgevents.lsn import Lsn
from tests.contract import amqp

DEADLINE_S = 30.0
ADDRESS = Address("public.orders.insert", "insert", "application/json")


class OtherEnd(Protocol):
    """Where a sink's events go, and how they are read there."""

    url: str
    bad_url: str
    keeps: bool
    secret: str

    def attached(self) -> AbstractContextManager[None]:
        """While the sink is used."""
        ...

    def read(self) -> list[bytes]: ...


class FileEnd:
    keeps, secret = True, "secret"

    def __init__(self, url: str, bad_url: str, path: Path) -> None:
        self.url, self.bad_url, self._path = url, bad_url, path

    def attached(self) -> AbstractContextManager[None]:
        return nullcontext()

    def read(self) -> list[bytes]:
        return self._path.read_bytes().splitlines()


class StdoutEnd(FileEnd):
    def __init__(self, path: Path) -> None:
        super().__init__("stdout:", "stdout:x", path)

    @contextmanager
    def attached(self) -> Iterator[None]:
        before = os.dup(1)
        with self._path.open("ab") as out:
            os.dup2(out.fileno(), 1)
            try:
                yield
            finally:
                os.dup2(before, 1)
                os.close(before)


class NullEnd:
    url, bad_url, keeps, secret = "null:", "null:x", False, "secret"

    def attached(self) -> AbstractContextManager[None]:
        return nullcontext()

    def read(self) -> list[bytes]:
        return []


class AmqpEnd:
    keeps = True

    def __init__(self, vhost: str) -> None:
        self.secret = urlsplit(vhost).password or ""
        self._vhost = vhost
        self.url = f"{vhost}?exchange={amqp.EXCHANGE}"
        self.bad_url = f"{vhost}?exchange="
        amqp.bind(vhost, "all")

    def attached(self) -> AbstractContextManager[None]:
        return nullcontext()

    def read(self) -> list[bytes]:
        return [body for _, body in amqp.stored(self._vhost, "all")]


@contextmanager
def file_end(request: pytest.FixtureRequest) -> Iterator[OtherEnd]:
    path: Path = request.getfixturevalue("tmp_path") / "events"
    yield FileEnd(f"file:{path}", f"file:{path.parent / 'missing' / 'events'}", path)


@contextmanager
def stdout_end(request: pytest.FixtureRequest) -> Iterator[OtherEnd]:
    yield StdoutEnd(request.getfixturevalue("tmp_path") / "stdout")


@contextmanager
def null_end(_request: pytest.FixtureRequest) -> Iterator[OtherEnd]:
    yield NullEnd()


@contextmanager
def amqp_end(request: pytest.FixtureRequest) -> Iterator[OtherEnd]:
    yield AmqpEnd(request.getfixturevalue("vhost"))


ENDS = {"amqp": amqp_end, "file": file_end, "null": null_end, "stdout": stdout_end}
SINKS = sorted(found.name for found in pkgutil.iter_modules(pgevents.sink.__path__) if found.name[0] != "_")


@pytest.fixture(params=SINKS)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def end(request: pytest.FixtureRequest, scheme: str) -> Iterator[OtherEnd]:
    with ENDS[scheme](request) as other_end:
        yield other_end


def batch(number: int, size: int = 100) -> Batch:
    return Batch([Envelope(f"{number}-{at}", ADDRESS, 0, b"[%d,%d]" % (number, at)) for at in range(size)], Lsn(1))


def bodies(*batches: Batch) -> list[bytes]:
    return [envelope.body for each in batches for envelope in each.envelopes]


async def open_sink(scheme: str, url: str) -> Sink:
    module = importlib.import_module(f"pgevents.sink.{scheme}")
    return cast("Sink", await module.open(url, SinkOptions()))


def with_sink(scheme: str, end: OtherEnd, use: Callable[[Sink], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(DEADLINE_S):
            sink = await open_sink(scheme, end.url)
            try:
                await use(sink)
            finally:
                await sink.close()

    with end.attached():
        asyncio.run(run())


def test_every_sink_stands_in_this_contract() -> None:
    assert sorted(ENDS) == SINKS


def test_what_is_confirmed_can_be_read_in_order(scheme: str, end: OtherEnd) -> None:
    async def use(sink: Sink) -> None:
        await sink.publish(batch(1))

        assert end.read()[:100] == (bodies(batch(1)) if end.keeps else [])

    with_sink(scheme, end, use)


def test_several_batches_are_in_flight_at_once_and_stay_in_order(scheme: str, end: OtherEnd) -> None:
    batches = [batch(number) for number in range(8)]

    async def use(sink: Sink) -> None:
        confirmations = [sink.publish(each) for each in batches]
        for confirmation in reversed(confirmations):
            await confirmation

    with_sink(scheme, end, use)
    assert end.read() == (bodies(*batches) if end.keeps else [])


def test_what_a_route_says_of_an_event_does_not_keep_its_body_from_arriving(scheme: str, end: OtherEnd) -> None:
    routed = ADDRESS._replace(
        exchange=amqp.EXCHANGE, headers=(("tenant", "größer"), ("long", "x" * 5000)), priority=9, expiration="600000"
    )
    own = (("cloudEvents:id", "1"), ("tenant", ""))
    events = [
        Envelope("1", routed, 0, b"[1]", own),
        Envelope("2", routed, 0, b"[2]"),
        Envelope("3", ADDRESS, 0, b"[3]"),
    ]

    async def use(sink: Sink) -> None:
        await sink.publish(Batch(events, Lsn(1)))

    with_sink(scheme, end, use)
    assert end.read() == ([b"[1]", b"[2]", b"[3]"] if end.keeps else [])


def test_a_sink_opened_again_goes_on_behind_what_is_there(scheme: str, end: OtherEnd) -> None:
    for number in range(2):

        async def use(sink: Sink, number: int = number) -> None:
            await sink.publish(batch(number))

        with_sink(scheme, end, use)

    assert end.read() == (bodies(batch(0), batch(1)) if end.keeps else [])


def test_closing_in_mid_flight_returns_soon_and_leaves_nobody_waiting(
    scheme: str, end: OtherEnd, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> float:
        sink = await open_sink(scheme, end.url)
        confirmations = [sink.publish(batch(number, 1000)) for number in range(8)]
        started = time.monotonic()
        await asyncio.wait_for(sink.close(), DEADLINE_S)
        took_s = time.monotonic() - started
        # Neither awaited nor looked at: an error nobody asks for must not be complained about.
        assert all(confirmation.done() for confirmation in cast("list[asyncio.Future[None]]", confirmations))
        return took_s

    with end.attached():
        assert asyncio.run(run()) < 10
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_what_cannot_be_opened_raises_one_of_our_errors(scheme: str, end: OtherEnd) -> None:
    with pytest.raises(PGEventsError) as refused:
        asyncio.run(open_sink(scheme, end.bad_url))

    assert "\n" not in str(refused.value)


def test_a_sink_prints_as_one_line_without_secrets(scheme: str, end: OtherEnd) -> None:
    async def use(sink: Sink) -> None:
        line = str(sink)
        assert line.startswith(scheme)
        assert "\n" not in line
        assert "@" not in end.url or end.url.partition("@")[0].rpartition(":")[2] not in line.partition("@")[0].split(
            ":"
        )

    with_sink(scheme, end, use)
