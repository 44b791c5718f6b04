"""An event that can never be published: it stops the stream, or is parked until a person decides on it."""

import json
from pathlib import Path

import pytest

from pgevents.demo.rabbitmq import RabbitMQ
from tests.contract.amqp import bind, largest_message, stored
from tests.integration.command import KILL, Command, Json, Outcome, Shop, ids_of, pgevents
from tests.integration.streaming import run

MOST = 20_000
PARK = ("--on-poison", "park", "--park-file", "parked.ndjson", "--retry-max", "0.2")
SHOW = ("parked", "list", "--park-file", "parked.ndjson", "--json")

# The second of three rows is too large, and so is the fifth of all.
MIXED = (
    f"INSERT INTO orders VALUES (1, 'a'), (2, repeat('x', {MOST})), (3, 'c')",
    f"INSERT INTO orders VALUES (4, 'd'), (5, repeat('y', {MOST + 1}))",
    "INSERT INTO orders VALUES (6, 'f')",
)


@pytest.fixture
def shop(database15: str) -> Shop:
    return Shop(database15)


def in_queue(url: str, queue: str = "all") -> list[Json]:
    return [json.loads(body) for _, body in stored(url, queue)]


def listed(folder: Path) -> list[Json]:
    outcome = pgevents(folder, *SHOW)
    assert outcome.code == 0, outcome.stderr
    events: list[Json] = json.loads(outcome.stdout)
    return events


def lines(folder: Path) -> list[Json]:
    return [json.loads(line) for line in (folder / "parked.ndjson").read_text().splitlines()]


def streamed(folder: Path, shop: Shop, sink: str, *more: str) -> Outcome:
    return pgevents(folder, "stream", *shop.options, "--sink", sink, "--until-lsn", "now", *more)


@pytest.mark.fault("F74", "I18")
def test_an_event_too_large_stops_the_stream_and_nothing_past_it_is_acknowledged(
    shop: Shop, vhost: str, rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    bind(vhost, "all")
    before = shop.confirmed
    run(shop.dsn, *MIXED)

    with largest_message(rabbitmq, MOST):
        outcome = streamed(tmp_path, shop, vhost)

    said = rf"event \S+-2 was rejected: .*message size \d+ is larger than configured max size {MOST}"
    outcome.refused(1, error=said, hint=r"max_message_size .*--on-poison park")
    assert shop.confirmed == before


@pytest.mark.fault("F74", "I18")
def test_events_too_large_are_parked_and_retried_once_they_fit(
    shop: Shop, vhost: str, rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    bind(vhost, "all")
    run(shop.dsn, *MIXED)
    written = shop.lsn

    with largest_message(rabbitmq, MOST):
        outcome = streamed(tmp_path, shop, vhost, *PARK)
        again = pgevents(tmp_path, "parked", "retry", "--all", "--sink", vhost, "--park-file", "parked.ndjson")
        still = listed(tmp_path)

    assert outcome.code == 0, outcome.stderr
    assert "parked=2" in outcome.stderr
    # One refusal teaches the limit: the second large event is not even tried.
    assert outcome.stderr.count("was rejected") == 1
    assert shop.confirmed >= written
    assert list(dict.fromkeys(ids_of(in_queue(vhost)))) == [1, 3, 4, 6]
    assert [event["reason"] for event in still] == ["TOO_LARGE", "TOO_LARGE"]
    again.refused(1, error="2 events stay parked", hint="try again")
    assert again.stderr.count("stays parked: ") == 2

    outcome = pgevents(tmp_path, "parked", "retry", "--all", "--sink", vhost, "--park-file", "parked.ndjson")

    assert outcome.code == 0, outcome.stderr
    arrived = stored(vhost, "all")
    assert [properties.message_id for properties, _ in arrived] == [event["message_id"] for event in still]
    assert [body.decode() for _, body in arrived] == [line["body"] for line in lines(tmp_path)]
    assert [(p.type, p.content_type, p.delivery_mode) for p, _ in arrived] == [
        ("pgevents.insert", "application/json", 2)
    ] * 2
    assert listed(tmp_path) == []


def fill(shop: Shop, vhost: str, folder: Path) -> None:
    """A queue that takes one event, and has it."""
    bind(vhost, "full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    shop.add(1)
    outcome = streamed(folder, shop, vhost)
    assert outcome.code == 0, outcome.stderr


@pytest.mark.fault("F70", "I18")
def test_an_event_is_parked_after_so_many_nacks(shop: Shop, vhost: str, tmp_path: Path) -> None:
    fill(shop, vhost, tmp_path)
    shop.add(2)
    written = shop.lsn

    # An event that is nacked is given up after half the stall time-out, and counted once.
    outcome = streamed(tmp_path, shop, vhost, *PARK, "--nack-limit", "3", "--stall-timeout", "1")

    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr.count("nacked by the broker") == 3
    assert [(event["reason"], event["routing_key"]) for event in listed(tmp_path)] == [
        ("NACKED", "public.orders.insert")
    ]
    assert lines(tmp_path)[0]["detail"] == "nacked 3 times in a row"
    assert shop.confirmed >= written
    assert ids_of(in_queue(vhost, "full")) == [1]


@pytest.mark.fault("F70", "I14")
def test_a_full_queue_is_waited_for_where_poison_halts(shop: Shop, vhost: str, tmp_path: Path) -> None:
    fill(shop, vhost, tmp_path)
    shop.add(2)
    impatient = ("--retry-max", "0.2", "--stall-timeout", "1")
    options = ("--sink", vhost, "--until-lsn", "now", "--nack-limit", "1", *impatient)

    with Command(tmp_path, "stream", *shop.options, *options) as stream:
        stream.says("nacked by the broker", times=3)
        first = in_queue(vhost, "full")
        ended = stream.ended()

    assert ended.code == 0, ended.stderr
    assert ids_of(first) == [1]
    assert ids_of(in_queue(vhost, "full")) == [2]


@pytest.mark.fault("F75", "I18")
def test_events_whose_routing_key_is_too_long_are_parked(shop: Shop, vhost: str, tmp_path: Path) -> None:
    bind(vhost, "all")
    longest = "€" * 21  # 63 bytes, the most PostgreSQL allows; each € is escaped to nine
    run(shop.dsn, f'CREATE SCHEMA "{longest}" CREATE TABLE "{longest}" (id int PRIMARY KEY)')
    run(
        shop.dsn,
        f'INSERT INTO "{longest}"."{longest}" VALUES (1); INSERT INTO orders VALUES (2, \'b\'); '
        f'INSERT INTO "{longest}"."{longest}" VALUES (3)',
    )

    outcome = streamed(tmp_path, shop, vhost, *PARK)

    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr.count("was rejected") == 1
    assert [event["reason"] for event in listed(tmp_path)] == ["UNPUBLISHABLE"] * 2
    assert ids_of(in_queue(vhost)) == [2]

    again = ("parked", "retry", "--all", "--sink", vhost, "--park-file", "parked.ndjson")
    pgevents(tmp_path, *again).refused(1, error="2 events stay parked", hint="try again")
    outcome = pgevents(tmp_path, *again, "--routing-key", "long.one")

    assert outcome.code == 0, outcome.stderr
    assert ids_of(in_queue(vhost)) == [1, 3]


@pytest.mark.parametrize("park_file", ["missing/parked.ndjson", "/dev/full", "/dev/null"])
@pytest.mark.fault("F13", "I18")
def test_a_park_file_that_cannot_be_written_stops_the_stream_at_its_start(
    shop: Shop, vhost: str, tmp_path: Path, park_file: str
) -> None:
    shop.add(1)
    before = shop.confirmed

    outcome = streamed(tmp_path, shop, vhost, "--on-poison", "park", "--park-file", park_file)

    outcome.refused(4, error="park file", hint="Create it|--park-file")
    assert shop.confirmed == before


@pytest.mark.fault("F13", "I18")
def test_a_park_file_that_fails_in_mid_stream_acknowledges_nothing(
    shop: Shop, vhost: str, rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    bind(vhost, "all")
    before = shop.confirmed
    limited = ("prlimit", f"--fsize={MOST // 2}")

    with (
        largest_message(rabbitmq, MOST),
        Command(
            tmp_path, "stream", *shop.options, "--sink", vhost, "--state", "none", *PARK, prefix=limited
        ) as stream,
    ):
        stream.ready()
        run(shop.dsn, *MIXED)
        ended = stream.ended()

    ended.refused(4, error="cannot write .*parked.ndjson: File too large", hint="ulimit")
    assert before <= shop.confirmed
    assert list(dict.fromkeys(ids_of(in_queue(vhost)))) == [1, 3, 4, 6]
    assert (tmp_path / "parked.ndjson").read_bytes() == b""
    again = streamed(tmp_path, shop, vhost, "--state", "none")
    assert again.code == 0, again.stderr
    assert ids_of(in_queue(vhost)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.fault("F02", "I18")
def test_a_kill_between_parking_and_acknowledging_parks_an_event_twice_and_shows_it_once(
    shop: Shop, vhost: str, rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    fill(shop, vhost, tmp_path)
    # The second event finds the queue full, so that the transaction is not acknowledged.
    run(shop.dsn, f"INSERT INTO orders VALUES (2, repeat('x', {MOST})), (3, 'c')")
    before = shop.confirmed
    options = ("stream", *shop.options, "--sink", vhost, *PARK, "--nack-limit", "1000000")

    with largest_message(rabbitmq, MOST):
        for _ in range(2):
            with Command(tmp_path, *options) as stream:
                stream.says("parked .*reason=TOO_LARGE")
                stream.send(KILL)
                stream.ended()
        shown = listed(tmp_path)
        assert shop.confirmed == before
        assert ids_of(in_queue(vhost, "full")) == [1]
        outcome = streamed(tmp_path, shop, vhost, *PARK)

    assert outcome.code == 0, outcome.stderr
    assert [event["message_id"][-2:] for event in shown] == ["-1"]
    assert len(shown[0]["park_ids"]) == 2
    assert ids_of(in_queue(vhost, "full")) == [3]
    assert [event["message_id"] for event in listed(tmp_path)] == [shown[0]["message_id"]]
