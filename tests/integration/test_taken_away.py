"""What a running stream had is taken away: it says so as an error, tries on, and goes on when it is given back."""

import re
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually
from pgevents.demo.rabbitmq import RabbitMQ
from tests.contract.amqp import bind
from tests.integration.command import Command, Shop, ids_of, stored
from tests.integration.streaming import ask, run
from tests.integration.test_refusals_sink import in_queue

GAP = 3
DEADLINE_S = 20.0
TO_FILE = ("--sink", "file:events.ndjson", "--retry-max", "0.2")
# The time-out of a start does not end what has streamed.
IMPATIENT = ("--start-timeout", "0", "--retry-max", "0.2")

TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication"


def word_of_loss(shop: Shop) -> str:
    """We ask for the slot's status; where the server is quicker, it says so in its own words."""
    return f'slot {shop.slot} is lost|replication slot "{shop.slot}"'


@pytest.fixture
def server(services: Path) -> Iterator[Postgres]:
    """A server of the test's own, which wants passwords."""
    with Postgres(services / f"own-{secrets.token_hex(4)}", auth="scram-sha-256") as own:
        yield own


@pytest.fixture
def shop(server: Postgres) -> Shop:
    return Shop(server.dsn())


def holds(file: Path, ids: list[int]) -> bool:
    """Whether the file holds these rows, in order; a repeated one counts once."""
    rows = [event for event in stored(file) if event["op"] == "insert"]
    return list(dict.fromkeys(ids_of(rows))) == ids


@pytest.mark.fault("F36", "I14")
def test_a_password_that_is_changed_in_mid_stream_and_back_loses_nothing(
    server: Postgres, shop: Shop, tmp_path: Path
) -> None:
    run(shop.dsn, "CREATE ROLE app LOGIN REPLICATION PASSWORD 'first-word'", "GRANT pg_read_all_settings TO app")
    file = tmp_path / "events.ndjson"
    role = shop.with_dsn(user="app", password="first-word")
    with Command(tmp_path, "stream", *role, *TO_FILE, "--start-timeout", "0") as stream:
        stream.ready()
        shop.add(1)
        assert eventually(lambda: holds(file, [1]), deadline_s=DEADLINE_S), stream.stderr

        run(shop.dsn, "ALTER ROLE app PASSWORD 'second-word'", TERMINATE)
        shop.add(2)
        stream.says("error trying again .*password authentication failed .*hint=.*Check user, password", times=2)
        run(shop.dsn, "ALTER ROLE app PASSWORD 'first-word'")
        stream.says("streaming again")
        shop.add(3)
        assert eventually(lambda: holds(file, [1, 2, 3]), deadline_s=DEADLINE_S), stream.stderr
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert not re.search("first-word|second-word", ended.stderr)


def segment_of(server: Postgres, shop: Shop) -> Path:
    """The WAL file that the slot is read from."""
    name = ask(
        shop.dsn, f"SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots WHERE slot_name = '{shop.slot}'"
    )
    return server.folder / "data" / "pg_wal" / str(name)


def write_wal(shop: Shop, files: int) -> None:
    """Little of it to be sent: a walsender that is to leave, and has its reader's buffer full, never does."""
    run(shop.dsn, *["SELECT pg_logical_emit_message(false, '', 'x')", "SELECT pg_switch_wal()"] * files, "CHECKPOINT")


def test_a_wal_file_that_is_missing_for_a_while_is_waited_for(server: Postgres, shop: Shop, tmp_path: Path) -> None:
    shop.add(1)
    write_wal(shop, 3)
    segment = segment_of(server, shop)
    aside = segment.rename(tmp_path / "aside")
    file = tmp_path / "events.ndjson"

    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream:
        stream.says("error trying again .*requested WAL segment .* has already been removed", times=2)
        aside.rename(segment)
        assert eventually(lambda: holds(file, [1]), deadline_s=DEADLINE_S), stream.stderr
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr


@pytest.mark.fault("F28", "I12")
def test_a_wal_file_that_is_missing_until_the_slot_is_lost_is_a_gap(
    server: Postgres, shop: Shop, tmp_path: Path
) -> None:
    shop.add(1)
    write_wal(shop, 3)
    segment_of(server, shop).rename(tmp_path / "aside")

    with Command(tmp_path, "stream", *shop.options, *TO_FILE) as stream:
        stream.says("error trying again .*requested WAL segment .* has already been removed")
        run(shop.dsn, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
        assert eventually(lambda: ask(shop.dsn, "SHOW max_slot_wal_keep_size") == "1MB", deadline_s=DEADLINE_S)
        write_wal(shop, 3)
        ended = stream.ended(deadline_s=5)

    ended.refused(GAP, error=word_of_loss(shop), hint="(?i)drop (the slot|it)")


@pytest.mark.fault("F28", "I12")
def test_a_slot_that_is_lost_while_it_is_read_is_a_gap_at_once(shop: Shop, tmp_path: Path) -> None:
    run(shop.dsn, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
    assert eventually(lambda: ask(shop.dsn, "SHOW max_slot_wal_keep_size") == "1MB", deadline_s=DEADLINE_S)
    file = tmp_path / "events.ndjson"
    with Command(tmp_path, "stream", *shop.options, "--sink", "file:events.ndjson") as stream:
        stream.ready()
        shop.add(1)
        assert eventually(lambda: holds(file, [1]), deadline_s=DEADLINE_S), stream.stderr

        stream.send(signal.SIGSTOP)
        write_wal(shop, 5)
        lost = f"SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = '{shop.slot}'"
        assert eventually(lambda: bool(ask(shop.dsn, lost)), deadline_s=DEADLINE_S)
        stream.send(signal.SIGCONT)
        ended = stream.ended(deadline_s=5)

    ended.refused(GAP, error=word_of_loss(shop), hint="(?i)drop (the slot|it)")


@dataclass(frozen=True, slots=True)
class Clerk:
    """A user of a virtual host, whose rights are given and taken away."""

    rabbitmq: RabbitMQ
    vhost: str
    name: str

    @property
    def url(self) -> str:
        return f"amqp://{self.name}:sesame@127.0.0.1:{self.rabbitmq.port}/{self.vhost}"

    def add(self) -> None:
        self.rabbitmq.api("PUT", f"/api/users/{self.name}", {"password": "sesame", "tags": ""})
        self.permit(".*")

    def permit(self, pattern: str) -> None:
        permitted = {"configure": pattern, "write": pattern, "read": pattern}
        self.rabbitmq.api("PUT", f"/api/permissions/{self.vhost}/{self.name}", permitted)

    def forbid(self) -> None:
        """The broker remembers for a channel what it was permitted, so that it is noticed on the next one."""
        self.permit("")
        self.rabbitmq.ctl("close_all_user_connections", self.name, "rights have changed")

    def remove(self) -> None:
        self.rabbitmq.api("DELETE", f"/api/users/{self.name}")


@pytest.fixture
def clerk(rabbitmq: RabbitMQ, vhost: str) -> Iterator[Clerk]:
    named = Clerk(rabbitmq, urlsplit(vhost).path.lstrip("/"), f"clerk-{secrets.token_hex(4)}")
    named.add()
    yield named
    named.remove()


@pytest.mark.parametrize(
    ("take", "says"),
    [
        (Clerk.forbid, "error trying again .*has no permission on exchange 'pgevents'.* hint=.*set_permissions"),
        (Clerk.remove, "error trying again .*was refused by 127.0.0.1.* hint=.*Check user and password"),
    ],
    ids=["permission", "user"],
)
@pytest.mark.fault("F68", "F69", "I14")
def test_a_broker_that_refuses_its_user_in_mid_stream_and_takes_it_back_loses_nothing(
    database15: str, vhost: str, clerk: Clerk, take: Callable[[Clerk], None], says: str, tmp_path: Path
) -> None:
    bind(vhost, "all")
    shop = Shop(database15)
    with Command(tmp_path, "stream", *shop.options, "--sink", clerk.url, *IMPATIENT) as stream:
        stream.ready()
        shop.add(1)
        written = shop.lsn
        assert eventually(lambda: shop.confirmed >= written, deadline_s=DEADLINE_S), stream.stderr

        take(clerk)
        shop.add(2)
        stream.says(says, times=2)
        clerk.add()
        stream.says("streaming again")
        shop.add(3)
        written = shop.lsn
        assert eventually(lambda: shop.confirmed >= written, deadline_s=DEADLINE_S), stream.stderr
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "sesame" not in ended.stderr
    assert ids_of(in_queue(vhost)) == [1, 2, 3]
