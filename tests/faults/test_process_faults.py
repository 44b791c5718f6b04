"""The stream's own process is killed, frozen, starved and restarted: nothing is lost."""

import json
import os
import signal
import threading
from functools import partial
from pathlib import Path

import pytest

from chaos.proxy import Proxy, bandwidth
from pgevents.demo.process import eventually
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.lsn import Lsn
from tests.contract.amqp import bind
from tests.faults.evidence import (
    DEADLINE_S,
    SHORT_TIMEOUT,
    SOON,
    arrives,
    check,
    depth,
    in_queue,
    is_acknowledged,
    rows_of,
    walsender,
)
from tests.integration.command import KILL, Command, Shop, pgevents, stored, through
from tests.integration.streaming import BOTH, run

STOP, CONTINUE = signal.SIGSTOP, signal.SIGCONT
UNTIL_NOW = ("--until-lsn", "now")


def watermark(state: Path) -> Lsn:
    return Lsn.parse(json.loads(state.read_bytes())["end_lsn"])


def is_past(state: Path, lsn: Lsn) -> bool:
    return watermark(state) > lsn


def hold_the_watermark(state: Path) -> Path:
    """Nobody reads the pipe that is put where the next watermark is written, so that no later one is ever kept."""
    pipe = state.with_name(f".{state.name}.new")

    def is_put() -> bool:
        try:
            os.mkfifo(pipe)
        except FileExistsError:
            return False
        return True

    assert eventually(is_put, deadline_s=DEADLINE_S)
    return pipe


@pytest.mark.fault("F02", "I2", "I8")
def test_a_kill_between_confirm_and_acknowledgement_repeats_and_loses_nothing(
    database15: str, tmp_path: Path
) -> None:
    shop, file = Shop(database15), tmp_path / "events"
    arguments = ("stream", *shop.options, "--sink", "file:events", "--state", "state.json")
    with Command(tmp_path, *arguments) as stream:
        stream.ready()
        shop.add(1)
        assert is_acknowledged(shop, shop.lsn)
        pipe = hold_the_watermark(tmp_path / "state.json")
        shop.add(2, 3)
        arrives(stream, file, [2, 3])
        stream.send(KILL)
        stream.ended()
    held = shop.confirmed
    pipe.unlink()

    again = pgevents(tmp_path, *arguments, *UNTIL_NOW)

    assert again.code == 0, again.stderr
    check(stored(file), [1, 2, 3])
    assert held <= Lsn.parse(stored(file)[1]["tx"]["lsn"])
    assert [event["new"]["id"] for event in stored(file)] == [1, 2, 3, 2, 3]


@pytest.mark.fault("F03", "I7", "I8", "I9")
@pytest.mark.parametrize("plugin", BOTH)
def test_a_kill_within_a_transaction_sends_all_of_it_again_under_the_same_ids(
    database15: str, rabbitmq: RabbitMQ, vhost: str, plugin: str, tmp_path: Path
) -> None:
    shop = Shop(database15, plugin=plugin)
    bind(vhost, "all")
    size = 10_000
    small = ("--batch-events", "500", "--window", "2")
    with Proxy(rabbitmq.port) as link:
        link.switch(bandwidth(4e6))
        sink = through(vhost, link.port)
        with Command(tmp_path, "stream", *shop.options, "--sink", sink, *small) as stream:
            stream.ready()
            before = shop.confirmed
            run(shop.dsn, f"INSERT INTO orders SELECT n, repeat('x', 300) FROM generate_series(1, {size}) n")
            assert eventually(lambda: depth(vhost) >= size // 3, deadline_s=DEADLINE_S), stream.stderr
            stream.send(KILL)
            stream.ended()
        after = shop.confirmed
        first = in_queue(vhost)

    again = pgevents(tmp_path, "stream", *shop.options, "--sink", vhost, *UNTIL_NOW)

    assert again.code == 0, again.stderr
    assert len(first) < size
    # An idle slot may move on up to the transaction, and not into it.
    assert before <= after <= Lsn.parse(first[0]["tx"]["lsn"])
    second = in_queue(vhost)
    check(second, range(1, size + 1))
    assert [event["id"] for event in first] == [event["id"] for event in second[: len(first)]]


@pytest.mark.fault("F06", "I14")
def test_a_stream_frozen_for_longer_than_wal_sender_timeout_goes_on(database15: str, tmp_path: Path) -> None:
    shop, file = Shop(database15), tmp_path / "events"
    options = shop.with_dsn(options=SHORT_TIMEOUT)
    with Command(tmp_path, "stream", *options, "--sink", "file:events", *SOON) as stream:
        stream.ready()
        shop.add(1)
        arrives(stream, file, [1])

        stream.send(STOP)
        shop.add(2)
        assert eventually(lambda: not walsender(shop), deadline_s=DEADLINE_S)
        shop.add(3)
        stream.send(CONTINUE)

        arrives(stream, file, [2, 3])
        assert is_acknowledged(shop, shop.lsn)
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert "trying again" in ended.stderr
    check(stored(file), [1, 2, 3])


@pytest.mark.fault("F07", "I12", "I17")
@pytest.mark.parametrize("state", ["postgres", "state.json"])
def test_a_frozen_stream_whose_place_another_took_publishes_nothing_new(
    database15: str, state: str, tmp_path: Path
) -> None:
    """The second is stopped before the first wakes, so that what the first does to the watermark stays."""
    shop = Shop(database15)
    arguments = ("stream", *shop.with_dsn(options=SHORT_TIMEOUT), "--state", state, *SOON)
    first, second = tmp_path / "first", tmp_path / "second"
    with Command(tmp_path, *arguments, "--sink", "file:first") as frozen:
        frozen.ready()
        shop.add(1)
        arrives(frozen, first, [1])
        with Command(tmp_path, *arguments, "--sink", "file:second", "--start-timeout", "60") as standby:
            standby.says("is being read by PID")
            frozen.send(STOP)
            shop.add(2)  # which reaches the frozen one's socket, too
            standby.ready()
            shop.add(3)
            arrives(standby, second, [2, 3])
            assert standby.stopped().code == 0

        frozen.send(CONTINUE)
        frozen.says("streaming again")
        shop.add(4)
        arrives(frozen, first, [4])
        assert frozen.stopped().code == 0, frozen.stderr

    assert set(rows_of(stored(first))) <= {1, 2, 4}
    assert set(rows_of(stored(second))) - {1} == {2, 3}
    events = stored(first) + stored(second)
    assert len({event["id"] for event in events}) == 4


@pytest.mark.fault("F12", "I14")
def test_a_starved_stream_goes_on(database15: str, vhost: str, tmp_path: Path) -> None:
    """A tenth of the time, in turns longer than what either server takes for a sign of life."""
    shop = Shop(database15)
    bind(vhost, "all")
    options = (*shop.with_dsn(options=SHORT_TIMEOUT), "--sink", f"{vhost}?heartbeat=1", *SOON)
    with Command(tmp_path, "stream", *options) as stream:
        stream.ready()
        duty, rows = threading.Event(), 0
        for asleep_s in (0.5, 2.5, 0.5):
            stream.send(STOP)
            shop.add(*range(rows, rows + 20))
            rows += 20
            duty.wait(asleep_s)
            stream.send(CONTINUE)
            duty.wait(asleep_s / 9)
        assert is_acknowledged(shop, shop.lsn), stream.stderr
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    check(in_queue(vhost), range(rows))


@pytest.mark.fault("F15", "I14", "I9")
def test_a_stream_that_lives_only_for_moments_gets_on(database15: str, tmp_path: Path) -> None:
    shop, file, state = Shop(database15), tmp_path / "events", tmp_path / "state.json"
    size, lives = 3000, 5
    insert = "INSERT INTO orders VALUES (n, repeat('x', 300)); COMMIT;"
    run(shop.dsn, f"DO $$ BEGIN FOR n IN 1..{size} LOOP {insert} END LOOP; END $$")
    arguments = ("stream", *shop.options, "--sink", "file:events", "--state", "state.json")
    short = ("--batch-events", "1", "--window", "1")
    reached: list[Lsn] = []
    for _ in range(lives):
        with Command(tmp_path, *arguments, *short) as stream:
            stream.ready()
            assert eventually(partial(is_past, state, watermark(state)), deadline_s=DEADLINE_S), stream.stderr
            stream.send(KILL)
            stream.ended()
        reached.append(watermark(state))
    last = pgevents(tmp_path, *arguments, *UNTIL_NOW)

    assert last.code == 0, last.stderr
    assert reached == sorted(set(reached))
    check(stored(file), range(1, size + 1))
    # What was not yet acknowledged in each life, and no more, came twice.
    assert len(stored(file)) < size * 2
