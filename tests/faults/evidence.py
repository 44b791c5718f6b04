"""What a stream left behind, and what it must be: nothing lost, all in order, and repeated only under the same id."""

import json
from collections.abc import Sequence
from pathlib import Path

from pgevents.demo.process import eventually
from pgevents.lsn import Lsn
from tests.contract.amqp import channel
from tests.integration.command import Command, Json, Shop, stored
from tests.integration.streaming import ask, run
from tests.reliability import count

DEADLINE_S = 30.0

# So that a server notices within a second that we are gone, and we within one that it may be tried again.
SHORT_TIMEOUT = "-c wal_sender_timeout=1s"
SOON = ("--retry-max", "0.3")


def rows_of(events: Sequence[Json], table: str = "orders") -> list[int]:
    """The rows that were inserted into the table, in the order of their first event."""
    return list(dict.fromkeys(event["new"]["id"] for event in events if event["table"] == table))


def check(events: Sequence[Json], rows: Sequence[int]) -> None:
    """Every row that was inserted, in the order of the commits; one that came again had the same event id."""
    assert rows_of(events) == list(rows)
    ids = {(event["new"]["id"], event["id"]) for event in events}
    assert len(ids) == len(rows)
    assert len({event_id for _, event_id in ids}) == len(rows)
    duplicated = sum(event["table"] == "orders" for event in events) - len(rows)
    count(committed=len(rows), delivered=len(rows), lost=0, duplicated=duplicated, unexpected=0, reordered=0)


def arrives(stream: Command, file: Path, rows: Sequence[int]) -> None:
    """Wait until each of the rows is in the file."""
    wanted = set(rows)
    assert eventually(lambda: wanted <= set(rows_of(stored(file))), deadline_s=DEADLINE_S), stream.stderr


def is_acknowledged(shop: Shop, lsn: Lsn) -> bool:
    """Whether the slot gets as far as ``lsn`` in time.

    An empty transaction gives a stream that was sent again what it knows something later to acknowledge at once.
    """
    run(shop.dsn, "SELECT pg_current_xact_id()")
    return eventually(lambda: shop.confirmed >= lsn, deadline_s=DEADLINE_S)


def in_queue(url: str, queue: str = "all") -> list[Json]:
    """What is in the queue, in order; it is taken out."""
    count = depth(url, queue)
    with channel(url) as broker:
        consumed = broker.consume(queue, auto_ack=True)
        return [json.loads(body) for _, (_, _, body) in zip(range(count), consumed, strict=False)]


def depth(url: str, queue: str = "all") -> int:
    with channel(url) as broker:
        count: int = broker.queue_declare(queue, passive=True).method.message_count
        return count


def walsender(shop: Shop) -> int:
    """The process that reads the slot; 0 for none."""
    return int(
        ask(shop.dsn, f"SELECT coalesce(active_pid, 0) FROM pg_replication_slots WHERE slot_name = '{shop.slot}'")
    )


def peak_mb(pid: int) -> float:
    """The most memory that a process has had at a time."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
