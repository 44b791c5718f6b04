"""``pgevents doctor`` names what is wrong with either end, and says so of nothing else."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pika
import pytest
from psycopg2.extensions import make_dsn

from pgevents.demo.postgres import Postgres
from pgevents.demo.postgres_binaries import find_binaries, wheel_binaries
from pgevents.demo.process import free_ports
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.demo.rabbitmq_settings import MANAGEMENT
from pgevents.doctor import transaction
from pgevents.doctor.examination import examine
from pgevents.doctor.finding import Finding
from pgevents.settings import Settings
from pgevents.start import Wish, create_slot
from tests.integration.command import Command, Outcome, pgevents, through
from tests.integration.defect import SERVER, SERVER_18, examined, examined_18, rewriting
from tests.integration.role import as_role, install_role
from tests.integration.streaming import run

OK, WARNED, USAGE, FATAL = 0, 1, 2, 4
STATEMENTS = 12

DEFECTS = """
✘ logical decoding: role watcher: .* may not use replication slots
✘ free slots: max_replication_slots is 6: all of them are in use
✘ free WAL senders: max_wal_senders is 1: all of them are in use
! reader time-out: wal_sender_timeout is 0: .* never notices
! stall time-out: stall_timeout is 3600 s
! decoding memory: logical_decoding_work_mem is 64 kB
! encoding: database ascii is SQL_ASCII
! role: role postgres: it is a superuser
! role: role app: it may connect 3 times at once
! role: role app: its password is valid until
✘ replication connection: .*max_wal_senders
! pooler: ordinary connections: something .* speaks for it
! next update: PostgreSQL 15.\\d+ with wal2json: from 15.19 on the server refuses wal2json
! slot: slot stolen: it is being read by PID \\d+, role postgres, which calls itself 'thief'
✘ slot: slot stolen: .*belongs to database shop, not ascii
✘ slot: slot physical: .*physical slot
✘ slot: slot foreign: .*test_decoding
✘ slot: slot absent: .*no replication slot absent
! slot kind: slot prepared: it was made for two-phase commit
! WAL retention: max_slot_wal_keep_size has no limit
✘ watermark: slot stolen: this is another server
✘ watermark: state postgres: there is no table .* role watcher may not create it
! watermark file: --state none
✘ skip windows: .*cut.skips.json: .*does not hold windows
! prepared transactions: '.*' in database shop: prepared \\d+ s ago
! open transactions: PID \\d+, idle in transaction: a transaction has been open
! open transactions: role app: could not be seen
✘ table patterns: --table nope.x: .*matches no table
! kind of table: public.unlogged: it is unlogged
! kind of table: public.seen: it is a materialized view
! kind of table: public.elsewhere: it is a foreign table
! kind of table: pg_temp_\\d+.fleeting: it is a temporary table
✘ replica identity: public.keyless: it has no primary key.*: wal2json leaves its updates and deletes out
✘ replica identity: public.keyless: it has no primary key.*: .*every update and delete of it fails
✘ replica identity: public.nothing: its replica identity is NOTHING
✘ replica identity: public.deferred: .*deferrable
✘ replica identity: public.indexed: the index of its replica identity is gone
✘ replica identity: public.it's "odd"; --: it has no primary key
! large values: public.toasted: .*large value of story
! values: public.inexact: this wal2json prints NaN and the infinities of amount, ratio as null
! generated columns: public.generated: events are without twice
✘ partitions: parted.orders: rows of it arrive as parted.orders_1, which no --table matches
✘ partitions: parted.orders: rows of it arrive as parted.orders, which no --table matches
✘ publication: publication missing: there is none
✘ publication: publication narrow: .*lacks public.toasted
✘ published operations: publication narrow: every update, delete, truncate is dropped
! published rows and columns: public.filtered in publication narrow: only some of its rows and columns
✘ park file: .*: it is a folder
✘ file sink: .*no/file: its folder does not exist
! sink: null:: it throws every event away
✘ sink: nats:: there is no sink of that name
! sink options: heartbeat=0
! sink options: mandatory=false
! sink options: --on-unroutable drop
! broker version: RabbitMQ 3
✘ exchange: exchange fanned: .*no durable topic exchange
✘ exchange: exchange events: user 'reader' has no permission
✘ exchange: exchange straight: .*no durable topic exchange
! exchange: exchange missing: could not be seen: whether user reader may declare it
✘ publishing: exchange events: user 'reader' has no permission
✘ publishing: exchange events: the broker takes nothing now
✘ alarms: node .*: its memory alarm is in force
! alarms: nodes of the broker: could not be seen: .*refuses user reader
✘ bindings: public.keyless: no queue is bound for public.keyless.insert.*: such events vanish
! bindings: public.toasted by \\[\\[route\\]\\] vip: no queue is bound for public.toasted.insert: the stream holds
! bindings: public.toasted by \\[\\[route\\]\\] odd: no queue is bound for public.toasted.update: the stream holds
! bindings: public.toasted in the slow lane of ..skip.. large: no queue is bound for slow.toasted: the stream holds
! bindings: messages with the prefix mail by \\[\\[route\\]\\] mail: no queue is bound for mail: the stream holds
! bindings: records of skipped transactions: no queue is bound for _.transaction.skipped: .*line in the log
! bindings: summaries of public.keyless: no queue is bound for public.keyless.summary: .*line in the log
! bindings: exchange events: could not be seen
! queues: exchange events: could not be seen
✘ queues: queue forgetful: when it holds its max-length of 10 its head is dropped
! queues: queue hasty: what is not consumed within message-ttl, 1000 ms, is dropped
! queues: queue mortal: it is deleted with all in it when nobody uses it for 3600000 ms
! queues: queue limited: what was handed out 5 times
! queues: queue volatile: it is not durable
! queues: queue leaving: it is auto-delete
"""

MARKS = {"ok": "✔", "warning": "!", "fatal": "✘"}


def said(findings: list[Finding]) -> str:
    return "\n".join(f"{MARKS[each.level]} {each.check}: {each.subject}: {each.problem}" for each in findings)


@pytest.fixture(scope="module")
def planted(services: Path) -> Iterator[str]:
    """What doctor says of servers with every defect."""
    folder = services / "planted"
    with (
        pytest.MonkeyPatch.context() as patch,
        Postgres(folder / "postgres", binaries=find_binaries(), settings=SERVER) as server,
        RabbitMQ(folder / "rabbitmq", plugins=(MANAGEMENT,)) as broker,
    ):
        patch.setattr(transaction, "OLD_S", 1)
        patch.setattr(transaction, "OLD_PREPARED_S", 1)
        yield said(examined(server, broker, folder))


@pytest.mark.parametrize("defect", DEFECTS.strip().splitlines())
@pytest.mark.fault("F71", "F73", "F98", "I10", "I22")
def test_every_planted_defect_is_named(planted: str, defect: str) -> None:
    check = defect.partition(":")[0].removeprefix("✘ ").removeprefix("! ")
    assert re.search(f"^{defect}", planted, re.MULTILINE), re.findall(f"^. {check}: .*", planted, re.MULTILINE)


DEFECTS_18 = """
! reader time-out: wal_sender_timeout is 2 s: a pause of that length
! idle slots: idle_replication_slot_timeout is 3600 s
✘ output plug-in: plug-in wal2json: .*may not be used as an output plugin
✘ slot: slot lost: .*lost: the server removed WAL
! WAL retention: max_slot_wal_keep_size is 2 MB
! table patterns: tables: there is none to stream
! standby: the server: it is a standby
"""


@pytest.fixture(scope="module")
def planted_18(services: Path) -> Iterator[str]:
    with Postgres(services / "planted18", binaries=next(wheel_binaries()), settings=SERVER_18) as server:
        yield said(examined_18(server))


@pytest.mark.parametrize("defect", DEFECTS_18.strip().splitlines())
def test_what_only_a_newer_server_has_is_named(planted_18: str, defect: str) -> None:
    assert re.search(f"^{defect}", planted_18, re.MULTILINE), planted_18


class Pair:
    """A database and a broker with nothing wrong, and the options that stream between them."""

    def __init__(self, server: Postgres, broker: RabbitMQ, vhost: str) -> None:
        self.admin, self.dsn = server.dsn(), as_role(server.dsn())
        run(
            self.admin,
            "CREATE TABLE orders (id int PRIMARY KEY, note text); ALTER TABLE orders REPLICA IDENTITY FULL",
            "CREATE PUBLICATION pgevents FOR TABLE orders",
        )
        install_role(self.admin)
        create_slot(self.dsn, Wish("shop", "pgoutput", "pgevents"))
        self.management = f"http://127.0.0.1:{broker.settings.ports['management']}"
        self.url = vhost
        with closing(pika.BlockingConnection(pika.URLParameters(vhost))) as connection:
            channel = connection.channel()
            channel.exchange_declare("pgevents", "topic", durable=True)
            channel.queue_declare("all", durable=True, arguments={"x-max-length": 9, "x-overflow": "reject-publish"})
            channel.queue_bind("all", "pgevents", "public.#")

    def examined(self, folder: Path, *more: str, dsn: str = "", url: str = "") -> Outcome:
        ends = ("--dsn", dsn or self.dsn, "--sink", url or self.url)
        return pgevents(folder, "doctor", *ends, "--slot", "shop", "--management", self.management, *more)


@pytest.fixture
def pair(services: Path, rabbitmq: RabbitMQ, vhost: str, tmp_path: Path) -> Iterator[Pair]:
    binaries = next(wheel_binaries())
    folder = services / tmp_path.name
    with Postgres(folder, binaries=binaries, settings={"max_slot_wal_keep_size": "16GB"}) as server:
        yield Pair(server, rabbitmq, vhost)


@pytest.mark.fault("I22")
def test_of_a_healthy_pair_every_line_is_ok(pair: Pair, rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    # As a maintained broker would greet.
    greeting = re.compile(rb"(\x07versionS....)3", re.DOTALL)
    with rewriting(rabbitmq.port, lambda said: greeting.sub(rb"\g<1>4", said)) as port:
        outcome = pair.examined(tmp_path, url=through(pair.url, port))

    *lines, total = outcome.stdout.splitlines()
    assert [line for line in lines if not line.startswith("✔ ")] == []
    assert len(lines) > 30
    assert total == f"{len(lines)} checks: 0 fatal, 0 to think about"
    assert (outcome.code, outcome.stderr) == (OK, "")


def test_a_warning_alone_is_exit_code_1(pair: Pair, tmp_path: Path) -> None:
    outcome = pair.examined(tmp_path)

    assert re.findall(r"^[!✘].*", outcome.stdout, re.MULTILINE) == [
        "! broker version: RabbitMQ 3.10.8: its makers mend nothing in 3.x any more"
    ]
    assert outcome.code == WARNED


RULES = """
[[skip]]
marked = true
[[skip]]
rows = 1000
action = "slow-lane"
exchange = "slow"
[[filter]]
operations = ["insert", "update"]
[[route]]
tables = ["orders"]
operations = ["update"]
when = "new.note <> old.note"
exchange = "vip"
headers = { kind = "vip" }
[[route]]
tables = ["orders"]
operations = ["insert"]
routing_key = "new.orders"
"""


def bound(pair: Pair, exchange: str, *keys: str) -> None:
    with closing(pika.BlockingConnection(pika.URLParameters(pair.url))) as connection:
        channel = connection.channel()
        channel.exchange_declare(exchange, "topic", durable=True)
        for key in keys:
            channel.queue_bind("all", exchange, key)


def test_all_that_rules_name_is_ok_once_it_is_bound(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "pgevents.toml").write_text(RULES)
    bound(pair, "pgevents", "_.transaction.skipped", "new.orders")
    bound(pair, "vip", "public.orders.update")
    bound(pair, "slow", "new.orders", "public.orders.update")

    outcome = pair.examined(tmp_path)

    assert [each for each in troubles(outcome) if "RabbitMQ 3" not in each] == []
    assert "✔ exchange: exchange vip is there, durable, of type topic\n" in outcome.stdout
    assert "✔ exchange: exchange slow is there, durable, of type topic\n" in outcome.stdout
    # By insert and by update, each in both lanes; an update by its route and without; and the record.
    assert "✔ bindings: a queue is bound for each of 6 routing keys\n" in outcome.stdout


def test_each_key_that_nothing_is_bound_for_is_named_alone(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "pgevents.toml").write_text(RULES)
    bound(pair, "pgevents", "_.transaction.skipped", "new.orders")
    bound(pair, "vip", "public.orders.insert")
    bound(pair, "slow", "new.orders", "public.orders.update")

    outcome = pair.examined(tmp_path)

    (line,) = [each for each in troubles(outcome) if "RabbitMQ 3" not in each]
    assert line.startswith("! bindings: public.orders by [[route]] 1: no queue is bound for public.orders.update")
    assert "source=vip destination=QUEUE routing_key='public.orders.#'" in outcome.stdout


def troubles(outcome: Outcome) -> list[str]:
    return re.findall(r"^[!✘] .*", outcome.stdout, re.MULTILINE)


def test_a_slot_that_pgevents_reads_is_as_it_should_be(pair: Pair, tmp_path: Path) -> None:
    options = ("--dsn", pair.dsn, "--slot", "shop", "--sink", pair.url)
    with Command(tmp_path, "stream", *options) as stream:
        stream.ready()

        outcome = pair.examined(tmp_path)

        assert re.search(r"^✔ slot: slot shop is being read by PGEvents, PID \d+$", outcome.stdout, re.MULTILINE)
        assert re.search(
            r"^✔ watermark: slot shop was acknowledged up to .*, and agrees$", outcome.stdout, re.MULTILINE
        )
        assert outcome.code == WARNED


def test_streaming_wants_a_temporary_folder(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    options = ("doctor", "--dsn", pair.dsn, "--slot", "shop", "--sink", "null:", "--streaming")

    outcome = pgevents(tmp_path, *options, env={"TMPDIR": str(tmp_path / "tmp")})
    nowhere = pgevents(tmp_path, *options, prefix=("sh", "-c", 'prlimit --fsize=0 "$@" | cat', "sh"))

    assert f"✔ temporary folder: transactions may wait in {tmp_path}/tmp for their commit, " in outcome.stdout
    assert (
        "! temporary folder: --streaming: there is none that can be written to: "
        "a transaction of more than 1 MiB is read at its commit\n"
    ) in nowhere.stdout


def test_json_is_a_list_of_findings(pair: Pair, tmp_path: Path) -> None:
    outcome = pair.examined(tmp_path, "--json", "--exclude-table", "orders")

    findings = json.loads(outcome.stdout)
    assert all(set(each) == {"check", "level", "subject", "problem", "fix", "sql"} for each in findings)
    assert {each["level"] for each in findings} == {"ok", "warning"}
    assert all(bool(each["problem"]) == bool(each["fix"]) == (each["level"] != "ok") for each in findings)
    assert outcome.code == WARNED


def test_the_printed_sql_mends_what_it_names(pair: Pair, tmp_path: Path) -> None:
    run(
        pair.admin,
        'CREATE TABLE "odd ""\n; name" (id int)',
        "CREATE TABLE toasted (id int PRIMARY KEY, story text)",
        'ALTER PUBLICATION pgevents ADD TABLE "odd ""\n; name"',
        "ALTER PUBLICATION pgevents SET (publish = 'update')",
        "ALTER SYSTEM SET max_slot_wal_keep_size = -1",
        "ALTER SYSTEM SET idle_replication_slot_timeout = '1h'",
        "ALTER SYSTEM SET logical_decoding_work_mem = '1MB'",
        "ALTER ROLE pgevents SET wal_sender_timeout = '2s'",
        "ALTER ROLE pgevents CONNECTION LIMIT 3",
        "SELECT pg_reload_conf()",
    )
    script = pair.examined(tmp_path, "--table", "public.*", "--fix-sql")

    psql(pair.admin, script.stdout)

    mended = pair.examined(tmp_path, "--table", "public.*", "--json")
    left = {each["subject"] for each in json.loads(mended.stdout) if each["level"] != "ok"}
    assert script.stdout.count(";\n") == STATEMENTS
    assert left == {"RabbitMQ 3.10.8"}
    assert (script.code, mended.code) == (FATAL, WARNED)


def psql(dsn: str, script: str) -> None:
    (binaries,) = wheel_binaries()
    command = [str(binaries.folder / "psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--dbname={dsn}"]
    subprocess.run(command, input=script, text=True, check=True, capture_output=True)


def test_a_broker_that_is_away_does_not_hide_the_database(pair: Pair, tmp_path: Path) -> None:
    (port,) = free_ports(1)

    outcome = pair.examined(tmp_path, url=through(pair.url, port))

    assert f"✘ broker: 127.0.0.1:{port}: cannot reach RabbitMQ" in outcome.stdout
    assert "✔ slot: slot shop for pgoutput is not being read" in outcome.stdout
    assert outcome.code == FATAL


def test_one_broker_of_several_that_is_away_is_a_warning(pair: Pair, tmp_path: Path) -> None:
    (port,) = free_ports(1)

    outcome = pair.examined(tmp_path, url=re.sub(r"(@127.0.0.1):", rf"\1:{port},127.0.0.1:", pair.url))

    assert f"! broker: 127.0.0.1:{port}: cannot reach RabbitMQ" in outcome.stdout
    assert "✔ publishing: user pgevents may publish to exchange pgevents" in outcome.stdout
    assert outcome.code == WARNED


def test_a_database_that_is_away_does_not_hide_the_broker(pair: Pair, tmp_path: Path) -> None:
    (port,) = free_ports(1)

    outcome = pair.examined(tmp_path, dsn=make_dsn(pair.dsn, port=port))

    assert re.search(r"^✘ database: PostgreSQL: .*Connection refused", outcome.stdout, re.MULTILINE)
    assert "✔ queues: classic queue all keeps what it gets" in outcome.stdout
    assert "! bindings: exchange pgevents: could not be seen: which tables there are" in outcome.stdout
    assert outcome.code == FATAL


def test_a_wrong_password_of_the_broker_is_named_and_not_shown(pair: Pair, tmp_path: Path) -> None:
    url = re.sub(r":[^:@]+@", ":hunter2@", pair.url)

    outcome = pair.examined(tmp_path, url=url)

    assert re.search(r"^✘ broker: 127.0.0.1:\d+: user 'pgevents' was refused", outcome.stdout, re.MULTILINE)
    assert "hunter2" not in outcome.stdout + outcome.stderr
    assert outcome.code == FATAL


def test_a_wrong_password_of_the_database_is_named_and_not_shown(services: Path, tmp_path: Path) -> None:
    with Postgres(services / "scram", binaries=next(wheel_binaries()), auth="scram-sha-256") as server:
        outcome = pgevents(tmp_path, "doctor", "--dsn", server.dsn(password="hunter2"), "--sink", "null:")

    assert re.search(r"^✘ database: PostgreSQL: .*password authentication failed", outcome.stdout, re.MULTILINE)
    assert "! sink: null:" in outcome.stdout
    assert "hunter2" not in outcome.stdout + outcome.stderr
    assert outcome.code == FATAL


def test_without_the_management_api_what_it_tells_is_never_ok(pair: Pair, tmp_path: Path) -> None:
    (port,) = free_ports(1)

    outcome = pair.examined(tmp_path, "--management", f"http://127.0.0.1:{port}")

    unseen = re.findall(
        r"^! (\w+): .*could not be seen: no answer of the management API", outcome.stdout, re.MULTILINE
    )
    assert unseen == ["alarms", "bindings", "queues"]
    assert not re.search(r"^✔ (alarms|bindings|queues)", outcome.stdout, re.MULTILINE)


def test_a_management_url_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "doctor", "--management", "broker:15672")

    outcome.refused(USAGE, error="--management is not a URL", hint="http://broker:15672")


def test_doctor_leaves_no_trace(pair: Pair, tmp_path: Path) -> None:
    settings = Settings(dsn=pair.dsn, slot="absent", sink=f"{pair.url}?exchange=other", state=str(tmp_path / "state"))

    findings = examine(settings, management=pair.management)

    assert any(each.subject == "exchange other will be declared" for each in findings)
    again = {each.subject for each in examine(settings, management=pair.management)}
    assert "exchange other will be declared" in again
    assert "1 of 50 in use" in again
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("I22")
def test_a_stream_refuses_what_doctor_calls_fatal_at_its_end(pair: Pair, tmp_path: Path) -> None:
    run(pair.admin, "ALTER PUBLICATION pgevents DROP TABLE orders")
    asked = ("--dsn", pair.dsn, "--slot", "shop", "--table", "orders")

    examined = pair.examined(tmp_path, "--table", "orders", "--json")
    refused = pgevents(tmp_path, "stream", *asked, "--sink", "null:")

    error, hint = refused.refusal(FATAL)
    (fatal,) = [each for each in json.loads(examined.stdout) if each["level"] == "fatal"]
    assert (fatal["problem"], fatal["fix"]) == (error, hint)
