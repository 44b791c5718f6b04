"""The life of a stream: how it starts, where it ends, what a signal does, and where its settings come from."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from pgevents.demo.process import eventually, free_ports
from pgevents.lsn import Lsn
from tests.contract.amqp import channel
from tests.contract.amqp import stored as stored_in_queue
from tests.integration.command import INT, TERM, Command, Shop, ids_of, pgevents, stored
from tests.integration.role import as_role
from tests.integration.streaming import BOTH, ask, check, run

AT_ONCE_S = 3.0
INTERRUPTED = 130
TO_FILE = ("--sink", "file:events.ndjson")
UNTIL_NOW = ("--until-lsn", "now")


@pytest.fixture
def shop(database15: str) -> Shop:
    return Shop(database15)


# Where it ends.


@pytest.mark.parametrize("plugin", BOTH)
def test_until_now_ends_when_everything_is_acknowledged(database15: str, plugin: str, tmp_path: Path) -> None:
    shop = Shop(database15, plugin=plugin)
    shop.add(1, 2, 3)
    lsn = shop.lsn

    outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE, *UNTIL_NOW)

    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout == ""
    assert ids_of(stored(tmp_path / "events.ndjson")) == [1, 2, 3]
    assert shop.confirmed >= lsn


def test_until_now_ends_where_there_is_nothing(shop: Shop, tmp_path: Path) -> None:
    lsn = shop.lsn

    outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE, *UNTIL_NOW)

    assert outcome.code == 0, outcome.stderr
    assert shop.confirmed >= lsn


def test_until_an_lsn_ends_with_the_transaction_that_reaches_it(shop: Shop, tmp_path: Path) -> None:
    shop.add(1, 2, 3)
    preview = pgevents(tmp_path, "stream", *shop.options, "--dry-run", *UNTIL_NOW)
    first, second, third = (Lsn.parse(event["tx"]["lsn"]) for event in preview.events)

    outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE, "--until-lsn", str(Lsn(second + 1)))

    assert outcome.code == 0, outcome.stderr
    assert ids_of(stored(tmp_path / "events.ndjson")) == [1, 2]
    assert first < second < shop.confirmed <= third


def test_until_an_lsn_that_is_still_to_come_waits_for_it(shop: Shop, tmp_path: Path) -> None:
    """The LSN is where the next WAL segment begins, which the server does not reach by itself meanwhile."""
    run(shop.dsn, "select pg_switch_wal()")
    segment = ask(shop.dsn, "select setting::bigint from pg_settings where name = 'wal_segment_size'")
    boundary = Lsn((shop.lsn // segment + 1) * segment)
    file = tmp_path / "events.ndjson"
    with Command(tmp_path, "stream", *shop.options, *TO_FILE, "--until-lsn", str(boundary)) as stream:
        stream.ready()
        shop.add(1)
        assert eventually(lambda: ids_of(stored(file)) == [1], deadline_s=20)
        assert not stream.has_ended
        run(shop.dsn, "select pg_switch_wal()")
        shop.add(2)
        ended = stream.ended()

    assert ended.code == 0, ended.stderr
    assert ids_of(stored(file))[0] == 1
    assert shop.confirmed >= boundary


@pytest.mark.parametrize("plugin", BOTH)
def test_a_dry_run_prints_events_and_leaves_the_slot_where_it_is(
    database15: str, plugin: str, tmp_path: Path
) -> None:
    shop = Shop(database15, plugin=plugin)
    shop.add(1, 2)
    before = shop.confirmed
    dry_run = ("stream", *shop.options, "--dry-run", *UNTIL_NOW)

    once, again = pgevents(tmp_path, *dry_run), pgevents(tmp_path, *dry_run, "--create-slot", *TO_FILE)

    assert (once.code, again.code) == (0, 0), once.stderr + again.stderr
    assert ids_of(once.events) == [1, 2]
    assert once.stdout == again.stdout
    assert "dry run: the slot does not move" in once.stderr
    assert "acknowledged=nothing" in once.stderr
    assert shop.confirmed == before
    assert not (tmp_path / "events.ndjson").exists()
    for line in once.stdout.splitlines():
        check(line.encode())


# Signals.


@contextmanager
def load(dsn: str) -> Iterator[list[int]]:
    """Transactions of twenty rows, one after the other; yields the ids that are committed so far."""
    committed: list[int] = []
    enough = Event()

    def insert() -> None:
        with closing(psycopg2.connect(dsn)) as connection:
            connection.autocommit = True
            while not enough.is_set():
                ids = range(len(committed), len(committed) + 20)
                connection.cursor().execute(
                    "INSERT INTO orders SELECT n, repeat('x', 100) FROM generate_series(%s, %s) n", (ids[0], ids[-1])
                )
                committed.extend(ids)

    with ThreadPoolExecutor(1) as pool:
        inserting = pool.submit(insert)
        try:
            yield committed
        finally:
            enough.set()
            inserting.result()


@pytest.mark.parametrize("plugin", BOTH)
@pytest.mark.parametrize("number", [TERM, INT])
@pytest.mark.fault("F04", "I9")
def test_a_signal_under_load_drains_and_a_restart_repeats_nothing(
    database15: str, plugin: str, number: signal.Signals, tmp_path: Path
) -> None:
    shop = Shop(database15, plugin=plugin)
    file = tmp_path / "events.ndjson"
    stream_to_file = ("stream", *shop.options, *TO_FILE)

    with load(shop.dsn) as committed:
        with Command(tmp_path, *stream_to_file) as stream:
            stream.ready()
            assert eventually(lambda: file.exists() and file.stat().st_size > 500_000, deadline_s=20)
            ended = stream.stopped(number)
        first = len(stored(file))
        some_more = len(committed) + 200
        assert eventually(lambda: len(committed) > some_more, deadline_s=20)
    again = pgevents(tmp_path, *stream_to_file, *UNTIL_NOW)

    assert (ended.code, again.code) == (0, 0), ended.stderr + again.stderr
    assert f"done: events={first} confirmed={first} " in ended.stderr
    assert ids_of(stored(file)) == committed


def test_what_rules_took_out_is_counted_by_rule_at_the_end(shop: Shop, tmp_path: Path) -> None:
    run(shop.dsn, "INSERT INTO orders SELECT generate_series(1, 30)", "INSERT INTO orders VALUES (31), (32), (40)")
    (tmp_path / "pgevents.toml").write_text(
        '[[skip]]\nname = "large"\nrows = 20\n[[filter]]\nname = "old"\nwhen = "new.id > 39"\n'
    )

    outcome = pgevents(tmp_path, "stream", *shop.options, *TO_FILE, *UNTIL_NOW)

    assert re.search(r"info skipped by rule rule=large transactions=1 rows=30$", outcome.stderr, re.MULTILINE)
    assert re.search(r"info filtered by rule rule=old changes=2 tables=.*public\.orders.*2", outcome.stderr)
    assert "skipped=1 skipped_rows=30 filtered=2" in outcome.stderr.splitlines()[-1]


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def ends_at_once(stream: Command, number: signal.Signals, *, code: int = 0) -> None:
    began = time.monotonic()
    ended = stream.stopped(number)
    assert ended.code == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - began < AT_ONCE_S


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_signal_between_two_tries_ends_it_at_once(number: signal.Signals, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    patient = ("--start-timeout", "600", "--retry-max", "600")

    with Command(tmp_path, "stream", "--dsn", f"host=127.0.0.1 port={port}", "--sink", "null:", *patient) as stream:
        stream.says("trying again", times=3)
        ends_at_once(stream, number)


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        (("stream", "--sink", "null:"), TERM, 0),
        (("stream", "--sink", "null:"), INT, 0),
        (("tail",), TERM, -TERM),
        (("tail",), INT, INTERRUPTED),
    ],
)
def test_a_signal_while_postgres_does_not_answer_ends_it_at_once(
    command: tuple[str, ...], number: signal.Signals, code: int, tmp_path: Path
) -> None:
    with deaf_port() as port:
        dsn = f"host=127.0.0.1 port={port} user=app dbname=shop"
        with Command(tmp_path, *command, "--dsn", dsn) as stream:
            assert eventually(lambda: is_connected_to(port), deadline_s=10)
            ends_at_once(stream, number, code=code)


def test_a_signal_while_the_broker_does_not_answer_ends_it_at_once(shop: Shop, tmp_path: Path) -> None:
    with (
        deaf_port() as port,
        Command(tmp_path, "stream", *shop.options, "--sink", f"amqp://127.0.0.1:{port}/") as stream,
    ):
        assert eventually(lambda: is_connected_to(port), deadline_s=10)
        ends_at_once(stream, TERM)


def is_connected_to(port: int) -> bool:
    """Whether the kernel has an established connection to a port of this machine."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[2] == f"0100007F:{port:04X}" and line.split()[3] == "01" for line in lines)


# What it says, and where its settings come from.


def test_the_banner_says_source_slot_plug_in_and_sink(shop: Shop, tmp_path: Path) -> None:
    before = shop.confirmed
    dsn = f"{shop.role_dsn} password=hunter2"

    with Command(tmp_path, "stream", "--dsn", dsn, "--slot", shop.slot, *TO_FILE) as stream:
        lines = stream.ready().stderr.splitlines()
        stream.stopped()

    assert lines[0].startswith("pgevents ")
    assert lines[1].startswith("  source   ")
    assert lines[1].endswith(f", database {shop.database}")
    assert lines[2] == f"  slot     {shop.slot} at {before}, plug-in wal2json (the slot was created for it)"
    assert lines[3] == f"  state    pgevents-{shop.slot}.state.json, a watermark begins"
    assert lines[4] == "  sink     file:events.ndjson"
    assert lines[5].startswith("Ready")
    assert "hunter2" not in stream.stderr


def test_the_banner_counts_the_rules_of_each_kind(shop: Shop, tmp_path: Path) -> None:
    rules = ("[[skip]]", "marked = true", "[[filter]]", 'operations = ["insert"]', "[[route]]", "priority = 1")
    (tmp_path / "pgevents.toml").write_text("\n".join((*rules, "[[route]]", 'tables = ["orders"]')))
    added = pgevents(tmp_path, "skip", "add", "--slot", shop.slot, "--xid", "7", "--reason", "flood")

    with Command(tmp_path, "stream", *shop.options, "--skip-rows", "9", *TO_FILE) as stream:
        lines = stream.ready().stderr.splitlines()
        stream.stopped()

    assert added.code == 0
    assert "  rules    2 skip, 1 skip window added, 1 filter, 2 route" in lines


@pytest.mark.parametrize(("plugin", "expected"), [("auto", "wal2json"), ("wal2json", "wal2json"), ("pgoutput",) * 2])
def test_a_slot_that_is_missing_is_created_when_asked(
    database15: str, plugin: str, expected: str, tmp_path: Path
) -> None:
    run(database15, "CREATE TABLE orders (id int PRIMARY KEY)")
    slot = parse_dsn(database15)["dbname"]
    # A publication of all tables takes a superuser; a slot does not.
    dsn = database15 if plugin == "pgoutput" else as_role(database15)
    options = ("--dsn", dsn, "--slot", slot, "--plugin", plugin)

    with Command(tmp_path, "stream", *options, "--create-slot", *TO_FILE) as stream:
        banner = stream.ready().stderr
        run(database15, "INSERT INTO orders VALUES (1)")
        assert eventually(lambda: ids_of(stored(tmp_path / "events.ndjson")) == [1], deadline_s=10)
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert f"created slot {slot} for {expected}" in banner
    assert ("created publication pgevents" in banner) == (expected == "pgoutput")


def test_the_variables_of_fyles_pgevents_start_a_stream(shop: Shop, vhost: str, tmp_path: Path) -> None:
    run(shop.dsn, "CREATE TABLE secrets (id int PRIMARY KEY)")
    with channel(vhost) as broker:
        broker.exchange_declare("fyle", "topic", durable=True)
        broker.queue_declare("all", durable=True)
        broker.queue_bind("all", "fyle", "#")
    parts = parse_dsn(shop.role_dsn)
    env = {
        "PGHOST": parts["host"],
        "PGPORT": parts["port"],
        "PGUSER": parts["user"],
        "PGDATABASE": shop.database,
        "PGSLOT": shop.slot,
        "PGTABLES": "public.orders",
        "RABBITMQ_URL": vhost,
        "RABBITMQ_EXCHANGE": "fyle",
    }
    run(shop.dsn, "INSERT INTO secrets VALUES (1)")
    shop.add(2)

    outcome = pgevents(tmp_path, "stream", *UNTIL_NOW, env=env)

    assert outcome.code == 0, outcome.stderr
    assert "from the PG* environment" in outcome.stderr
    assert [json.loads(body)["table"] for _, body in stored_in_queue(vhost, "all")] == ["orders"]


@pytest.mark.parametrize(("dsn", "env"), [("service=shop", {}), ("", {"PGSERVICE": "shop"})])
def test_a_service_file_names_the_database(shop: Shop, dsn: str, env: dict[str, str], tmp_path: Path) -> None:
    parts = parse_dsn(shop.role_dsn)
    entries = [f"{name}={parts[name]}\n" for name in ("host", "port", "user", "dbname")]
    (tmp_path / "services.conf").write_text("[shop]\n" + "".join(entries))
    shop.add(1)
    given = ("--dsn", dsn) if dsn else ()

    outcome = pgevents(
        tmp_path,
        *("stream", *given, "--slot", shop.slot, "--sink", "stdout:", *UNTIL_NOW),
        env={"PGSERVICEFILE": str(tmp_path / "services.conf")} | env,
    )

    assert outcome.code == 0, outcome.stderr
    assert ids_of(outcome.events) == [1]


def test_the_file_and_the_variables_start_a_stream_and_flags_come_first(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "pgevents.toml").write_text(f'slot = "{shop.slot}"\nsink = "null:"\nexclude_tables = ["*.orders"]\n')
    shop.add(1)

    outcome = pgevents(
        tmp_path,
        *("stream", "--exclude-table", "public.nothing", "--sink", "stdout:", *UNTIL_NOW),
        env={"PGEVENTS_DSN": shop.role_dsn, "PGEVENTS_SINK": "file:not-this"},
    )

    assert outcome.code == 0, outcome.stderr
    assert ids_of(outcome.events) == [1]


# The slot's own commands.


def test_a_slot_is_created_looked_at_and_dropped(database15: str, tmp_path: Path) -> None:
    name = parse_dsn(database15)["dbname"]
    options = ("--dsn", as_role(database15), "--slot", name)

    # A publication of all tables takes a superuser.
    created = pgevents(
        tmp_path, "slot", "create", "--dsn", database15, "--slot", name, "--plugin", "pgoutput", "--json"
    )
    status = pgevents(tmp_path, "slot", "status", *options, "--json")
    words = pgevents(tmp_path, "slot", "status", *options)
    again = pgevents(tmp_path, "slot", "create", *options)
    unconfirmed = pgevents(tmp_path, "slot", "drop", *options)
    dropped = pgevents(tmp_path, "slot", "drop", *options, "--yes")
    gone = pgevents(tmp_path, "slot", "status", *options, "--json")

    assert [outcome.code for outcome in (created, status, words, dropped)] == [0, 0, 0, 0]
    report = json.loads(created.stdout)
    assert (report["slot"], report["plugin"], report["active"]) == (name, "pgoutput", False)
    assert report["notes"] == ["created publication pgevents", f"created slot {name} for pgoutput"]
    assert json.loads(status.stdout) == report | {
        "notes": [],
        "retained_bytes": json.loads(status.stdout)["retained_bytes"],
    }
    assert words.stdout.startswith(f"slot {name} (pgoutput) in database {name}: not being read\n")
    again.refused(2, error=f"slot {name} exists already", hint="slot status")
    unconfirmed.refused(2, error=f"dropping slot {name} must be confirmed", hint="--yes")
    assert dropped.stderr == f"dropped slot {name}\n"
    gone.refused(4, error=f"no replication slot {name}", hint="slot create")
