"""The stdout sink, in a process of its own behind a real pipe."""

import json
import subprocess
import sys
from pathlib import Path

PUBLISH = """
import asyncio, sys
from pgevents.batch import Batch
from pgevents.errors import PGEventsError
from pgevents.event import Address, Envelope
from pgevents.interfaces import SinkOptions
from pgevents.lsn import Lsn
from pgevents.sink import stdout

ADDRESS = Address("public.orders.insert", "insert", "application/json")

async def main(batches, patience):
    sink = await stdout.open("stdout:", SinkOptions())
    confirmations = [sink.publish(Batch([Envelope("1", ADDRESS, 0, b'{"n":%d}' % number)] * 1000, Lsn(1)))
                     for number in range(batches)]
    try:
        async with asyncio.timeout(patience):
            for confirmation in confirmations:
                await confirmation
    except TimeoutError:
        print("still waiting", file=sys.stderr)
    finally:
        await sink.close()

try:
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
except PGEventsError as error:
    print(type(error).__name__, error, file=sys.stderr)
"""


def publish(batches: int, *, patience_s: float = 20.0) -> list[str]:
    return [sys.executable, "-c", PUBLISH, str(batches), str(patience_s)]


def test_every_event_is_one_json_line_in_order() -> None:
    done = subprocess.run(publish(20), capture_output=True, timeout=60, check=True)

    numbers = [json.loads(line)["n"] for line in done.stdout.splitlines()]
    assert numbers == [number for number in range(20) for _ in range(1000)]
    assert done.stderr == b""


def test_a_redirected_stdout_is_written_whole(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        subprocess.run(publish(20), stdout=out, timeout=60, check=True)

    assert len((tmp_path / "out").read_bytes().splitlines()) == 20_000


def test_a_closed_pipe_ends_with_one_line_that_says_so() -> None:
    with subprocess.Popen(publish(50), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as publisher:
        assert publisher.stdout is not None
        assert publisher.stderr is not None
        publisher.stdout.readline()
        publisher.stdout.close()

        assert publisher.stderr.read() == b"SinkRefused stdout was closed\n"
        assert publisher.wait(timeout=60) == 0


def test_a_stdout_that_was_never_open_is_refused() -> None:
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *publish(1)]

    done = subprocess.run(shell, stderr=subprocess.PIPE, timeout=60, check=True)

    assert done.stderr == b"SinkRefused stdout was closed\n"


def test_a_reader_that_stopped_reading_holds_up_neither_the_loop_nor_the_exit() -> None:
    with subprocess.Popen(publish(50, patience_s=0.5), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as publisher:
        assert publisher.wait(timeout=60) == 0
        assert publisher.stderr is not None
        assert publisher.stderr.read() == b"still waiting\n"
