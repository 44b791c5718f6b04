"""docker-compose.yml, as far as it can be run without Docker: its commands and environment on private servers."""

import os
import re
import signal
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml

from pgevents.demo.process import eventually
from pgevents.demo.rabbitmq import RabbitMQ

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DEADLINE_S = 30.0

PATH = {"PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"}

IMAGE = ROOT / "deploy" / "postgres" / "Dockerfile"


def first_scripts() -> list[Path]:
    """What the image runs in a new cluster, in its order: that of the names the scripts are given."""
    given = re.findall(r"^COPY (\S+) /docker-entrypoint-initdb\.d/(\S+)$", IMAGE.read_text(), re.MULTILINE)
    context = ROOT / SERVICES["postgres"]["build"]["context"]
    return [context / source for source, name in sorted(given, key=lambda each: each[1])]


def dependencies(name: str) -> dict[str, Any]:
    found: dict[str, Any] = SERVICES[name].get("depends_on", {})
    return found


def start_order() -> list[str]:
    """The services as Compose starts them: each after those it depends on."""
    ordered: list[str] = []
    while len(ordered) < len(SERVICES):
        ready = [name for name in SERVICES if name not in ordered and set(dependencies(name)) <= set(ordered)]
        assert ready, "the services depend on each other in a circle"
        ordered += ready
    return ordered


def ours() -> list[str]:
    return [name for name in start_order() if SERVICES[name].get("image") == "pgevents"]


def test_a_service_waits_for_the_health_only_of_one_that_has_a_health_check() -> None:
    for name in SERVICES:
        for dependency, how in dependencies(name).items():
            assert how["condition"] in {"service_started", "service_healthy"}
            assert how["condition"] == "service_started" or "healthcheck" in SERVICES[dependency], (name, dependency)


def test_both_servers_are_healthy_before_the_stream_starts() -> None:
    assert dependencies("stream")["postgres"] == {"condition": "service_healthy"}
    assert dependencies("stream")["rabbitmq"] == {"condition": "service_healthy"}
    assert dependencies("tail")["rabbitmq"] == {"condition": "service_healthy"}
    assert start_order().index("tail") < start_order().index("stream")


def test_no_port_is_reachable_from_another_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert published == ["127.0.0.1:15672:15672"]


def test_every_named_volume_is_declared() -> None:
    mounted = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}

    assert mounted == set(COMPOSE["volumes"])


def test_the_stop_of_our_containers_takes_longer_than_a_drain() -> None:
    for name in ours():
        assert SERVICES[name]["stop_grace_period"] == "30s"
        assert SERVICES[name]["init"] is True


@contextmanager
def opened_shop(dsn: str, *more: str) -> Iterator[None]:
    """A database as the image's own scripts make it, with the role they make."""
    run_sql(dsn, *(script.read_text() for script in first_scripts()), *more)
    yield
    run_sql(dsn, "ALTER ROLE pgevents PASSWORD NULL")


def run_sql(dsn: str, *statements: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        for statement in statements:
            connection.cursor().execute(statement)


@pytest.fixture
def shop(database15: str) -> Iterator[str]:
    with opened_shop(database15):
        yield database15


def environment(name: str, places: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service, its servers' names replaced by where they are here; nothing of ours."""
    found: dict[str, str] = {}
    for variable, value in SERVICES[name]["environment"].items():
        assert isinstance(value, str), f"{variable} of {name} needs quotes in YAML"
        for place, here in places.items():
            value = value.replace(place, here)  # noqa: PLW2901
        found[variable] = value
    assert not [value for value in found.values() if re.search(r"@(postgres|rabbitmq)\b", value)]
    return PATH | found


@contextmanager
def running(name: str, places: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """The command of a service, as its container runs it, in an empty folder."""
    with log.open("w") as output:
        process = subprocess.Popen(
            ["pgevents", *SERVICES[name]["command"]],
            cwd=log.parent,
            env=environment(name, places),
            stdout=output,
            stderr=output,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def is_healthy(name: str, places: Mapping[str, str]) -> bool:
    kind, command = SERVICES[name]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    check = subprocess.run(["sh", "-c", command], env=environment(name, places), capture_output=True, check=False)
    return check.returncode == 0


@pytest.fixture
def places(shop: str, vhost: str) -> dict[str, str]:
    """What stands in the compose file, and what takes its place here."""
    here = psycopg2.extensions.parse_dsn(shop)
    return {
        "@postgres/shop": f"@{here['host']}:{here['port']}/{here['dbname']}",
        "amqp://pgevents:pgevents@rabbitmq/": vhost,
    }


def test_a_row_written_is_in_the_log_of_tail_and_both_end_well(
    shop: str, places: dict[str, str], tmp_path: Path
) -> None:
    assert ours() == ["tail", "stream"]
    assert not is_healthy("stream", places)
    tail_log, stream_log = tmp_path / "tail.log", tmp_path / "stream.log"
    with running("tail", places, tail_log) as tail, running("stream", places, stream_log) as stream:
        assert eventually(lambda: is_healthy("stream", places), deadline_s=DEADLINE_S), stream_log.read_text()

        write_order(shop)

        arrived = eventually(lambda: "customer=Ada" in tail_log.read_text(), deadline_s=DEADLINE_S)
        assert arrived, stream_log.read_text() + tail_log.read_text()
        for process in (stream, tail):
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0, stream_log.read_text() + tail_log.read_text()
    assert re.search(r"INSERT +public\.orders #1 +customer=Ada, amount=12\.50, status=open", tail_log.read_text())
    assert "wal2json" in stream_log.read_text()


def test_a_stream_that_is_up_before_the_queue_is_bound_holds_what_it_has(
    shop: str, places: dict[str, str], rabbitmq: RabbitMQ, vhost: str, tmp_path: Path
) -> None:
    tail_log, stream_log = tmp_path / "tail.log", tmp_path / "stream.log"
    with running("stream", places, stream_log):
        assert eventually(lambda: is_healthy("stream", places), deadline_s=DEADLINE_S), stream_log.read_text()
        write_order(shop)
        unrouted = eventually(lambda: "no queue" in stream_log.read_text(), deadline_s=DEADLINE_S)
        assert unrouted, stream_log.read_text()

        with running("tail", places, tail_log):
            arrived = eventually(lambda: "customer=Ada" in tail_log.read_text(), deadline_s=DEADLINE_S)

    assert arrived, stream_log.read_text() + tail_log.read_text()
    assert rabbitmq.api("GET", f"/api/queues/{vhost.rpartition('/')[2]}/log")["durable"] is True


def write_order(dsn: str) -> None:
    run_sql(dsn, "INSERT INTO orders (customer, amount) VALUES ('Ada', 12.50)")


def test_the_role_of_the_shop_suffices_where_the_server_hides_which_plugins_it_allows(database18: str) -> None:
    with opened_shop(database18, "CREATE PUBLICATION pgevents FOR TABLE orders"):
        dsn = psycopg2.extensions.make_dsn(database18, user="pgevents")
        answer = subprocess.run(
            ["pgevents", "slot", "create", "--dsn", dsn], env=PATH, capture_output=True, text=True, check=False
        )

    assert answer.returncode == 0, answer.stderr
    assert "created slot pgevents for pgoutput" in answer.stdout
