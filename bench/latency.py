"""From a commit to its event in the hands of a consumer of a quorum queue, at a steady pace."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from math import ceil
from statistics import median
from typing import Any

import orjson
import psycopg2

from bench.broker import QUEUE
from bench.fault import WrongRun
from bench.report import Section, Target
from bench.servers import Servers
from bench.stream import StreamProcess
from bench.throughput import Say

PER_SECOND = 1000
# The first second is for the stream, the consumer and the queue to get going.
WARM_UP = PER_SECOND
P50_MS, P99_MS = 5.0, 25.0
QUIET_S = 10.0

_PREFETCH = 500
_ACK_EVERY = 50
_SLOT = "bench_latency"
_NOTES = (
    "One-row transactions, synchronous_commit on. Counted from committed_at, which PostgreSQL takes before it writes",
    "and flushes the commit record, so the disk's flush is in every figure, to the consumer's receipt, on one clock.",
)


@dataclass(frozen=True, slots=True)
class LatencyRun:
    """``p50_ms`` and so on of all events after the warm-up, and the pace the writer really kept."""

    events: int
    per_second: float
    p50_ms: float
    p99_ms: float
    highest_ms: float
    cpu_us: float


def commit_to_consumer(servers: Servers, *, seconds: int, rounds: int, say: Say) -> Section:
    runs = []
    for number in range(rounds):
        say(f"latency, round {number + 1} of {rounds}")
        runs.append(_run(servers, first=10**12 * (number + 1), changes=WARM_UP + seconds * PER_SECOND))
    p50, p99 = median([run.p50_ms for run in runs]), median([run.p99_ms for run in runs])
    highest = max(run.highest_ms for run in runs)
    pace = median([run.per_second for run in runs])
    cpu_us = median([run.cpu_us for run in runs])
    return Section(
        "latency",
        f"From commit to consumer, at {pace:,.0f} commits/s, plug-in {servers.plugins[0]}",
        [f"p50 {p50:.1f} ms   p99 {p99:.1f} ms   highest {highest:.1f} ms   CPU of the stream {cpu_us:.0f} µs/event"],
        {"rounds": [asdict(run) for run in runs]},
        [
            Target("commit to consumer, p50", p50, P50_MS, at_least=False, unit=" ms"),
            Target("commit to consumer, p99", p99, P99_MS, at_least=False, unit=" ms"),
        ],
        _NOTES,
    )


def _run(servers: Servers, *, first: int, changes: int) -> LatencyRun:
    """Write, stream and consume ``changes``. Raises WrongRun unless each arrives once."""
    servers.queue.renew()
    arguments = ["--dsn", servers.dsn, "--slot", _SLOT, "--create-slot", "--sink", servers.queue.sink]
    with StreamProcess(servers.folder, *arguments) as stream, ThreadPoolExecutor(1) as pool:
        stream.await_ready()
        writing = pool.submit(_write, servers.dsn, first, changes)
        arrived = list(_arrivals(servers, writing, changes))
        stream.stop()
        confirmed = stream.finish()
    with servers.database.cursor() as sql:
        sql.execute("SELECT pg_drop_replication_slot(%s)", (_SLOT,))
    if confirmed.confirmed != changes:
        raise WrongRun(f"{confirmed.confirmed} events were confirmed, of {changes} commits")
    return _summary(arrived, changes, cpu_us=confirmed.cpu_us, seconds=writing.result())


def _write(dsn: str, first: int, changes: int) -> float:
    """Commit row after row at the pace; the server paces itself, which costs the least. Gives the seconds taken."""
    began = time.perf_counter()
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as sql:
            sql.execute("CALL bench.pace(%s, %s, %s)", (first, changes, PER_SECOND))
    return time.perf_counter() - began


def _arrivals(servers: Servers, writing: Future[float], changes: int) -> Iterator[tuple[float, bytes]]:
    """When each message came, and its body. Raises WrongRun when no more come though some are owed."""
    with servers.queue.channel() as channel:
        channel.basic_qos(prefetch_count=_PREFETCH)
        for count, (method, body) in enumerate(_deliveries(channel), start=1):
            if method is None:
                raise WrongRun(f"only {count - 1} of {changes} events came{_said_by(writing)}")
            yield time.time(), body
            if count % _ACK_EVERY == 0 or count == changes:
                channel.basic_ack(method.delivery_tag, multiple=True)
            if count == changes:
                channel.cancel()
                return


def _deliveries(channel: Any) -> Iterator[tuple[Any, bytes]]:
    for method, _properties, body in channel.consume(QUEUE, inactivity_timeout=QUIET_S):
        yield method, body


def _said_by(writing: Future[float]) -> str:
    error = writing.exception() if writing.done() else None
    return f": {error}" if error else ""


def _summary(arrived: list[tuple[float, bytes]], changes: int, *, cpu_us: float, seconds: float) -> LatencyRun:
    events = [(at, orjson.loads(body)) for at, body in arrived]
    if len({event["id"] for _, event in events}) != changes:
        raise WrongRun(f"{len(events)} events came, and not each once")
    waits_ms = sorted((at - _committed_at(event)) * 1000 for at, event in events[WARM_UP:])
    return LatencyRun(
        events=len(waits_ms),
        per_second=changes / seconds,
        p50_ms=_percentile(waits_ms, 50),
        p99_ms=_percentile(waits_ms, 99),
        highest_ms=waits_ms[-1],
        cpu_us=cpu_us,
    )


def _committed_at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["tx"]["committed_at"]).timestamp()


def _percentile(ascending: list[float], percent: int) -> float:
    """The smallest value that so many percent of all do not exceed (nearest rank)."""
    return ascending[ceil(len(ascending) * percent / 100) - 1]
