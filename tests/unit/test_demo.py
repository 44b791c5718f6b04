"""What the demo counts, shows and installs, without a server."""

import threading
from collections import Counter
from pathlib import Path

import orjson
import pytest

from pgevents.demo.consumer import Arrival, Arrivals, consume, file_source
from pgevents.demo.install import install_packages, services_forbidden
from pgevents.demo.ledger import ChangeKey
from pgevents.demo.process import descendants, free_ports, is_alive
from pgevents.demo.rabbitmq_settings import NodeSettings
from pgevents.demo.view import SHOWN_EVERY_S, LiveView, Summary, one_line

INSERT = ("orders", "insert", "1")
UPDATE = ("orders", "update", "1")


def body(id: str, *, key: int = 1, op: str = "insert") -> bytes:
    return orjson.dumps(
        {
            "id": id,
            "op": op,
            "schema": "shop",
            "table": "orders",
            "key": {"id": key},
            "new": {"id": key, "status": "paid"},
            "old": {"id": key, "status": "new"} if op == "update" else None,
            "changed": ["status"] if op == "update" else None,
            "tx": {"committed_at": "1970-01-01T00:00:10.000000Z", "lsn": "0/16B374D8"},
        }
    )


def arrival(op: str = "insert") -> Arrival:
    return Arrivals().add(body("a", op=op), received_at=10.0025)


def summary(committed: list[ChangeKey], consumed: list[ChangeKey]) -> Summary:
    return Summary(
        committed=Counter(committed),
        consumed=Counter(consumed),
        rolled_back=0,
        confirmed=0,
        duplicated=0,
        latencies_s=[0.001, 0.002],
        destination="RabbitMQ",
    )


def test_an_event_that_comes_again_is_a_duplicate_and_no_second_change() -> None:
    arrivals = Arrivals()

    for id in ("a", "b", "a"):
        arrivals.add(body(id), received_at=10.5)

    assert (arrivals.total, arrivals.unique, arrivals.duplicated) == (3, 2, 1)
    assert arrivals.changes == Counter({INSERT: 2})
    assert arrivals.latencies_s == [0.5, 0.5]


def test_a_committed_change_that_never_came_is_lost() -> None:
    result = summary([INSERT, UPDATE, UPDATE], [INSERT, UPDATE])

    assert (result.lost, result.never_committed) == (1, 0)
    assert not result.is_good


def test_an_event_of_a_rolled_back_change_is_not_made_up_for_by_a_lost_one() -> None:
    result = summary([INSERT], [UPDATE])

    assert (result.lost, result.never_committed) == (1, 1)
    assert not result.is_good


def test_a_demo_in_which_nothing_happened_is_not_good() -> None:
    assert not summary([], []).is_good
    assert summary([INSERT], [INSERT]).is_good


def test_the_summary_counts_committed_changes_by_operation() -> None:
    first = next(summary([INSERT, UPDATE, UPDATE], []).lines())

    assert "3   (insert 1, update 2, delete 0)" in first


def test_a_line_is_that_of_tail_and_how_long_it_took() -> None:
    assert one_line(arrival("update")) == (
        "00:00:10.000  UPDATE    shop.orders #1  status: new → paid  0/16B374D8  2.5 ms"
    )


def test_the_live_view_leaves_out_what_comes_too_fast_and_says_how_much() -> None:
    lines: list[str] = []
    clock = iter([1.0, 1.0, 1.1, 1.2, 1.0 + SHOWN_EVERY_S, 1.0 + SHOWN_EVERY_S])
    view = LiveView(lines.append, now=lambda: next(clock))

    for _ in range(4):
        view(arrival())

    assert len(lines) == 2
    assert "(+2 more)" in lines[1]


def test_a_file_is_read_to_its_end_and_a_torn_last_line_is_left(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(body("a") + b"\n" + body("b") + b"\n" + body("c")[:20])
    stop = threading.Event()
    stop.set()
    arrivals = Arrivals()

    consume(file_source(path), arrivals, stop=stop, show=lambda _: None)

    assert arrivals.total == 2


@pytest.mark.parametrize("before", [None, "#!/bin/sh\nexit 0\n"])
def test_the_policy_on_services_is_put_back_even_after_a_failure(tmp_path: Path, before: str | None) -> None:
    policy = tmp_path / "policy-rc.d"
    if before:
        policy.write_text(before)

    def interrupted() -> None:
        with services_forbidden(policy):
            assert "exit 101" in policy.read_text()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert (policy.read_text() if policy.exists() else None) == before
    assert list(tmp_path.iterdir()) == ([policy] if before else [])


def test_a_machine_without_apt_is_told_to_install_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []

    assert "by hand" in install_packages(["rabbitmq-server"], say=said.append)
    assert said == []


def test_a_node_is_told_nothing_of_plugins_it_has_not(tmp_path: Path) -> None:
    names = ("amqp", "dist", "epmd", "management", "stream", "prometheus")
    settings = NodeSettings(tmp_path, ("rabbitmq_stream",), 1, ports={name: n for n, name in enumerate(names)})

    settings.write()

    written = (tmp_path / "rabbitmq.conf").read_text()
    assert "stream.listeners" in written
    assert "management." not in written
    assert (tmp_path / "enabled_plugins").read_text() == "[rabbitmq_stream].\n"


def test_a_node_inherits_nothing_of_another_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_USE_LONGNAME", "true")
    settings = NodeSettings(tmp_path, (), 1, ports={"amqp": 1, "dist": 2, "epmd": 3})

    environment = settings.environment()

    assert "RABBITMQ_USE_LONGNAME" not in environment
    assert environment["HOME"].startswith(str(tmp_path))


def test_free_ports_are_all_different() -> None:
    assert len(set(free_ports(6))) == 6


def test_a_process_that_is_gone_is_not_alive_and_has_no_descendants() -> None:
    beyond_the_largest_pid = 2**22 + 1

    assert not is_alive(beyond_the_largest_pid)
    assert descendants(beyond_the_largest_pid) == []
