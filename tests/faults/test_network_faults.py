"""Either link is reset, refused, slow, cut within a message, or deaf: it is noticed, and nothing is lost."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from chaos.proxy import PASS, Direction, Mode, Proxy, bandwidth, cut_after, half_open, latency
from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually
from pgevents.demo.rabbitmq import RabbitMQ
from tests.contract.amqp import bind
from tests.faults.evidence import SHORT_TIMEOUT, SOON, check, in_queue, is_acknowledged
from tests.integration.command import Command, Shop, through
from tests.integration.streaming import run

TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT
LINKS = ("postgres", "amqp")


@dataclass(frozen=True, slots=True)
class Linked:
    """A shop that is streamed into the queue ``all`` over two links that can be spoilt."""

    shop: Shop
    vhost: str
    postgres: Proxy
    amqp: Proxy

    @property
    def arguments(self) -> Sequence[str]:
        dsn = self.shop.with_dsn(port=str(self.postgres.port), options=SHORT_TIMEOUT, connect_timeout="2")
        return ("stream", *dsn, "--sink", f"{through(self.vhost, self.amqp.port)}?heartbeat=1", *SOON)

    def link(self, name: str) -> Proxy:
        return self.postgres if name == "postgres" else self.amqp

    def switch(self, mode: Mode) -> None:
        self.postgres.switch(mode)
        self.amqp.switch(mode)

    def add(self, *rows: int, size: int = 1) -> None:
        """A transaction a row, each with a text of ``size``."""
        run(self.shop.dsn, *(f"INSERT INTO orders VALUES ({row}, repeat('x', {size}))" for row in rows))

    def acknowledges(self, stream: Command) -> None:
        """Wait until all that was committed up to now is."""
        assert is_acknowledged(self.shop, self.shop.lsn), stream.stderr

    def ends(self, stream: Command, rows: Sequence[int]) -> str:
        """Stop it when it has acknowledged everything, check what the queue holds, and return what was said."""
        self.acknowledges(stream)
        ended = stream.stopped()
        assert ended.code == 0, ended.stderr
        assert "Traceback" not in ended.stderr
        check(in_queue(self.vhost), rows)
        return ended.stderr


@pytest.fixture
def linked(database15: str, postgres15: Postgres, rabbitmq: RabbitMQ, vhost: str) -> Iterator[Linked]:
    bind(vhost, "all")
    with Proxy(postgres15.port) as postgres, Proxy(rabbitmq.port) as amqp:
        yield Linked(Shop(database15), vhost, postgres, amqp)


@pytest.mark.fault("F50", "I1", "I14")
@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_is_reset_again_and_again(linked: Linked, name: str, tmp_path: Path) -> None:
    resets = 5
    with Command(tmp_path, *linked.arguments) as stream:
        stream.ready()
        for turn in range(resets):
            linked.add(*range(turn * 20, turn * 20 + 20))
            linked.link(name).reset()
            stream.says("streaming again", times=turn + 1)
        linked.ends(stream, range(resets * 20))


@pytest.mark.fault("F52", "I1", "I14")
@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("deaf", Direction)
def test_a_link_that_is_deaf_in_one_direction_for_a_while(
    linked: Linked, name: str, deaf: Direction, tmp_path: Path
) -> None:
    """For longer than wal_sender_timeout and two heartbeats."""
    with Command(tmp_path, *linked.arguments) as stream:
        stream.ready()
        linked.add(1)
        linked.acknowledges(stream)

        linked.link(name).switch(half_open(deaf))
        linked.add(2, 3)
        written = linked.shop.lsn
        assert not eventually(lambda: stream.has_ended or linked.shop.confirmed >= written, deadline_s=2.2)
        linked.link(name).switch(PASS)

        linked.ends(stream, [1, 2, 3])


@pytest.mark.fault("F53", "I14")
def test_links_that_are_slow_to_answer_end_nothing(linked: Linked, tmp_path: Path) -> None:
    with Command(tmp_path, *linked.arguments) as stream:
        stream.ready()
        # So that the catalog has been asked: a new connection needs a dozen answers, too long for this time-out.
        linked.add(0)
        linked.acknowledges(stream)
        linked.switch(latency(0.2))
        linked.add(*range(1, 200))
        said = linked.ends(stream, range(200))

    assert "trying again" not in said


@pytest.mark.fault("F54", "I14", "I15")
def test_a_row_that_takes_longer_than_any_time_out_to_pass(linked: Linked, tmp_path: Path) -> None:
    """It takes two and a half times wal_sender_timeout to come, and as many heartbeats to leave."""
    with Command(tmp_path, *linked.arguments) as stream:
        stream.ready()
        linked.switch(bandwidth(400_000))
        linked.add(1, size=1_000_000)
        linked.add(2)
        said = linked.ends(stream, [1, 2])

    assert "trying again" not in said


CUTS = {
    ("postgres", TO_CLIENT): (1, 30, 1000, 30_000),
    ("postgres", TO_SERVER): (1, 30, 100),  # status updates of 39 bytes
    ("amqp", TO_CLIENT): (1, 8, 15),  # confirms of 21 bytes
    ("amqp", TO_SERVER): (1, 30, 1000, 30_000),
}


@pytest.mark.fault("F55", "I1", "I8")
@pytest.mark.parametrize(("name", "direction"), CUTS)
def test_a_link_that_is_cut_within_a_message(linked: Linked, name: str, direction: Direction, tmp_path: Path) -> None:
    link, rows = linked.link(name), 0
    with Command(tmp_path, *linked.arguments) as stream:
        stream.ready()
        for turn, size in enumerate(CUTS[name, direction], 1):
            link.switch(cut_after(size, direction))
            linked.add(rows, rows + 1, size=20_000)
            rows += 2
            stream.says("streaming again", times=turn)
            assert link.mode == PASS
            linked.acknowledges(stream)
        linked.ends(stream, range(rows))


@pytest.mark.fault("F56", "I1", "I14")
@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_is_refused_for_a_while_is_tried_with_pauses_that_vary(
    linked: Linked, name: str, tmp_path: Path
) -> None:
    with Command(tmp_path, *linked.arguments, "--retry-max", "1") as stream:
        stream.ready()
        linked.add(1)
        linked.acknowledges(stream)
        linked.link(name).cut()
        linked.add(2, 3)
        stream.says("trying again", times=6)
        linked.link(name).mend()
        said = linked.ends(stream, [1, 2, 3])

    pauses = re.findall(r"trying again .*in_s=([\d.]+)", said)
    assert len(set(pauses)) > 1
    assert all(float(pause) <= 1 for pause in pauses)


@pytest.mark.fault("F59", "I1", "I14")
@pytest.mark.parametrize("order", [LINKS, LINKS[::-1]], ids=" first, then ".join)
def test_both_links_are_cut_and_restored_one_after_the_other(
    linked: Linked, order: Sequence[str], tmp_path: Path
) -> None:
    with Command(tmp_path, *linked.arguments) as stream:
        stream.ready()
        linked.add(*range(10))
        linked.postgres.cut()
        linked.amqp.cut()
        linked.add(*range(10, 20))
        for tries, name in enumerate(order, 1):
            stream.says("trying again", times=2 * tries)
            linked.link(name).mend()
        linked.ends(stream, range(20))
