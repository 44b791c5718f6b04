"""A database and a broker with all the defects that ``pgevents doctor`` knows, planted in real servers."""

import re
import secrets
import threading
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from socket import create_connection, create_server, socket
from typing import Any

import pika
import psycopg2
import psycopg2.extras
from psycopg2.extensions import make_dsn

from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.doctor.examination import examine
from pgevents.doctor.finding import Finding
from pgevents.lsn import Lsn
from pgevents.rules import parse_rules
from pgevents.settings import Settings
from pgevents.state.file import FileState
from pgevents.watermark import Watermark
from tests.integration.streaming import ask, run

SERVER = {
    "wal_sender_timeout": "0",
    "logical_decoding_work_mem": "64kB",
    "max_prepared_transactions": "5",
    "max_wal_senders": "1",
    "max_replication_slots": "6",
    "max_slot_wal_keep_size": "-1",
}

TABLES = """
CREATE TABLE keyless (id int);
CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE);
CREATE TABLE indexed (id int NOT NULL); CREATE UNIQUE INDEX of_indexed ON indexed (id);
ALTER TABLE indexed REPLICA IDENTITY USING INDEX of_indexed; DROP INDEX of_indexed;
CREATE TABLE toasted (id int PRIMARY KEY, story text);
CREATE TABLE inexact (id int PRIMARY KEY, amount numeric, ratio real);
CREATE TABLE generated (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE "it's ""odd""; --" ("a,b" int);
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
CREATE MATERIALIZED VIEW seen AS SELECT * FROM keyless;
CREATE FOREIGN DATA WRAPPER nobody; CREATE SERVER nowhere FOREIGN DATA WRAPPER nobody;
CREATE FOREIGN TABLE elsewhere (id int) SERVER nowhere;
CREATE SCHEMA parted; CREATE TABLE parted.orders (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE parted.orders_1 PARTITION OF parted.orders FOR VALUES FROM (0) TO (9);
CREATE TABLE filtered (id int PRIMARY KEY, secret int);
CREATE PUBLICATION narrow FOR TABLE filtered (id) WHERE (id > 5) WITH (publish = 'insert');
CREATE PUBLICATION wide FOR ALL TABLES WITH (publish_via_partition_root = true);
CREATE ROLE app LOGIN REPLICATION CONNECTION LIMIT 3 VALID UNTIL 'tomorrow';
CREATE ROLE watcher LOGIN;
"""

PATTERNS = ("public.*", "nope.x", "pg_temp*.*", "parted.orders")


RULES = """
[[skip]]
name = "large"
rows = 5
action = "slow-lane"
exchange = "slow"
routing_key = "slow.{table}"
[[skip]]
name = "migrations"
marked = true
action = "summarise"
[[route]]
name = "vip"
tables = ["toasted"]
operations = ["insert"]
exchange = "vip"
[[route]]
name = "odd"
tables = ["toasted"]
operations = ["update"]
exchange = "straight"
[[route]]
name = "mail"
tables = ["_.mail"]
operations = ["message"]
routing_key = "mail"
"""


def examined(server: Postgres, broker: RabbitMQ, folder: Path) -> list[Finding]:
    """Plant everything, and what doctor says of it, seen from several sides."""
    run(server.dsn(), "CREATE DATABASE shop", "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    dsn, management = server.dsn("shop"), f"http://127.0.0.1:{broker.settings.ports['management']}"
    run(dsn, TABLES)
    run(
        dsn,
        "SELECT pg_create_logical_replication_slot('stolen', 'wal2json')",
        "SELECT pg_create_logical_replication_slot('prepared', 'pgoutput', false, true)",
        "SELECT pg_create_physical_replication_slot('physical')",
        "SELECT pg_create_logical_replication_slot('foreign', 'test_decoding')",
    )
    plain = Settings(dsn=dsn, slot="stolen", state=str(folder / "watermark.json"))
    FileState(Path(plain.state)).save(Watermark("123", 1, "shop", "stolen", "wal2json", Lsn(1)))
    poor = replace(plain, state="none", sink="null:")
    (folder / "cut.skips.json").write_text('{"version": 1, "windows": [{')
    plant_broker(broker)
    found: list[Finding] = []

    def look(settings: Settings) -> None:
        found.extend(examine(settings, management=management))

    with closing(psycopg2.connect(dsn)) as temporary, stealing(dsn), pooler(server.port) as port:
        temporary.cursor().execute("CREATE TEMPORARY TABLE fleeting (id int)")
        temporary.commit()
        url = broker.url("/", "exchange=events&heartbeat=0&mandatory=false")
        with alarm(broker):
            look(replace(plain, tables=PATTERNS, sink=url, on_unroutable="drop", stall_timeout_s=3600.0))
        look(replace(poor, dsn=make_dsn(dsn, port=port)))
        look(replace(poor, dsn=make_dsn(dsn, user="watcher"), state="postgres", sink=as_user(broker, "reader")))
        look(replace(poor, dsn=server.dsn("ascii"), sink=broker.url("/", "exchange=fanned")))
        rules = parse_rules(tomllib.loads(RULES), "pgevents.toml")
        look(replace(poor, sink=broker.url("/", "exchange=events"), tables=("toasted", "keyless"), rules=rules))
        look(replace(poor, slot="physical", sink="nats://nowhere"))
        look(replace(poor, slot="foreign", sink=as_user(broker, "reader", "exchange=missing")))
        look(
            replace(poor, slot="absent", plugin="pgoutput", publication="wide", tables=("parted.orders_1", "keyless"))
        )
        look(replace(poor, slot="absent", plugin="pgoutput", publication="missing", sink=f"file:{folder}/no/file"))
        look(replace(poor, slot="absent", skips=str(folder / "cut.skips.json")))
        with left_open(dsn):
            run(dsn, *(f"SELECT pg_create_physical_replication_slot('full_{each}')" for each in range(2)))
            narrow = replace(poor, slot="prepared", publication="narrow", tables=("filtered", "toasted"))
            look(replace(narrow, dsn=make_dsn(dsn, user="app"), on_unroutable="park", park_file=str(folder)))
            look(replace(poor, slot="absent"))
    return found


SERVER_18 = {
    "max_slot_wal_keep_size": "2MB",
    "idle_replication_slot_timeout": "1h",
    "wal_sender_timeout": "2s",
    "max_wal_size": "2MB",
    "hot_standby": "on",
}


def examined_18(server: Postgres) -> list[Finding]:
    """What only a newer server has, a slot that is lost, and the server as a standby."""
    dsn = server.dsn()
    run(dsn, "SELECT pg_create_logical_replication_slot('lost', 'pgoutput')")
    for _ in range(4):
        run(dsn, "SELECT pg_switch_wal()", "SELECT pg_logical_emit_message(false, 'filler', repeat('x', 900000))")
    run(dsn, "CHECKPOINT")
    lost = "SELECT wal_status = 'lost' FROM pg_replication_slots"
    assert eventually(lambda: bool(ask(dsn, lost)), deadline_s=20)
    settings = Settings(dsn=dsn, slot="lost", state="none", sink="null:")
    found = examine(settings)
    found += examine(replace(settings, slot="absent", plugin="wal2json"))
    run(dsn, "SELECT pg_drop_replication_slot('lost')")
    server.stop()
    (server.folder / "data" / "standby.signal").touch()
    server.start()
    return found + examine(settings)


def plant_broker(broker: RabbitMQ) -> None:
    """Exchanges and queues that lose events, and a user that may do nothing."""
    broker.api("PUT", "/api/users/reader", {"password": "reader", "tags": ""})
    broker.api("PUT", "/api/permissions/%2F/reader", {"configure": "", "write": "", "read": ".*"})
    with closing(pika.BlockingConnection(pika.URLParameters(broker.url()))) as connection:
        channel = connection.channel()
        channel.exchange_declare("events", "topic", durable=True)
        channel.exchange_declare("fanned", "fanout", durable=True)
        channel.exchange_declare("straight", "direct", durable=True)
        queues: dict[str, dict[str, Any]] = {
            "forgetful": {"x-max-length": 10},
            "hasty": {"x-message-ttl": 1000},
            "mortal": {"x-expires": 3_600_000},
            "limited": {"x-queue-type": "quorum", "x-delivery-limit": 5},
        }
        for name, arguments in queues.items():
            channel.queue_declare(name, durable=True, arguments=arguments)
        channel.queue_declare("volatile", durable=False)
        channel.queue_declare("leaving", durable=True, auto_delete=True)
        for name in (*queues, "volatile", "leaving"):
            channel.queue_bind(name, "events", "public.toasted.*")


def as_user(broker: RabbitMQ, user: str, query: str = "exchange=events") -> str:
    return f"amqp://{user}:{user}@127.0.0.1:{broker.port}/%2F?{query}"


@contextmanager
def alarm(broker: RabbitMQ) -> Iterator[None]:
    broker.ctl("set_vm_memory_high_watermark", "0.000001")
    try:
        yield
    finally:
        broker.ctl("set_vm_memory_high_watermark", "0.8")


@contextmanager
def stealing(dsn: str) -> Iterator[None]:
    """Somebody else reads the slot."""
    connection = psycopg2.connect(
        dsn, connection_factory=psycopg2.extras.LogicalReplicationConnection, application_name="thief"
    )
    with closing(connection):
        connection.cursor().start_replication(slot_name="stolen", decode=False)
        yield


@contextmanager
def left_open(dsn: str) -> Iterator[None]:
    """A prepared transaction, and one that has written and stays open, both of a certain age."""
    name = f"t{secrets.token_hex(4)}"
    with closing(psycopg2.connect(dsn)) as preparing, closing(psycopg2.connect(dsn)) as writing:
        preparing.tpc_begin(preparing.xid(1, name, "shop"))
        preparing.cursor().execute("INSERT INTO keyless VALUES (1)")
        preparing.tpc_prepare()
        writing.cursor().execute("INSERT INTO keyless VALUES (2)")
        aged = "SELECT bool_and(prepared < clock_timestamp() - interval '2 s') FROM pg_prepared_xacts"
        assert eventually(lambda: bool(ask(dsn, aged)), deadline_s=20)
        yield
        preparing.tpc_rollback()


@contextmanager
def pooler(port: int) -> Iterator[int]:
    """What speaks for the server, and gives a process id of its own."""
    backend_key = re.compile(rb"K\x00\x00\x00\x0c....", re.DOTALL)
    with rewriting(port, lambda said: backend_key.sub(b"K\x00\x00\x00\x0c\x00\x00\x00\x07", said, count=1)) as taken:
        yield taken


@contextmanager
def rewriting(port: int, rewrite: Any) -> Iterator[int]:
    """A port in front of another, which changes what the server says."""
    with create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    server = create_connection(("127.0.0.1", port))
                    threading.Thread(target=relay, args=(client, server, bytes), daemon=True).start()
                    threading.Thread(target=relay, args=(server, client, rewrite), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])


def relay(source: socket, target: socket, rewrite: Any) -> None:
    with suppress(OSError), source, target:
        while chunk := source.recv(65536):
            target.sendall(rewrite(chunk))
        target.shutdown(2)
