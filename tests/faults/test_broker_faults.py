"""The broker and the links as they are on a bad day: killed, restarted, full, crowded, slow and narrow."""

import json
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg2.extensions import parse_dsn

from chaos.proxy import PASS, Proxy, bandwidth, latency
from pgevents.demo.process import eventually
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.lsn import Lsn
from tests.contract.amqp import bind, stored
from tests.faults.evidence import (
    DEADLINE_S,
    SHORT_TIMEOUT,
    SOON,
    check,
    depth,
    in_queue,
    is_acknowledged,
    rows_of,
    walsender,
)
from tests.integration.command import Command, Json, Shop, through
from tests.integration.command import stored as stored_in_file
from tests.integration.streaming import BOTH, run

RUNS_AGAIN_S = 60.0


@pytest.fixture
def node(services: Path) -> Iterator[RabbitMQ]:
    """A broker that a test may end."""
    folder = services / f"node-{secrets.token_hex(4)}"
    with RabbitMQ(folder) as own:
        yield own
    shutil.rmtree(folder, ignore_errors=True)


def is_acknowledged_late(shop: Shop) -> bool:
    """As ``is_acknowledged``, for what waits for a server to start."""
    written = shop.lsn
    return eventually(lambda: shop.confirmed >= written, deadline_s=RUNS_AGAIN_S)


@pytest.mark.fault("F60", "F61", "I1", "I6", "I14")
@pytest.mark.parametrize("end", [RabbitMQ.kill, RabbitMQ.stop], ids=["kill", "stop"])
def test_a_broker_that_ends_under_load_has_everything_once_it_is_back(
    database15: str, node: RabbitMQ, end: Callable[[RabbitMQ], None], tmp_path: Path
) -> None:
    """In a classic queue: a young quorum queue of RabbitMQ 3.10 may find no leader after its only node was killed."""
    shop = Shop(database15)
    url = node.url()
    bind(url, "all")
    with Command(tmp_path, "stream", *shop.options, "--sink", url, "--batch-events", "20", *SOON) as stream:
        stream.ready()
        run(shop.dsn, "INSERT INTO orders SELECT generate_series(0, 19999)")
        assert eventually(lambda: depth(url) > 0, deadline_s=DEADLINE_S)
        end(node)
        shop.add(*range(20000, 20010))
        stream.says("trying again .*RabbitMQ")
        node.start()
        assert is_acknowledged_late(shop), (shop.confirmed, shop.lsn, depth(url), stream.stderr)
        ended = stream.stopped()
        events = in_queue(url)

    assert ended.code == 0, ended.stderr
    assert len(events) > 20010, "it was in the midst of the transaction, which came again"
    check(events, range(20010))


@pytest.mark.fault("F72", "I1", "I6", "I14")
def test_a_full_quorum_queue_is_waited_for(database15: str, vhost: str, tmp_path: Path) -> None:
    """It takes a few more than its limit before it rejects."""
    shop = Shop(database15)
    full = {"x-queue-type": "quorum", "x-max-length": 5, "x-overflow": "reject-publish"}
    bind(vhost, "all", arguments=full)
    got: list[Json] = []
    with Command(tmp_path, "stream", *shop.options, "--sink", vhost, "--batch-events", "1", *SOON) as stream:
        stream.ready()
        shop.add(*range(40))
        stream.says("trying again .*nacked by the broker")
        held = shop.confirmed

        def is_drained() -> bool:
            got.extend(json.loads(body) for _, body in stored(vhost, "all"))
            return len(rows_of(got)) == 40

        assert eventually(is_drained, deadline_s=DEADLINE_S), stream.stderr
        assert is_acknowledged(shop, shop.lsn)
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert held < Lsn.parse(got[-1]["tx"]["lsn"])
    last_copies = rows_of(got[::-1])[::-1]
    assert last_copies == list(range(40))
    assert len({event["id"] for event in got}) == 40


@pytest.mark.fault("F76", "I1", "I14")
def test_a_stream_that_stands_still_for_several_heartbeats_connects_again(
    database15: str, vhost: str, tmp_path: Path
) -> None:
    shop = Shop(database15)
    bind(vhost, "all")
    with Command(tmp_path, "stream", *shop.options, "--sink", f"{vhost}?heartbeat=1", *SOON) as stream:
        stream.ready()
        shop.add(1)
        assert is_acknowledged(shop, shop.lsn)

        stream.send(signal.SIGSTOP)
        shop.add(2)
        assert not eventually(lambda: depth(vhost) > 1, deadline_s=5)
        stream.send(signal.SIGCONT)
        stream.says("trying again .*RabbitMQ")
        shop.add(3)
        assert is_acknowledged(shop, shop.lsn), stream.stderr
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    check(in_queue(vhost), [1, 2, 3])


@pytest.mark.fault("F81", "I14")
@pytest.mark.parametrize("limit", ["connections", "channels"])
def test_a_broker_that_takes_no_further_one_is_asked_again_until_it_does(
    database15: str, rabbitmq: RabbitMQ, limit: str, tmp_path: Path
) -> None:
    """Of one user, who is told from the others by his own limit."""
    shop, name = Shop(database15), f"crowd-{secrets.token_hex(4)}"
    rabbitmq.api("PUT", f"/api/vhosts/{name}", {})
    rabbitmq.api("PUT", f"/api/users/{name}", {"password": "sesame", "tags": ""})
    rabbitmq.api("PUT", f"/api/permissions/{name}/{name}", {"configure": ".*", "write": ".*", "read": ".*"})
    rabbitmq.api("PUT", f"/api/permissions/{name}/pgevents", {"configure": ".*", "write": ".*", "read": ".*"})
    rabbitmq.api("PUT", f"/api/user-limits/{name}/max-{limit}", {"value": 0})
    bind(rabbitmq.url(name), "all")
    sink = f"amqp://{name}:sesame@127.0.0.1:{rabbitmq.port}/{name}"
    try:
        with Command(tmp_path, "stream", *shop.options, "--sink", sink, *SOON) as stream:
            stream.says(rf"error trying again .*user '{name}' gets no connection", times=2)
            rabbitmq.api("DELETE", f"/api/user-limits/{name}/max-{limit}")
            stream.ready()
            shop.add(1)
            assert is_acknowledged(shop, shop.lsn)
            ended = stream.stopped()
        events = in_queue(rabbitmq.url(name))
    finally:
        rabbitmq.api("DELETE", f"/api/vhosts/{name}")
        rabbitmq.api("DELETE", f"/api/users/{name}")

    assert ended.code == 0, ended.stderr
    check(events, [1])


@pytest.mark.fault("F53", "I1", "I14")
def test_slow_links_are_only_slow(database15: str, rabbitmq: RabbitMQ, vhost: str, tmp_path: Path) -> None:
    shop = Shop(database15)
    bind(vhost, "all")
    server_port = int(parse_dsn(database15)["port"])
    with Proxy(server_port) as to_server, Proxy(rabbitmq.port) as to_broker:
        for link in (to_server, to_broker):
            link.switch(latency(0.1))
        options = shop.with_dsn(port=str(to_server.port), options="-c wal_sender_timeout=5s")
        with Command(tmp_path, "stream", *options, "--sink", through(vhost, to_broker.port), *SOON) as stream:
            stream.ready()
            before = walsender(shop)
            shop.add(*range(100))
            assert is_acknowledged(shop, shop.lsn), stream.stderr
            after = walsender(shop)
            ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert before == after
    events = in_queue(vhost)
    check(events, range(100))
    assert len(events) == 100


@pytest.mark.fault("F54", "I1", "I14")
@pytest.mark.parametrize("plugin", BOTH)
def test_a_row_that_takes_longer_than_wal_sender_timeout_arrives(
    database15: str, plugin: str, tmp_path: Path
) -> None:
    shop = Shop(database15, plugin=plugin)
    with Proxy(int(parse_dsn(database15)["port"])) as link:
        options = shop.with_dsn(port=str(link.port), options=SHORT_TIMEOUT)
        with Command(tmp_path, "stream", *options, "--sink", "file:events", *SOON) as stream:
            stream.ready()
            before = walsender(shop)
            link.switch(bandwidth(2e6))
            run(shop.dsn, "INSERT INTO orders VALUES (1, repeat('x', 8000000))")
            assert is_acknowledged(shop, shop.lsn), stream.stderr
            after = walsender(shop)
            link.switch(PASS)
            ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert before == after
    check(stored_in_file(tmp_path / "events"), [1])


@pytest.mark.fault("F50", "F59", "I1", "I14")
@pytest.mark.parametrize("first", ["server", "broker"])
def test_both_links_are_cut_at_once_and_come_back_one_after_the_other(
    database15: str, rabbitmq: RabbitMQ, vhost: str, first: str, tmp_path: Path
) -> None:
    shop = Shop(database15)
    bind(vhost, "all")
    with Proxy(int(parse_dsn(database15)["port"])) as to_server, Proxy(rabbitmq.port) as to_broker:
        options = (*shop.with_dsn(port=str(to_server.port)), "--sink", through(vhost, to_broker.port), *SOON)
        with Command(tmp_path, "stream", *options) as stream:
            stream.ready()
            shop.add(1, 2)
            assert is_acknowledged(shop, shop.lsn), stream.stderr
            to_broker.cut()
            to_server.cut()
            shop.add(3)
            stream.says("trying again .*RabbitMQ", times=2)
            links = [to_server, to_broker] if first == "server" else [to_broker, to_server]
            links[0].mend()
            tries = stream.stderr.count("trying again")
            stream.says("trying again", times=tries + 2)
            shop.add(4)
            links[1].mend()
            assert is_acknowledged(shop, shop.lsn), stream.stderr
            ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    check(in_queue(vhost), [1, 2, 3, 4])
