"""How fast the broker takes messages when making them costs nothing: the ceiling of any publisher.

A process of its own, ``python -m bench.ceiling``: every frame is made beforehand and kept in memory, then written
to a bare socket. Bodies, properties, exchange, queue and confirms are those of the stream.
"""

import json
import select
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import orjson

from bench.broker import EXCHANGE
from bench.channel import CHANNEL, FRAME_MAX, open_channel
from bench.fault import WrongRun
from bench.run import Run
from pgevents.event import Address, Envelope
from pgevents.sink.amqp.frame import Framer
from pgevents.sink.amqp.url import parse

WINDOW = 20_000
LONGEST_RUN_S = 300.0

_CHUNK = 100
_BUFFER_BYTES = 1 << 20
# Frame type, channel, size 13, class 60, method 80 (basic.ack), delivery tag, multiple, frame end.
_ACK = struct.Struct(">BHIHHQBB")
_ACK_HEAD = (1, CHANNEL, 13, 60, 80)


def measure_ceiling(sink: str, bodies: Path) -> Run:
    """Publish every line of ``bodies`` from a fresh process. Raises WrongRun when it fails."""
    command = [sys.executable, "-m", "bench.ceiling", str(bodies)]
    # The URL holds a password, which a command line would show to everybody.
    answer = subprocess.run(command, input=sink, capture_output=True, text=True, check=False, timeout=LONGEST_RUN_S)
    if answer.returncode != 0:
        raise WrongRun(f"the raw publisher ended with {answer.returncode}: {answer.stderr}")
    return Run(**json.loads(answer.stdout))


class Confirmed:
    """Counts what the broker has confirmed, one by one or all up to a tag."""

    def __init__(self) -> None:
        self._floor = 0
        self._above: set[int] = set()
        self._rest = b""

    def __len__(self) -> int:
        return self._floor + len(self._above)

    def feed(self, received: bytes) -> None:
        """Take in acks as they were received. Raises WrongRun for anything else the broker says."""
        self._rest += received
        whole = len(self._rest) - len(self._rest) % _ACK.size
        for *head, tag, multiple, _end in _ACK.iter_unpack(self._rest[:whole]):
            if tuple(head) != _ACK_HEAD:
                raise WrongRun("the broker sent the raw publisher something else than an ack")
            self._count(tag, multiple=bool(multiple))
        self._rest = self._rest[whole:]

    def _count(self, tag: int, *, multiple: bool) -> None:
        if multiple:
            self._floor = max(self._floor, tag)
            self._above = {each for each in self._above if each > self._floor}
        elif tag > self._floor:
            self._above.add(tag)


def _envelope(body: bytes) -> Envelope:
    event = orjson.loads(body)
    address = Address(
        f"{event['schema']}.{event['table']}.{event['op']}", f"pgevents.{event['op']}", "application/json"
    )
    return Envelope(event["id"], address, int(datetime.fromisoformat(event["tx"]["committed_at"]).timestamp()), body)


def _chunks(path: Path) -> list[tuple[bytes, int]]:
    """The frames of all messages, some hundred messages a piece, with their number."""
    framer = Framer(CHANNEL, EXCHANGE, frame_max=FRAME_MAX, mandatory=True)
    envelopes = [_envelope(line) for line in path.read_bytes().splitlines()]
    parts = [envelopes[start : start + _CHUNK] for start in range(0, len(envelopes), _CHUNK)]
    return [(framer.frames(part), len(part)) for part in parts]


def _publish(connection: socket.socket, chunks: list[tuple[bytes, int]]) -> int:
    """Write everything, with at most ``WINDOW`` messages unconfirmed, and wait for all confirms."""
    confirmed, written, left = Confirmed(), 0, memoryview(b"")
    waiting = iter(chunks)
    total = sum(count for _, count in chunks)
    while len(confirmed) < total:
        if not left and written < total and written - len(confirmed) < WINDOW:
            frames, count = next(waiting)
            left, written = memoryview(frames), written + count
        readable, writable, _ = select.select([connection], [connection] if left else [], [])
        if readable:
            confirmed.feed(_receive(connection))
        if writable:
            left = left[connection.send(left) :]
    return len(confirmed)


def _receive(connection: socket.socket) -> bytes:
    received = connection.recv(_BUFFER_BYTES)
    if not received:
        raise WrongRun("the broker closed the raw publisher's connection")
    return received


def main() -> None:
    chunks = _chunks(Path(sys.argv[1]))
    connection = open_channel(parse(sys.stdin.read()))
    connection.setblocking(False)  # noqa: FBT003 - it takes no keyword
    began, cpu = time.perf_counter(), time.process_time()
    confirmed = _publish(connection, chunks)
    run = Run(confirmed, time.perf_counter() - began, time.process_time() - cpu)
    print(json.dumps(asdict(run)))


if __name__ == "__main__":
    main()
