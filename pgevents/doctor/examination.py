"""``pgevents doctor``: every check of both ends, whatever becomes of the other one. Nothing is changed anywhere."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

import pika

from pgevents.doctor import broker as brokers
from pgevents.doctor import (
    delivery,
    exchange,
    host,
    output,
    publication,
    queue,
    role,
    server,
    slot,
    state,
    table,
    transaction,
    wire,
)
from pgevents.doctor.broker import Broker
from pgevents.doctor.database import Database, open_database
from pgevents.doctor.destination import Names, destinations
from pgevents.doctor.finding import Finding, fatal, refusal, unseen, warning
from pgevents.doctor.management import Management, check_location
from pgevents.doctor.topology import ManagedTopology
from pgevents.errors import ConfigError, PGEventsError
from pgevents.postgres import Sql
from pgevents.session import routing_key, sink_schemes
from pgevents.settings import Settings
from pgevents.sink.amqp.url import AmqpUrl, parse


class Tables(NamedTuple):
    """The names that changes come under, and the operations that the server tells of."""

    names: Sequence[Names]
    ops: Sequence[str]


DatabaseCheck = Callable[[Database], Iterable[Finding]]

DATABASE_CHECKS: Sequence[DatabaseCheck] = (
    *server.CHECKS,
    *role.CHECKS,
    *wire.CHECKS,
    *output.CHECKS,
    *slot.CHECKS,
    *state.CHECKS,
    *transaction.CHECKS,
    *publication.CHECKS,
    *table.CHECKS,
)
BROKER_CHECKS: Sequence[Callable[[Broker], Iterable[Finding]]] = (
    *brokers.CHECKS,
    *exchange.CHECKS,
    *delivery.CHECKS,
    *queue.CHECKS,
)


def examine(settings: Settings, *, management: str = "") -> list[Finding]:
    """The findings of all checks, in their order. Blocks; raises nothing of either end.

    ``management`` is the URL of RabbitMQ's management API where it is not beside the broker; raises ConfigError for
    what is none.
    """
    if management:
        check_location(management)
    findings, tables = _examine_database(settings)
    for check in host.CHECKS:
        findings += check(settings)
    return [*findings, *_examine_sink(settings, tables, management)]


def _examine_database(settings: Settings) -> tuple[list[Finding], Tables | None]:
    with Sql(settings.dsn) as sql:
        try:
            database = open_database(settings, sql)
        except PGEventsError as error:
            return [refusal("database", "PostgreSQL", error)], None
        findings = [finding for check in DATABASE_CHECKS for finding in _run(check, database)]
        return findings, Tables(_names(database), database.ops)


def _run(check: DatabaseCheck, database: Database) -> list[Finding]:
    try:
        return list(check(database))
    except PGEventsError as error:
        return [unseen(check.__name__.removeprefix("check_").replace("_", " "), "PostgreSQL", error, fix=error.hint)]


def _names(database: Database) -> list[Names]:
    return sorted({database.name_in_events(each) for each in database.relations if each.holds_rows})


def _examine_sink(settings: Settings, tables: Tables | None, management: str) -> list[Finding]:
    scheme = settings.sink.partition(":")[0]
    if not settings.sink:
        return [unseen("sink", "events", "no sink is given", fix="Name it with --sink.")]
    try:
        routing_key(settings.sink)
        if scheme in ("amqp", "amqps"):
            return list(_examine_broker(settings, parse(settings.sink), tables, management))
    except ConfigError as error:
        return [refusal("sink", f"{scheme}:", error)]
    if scheme == "null":
        return [warning("sink", "null:", "it throws every event away", fix="Name another --sink.")]
    if scheme in ("stdout", "file"):
        return []
    if scheme not in sink_schemes():
        return [fatal("sink", f"{scheme}:", "there is no sink of that name", fix=", ".join(sorted(sink_schemes())))]
    return [unseen("sink", f"{scheme}:", "nothing is known here of this kind of sink")]


def _examine_broker(settings: Settings, url: AmqpUrl, tables: Tables | None, management: str) -> Iterator[Finding]:
    yield from brokers.check_transport(url)
    yield from brokers.check_options(settings, url)
    findings, connection, address = brokers.reach(url)
    yield from findings
    if connection is None:
        return
    with suppress(pika.exceptions.AMQPError), closing(connection):  # one that was lost cannot be closed
        api = Management(url, address, location=management)
        uses = tables and destinations(settings, url.exchange, routing_key(settings.sink), *tables)
        broker = Broker(settings, url, brokers.version_of(connection), connection, api, ManagedTopology(api), uses)
        for check in BROKER_CHECKS:
            yield from check(broker)
