"""The demo from the first server started to the last figure counted."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import psycopg2
from psycopg2.extensions import connection

from pgevents.demo.consumer import EXCHANGE, Arrivals, Source, bind_queue, consume, file_source, queue_source
from pgevents.demo.install import install_packages
from pgevents.demo.ledger import committed_changes, keep_ledger_of
from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually
from pgevents.demo.rabbitmq import RabbitMQ, rabbitmq_scripts
from pgevents.demo.stream import Stream
from pgevents.demo.view import LiveView, Say, Summary
from pgevents.demo.workload import TABLES, Shop, open_shop

TRANSACTIONS_PER_S = 40
ARRIVAL_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the events go and where they are read back from."""

    name: str
    sink: str
    source: Source


def run_demo(folder: Path, *, seconds: float, use_rabbitmq: bool, say: Say) -> Summary:
    """Serve, trade, stream and consume for ``seconds`` (0: until Ctrl-C), all of it inside ``folder``.

    Leaves no process behind, whatever happens. Raises LaunchError when a server or the stream fails.
    """
    with ExitStack() as servers:
        # With a password: a port of 127.0.0.1 is open to every user of the machine.
        postgres = servers.enter_context(Postgres(folder / "postgres", auth="scram-sha-256"))
        major, minor = postgres.version
        plugin = "wal2json" if postgres.has_wal2json else "pgoutput"
        say(f"PostgreSQL {major}.{minor} runs on port {postgres.port}; its changes are read through {plugin}.")
        destination = servers.enter_context(_destination(folder, say, use_rabbitmq=use_rabbitmq))
        with closing(psycopg2.connect(postgres.dsn())) as database:
            open_shop(database)
            keep_ledger_of(database, *TABLES)
            return _trade_and_count(folder, postgres.dsn(), database, destination, seconds=seconds, say=say)


@contextmanager
def _destination(folder: Path, say: Say, *, use_rabbitmq: bool) -> Iterator[Destination]:
    problem = _provide_rabbitmq(say) if use_rabbitmq else "--without-rabbitmq was given."
    if problem:
        path = folder / "events.ndjson"
        say(f"Without RabbitMQ, events go to the file {path}: {problem}")
        yield Destination("the file", f"file:{path}", file_source(path))
        return
    say("RabbitMQ starts, which takes some seconds.")
    with RabbitMQ(folder / "rabbitmq") as rabbitmq:
        bind_queue(rabbitmq.url())
        say(f"RabbitMQ runs on port {rabbitmq.port}, with a durable quorum queue bound to exchange {EXCHANGE}.")
        yield Destination("RabbitMQ", rabbitmq.url(query=f"exchange={EXCHANGE}"), queue_source(rabbitmq.url()))


def _provide_rabbitmq(say: Say) -> str:
    """Empty when RabbitMQ is installed or could be, else why not."""
    return "" if rabbitmq_scripts() else install_packages(["rabbitmq-server"], say=say)


def _trade_and_count(
    folder: Path, dsn: str, database: connection, destination: Destination, *, seconds: float, say: Say
) -> Summary:
    arrivals = Arrivals()
    shop = Shop(database)
    with (
        Stream.start(folder, dsn=dsn, sink=destination.sink) as stream,
        _consuming(destination, arrivals, say) as consumption,
    ):
        stream.await_reading(database)
        say(f"\n$ pgevents stream …\n{click.style(stream.banner(), dim=True)}\n")
        _trade(shop, database, stream, seconds=seconds, say=say)
        committed = committed_changes(database)
        _await_arrival(committed.total(), arrivals, stream, consumption)
        confirmed = stream.drain()
    return Summary(
        committed=committed,
        consumed=arrivals.changes,
        rolled_back=shop.rolled_back,
        confirmed=confirmed,
        duplicated=arrivals.duplicated,
        latencies_s=arrivals.latencies_s,
        destination=destination.name,
    )


@contextmanager
def _consuming(destination: Destination, arrivals: Arrivals, say: Say) -> Iterator[Future[None]]:
    """Consume beside us; at the end, take in what is still there. Raises what the consumer raised."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        consumption = pool.submit(consume, destination.source, arrivals, stop=stop, show=LiveView(say))
        try:
            yield consumption
        finally:
            stop.set()
        consumption.result()


def _trade(shop: Shop, database: connection, stream: Stream, *, seconds: float, say: Say) -> None:
    """Trade at a steady pace until the time is over, Ctrl-C, or the stream has ended."""
    started = time.monotonic()
    pause = threading.Event()
    try:
        for transactions in itertools.count(1):
            if note := shop.step():
                say(click.style(f"              {note}", fg="cyan"))
            due = started + transactions / TRANSACTIONS_PER_S
            is_over = seconds and max(due, time.monotonic()) >= started + seconds
            if is_over or not stream.is_running:
                return
            pause.wait(max(0.0, due - time.monotonic()))
    except KeyboardInterrupt:
        database.rollback()
        say("\nThe shop closes; what it committed is still on its way.")


def _await_arrival(expected: int, arrivals: Arrivals, stream: Stream, consumption: Future[None]) -> None:
    """Until all of it arrived, or nothing more can. Whether it did is the summary's business."""
    eventually(
        lambda: arrivals.unique >= expected or not stream.is_running or consumption.done(),
        deadline_s=ARRIVAL_DEADLINE_S,
    )
