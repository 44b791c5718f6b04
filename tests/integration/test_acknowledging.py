"""What is told to PostgreSQL and when: psycopg2's own feedback loses a transaction, ours does not."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from pgevents import slot, start
from pgevents.assembly import pipeline_of
from pgevents.batch import Batch
from pgevents.demo.process import eventually
from pgevents.lsn import Lsn
from pgevents.pipeline import Progress
from pgevents.session import Stream, open_stream
from pgevents.settings import Settings
from pgevents.source.feedback import Feedback
from pgevents.source.replication import ReplicationSource
from tests.integration.role import as_role, publish_all

ROWS_OF_C = 60_000
PAUSE_S = 3.2
"""More than half of the wal_sender_timeout of 6 s, after which the server asks for a reply."""


class WithholdingSink:
    """Confirms A, withholds B, and stalls the process twice in the middle of C's rows."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.rows_of_c = 0
        self._pauses = [2_000, 30_000]

    def publish(self, batch: Batch) -> Awaitable[None]:
        confirmation: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        bodies = [envelope.body for envelope in batch.envelopes]
        self.seen += [who for who in "AB" if any(f'"who":"{who}"'.encode() in body for body in bodies)]
        self.rows_of_c += sum(b'"who":"C"' in body for body in bodies)
        if self._pauses and self.rows_of_c >= self._pauses[0]:
            self._pauses.pop(0)
            # The whole process stands still, as under a debugger or with no CPU to be had.
            time.sleep(PAUSE_S)
        if "B" not in self.seen:
            confirmation.set_result(None)
        return confirmation

    async def close(self) -> None:
        """Nothing is held."""

    def __str__(self) -> str:
        return "withholding"


class PsycopgFeedback:
    """What psycopg2's documentation shows: send_feedback with the LSN that was flushed."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def send(self, flushed: Lsn, *, written: int, reply: bool = False) -> None:
        self._cursor.send_feedback(write_lsn=written, flush_lsn=flushed, reply=reply, force=True)


def reading(stream: Stream) -> ReplicationSource:
    assert isinstance(stream.source, ReplicationSource)
    return stream.source


def psycopg_feedback(stream: Stream) -> None:
    source = reading(stream)
    source._acknowledgement._feedback = PsycopgFeedback(source._cursor)  # type: ignore[assignment]


def our_feedback(stream: Stream) -> None:
    """As it is."""


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
@pytest.mark.parametrize(("feedback", "kept"), [(our_feedback, True), (psycopg_feedback, False)])
@pytest.mark.fault("F35", "I1", "I2")
def test_a_long_transaction_beside_an_unconfirmed_one(
    database15: str, plugin: str, feedback: Callable[[Stream], None], *, kept: bool
) -> None:
    """A is confirmed, B is not, and C, which began first, is read while the server asks for replies.

    The changes of C have smaller LSNs than A's end. psycopg2 takes them as read and answers with a flush LSN
    past B; then the process dies. With our status update B is sent again, with psycopg2's it never is.
    """
    create_slot(database15, plugin)
    with closing(psycopg2.connect(database15)) as first, closing(psycopg2.connect(database15)) as other:
        other.autocommit = True
        rows = f"select 'C', repeat('x', 200) from generate_series(1, {ROWS_OF_C})"
        first.cursor().execute(f"insert into hazard (who, pad) {rows}")
        other.cursor().execute("insert into hazard (who) values ('A')")

        asyncio.run(read_and_die(database15, plugin, feedback, other, first))

    assert is_sent_again(database15, plugin, "B") is kept


async def read_and_die(dsn: str, plugin: str, feedback: Callable[[Stream], None], other: Any, first: Any) -> None:
    stream = await open_stream(
        f"{as_role(dsn)} options='-c wal_sender_timeout=6s'",
        slot=slot_name(dsn),
        plugin=plugin,
        publication="pgevents",
    )
    feedback(stream)
    reading(stream)._ticking.cancel()  # the pauses fall between two ticks
    sink, progress = WithholdingSink(), Progress()
    pipeline = pipeline_of(Settings(window=10_000, stall_timeout_s=60), stream, sink, progress)
    running = asyncio.ensure_future(pipeline.run(asyncio.Event()))
    await until(lambda: progress.acknowledged > 0 and sink.seen == ["A"], running)
    other.cursor().execute("insert into hazard (who) values ('B')")
    await until(lambda: sink.seen == ["A", "B"], running)
    await asyncio.to_thread(first.commit)
    await until(lambda: sink.rows_of_c >= ROWS_OF_C, running)
    running.cancel()
    await asyncio.wait({running})
    reading(stream)._session.connection.close()  # no last report: the process is gone
    stream.catalog.close()


async def until(condition: Callable[[], bool], running: asyncio.Future[None], *, deadline_s: float = 30.0) -> None:
    ends_at = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < ends_at
        if running.done():
            running.result()
        await asyncio.sleep(0.01)


def slot_name(dsn: str) -> str:
    return str(psycopg2.extensions.parse_dsn(dsn)["dbname"])


def create_slot(dsn: str, plugin: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        connection.cursor().execute("create table hazard (id serial primary key, who text, pad text)")
    publish_all(dsn)
    start.create_slot(as_role(dsn), start.Wish(slot_name(dsn), plugin, "pgevents"))


def is_sent_again(dsn: str, plugin: str, who: str) -> bool:
    """Whether the slot still delivers the row of ``who``, once the server has let go of it."""
    options = {
        "wal2json": ["format-version", "2"],
        "pgoutput": ["proto_version", "1", "publication_names", "pgevents"],
    }[plugin]
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        assert eventually(lambda: not slot.status(as_role(dsn), slot_name(dsn)).active, deadline_s=20)
        cursor.execute(
            "select data from pg_logical_slot_peek_binary_changes(%s, null, 200, variadic %s)",
            (slot_name(dsn), options),
        )
        marks = {"wal2json": f'"value":"{who}"'.encode(), "pgoutput": b"t\x00\x00\x00\x01" + who.encode()}
        return any(marks[plugin] in bytes(data) for (data,) in cursor.fetchall())


class SlowSink:
    """Confirms each batch after ``delay_s``."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self.bodies: list[bytes] = []

    async def publish(self, batch: Batch) -> None:
        await asyncio.sleep(self._delay_s)
        self.bodies += [envelope.body for envelope in batch.envelopes]

    async def close(self) -> None:
        """Nothing is held."""

    def __str__(self) -> str:
        return "slow"


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
@pytest.mark.fault("I15")
def test_a_sink_slower_than_wal_sender_timeout_keeps_its_connection(database15: str, plugin: str) -> None:
    create_slot(database15, plugin)
    with closing(psycopg2.connect(database15)) as connection:
        connection.autocommit = True
        connection.cursor().execute("insert into hazard (who) select 'S' from generate_series(1, 10)")

        async def scenario() -> None:
            stream = await open_stream(
                f"{as_role(database15)} options='-c wal_sender_timeout=1s'",
                slot=slot_name(database15),
                plugin=plugin,
                publication="pgevents",
            )
            sink, progress = SlowSink(3.5), Progress()
            running = asyncio.ensure_future(
                pipeline_of(Settings(window=1), stream, sink, progress).run(asyncio.Event())
            )
            await until(lambda: len(sink.bodies) == 10 and progress.acknowledged > 0, running)
            connection.cursor().execute("insert into hazard (who) values ('later')")
            await until(lambda: len(sink.bodies) == 11, running)
            running.cancel()
            await asyncio.wait({running})
            await stream.close()

        asyncio.run(scenario())


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
def test_an_unconfirmed_event_is_not_a_reason_to_talk(
    database15: str, plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server pings a reader that says it has not written what was sent, as fast as it is answered."""
    create_slot(database15, plugin)
    sent: list[Lsn] = []
    send = Feedback.send

    def counting(self: Feedback, flushed: Lsn, *, written: int, reply: bool = False) -> None:
        sent.append(flushed)
        send(self, flushed, written=written, reply=reply)

    monkeypatch.setattr(Feedback, "send", counting)
    with closing(psycopg2.connect(database15)) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("insert into hazard (who) values ('A')")
            cursor.execute("select pg_current_wal_insert_lsn()")
            (before_commit,) = (Lsn.parse(row[0]) for row in cursor)

        async def scenario() -> None:
            stream = await open_stream(
                as_role(database15), slot=slot_name(database15), plugin=plugin, publication="pgevents"
            )
            sink = WithholdingSink()
            sink.seen.append("B")  # so that it confirms nothing
            running = asyncio.ensure_future(pipeline_of(Settings(), stream, sink, Progress()).run(asyncio.Event()))
            await until(lambda: "A" in sink.seen, running)
            sent.clear()
            await asyncio.wait({running}, timeout=2.0)
            running.cancel()
            await asyncio.wait({running})
            await stream.close()

        asyncio.run(scenario())

    assert max(sent) <= before_commit
    assert len(sent) < 40
