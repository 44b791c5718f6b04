"""The story of docs/skipping.md: orders flow while two migrations of a million rows each pass.

The latency of an order is from its commit to the consumer, by one clock. Migrations write as many rows a second as
a walsender decodes on two cores that it shares with everything else; STORY_ROWS_A_SECOND=0 lets them go as fast as
they can, which is faster, and STORY_STREAMING=no has them read at their commit: the page says what becomes of orders
then, and this test fails.
"""

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson
import pika
import psycopg2
import pytest

from pgevents.demo.process import eventually
from tests.contract.amqp import bind, stored
from tests.integration.command import Command, Json, Shop
from tests.integration.streaming import ask, run

ROWS = int(os.environ.get("STORY_ROWS", "1000000"))
"""Of each migration."""

RATE = 200
"""Orders a second, from the beginning to the end of the story."""

ROWS_A_SECOND = int(os.environ.get("STORY_ROWS_A_SECOND", "25000"))
"""Of each migration, at most."""

OPTIONS = ("--no-streaming",) if os.environ.get("STORY_STREAMING") == "no" else ()

QUIET_S = 10
DEADLINE_S = 240.0

# Below this a percentile says nothing of us: six busy processes share two cores, whose time slices are as long.
NOISE_S = 0.02

ROOT = Path(__file__).parents[2]
MIGRATION = (ROOT / "migrations" / "0002_skip.sql").read_text()
PAGE = (ROOT / "docs" / "skipping.md").read_text()

UNMARKED = "UPDATE items SET note = 'checked'"

# What indexes, constraints and triggers of real tables do to an UPDATE, and the same on every machine.
PACE = """
CREATE FUNCTION pace() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id % 100 = 0 THEN
        PERFORM pg_sleep({pause_s});
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER pace BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION pace();
CREATE TRIGGER pace BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION pace();
"""


def block(language: str) -> str:
    """The first one on the page."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return found[0]


MARKED = block("sql")


@dataclass(frozen=True, slots=True)
class Arrival:
    committed_at: float
    received_at: float
    event: Json

    @property
    def latency_s(self) -> float:
        return self.received_at - self.committed_at


class Worker(threading.Thread):
    """Runs until it is told to leave; an error of its own is raised in the test's thread."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.leaving = threading.Event()
        self.failure: BaseException | None = None

    def work(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001  # raised again where it is seen
            self.failure = error


@contextmanager
def working(*workers: Worker) -> Iterator[None]:
    for each in workers:
        each.start()
    try:
        yield
    finally:
        for each in workers:
            each.leaving.set()
        for each in workers:
            each.join(DEADLINE_S)
    assert [each.failure for each in workers if each.failure] == []


class Orders(Worker):
    """Places orders at a steady rate; ``placed`` is how many were committed."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._dsn = dsn
        self.placed = 0

    def work(self) -> None:
        with closing(psycopg2.connect(self._dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            due = time.monotonic()
            while not self.leaving.wait(max(0.0, due - time.monotonic())):
                cursor.execute("INSERT INTO orders VALUES (%s, 'an order', 10)", [ROWS + self.placed + 1])
                self.placed += 1
                due += 1 / RATE


class Consumer(Worker):
    """Takes in everything from a queue, and when it came."""

    def __init__(self, url: str, queue: str) -> None:
        super().__init__()
        self._url, self._queue = url, queue
        self.arrivals: list[Arrival] = []

    def work(self) -> None:
        with closing(pika.BlockingConnection(pika.URLParameters(self._url))) as connection:
            connection.channel().basic_consume(self._queue, lambda *got: self._take(got[3]), auto_ack=True)
            while not self.leaving.is_set():
                connection.process_data_events(0.1)

    def _take(self, body: bytes) -> None:
        received_at, event = time.time(), orjson.loads(body)
        committed_at = datetime.fromisoformat(event["tx"]["committed_at"]).timestamp()
        self.arrivals.append(Arrival(committed_at, received_at, event))


def p99(seconds: Sequence[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


class Migration(Worker):
    """One transaction."""

    def __init__(self, dsn: str, statements: str) -> None:
        super().__init__()
        self._dsn, self._statements = dsn, statements

    def work(self) -> None:
        run(self._dsn, self._statements)


@pytest.fixture
def shop(database15: str) -> Shop:
    """With the rows that the migrations change, from before the slot was made."""
    shop = Shop(database15, plugin="pgoutput")
    run(
        database15,
        MIGRATION,
        "ALTER TABLE orders ADD price numeric(12, 2)",
        "CREATE TABLE items (id int PRIMARY KEY, note text)",
        f"INSERT INTO orders SELECT n, 'an order', 10 FROM generate_series(1, {ROWS}) n",
        f"INSERT INTO items SELECT n FROM generate_series(1, {ROWS}) n",
        PACE.format(pause_s=100 / ROWS_A_SECOND if ROWS_A_SECOND else 0),
        f"SELECT pg_replication_slot_advance('{shop.slot}', pg_current_wal_lsn())",
    )
    return shop


@pytest.mark.alone
def test_orders_flow_while_two_migrations_pass(shop: Shop, vhost: str, tmp_path: Path) -> None:
    (tmp_path / "pgevents.toml").write_text(block("toml"))
    bind(vhost, "shop", "public.#")
    bind(vhost, "skipped", "_.transaction.skipped")
    orders, consumer = Orders(shop.dsn), Consumer(vhost, "shop")
    records: list[Json] = []

    def has_both_records() -> bool:
        records.extend(orjson.loads(body) for _, body in stored(vhost, "skipped"))
        return len(records) >= len((MARKED, UNMARKED))

    with Command(tmp_path, "stream", *shop.options, *OPTIONS, "--sink", vhost) as stream:
        stream.ready()
        with working(consumer):
            with working(orders):
                # The slot is older than the rows of before, which must be behind.
                assert eventually(lambda: caught_up(consumer, orders), deadline_s=DEADLINE_S), stream.stderr
                quiet_from, placed = time.time(), orders.placed
                assert eventually(lambda: orders.placed >= placed + RATE * QUIET_S, deadline_s=DEADLINE_S)
                began = time.time()
                with working(*(Migration(shop.dsn, each) for each in (MARKED, UNMARKED))):
                    pass
                written_s = time.time() - began
                assert eventually(has_both_records, deadline_s=DEADLINE_S), stream.stderr
                ended = time.time()
            assert eventually(lambda: len(consumer.arrivals) >= orders.placed, deadline_s=DEADLINE_S), stream.stderr
        assert stream.stopped().code == 0

    assert [(each.event["op"], each.event["new"]["id"]) for each in consumer.arrivals] == [
        ("insert", ROWS + number) for number in range(1, orders.placed + 1)
    ]
    assert {each["skip"]["rule"]: each["skip"]["rows"] for each in records} == {
        "--skip-marked": [
            {"schema": "public", "table": "orders", "update": changed(shop, "orders", "price = 11.90")}
        ],
        "large": [{"schema": "public", "table": "items", "update": changed(shop, "items", "note = 'checked'")}],
    }
    quiet = [each.latency_s for each in consumer.arrivals if quiet_from <= each.committed_at < began]
    during = [each.latency_s for each in consumer.arrivals if began <= each.committed_at < ended]
    print(  # noqa: T201  # the figures of docs/skipping.md
        f"{ROWS} rows each, written in {written_s:.1f} s, past after {ended - began:.1f} s; {len(during)} orders;"
        f" p99 quiet {p99(quiet):.4f} s, during {p99(during):.4f} s, the slowest {max(during):.3f} s"
    )
    assert p99(during) <= 2 * max(p99(quiet), NOISE_S)


def caught_up(consumer: Consumer, orders: Orders) -> bool:
    return bool(consumer.arrivals) and len(consumer.arrivals) >= orders.placed - 1


def changed(shop: Shop, table: str, how: str) -> int:
    count: int = ask(shop.dsn, f"SELECT count(*) FROM {table} WHERE {how}")
    assert count >= ROWS
    return count
