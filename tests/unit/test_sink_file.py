"""The file sink: whole lines, synced, and nothing torn left behind."""

import asyncio
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pgevents.batch import Batch
from pgevents.codec.native import NativeCodec
from pgevents.errors import ConfigError, SinkError, SinkRefused, SinkUnavailable
from pgevents.event import Address, Envelope, Event, Transaction
from pgevents.format import codec_names
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


@pytest.mark.parametrize(
    ("torn", "whole"),
    [(b'{"v":1}\n{"v":1,"id', b'{"v":1}\n'), (b'{"v":', b""), (b'1\n{"', b"1\n"), (b"{", b""), (b"", b"")],
)
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
    path.write_bytes(b'1\n{"v":' + b"x" * 300_000)

    asyncio.run(write(f"file:{path}", batch(b"2")))

    assert path.read_bytes() == b"1\n2\n"


@pytest.mark.parametrize(
    "foreign", [b"notes", b"one\ntwo", b'{"v":1}\n{"id":1', b"x" * 300_000, b'{"v":1}\n{"x', b'{"w'], ids=len
)
def test_a_last_line_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, foreign: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(foreign)

    with pytest.raises(SinkRefused, match="does not end with a line of ours") as refused:
        asyncio.run(file.open(f"file:{path}", SinkOptions()))

    assert path.read_bytes() == foreign
    assert refused.value.hint


def test_a_torn_event_of_the_native_format_counts_as_ours(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    transaction = Transaction("1", 1, "0/1", None, 0, None)
    event = Event("1", "insert", "public", "orders", {}, {}, None, False, None, [], transaction, 1)
    path.write_bytes(NativeCodec().encode(event)[:-1])

    asyncio.run(write(f"file:{path}", batch(b"2")))

    assert path.read_bytes() == b"2\n"


def remove(path: Path) -> None:
    path.unlink()


def rotate(path: Path) -> None:
    path.rename(path.with_suffix(".1"))


def replace(path: Path) -> None:
    rotate(path)
    path.touch()


@pytest.mark.parametrize("lose", [remove, rotate, replace])
def test_nothing_is_confirmed_into_a_file_that_is_no_longer_there(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    path = tmp_path / "events.ndjson"

    async def publish() -> None:
        sink = await file.open(f"file:{path}", SinkOptions())
        await sink.publish(batch(b"1"))
        lose(path)
        with pytest.raises(SinkUnavailable, match="was removed or replaced"):
            await sink.publish(batch(b"2"))
        await sink.close()
        await write(f"file:{path}", batch(b"2"))

    asyncio.run(publish())

    assert path.read_bytes() == b"2\n"


def test_a_file_that_was_cut_while_it_is_open_is_not_filled_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"

    async def publish() -> None:
        sink = await file.open(f"file:{path}", SinkOptions())
        await sink.publish(batch(b"1" * 1000))
        os.truncate(path, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
        with pytest.raises(SinkError, match=os.strerror(errno.EFBIG)):
            await sink.publish(batch(b"2" * 1000))
        await sink.close()

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        asyncio.run(publish())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert path.read_bytes() == b""


class HangingDisk:
    """Syncs nothing until it is let go."""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.goes_on = threading.Event()

    def fsync(self, _fd: int) -> None:
        self.hangs.set()
        self.goes_on.wait(DEADLINE_S)


def test_a_disk_that_hangs_is_tried_again_until_its_last_write_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, disk = f"file:{tmp_path / 'events'}", HangingDisk()

    async def reopened() -> bool:
        try:
            await write(url, batch(b"2"))
        except SinkUnavailable as error:
            assert "has not ended yet" in str(error)  # noqa: PT017 - it is one of two outcomes
            return False
        return True

    async def publish() -> None:
        sink = await file.open(url, SinkOptions())
        monkeypatch.setattr(os, "fsync", disk.fsync)
        confirmation = asyncio.ensure_future(sink.publish(batch(b"1")))
        await asyncio.to_thread(disk.hangs.wait, DEADLINE_S)
        await asyncio.wait_for(sink.close(), DEADLINE_S)
        with pytest.raises(SinkUnavailable, match="was closed"):
            await confirmation
        assert not await reopened()
        disk.goes_on.set()
        async with asyncio.timeout(DEADLINE_S):
            while not await reopened():
                await asyncio.sleep(0.01)

    asyncio.run(publish())

    assert (tmp_path / "events").read_bytes() == b"1\n2\n"


HANG = f"""
import asyncio, os, sys, threading
from pgevents.batch import Batch
from pgevents.event import Address, Envelope
from pgevents.interfaces import SinkOptions
from pgevents.lsn import Lsn
from pgevents.sink import file

async def main():
    sink = await file.open("file:" + sys.argv[1], SinkOptions())
    os.fsync = lambda fd: threading.Event().wait()
    confirmation = sink.publish(Batch([Envelope("1", {tuple(ADDRESS)!r}, 0, b"1")], Lsn(1)))
    await asyncio.wait({{confirmation}}, timeout=0.1)
    await sink.close()
    print("closed", flush=True)

asyncio.run(main())
"""


def test_a_disk_that_hangs_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    hung = [sys.executable, "-c", HANG, str(tmp_path / "events")]

    done = subprocess.run(hung, capture_output=True, text=True, timeout=DEADLINE_S, check=True)

    assert (done.stdout, done.stderr) == ("closed\n", "")


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


@pytest.mark.fault("F13")
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


@pytest.mark.fault("F13")
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
        body = b'{{"v":%d:' % number + b"x" * 20000
        await sink.publish(Batch([Envelope("1", {tuple(ADDRESS)!r}, 0, body)], Lsn(1)))
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.fault("I2")
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
    assert lines == [f'{{"v":{number}:' + "x" * 20000 for number in range(len(lines))]
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


@pytest.mark.parametrize("name", [name for name in codec_names() if name != "cloudevents-binary"])
def test_a_torn_event_of_every_format_counts_as_ours(tmp_path: Path, name: str) -> None:
    path = tmp_path / "events.ndjson"
    golden = Path(__file__).parents[1] / "golden" / name / "insert.json"
    path.write_bytes(b"whole\n" + golden.read_bytes().strip()[:-1])

    asyncio.run(write(f"file:{path}", batch(b"2")))

    assert path.read_bytes() == b"whole\n2\n"
