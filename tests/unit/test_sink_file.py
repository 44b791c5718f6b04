"""The file sink: whole lines, synced, and nothing torn left behind."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pgevents.batch import Batch
from pgevents.errors import ConfigError, SinkError, SinkRefused, SinkUnavailable
from pgevents.event import Address, Envelope
from pgevents.interfaces import SinkOptions
from pgevents.lsn import Lsn
from pgevents.sink import file

ADDRESS = Address("public.orders.insert", "insert", "application/json")
DEADLINE_S = 20.0


def batch(*bodies: bytes) -> Batch:
    return Batch([Envelope(str(at), ADDRESS, 0, body) for at, body in enumerate(bodies)], Lsn(1))


async def write(url: str, *batches: Batch) -> None:
    """Open, publish all at once, await all in order, close."""
    sink = await file.open(url, SinkOptions())
    try:
        for confirmation in [sink.publish(each) for each in batches]:
            await asyncio.wait_for(confirmation, DEADLINE_S)
    finally:
        await asyncio.wait_for(sink.close(), DEADLINE_S)


@pytest.mark.parametrize("prefix", ["file:", "file://", "file://localhost"])
def test_events_are_appended_in_order_one_a_line(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "events.ndjson"

    asyncio.run(write(f"{prefix}{path}", batch(b"1", b"2"), batch(b"3")))
    asyncio.run(write(f"{prefix}{path}", batch(b"4")))

    assert path.read_text() == "1\n2\n3\n4\n"


def test_a_relative_path_is_below_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    asyncio.run(write("file:events.ndjson", batch(b"1")))

    assert (tmp_path / "events.ndjson").read_text() == "1\n"


def test_a_json_value_with_line_breaks_still_takes_one_line(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"

    asyncio.run(write(f"file:{path}", batch(b'{"new":{"doc":{\n  "a": 1\n}}}', b"2")))

    first, second = path.read_text().splitlines()
    assert json.loads(first) == {"new": {"doc": {"a": 1}}}
    assert second == "2"


@pytest.mark.parametrize("url", ["file:", "file://", "file:///tmp/", "file://host/x", "file:///tmp/a%00b"])
def test_a_url_without_a_file_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError):
        asyncio.run(file.open(url, SinkOptions()))


@pytest.mark.parametrize(("torn", "whole"), [(b'{"id":1}\n{"id":', b'{"id":1}\n'), (b'{"id"', b""), (b"", b"")])
def test_a_torn_last_line_is_cut_when_the_file_is_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: bytes, whole: bytes
) -> None:
    path = tmp_path / "events.ndjson"
    path.write_bytes(torn)

    asyncio.run(write(f"file:{path}", batch(b"2")))

    assert path.read_bytes() == whole + b"2\n"
    said = [(vars(record)["path"], vars(record)["bytes"]) for record in caplog.records]
    assert said == [(str(path), len(torn) - len(whole))] * (torn != whole)


def test_a_torn_line_longer_than_a_read_is_cut_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"1\n" + b"x" * 300_000)

    asyncio.run(write(f"file:{path}", batch(b"2")))

    assert path.read_bytes() == b"1\n2\n"


def test_two_streams_cannot_write_one_file(tmp_path: Path) -> None:
    async def twice() -> None:
        first = await file.open(f"file:{tmp_path / 'events'}", SinkOptions())
        try:
            await file.open(f"file:{tmp_path / 'events'}", SinkOptions())
        finally:
            await first.close()

    with pytest.raises(SinkRefused, match="another process is writing"):
        asyncio.run(twice())


def test_a_missing_folder_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(SinkRefused, match="No such file or directory") as refused:
        asyncio.run(file.open(f"file:{tmp_path / 'missing' / 'events'}", SinkOptions()))

    assert refused.value.hint == "Create the folder first."


def test_a_name_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkRefused, match="File name too long"):
        asyncio.run(file.open(f"file:{tmp_path / ('x' * 300)}", SinkOptions()))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SinkRefused, match="Is a directory"):
        asyncio.run(file.open(f"file:{tmp_path}", SinkOptions()))


def test_a_full_disk_says_so_and_may_be_tried_again() -> None:
    with pytest.raises(SinkUnavailable, match="No space left on device") as full:
        asyncio.run(write("file:/dev/full", batch(b"1")))

    assert full.value.transient
    assert full.value.hint


def test_a_device_takes_events() -> None:
    asyncio.run(write("file:/dev/null", batch(b"1"), batch(b"2")))


FILL = f"""
import asyncio, errno, resource, signal, sys
from pgevents.batch import Batch
from pgevents.errors import SinkError
from pgevents.event import Address, Envelope
from pgevents.interfaces import SinkOptions
from pgevents.lsn import Lsn
from pgevents.sink import file

async def main():
    sink = await file.open("file:" + sys.argv[1], SinkOptions())
    batch = Batch([Envelope("1", {tuple(ADDRESS)!r}, 0, b"x" * 99)] * 10, Lsn(1))
    for confirmation in [sink.publish(batch) for _ in range(8)]:
        try:
            await confirmation
            print("confirmed")
        except SinkError as error:
            print(error, file=sys.stderr)
    await sink.close()

# A file may grow to 2,500 bytes: two batches of ten lines of 100 bytes, and a half.
resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))
asyncio.run(main())
"""


def test_a_write_that_ran_out_of_room_leaves_no_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"

    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, timeout=60, check=True
    )

    assert os.strerror(errno.EFBIG) in done.stderr
    content = path.read_bytes()
    assert content == (b"x" * 99 + b"\n") * 10 * done.stdout.count("confirmed")


ENDLESS = f"""
import asyncio, sys
from pgevents.batch import Batch
from pgevents.event import Address, Envelope
from pgevents.interfaces import SinkOptions
from pgevents.lsn import Lsn
from pgevents.sink import file

async def main():
    sink = await file.open("file:" + sys.argv[1], SinkOptions())
    for number in range(10**9):
        body = b"%d:" % number + b"x" * 20000
        await sink.publish(Batch([Envelope("1", {tuple(ADDRESS)!r}, 0, body)], Lsn(1)))
        print(number, flush=True)

asyncio.run(main())
"""


def test_a_killed_writer_has_lost_nothing_it_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    with subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(50):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        confirmed = 49 + len(writer.stdout.read().splitlines())

    asyncio.run(write(f"file:{path}", batch(b"end")))

    *lines, end = path.read_text().splitlines()
    assert end == "end"
    assert [line.partition(":")[0] for line in lines] == [str(number) for number in range(len(lines))]
    assert {len(line.partition(":")[2]) for line in lines} == {20000}
    assert len(lines) > confirmed


def test_a_pipe_without_a_reader_is_unavailable_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(SinkUnavailable, match="nobody reads the pipe"):
        asyncio.run(write(f"file:{tmp_path / 'pipe'}", batch(b"1")))


def test_a_pipe_takes_more_than_it_can_hold_as_its_reader_reads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)

    async def publish() -> bytes:
        sink = await file.open(f"file:{tmp_path / 'pipe'}", SinkOptions())
        reading = asyncio.create_task(asyncio.to_thread(read_all, reader))
        await asyncio.gather(*[sink.publish(batch(b"x" * 99_999)) for _ in range(10)])
        await sink.close()
        return await reading

    assert asyncio.run(publish()) == (b"x" * 99_999 + b"\n") * 10


def read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as reader:
        return reader.read()


def test_a_stuck_reader_keeps_close_from_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    stuck = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)

    async def publish() -> None:
        sink = await file.open(f"file:{tmp_path / 'pipe'}", SinkOptions())
        confirmation = sink.publish(batch(b"x" * 1_000_000))
        await asyncio.wait_for(sink.close(), DEADLINE_S)
        await confirmation

    try:
        with pytest.raises(SinkError, match="was closed"):
            asyncio.run(publish())
    finally:
        os.close(stuck)


def test_the_reader_of_a_pipe_may_go_away(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)

    async def publish() -> None:
        sink = await file.open(f"file:{tmp_path / 'pipe'}", SinkOptions())
        os.close(reader)
        try:
            await sink.publish(batch(b"1"))
        finally:
            await sink.close()

    with pytest.raises(SinkUnavailable, match="nobody reads the pipe"):
        asyncio.run(publish())
