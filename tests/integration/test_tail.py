"""``pgevents tail``: what it shows, and that it leaves nothing behind."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from chaos.proxy import Proxy
from pgevents.demo.process import eventually
from pgevents.demo.rabbitmq import RabbitMQ
from tests.contract.amqp import bind, channel
from tests.integration.command import (
    DEADLINE_S,
    INT,
    KILL,
    TERM,
    Command,
    Outcome,
    Shop,
    environment,
    ids_of,
    pgevents,
    through,
)
from tests.integration.role import as_role
from tests.integration.streaming import BOTH, ask, check, run

BODY = {
    "v": 1,
    "op": "update",
    "schema": "public",
    "table": "orders",
    "key": {"id": 7},
    "new": {"id": 7, "status": "paid"},
    "old": {"id": 7, "status": "open"},
    "changed": ["status"],
    "tx": {"lsn": "16/B374D848", "committed_at": "2026-11-20T18:02:48.632795Z"},
}
LINE = "18:02:48.632  UPDATE    public.orders #7  status: open → paid  16/B374D848"


@pytest.fixture
def tables(database15: str) -> str:
    """A database whose table ``orders`` has whole old images."""
    run(
        database15,
        "CREATE TABLE orders (id int PRIMARY KEY, status text)",
        "ALTER TABLE orders REPLICA IDENTITY FULL",
        "CREATE PUBLICATION pgevents FOR ALL TABLES",
    )
    return database15


def slots(dsn: str) -> int:
    count: int = ask(dsn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()")
    return count


# From the database.


@pytest.mark.parametrize("plugin", [*BOTH, "auto"])
def test_each_committed_change_is_a_line_with_what_changed(tables: str, plugin: str, tmp_path: Path) -> None:
    with Command(tmp_path, "tail", "--dsn", as_role(tables), "--plugin", plugin) as tail:
        tail.ready()
        run(
            tables,
            "INSERT INTO orders VALUES (7, 'open')",
            "UPDATE orders SET status = 'paid' WHERE id = 7",
            "DELETE FROM orders WHERE id = 7",
        )
        tail.shows("DELETE .*\n")
        ended = tail.stopped()

    assert ended.code == 0, ended.stderr
    inserted, updated, deleted = (line.split("  ", 1)[1].rsplit("  ", 1)[0] for line in ended.stdout.splitlines())
    assert inserted == "INSERT    public.orders #7  status=open"
    assert updated == "UPDATE    public.orders #7  status: open → paid"
    assert deleted == "DELETE    public.orders #7  status=paid"
    assert f"plug-in {'wal2json' if plugin == 'auto' else plugin}" in ended.stderr


@pytest.mark.parametrize("plugin", BOTH)
def test_json_is_a_whole_event_a_line(tables: str, plugin: str, tmp_path: Path) -> None:
    with Command(tmp_path, "tail", "--dsn", as_role(tables), "--plugin", plugin, "--json") as tail:
        tail.ready()
        run(tables, "INSERT INTO orders VALUES (7, E'two\\nlines'), (8, NULL)")
        tail.shows('"id":8.*\n')
        ended = tail.stopped()

    assert ended.code == 0, ended.stderr
    for line in ended.stdout.splitlines():
        check(line.encode())
    assert [event["new"] for event in ended.events] == [{"id": 7, "status": "two\nlines"}, {"id": 8, "status": None}]


def test_only_the_tables_asked_for_are_shown(tables: str, tmp_path: Path) -> None:
    run(tables, "CREATE TABLE quiet (id int PRIMARY KEY)")

    with Command(tmp_path, "tail", "--dsn", as_role(tables), "--table", "public.orders", "--json") as tail:
        tail.ready()
        run(tables, "INSERT INTO quiet VALUES (1)", "INSERT INTO orders VALUES (2)")
        tail.shows('"id":2.*\n')
        ended = tail.stopped()

    assert ids_of(ended.events) == [2]


@pytest.mark.parametrize("number", [TERM, INT, KILL])
def test_no_slot_is_left_behind(tables: str, number: signal.Signals, tmp_path: Path) -> None:
    with Command(tmp_path, "tail", "--dsn", as_role(tables)) as tail:
        tail.ready()
        assert slots(tables) == 1
        ended = tail.stopped(number)

    assert ended.code == (-KILL if number == KILL else 0), ended.stderr
    assert "Traceback" not in ended.stderr
    assert eventually(lambda: slots(tables) == 0, deadline_s=10)


def test_the_stream_of_a_slot_is_not_disturbed(database15: str, tmp_path: Path) -> None:
    shop = Shop(database15)
    before = shop.confirmed
    with Command(tmp_path, "tail", "--dsn", shop.role_dsn, "--json") as tail:
        tail.ready()
        shop.add(1)
        tail.shows('"id":1.*\n')
        tail.stopped()

    streamed = pgevents(tmp_path, "stream", *shop.options, "--sink", "stdout:", "--until-lsn", "now")

    assert ids_of(streamed.events) == [1]
    assert shop.confirmed > before


def test_pgoutput_without_its_publication_is_refused(database15: str, tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "tail", "--dsn", as_role(database15), "--plugin", "pgoutput")

    outcome.refused(4, error="there is no publication pgevents", hint="CREATE PUBLICATION")
    assert slots(database15) == 0


def test_an_unknown_table_is_refused(tables: str, tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "tail", "--dsn", as_role(tables), "--table", "public.ordrs")

    outcome.refused(2, error=r"public\.ordrs matches no table", hint=r"public\.orders")


# From a queue.


def publish(url: str, key: str = "public.orders.update", body: str = json.dumps(BODY)) -> None:
    with channel(url) as broker:
        broker.basic_publish("pgevents", key, body.encode())


@contextmanager
def tailing(folder: Path, url: str, *options: str) -> Iterator[Command]:
    with Command(folder, "tail", "--sink", url, *options) as tail:
        yield tail.ready()


def queues(rabbitmq: RabbitMQ, url: str) -> list[str]:
    return [queue["name"] for queue in rabbitmq.api("GET", f"/api/queues{urlsplit(url).path}")]


def test_a_temporary_queue_shows_what_its_bindings_match_and_goes_away(
    rabbitmq: RabbitMQ, vhost: str, tmp_path: Path
) -> None:
    with tailing(tmp_path, vhost, "--bind", "public.orders.#", "--bind", "#.delete") as tail:
        publish(vhost, "public.items.insert", "not bound")
        publish(vhost, "public.items.delete", "no event of ours")
        publish(vhost)
        tail.shows("UPDATE .*\n")
        (name,) = queues(rabbitmq, vhost)
        (queue,) = rabbitmq.api("GET", f"/api/queues{urlsplit(vhost).path}")
        ended = tail.stopped(INT)

    assert ended.code == 0, ended.stderr
    assert ended.stdout.splitlines() == ["no event of ours", LINE]
    assert f"Ready: queue {name}" in ended.stderr
    assert queue["exclusive"]
    assert queues(rabbitmq, vhost) == []


def test_without_a_binding_a_temporary_queue_shows_everything_as_json(vhost: str, tmp_path: Path) -> None:
    with tailing(tmp_path, vhost, "--json") as tail:
        publish(vhost, "a.b.c")
        tail.shows("paid.*\n")
        ended = tail.stopped(TERM)

    assert ended.code == 0, ended.stderr
    assert ended.events == [BODY]


def test_a_named_queue_with_a_binding_is_declared_and_stays(rabbitmq: RabbitMQ, vhost: str, tmp_path: Path) -> None:
    with tailing(tmp_path, vhost, "--queue", "audit", "--bind", "public.#") as tail:
        publish(vhost)
        tail.shows("UPDATE .*\n")
        ended = tail.stopped()
    publish(vhost)
    with tailing(tmp_path, vhost, "--queue", "audit") as tail:
        tail.shows("UPDATE .*\n")
        again = tail.stopped()

    assert (ended.code, again.code) == (0, 0), ended.stderr + again.stderr
    assert ended.stdout == again.stdout == LINE + "\n"
    assert queues(rabbitmq, vhost) == ["audit"]


def test_a_queue_that_is_missing_is_named(vhost: str, tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "tail", "--sink", vhost, "--queue", "no-such")

    outcome.refused(4, error="cannot consume queue no-such: NOT_FOUND", hint="--bind PATTERN")


def test_a_queue_that_is_deleted_while_it_is_read_ends_it(vhost: str, tmp_path: Path) -> None:
    bind(vhost, "audit")
    with tailing(tmp_path, vhost, "--queue", "audit") as tail:
        with channel(vhost) as broker:
            broker.queue_delete("audit")
        ended = tail.ended()

    ended.refused(1, error="RabbitMQ ended the reading of queue audit", hint="deleted")


def test_a_broker_that_goes_away_ends_it(rabbitmq: RabbitMQ, vhost: str, tmp_path: Path) -> None:
    bind(vhost, "audit")
    with (
        Proxy(rabbitmq.port) as way,
        tailing(tmp_path, through(vhost, way.port), "--queue", "audit") as tail,
    ):
        way.cut()
        ended = tail.ended()

    ended.refused(1, error="the connection to RabbitMQ was lost", hint=".")


@pytest.mark.parametrize(
    ("change", "code", "error"),
    [("port", 1, "cannot reach RabbitMQ at 127.0.0.1:1: "), ("vhost", 4, "virtual host 'no-such' was refused")],
)
def test_a_broker_that_is_not_there_is_named(
    rabbitmq: RabbitMQ, change: str, code: int, error: str, tmp_path: Path
) -> None:
    url = "amqp://127.0.0.1:1/" if change == "port" else rabbitmq.url("no-such")

    outcome = pgevents(tmp_path, "tail", "--sink", url)

    outcome.refused(code, error=error, hint=".")
    assert rabbitmq.settings.password not in outcome.stderr


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_a_port_that_never_says_a_word_is_left_in_time(scheme: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        outcome = pgevents(tmp_path, "tail", "--sink", f"{scheme}://127.0.0.1:{port}/?connection_timeout=700")

    outcome.refused(1, error=rf"cannot reach RabbitMQ at 127\.0\.0\.1:{port}: no answer within 0\.7 s", hint="port")


def test_a_host_of_no_known_name_is_refused(tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "tail", "--sink", "amqp://no-such-host.invalid/")

    outcome.refused(1, error=r"cannot reach RabbitMQ at no-such-host\.invalid:5672: .*\w", hint="Check host and port")


def test_tls_with_a_port_that_has_none_is_refused(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "tail", "--sink", f"amqps://127.0.0.1:{rabbitmq.port}/")

    outcome.refused(4, error=f"no TLS with 127.0.0.1:{rabbitmq.port}: ", hint="TLS port")


def test_the_second_address_serves_where_the_first_does_not(rabbitmq: RabbitMQ, vhost: str, tmp_path: Path) -> None:
    url = vhost.replace(f"127.0.0.1:{rabbitmq.port}", f"127.0.0.1:1,127.0.0.1:{rabbitmq.port}")
    assert url != vhost

    with tailing(tmp_path, url) as tail:
        publish(vhost)
        tail.shows("UPDATE .*\n")


def test_the_broker_hands_over_no_more_than_a_few_hundred_events_ahead(
    rabbitmq: RabbitMQ, vhost: str, tmp_path: Path
) -> None:
    def prefetched() -> list[int]:
        return [each["prefetch_count"] for each in rabbitmq.api("GET", f"/api/consumers{urlsplit(vhost).path}")]

    with tailing(tmp_path, vhost):
        assert eventually(lambda: bool(prefetched()), deadline_s=DEADLINE_S)

        assert prefetched() == [500]


# Both.


def cut_short(folder: Path, *options: str, more: Callable[[], None]) -> Outcome:
    """A tail whose reader leaves after the first line; ``more`` has an event shown."""
    with subprocess.Popen(
        [sys.executable, "-m", "pgevents", "tail", *options],
        cwd=folder,
        env=environment({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as tail:
        assert tail.stdout
        assert tail.stderr
        try:
            said = tail.stderr.readline()
            more()
            first = tail.stdout.readline()
            tail.stdout.close()
            more()
            return Outcome(tail.wait(DEADLINE_S), first, said + tail.stderr.read())
        finally:
            tail.kill()


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_reader_of_the_database_that_leaves_ends_it_with_one_line(
    tables: str, form: tuple[str, ...], tmp_path: Path
) -> None:
    outcome = cut_short(
        tmp_path,
        "--dsn",
        as_role(tables),
        *form,
        more=lambda: run(tables, "INSERT INTO orders SELECT count(*) FROM orders"),
    )

    assert re.search("orders", outcome.stdout)
    outcome.refused(4, error="^stdout was closed$", hint="head")
    assert len(outcome.stderr.splitlines()) == 3, outcome.stderr
    assert eventually(lambda: slots(tables) == 0, deadline_s=10)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_reader_of_a_queue_that_leaves_ends_it_with_one_line(
    vhost: str, form: tuple[str, ...], tmp_path: Path
) -> None:
    outcome = cut_short(tmp_path, "--sink", vhost, *form, more=lambda: publish(vhost))

    assert re.search("orders", outcome.stdout)
    outcome.refused(4, error="^stdout was closed$", hint="head")
    assert len(outcome.stderr.splitlines()) == 3, outcome.stderr


@pytest.mark.parametrize("source", ["database", "queue"])
def test_a_standard_output_that_was_never_open_is_refused(
    tables: str, vhost: str, source: str, tmp_path: Path
) -> None:
    options = ("--dsn", as_role(tables)) if source == "database" else ("--sink", vhost)

    outcome = pgevents(tmp_path, "tail", *options, prefix=("sh", "-c", 'exec "$@" >&-', "sh"))

    outcome.refused(4, error="^stdout was closed$", hint="head")
    assert slots(tables) == 0


def test_what_is_no_terminal_gets_no_escape_codes(tables: str, vhost: str, tmp_path: Path) -> None:
    with Command(tmp_path, "tail", "--dsn", as_role(tables)) as database, tailing(tmp_path, vhost) as queue:
        database.ready()
        run(tables, "INSERT INTO orders VALUES (7, E'\\x1b[31mred')")
        publish(vhost)
        database.shows("INSERT .*\n")
        queue.shows("UPDATE .*\n")
        outcomes = [database.stopped(), queue.stopped()]

    for outcome in outcomes:
        assert "\x1b" not in outcome.stdout + outcome.stderr
