"""Everything a run needs besides the servers: proxies on both links, the stream, its load, and a consumer."""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn

from chaos import arrival, ledger
from chaos.consumer import Consumer
from chaos.fault import BrokenRig
from chaos.oracle import judge
from chaos.outcome import Outcome
from chaos.proxy import Proxy
from chaos.sampler import Sampler, memory
from chaos.servers import ROLE, Servers, create_database, create_vhost
from chaos.stream import Stream
from chaos.workload import SHORT, Pace, Workload
from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.lsn import NOWHERE, Lsn

# Short, so that a run meets every one of them often.
_STREAM = (
    *("--stall-timeout", "5", "--drain-timeout", "5", "--retry-max", "1", "--start-timeout", "600"),
    *("--batch-events", "200", "--exclude-table", ledger.EXCLUDED),
)
_SINK_QUERY = "heartbeat=4&connection_timeout=3000"

_UP_DEADLINE_S = 60.0
_STANDSTILL_S = 90.0
_POLL_S = 0.1


@dataclass(slots=True)
class Rig:
    """One database, virtual host, slot, stream, load and consumer on the servers."""

    servers: Servers
    name: str
    folder: Path
    plugin: str
    postgres_link: Proxy
    amqp_link: Proxy
    stream: Stream
    consumer: Consumer
    workload: Workload
    sampler: Sampler
    delays: list[str] = field(default_factory=list)

    @property
    def postgres(self) -> Postgres:
        return self.servers.postgres

    @property
    def rabbitmq(self) -> RabbitMQ:
        return self.servers.rabbitmq

    @property
    def dsn(self) -> str:
        """The superuser's, past the proxy."""
        return self.postgres.dsn(self.name)

    def ask(self, question: str, *parameters: Any) -> Any:
        """The first value of the first row, None where there is none; tried until the server is up."""
        answers: list[Any] = []

        def asked() -> bool:
            with suppress(psycopg2.OperationalError), closing(psycopg2.connect(self.dsn, connect_timeout=5)) as each:
                each.autocommit = True
                with each.cursor() as cursor:
                    cursor.execute(question, parameters or None)
                    answers.append((cursor.fetchone() or (None,))[0] if cursor.description else None)
                    return True
            return False

        if not eventually(asked, deadline_s=_UP_DEADLINE_S):
            raise BrokenRig(f"PostgreSQL does not answer within {_UP_DEADLINE_S:g} s")
        return answers[0]

    def api(self, method: str, path: str, body: object = None) -> Any:
        """One request to the broker's management API, below this rig's virtual host: ``{vhost}`` stands for it."""
        return self.rabbitmq.api(method, path.replace("{vhost}", self.name), body)

    @property
    def confirmed(self) -> Lsn:
        return Lsn.parse(self.ask(f"SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE {self._slot}"))

    @property
    def walsender(self) -> int:
        """Its process, 0 where nobody reads the slot."""
        return self.ask(f"SELECT active_pid FROM pg_replication_slots WHERE {self._slot} AND active") or 0

    @property
    def _slot(self) -> str:
        return f"slot_name = '{self.name}'"

    def start(self) -> None:
        """Stream, and begin the load once that works."""
        self.stream.start()
        self.stream.await_ready()
        self.sampler.start()
        self.consumer.start()
        self.workload.start()

    def tick(self) -> None:
        """To be called often: keeps the stream running, and tells the sampler which process it is."""
        self.stream.keep_running()
        self.sampler.pid = self.stream.pid

    def restart_stream(self) -> None:
        self.stream.start()
        self.tick()

    def settle(self, *, by_last_copy: bool = False) -> Outcome:
        """With every fault healed: end the load, wait until all is delivered, and judge."""
        used = memory(self.sampler.samples)
        tally = self.workload.stop()
        caught_up_s = self._catch_up(Lsn.parse(self.ask("SELECT pg_current_wal_lsn()::text")))
        self.sampler.stop()
        self.stream.stop()
        self.consumer.drain()
        self.consumer.stop()
        verdict = judge(
            ledger.entries(self.dsn),
            arrival.read(self.folder / arrival.FILE),
            ledger.tables(self.dsn),
            attempted=tally.attempted,
            by_last_copy=by_last_copy,
        )
        committed = ledger.committed_tokens(self.dsn)
        return Outcome(
            verdict=verdict,
            tally=tally,
            memory=used,
            caught_up_s=caught_up_s,
            exits=tuple(self.stream.exits),
            delays=tuple(self.delays),
            forgotten=len(tally.committed ^ committed),
        )

    def _catch_up(self, lsn: Lsn) -> float:
        """Wait until all before ``lsn`` is acknowledged, as long as it goes on; how long that took."""
        began = moved_at = time.monotonic()
        reached = NOWHERE
        while self.sampler.confirmed < lsn:
            self.tick()
            if self.sampler.confirmed > reached:
                reached, moved_at = self.sampler.confirmed, time.monotonic()
            if time.monotonic() - moved_at > _STANDSTILL_S:
                self.delays.append(f"the slot stands at {reached} and does not move on to {lsn}")
                break
            time.sleep(_POLL_S)
        return time.monotonic() - began

    def close(self) -> None:
        with suppress(BrokenRig):
            self.workload.stop()
        self.sampler.stop()
        self.stream.close()
        with suppress(BrokenRig):
            self.consumer.stop()
        self.postgres_link.close()
        self.amqp_link.close()


@contextmanager
def rigged(
    servers: Servers,
    *,
    plugin: str = "wal2json",
    queue_type: str = "classic",
    seed: int = 0,
    options: Sequence[str] = (),
    pace: Pace = SHORT,
) -> Iterator[Rig]:
    """A rig with a fresh database and virtual host. ``options`` are more flags for the stream.

    ``queue_type`` is that of the consumer's queue: classic or quorum.
    """
    name = f"chaos_{secrets.token_hex(4)}"
    folder = servers.folder / name
    folder.mkdir()
    dsn = create_database(servers.postgres, name)
    url = create_vhost(servers.rabbitmq, name, queue_type)
    flags = ["--slot", name, "--create-slot", "--plugin", plugin, "--state", "watermark", *_STREAM, *options]
    with Proxy(servers.postgres.port) as postgres_link, Proxy(servers.rabbitmq.port) as amqp_link:
        rig = Rig(
            servers=servers,
            name=name,
            folder=folder,
            plugin=plugin,
            postgres_link=postgres_link,
            amqp_link=amqp_link,
            stream=Stream(
                folder / "stream",
                flags,
                dsn=make_dsn(dsn, user=ROLE, port=postgres_link.port, connect_timeout=3),
                sink=f"{url}?{_SINK_QUERY}".replace(f":{servers.rabbitmq.port}/", f":{amqp_link.port}/"),
            ),
            consumer=Consumer(url, folder / arrival.FILE),
            workload=Workload(dsn, seed=seed, pace=pace),
            sampler=Sampler(dsn, name, servers.rabbitmq, name),
        )
        try:
            yield rig
        finally:
            rig.close()
