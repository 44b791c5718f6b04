"""What is measured while a run goes on: the stream's memory, and how far its slot was acknowledged."""

import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psycopg2

from chaos.consumer import MARK, QUEUE
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.lsn import NOWHERE, Lsn

_INTERVAL_S = 0.3
# Old enough to have imported everything and met its load.
_SETTLED_S = 5.0
_GROWTH = 1.25
_GROWTH_MIB = 16.0
_ENOUGH = 500


class Sample(NamedTuple):
    """One process at one moment: seconds since the sampler began, since the process did, and its RSS."""

    at_s: float
    age_s: float
    rss_mib: float


@dataclass(frozen=True, slots=True)
class Memory:
    """RSS of the stream in MiB, by samples of settled processes under load.

    ``first`` and ``last`` are medians of the first and last quarter of them, ``first_high`` and ``last_high`` their
    ninth deciles: what a process needs depends on how much it has to catch up on, and the deciles much less so.
    """

    first: float
    last: float
    first_high: float
    last_high: float
    peak: float
    samples: int

    @property
    def is_flat(self) -> bool | None:
        """None where there are too few samples to tell."""
        is_flat = self.last_high <= self.first_high * _GROWTH + _GROWTH_MIB
        return is_flat if self.samples >= _ENOUGH else None


def memory(samples: Sequence[Sample]) -> Memory:
    """What they amount to, in their order; zeros where there are none."""
    settled = [sample.rss_mib for sample in samples if sample.age_s >= _SETTLED_S]
    quarter = max(2, len(settled) // 4)
    first, last = settled[:quarter] or [0.0], settled[-quarter:] or [0.0]
    return Memory(
        first=median(first),
        last=median(last),
        first_high=_ninth_decile(first),
        last_high=_ninth_decile(last),
        peak=max((sample.rss_mib for sample in samples), default=0.0),
        samples=len(settled),
    )


def _ninth_decile(values: Sequence[float]) -> float:
    return sorted(values)[len(values) * 9 // 10]


class Sampler:
    """Samples until it is stopped. ``pid`` is that of the stream at the moment, 0 where there is none."""

    def __init__(self, dsn: str, slot: str, rabbitmq: RabbitMQ, vhost: str) -> None:
        self._dsn, self._slot = dsn, slot
        self._rabbitmq, self._vhost = rabbitmq, vhost
        self._connection: Any = None
        self._began = time.monotonic()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(each,), daemon=True) for each in (self._sample, self._mark)
        ]
        self._ages: dict[int, float] = {}
        self.pid = 0
        self.samples: list[Sample] = []
        self.confirmed = NOWHERE

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        if self._connection is not None:
            self._connection.close()

    def _run(self, work: Any) -> None:
        while not self._stopping.wait(_INTERVAL_S):
            work()

    def _sample(self) -> None:
        self._sample_memory()
        with suppress(psycopg2.Error):
            self.confirmed = max(self.confirmed, self._ask())

    def _sample_memory(self) -> None:
        now = time.monotonic() - self._began
        pid = self.pid
        if pid and (rss_mib := rss(pid)):
            began = self._ages.setdefault(pid, now)
            self.samples.append(Sample(now, now - began, rss_mib))

    def _ask(self) -> Lsn:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg2.connect(self._dsn, connect_timeout=2, application_name="chaos-sampler")
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", (self._slot,)
            )
            row = cursor.fetchone()
        return Lsn.parse(row[0]) if row and row[0] else NOWHERE

    def _mark(self) -> None:
        """Put into the queue how far the slot was acknowledged, before anything that is published from now on."""
        if not self.confirmed:
            return
        body = {
            "properties": {"type": MARK, "delivery_mode": 2},
            "routing_key": QUEUE,
            "payload": str(self.confirmed),
            "payload_encoding": "string",
        }
        with suppress(OSError):
            self._rabbitmq.api("POST", f"/api/exchanges/{self._vhost}/amq.default/publish", body)


def rss(pid: int) -> float:
    """Resident memory of a process in MiB; 0 where it is gone."""
    with suppress(OSError):
        found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) / 1024 if found else 0.0
    return 0.0
