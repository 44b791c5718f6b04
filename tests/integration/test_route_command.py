"""``pgevents route test``: where a change would go, and whether a queue is bound there, on real servers."""

import json
from pathlib import Path

import pytest

from pgevents.demo.process import free_ports
from pgevents.demo.rabbitmq import RabbitMQ
from tests.contract.amqp import bind, channel
from tests.integration.command import Json, Outcome, Shop, pgevents
from tests.integration.streaming import run

DONE, FAILED, USAGE = 0, 1, 2

ROUTES = """
[[route]]
name = "large"
tables = ["public.orders"]
operations = ["insert", "update"]
when = "new.total > 100"
exchange = "elsewhere"
routing_key = "large.{table}"
headers = { tenant = "größer" }
priority = 7
expiration = 1.5
format = "debezium"
compression = "gzip"

[[route]]
name = "risen"
tables = ["public.orders"]
operations = ["update"]
when = "new.total > old.total"
routing_key = "risen.{table}"

[[route]]
name = "bills"
tables = ["_.bill*"]
operations = ["message"]
routing_key = "bills"
"""


class Trial:
    """``pgevents route test`` with the routes above, a database with orders, and a broker."""

    def __init__(self, dsn: str, url: str, rabbitmq: RabbitMQ, folder: Path) -> None:
        shop = Shop(dsn)
        run(shop.dsn, "ALTER TABLE orders ADD total numeric", "ALTER TABLE orders REPLICA IDENTITY FULL")
        (folder / "pgevents.toml").write_text(ROUTES)
        self.url, self.folder, self.superuser = url, folder, dsn
        self.dsn = ("--dsn", shop.role_dsn)
        self.broker = ("--sink", url, "--management", f"http://127.0.0.1:{rabbitmq.settings.ports['management']}")

    def run(self, *arguments: str) -> Outcome:
        return pgevents(self.folder, "route", "test", *arguments)

    def shown(self, *arguments: str, code: int = DONE) -> list[Json]:
        outcome = self.run(*arguments, *self.dsn, *self.broker, "--json")
        assert outcome.code == code, outcome.stderr
        document: Json = json.loads(outcome.stdout)
        routes: list[Json] = document["routes"]
        return routes


@pytest.fixture
def trial(database15: str, vhost: str, rabbitmq: RabbitMQ, tmp_path: Path) -> Trial:
    return Trial(database15, vhost, rabbitmq, tmp_path)


def bind_elsewhere(url: str, queue: str, key: str) -> None:
    with channel(url) as broker:
        broker.exchange_declare("elsewhere", "topic", durable=True)
        broker.queue_declare(queue, durable=True)
        broker.queue_bind(queue, "elsewhere", key)


def test_a_change_is_shown_with_its_route_and_the_queues_that_get_it(trial: Trial) -> None:
    bind(trial.url, "all")
    bind_elsewhere(trial.url, "warehouse", "large.*")
    bind_elsewhere(trial.url, "audit", "#")

    outcome = trial.run("orders", "insert", "--new", '{"total": 250.00}', *trial.dsn, *trial.broker)

    assert (outcome.code, outcome.stderr) == (DONE, "orders is taken as public.orders\n")
    assert outcome.stdout.splitlines() == [
        "route        large",
        "exchange     elsewhere",
        "routing key  large.orders",
        "headers      tenant=größer",
        "priority     7",
        "expiration   1500 ms",
        "format       debezium, application/json",
        "compression  gzip",
        "queues       audit, warehouse",
    ]


def test_the_row_decides_and_json_tells_all(trial: Trial) -> None:
    bind(trial.url, "all")

    [large] = trial.shown("public.orders", "update", "--new", '{"total": "101"}', "--old", "{}", code=FAILED)
    [risen] = trial.shown("public.orders", "update", "--new", '{"total": 5}', "--old", '{"total": 4.99}')
    [plain] = trial.shown("public.orders", "update", "--new", '{"total": null}', "--old", '{"total": 1}')

    assert (large["route"], large["exchange"], large["queues"]) == ("large", "elsewhere", [])
    assert (risen["route"], risen["exchange"], risen["routing_key"]) == ("risen", "pgevents", "risen.orders")
    assert plain == {
        "route": None,
        "when": None,
        "exchange": "pgevents",
        "routing_key": "public.orders.update",
        "headers": {},
        "headers_of_format": [],
        "priority": None,
        "expiration_ms": None,
        "format": "native",
        "content_type": "application/json",
        "compression": None,
        "published": True,
        "queues": ["all"],
        "unseen": None,
    }


def test_headers_are_those_that_the_message_will_carry(trial: Trial) -> None:
    route = '[[route]]\nheaders = { "cloudEvents:id" = "mine", team = "sales" }\nformat = "cloudevents-binary"\n'
    (trial.folder / "pgevents.toml").write_text(route)
    ours = ["specversion", "id", "source", "type", "subject", "time"]

    for operation in ("insert", "update", "delete", "truncate", "message"):
        [shown] = trial.shown("orders", operation, code=FAILED)
        names = [f"cloudEvents:{name}" for name in ours]
        assert (shown["headers"], shown["headers_of_format"]) == ({"team": "sales"}, names), operation

    outcome = trial.run("orders", "insert", *trial.dsn, "--sink", "null:")
    assert "headers      team=sales cloudEvents:specversion=… cloudEvents:id=… " in outcome.stdout
    assert "mine" not in outcome.stdout


def test_without_a_row_every_route_that_may_be_taken_is_shown(trial: Trial) -> None:
    bind(trial.url, "all")

    routes = trial.shown("orders", "update", code=FAILED)

    assert [(each["route"], each["when"], each["queues"]) for each in routes] == [
        ("large", "new.total > 100", []),
        ("risen", "new.total > old.total", ["all"]),
        (None, None, ["all"]),
    ]


def test_what_has_no_row_takes_the_first_route_without_a_condition(trial: Trial) -> None:
    bind(trial.url, "all", "*.*.truncate")

    [truncate] = trial.shown("orders", "truncate")
    [bill] = trial.shown("billing", "message", code=FAILED)

    assert (truncate["route"], truncate["queues"]) == (None, ["all"])
    assert (bill["route"], bill["routing_key"], bill["queues"]) == ("bills", "bills", [])


def test_an_operation_that_the_format_has_no_word_for_is_lost_to_nobody(trial: Trial) -> None:
    outcome = trial.run("orders", "truncate", "--format", "maxwell", *trial.dsn, *trial.broker)

    assert outcome.code == DONE
    assert "nothing is published: the format has no word for this operation" in outcome.stdout


def test_nothing_is_published_and_nothing_declared(trial: Trial) -> None:
    bind(trial.url, "all")

    trial.shown("orders", "update", code=FAILED)

    with channel(trial.url) as broker:
        assert broker.queue_declare("all", passive=True).method.message_count == 0
        with pytest.raises(Exception, match="no exchange 'elsewhere'"):
            broker.exchange_declare("elsewhere", passive=True)


def test_a_table_that_there_is_not_is_refused_with_the_nearest(trial: Trial) -> None:
    outcome = trial.run("public.order", "update", *trial.dsn, *trial.broker)

    outcome.refused(USAGE, error=r"there is no table public\.order$", hint=r"Did you mean public\.orders\?")


def test_a_table_that_is_in_another_schema_is_refused_with_where_it_is(trial: Trial) -> None:
    run(trial.superuser, "CREATE SCHEMA shop", "CREATE TABLE shop.stock (id int)")
    one = trial.run("stock", "insert", *trial.dsn, *trial.broker)
    run(trial.superuser, "CREATE SCHEMA attic", "CREATE TABLE attic.stock (id int)")
    two = trial.run("stock", "insert", *trial.dsn, *trial.broker)

    one.refused(USAGE, error=r"there is no table public\.stock$", hint=r"Did you mean shop\.stock\?$")
    two.refused(USAGE, error=r"there is no table public\.stock$", hint=r"Did you mean attic\.stock or shop\.stock\?$")


def test_a_table_that_is_in_several_schemas_is_said_to_be_taken_from_public(trial: Trial) -> None:
    run(trial.superuser, "CREATE SCHEMA shop", "CREATE TABLE shop.orders (id int)")

    short, full = (trial.run(name, "delete", *trial.dsn, "--sink", "null:") for name in ("orders", "public.orders"))

    assert short.stderr == "orders is taken as public.orders; there is also shop.orders\n"
    assert (short.stdout, full.stderr) == (full.stdout, "")


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (("insert", "--new", '{"totl": 5}'), "--new: the table has no column totl", "Did you mean total?"),
        (("insert", "--new", "{total: 5}"), "--new is not JSON: .* character 2", "Write it as --new"),
        (("insert", "--new", "[5]"), "--new is not a JSON object", "Write it as --new"),
        (("insert", "--old", "{}"), "there is no old row in an insert", "Leave out --old"),
        (("truncate", "--new", "{}"), "there is no new row in a truncate", "Leave out --new"),
        (("update", "--new", '{"total": 5}'), r"asks for old\.total, which is not given", "--old '{\"total\": …}'"),
        (
            ("update", "--new", '{"total": "much"}'),
            "--new: the value of total is no numeric$",
            "as PostgreSQL prints it",
        ),
        (("insert", "--new", '{"id": "much"}'), "--new: the value of id is no ", "as PostgreSQL prints it"),
    ],
)
def test_a_row_that_cannot_be_decided_on_is_refused(
    trial: Trial, arguments: tuple[str, ...], error: str, hint: str
) -> None:
    outcome = trial.run("orders", *arguments, *trial.dsn, *trial.broker)

    outcome.refused(USAGE, error=error, hint=hint)
    assert "much" not in outcome.stderr


def test_a_broker_whose_bindings_cannot_be_seen_is_not_taken_for_bound(trial: Trial) -> None:
    (port,) = free_ports(1)

    outcome = trial.run(
        "orders", "delete", *trial.dsn, "--sink", trial.url, "--management", f"http://127.0.0.1:{port}"
    )

    assert outcome.code == FAILED
    assert "queues       could not be seen: no answer of the management API at" in outcome.stdout
    assert "--management" in outcome.stderr


def test_a_sink_without_queues_has_nothing_to_be_bound(trial: Trial) -> None:
    outcome = trial.run("orders", "delete", *trial.dsn, "--sink", "stdout:")

    assert outcome.code == DONE
    assert "queues" not in outcome.stdout


def test_a_database_that_is_down_is_needed_for_conditions_alone(trial: Trial) -> None:
    (port,) = free_ports(1)
    down = ("--dsn", f"host=127.0.0.1 port={port} password=hunter2", "--sink", "null:")

    static, conditional = trial.run("orders", "delete", *down), trial.run("orders", "insert", *down)

    assert (static.code, conditional.code) == (DONE, FAILED)
    assert "routing key  public.orders.delete" in static.stdout
    assert "orders is taken as public.orders" in static.stderr
    assert "whether there is such a table could not be seen" in static.stderr
    assert "Connection refused" in conditional.stderr
    assert "hunter2" not in static.stderr + conditional.stderr


def test_a_table_that_is_not_streamed_is_said(trial: Trial) -> None:
    outcome = trial.run("orders", "delete", *trial.dsn, "--sink", "null:", "--exclude-table", "public.*")

    assert outcome.code == DONE
    assert "public.orders is not streamed" in outcome.stderr
