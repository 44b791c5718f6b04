"""``kill -9`` of the stream at random moments under load: nothing committed is missing from the queue."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pika
import psycopg2
import pytest
from psycopg2.extras import execute_values

from pgevents.demo.process import eventually
from pgevents.lsn import Lsn
from tests.integration.role import as_role, publish_all
from tests.reliability import count

KILLS = int(os.environ.get("KILLS", "12"))
KEYS = 40
PAUSE_S = 0.002
QUEUE = "kills"
STATE = "state.json"

Kill = tuple[int, Lsn]
"""How many messages had been delivered when the stream was killed, and where its watermark stood."""

Version = tuple[int, int]
"""A key and the version that a committed transaction gave its row."""


class Workload(threading.Thread):
    """Commits updates of random rows, and now and then rolls back; ``committed`` is what must arrive."""

    def __init__(self, dsn: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self._random = random.Random(seed)
        self._versions = dict.fromkeys(range(KEYS), 0)
        self.committed: set[Version] = set()
        self.stopping = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with closing(psycopg2.connect(self._dsn)) as connection:
                while not self.stopping.is_set():
                    self._transaction(connection)
                    # A load, and not all that the machine has.
                    time.sleep(PAUSE_S)
        except BaseException as error:  # noqa: BLE001  # raised again in the test's own thread
            self.failure = error

    def _transaction(self, connection: Any) -> None:
        size = self._random.choice([1, 1, 1, 3, KEYS])
        rows = [(key, self._versions[key] + 1) for key in sorted(self._random.sample(range(KEYS), size))]
        with connection.cursor() as cursor:
            execute_values(
                cursor,
                "insert into kv (id, version) values %s on conflict (id) do update set version = excluded.version",
                rows,
            )
        if self._random.random() < 0.1:
            connection.rollback()
            return
        connection.commit()
        self._versions.update(rows)
        self.committed |= set(rows)


def start(dsn: str, plugin: str, sink: str, log: Path, *more: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "RABBITMQ"))}
    command = [sys.executable, "-m", "pgevents", "stream", "--dsn", dsn, "--sink", sink, "--plugin", plugin]
    slot = ["--slot", str(psycopg2.extensions.parse_dsn(dsn)["dbname"]), "--create-slot", "--batch-events", "50"]
    slot += ["--state", str(log.with_name(STATE))]
    with log.open("ab") as output:
        return subprocess.Popen([*command, *slot, *more], env=environment, stderr=output)


def consumed(vhost: str) -> list[dict[str, Any]]:
    """Every event of the queue in its order, each with the AMQP message id it carried."""
    events: list[dict[str, Any]] = []
    count = settled_depth(vhost)
    with closing(pika.BlockingConnection(pika.URLParameters(vhost))) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1000)
        for method, properties, body in channel.consume(QUEUE, auto_ack=True, inactivity_timeout=10.0):
            if method is None:
                break
            event = orjson.loads(body)
            assert properties.message_id == event["id"]
            events.append(event)
            if len(events) == count:
                break
    return events


def declare_queue(vhost: str) -> None:
    with closing(pika.BlockingConnection(pika.URLParameters(vhost))) as connection:
        channel = connection.channel()
        channel.exchange_declare("pgevents", exchange_type="topic", durable=True)
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind(QUEUE, "pgevents", "public.kv.*")


def settled_depth(vhost: str) -> int:
    """How many messages are in the queue once the broker has read what was still on its way."""
    counts = [-1]

    def is_settled() -> bool:
        counts.append(depth(vhost))
        return counts[-1] == counts[-2]

    assert eventually(is_settled, deadline_s=30)
    return counts[-1]


def kept(state: Path) -> Lsn:
    return Lsn.parse(json.loads(state.read_bytes())["end_lsn"])


def depth(vhost: str) -> int:
    with closing(pika.BlockingConnection(pika.URLParameters(vhost))) as connection:
        count: int = connection.channel().queue_declare(QUEUE, passive=True).method.message_count
        return count


def count_ready(log: Path) -> int:
    return log.read_text().count("Ready") if log.exists() else 0


def wait_until_ready(process: subprocess.Popen[bytes], log: Path, starts: int) -> None:
    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        return count_ready(log) >= starts

    assert eventually(is_ready, deadline_s=60), log.read_text()


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
@pytest.mark.fault("F01", "I1", "I6", "I8", "I9")
def test_kill_9_under_load_loses_nothing(database15: str, vhost: str, tmp_path: Path, plugin: str) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)  # noqa: T201  # shown by pytest when the test fails
    chance, log = random.Random(seed), tmp_path / "stream.log"
    declare_queue(vhost)
    with closing(psycopg2.connect(database15)) as connection:
        connection.autocommit = True
        connection.cursor().execute("create table kv (id int primary key, version int not null)")
    publish_all(database15)
    process = start(as_role(database15), plugin, vhost, log)
    wait_until_ready(process, log, 1)
    workload = Workload(database15, seed)
    workload.start()

    events: list[dict[str, Any]] = []
    kills: list[Kill] = []
    for kill in range(1, KILLS + 1):
        time.sleep(chance.uniform(0.0, 1.0))
        process.kill()
        process.wait()
        events += consumed(vhost)
        kills.append((len(events), kept(log.with_name(STATE))))
        process = start(as_role(database15), plugin, vhost, log)
        wait_until_ready(process, log, kill + 1)
    workload.stopping.set()
    workload.join()
    process.kill()
    process.wait()
    last = start(as_role(database15), plugin, vhost, log, "--until-lsn", "now")
    assert eventually(lambda: last.poll() is not None, deadline_s=120), log.read_text()[-4000:]
    assert last.returncode == 0, log.read_text()[-4000:]

    assert workload.failure is None
    events += consumed(vhost)
    check(workload.committed, events)
    repeated = check_repeated(events, kills)
    print(f"kills {KILLS}, committed {len(workload.committed)}, delivered {len(events)}, repeated {repeated}")  # noqa: T201
    delivered = len(workload.committed)
    count(committed=delivered, delivered=delivered, lost=0, duplicated=repeated, unexpected=0, reordered=0)


def check_repeated(events: list[dict[str, Any]], kills: list[Kill]) -> int:
    """What came again after a kill had not been acknowledged before it."""
    seen: set[str] = set()
    repeated = 0
    for at, event in enumerate(events):
        if event["id"] in seen:
            repeated += 1
            before = [watermark for count, watermark in kills if count <= at]
            assert before, f"{event['id']} came twice before the first kill"
            assert Lsn.parse(event["tx"]["lsn"]) >= before[-1]
        seen.add(event["id"])
    return repeated


def check(committed: set[Version], events: list[dict[str, Any]]) -> None:
    """Lost, unexpected, and reordered: none. Duplicates carry the id they had before."""
    versions = [(event["new"]["id"], event["new"]["version"]) for event in events]
    assert len(committed) > 200, "too little load to show anything"
    assert committed - set(versions) == set()
    assert set(versions) - committed == set()

    ids: dict[Version, set[str]] = defaultdict(set)
    firsts: dict[int, list[int]] = defaultdict(list)
    for event, (key, version) in zip(events, versions, strict=True):
        if not ids[key, version]:
            firsts[key].append(version)
        ids[key, version].add(event["id"])
    assert all(len(each) == 1 for each in ids.values())
    assert len({next(iter(each)) for each in ids.values()}) == len(ids)
    assert all(order == sorted(order) for order in firsts.values())
