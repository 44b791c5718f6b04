"""A stream under a schedule: processes that are killed and started again, and what must hold at every step."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from pgevents.errors import PGEventsError, Unroutable
from pgevents.interfaces import SinkOptions, Unpublished
from pgevents.lsn import Lsn
from pgevents.pipeline import Limits, Progress
from pgevents.sink import amqp
from pgevents.testing import pipeline
from tests.faults.broker import Broker, Message
from tests.faults.clock import VirtualLoop
from tests.faults.history import Database, Deed, History
from tests.faults.schedule import Exit, Schedule, Way
from tests.reliability import count

URL = "amqp://guest:guest@broker/?connection_timeout=5000"
PAUSE_S = 0.5
PARKING_S = 0.02
# More sessions or processes than the schedule has faults for: what failed is no fault of the schedule's.
SPARE = 4


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the stream is set."""

    batch_events: int = 3
    batch_bytes: int = 4_000
    window: int = 3
    chunk: int = 5
    on_unroutable: str = "wait"
    stall_timeout_s: float = 8.0
    hold_s: float = 3.0
    again: int = 0
    """So many stretches are sent again to each new session, as by a server that forgot how far it was."""


@dataclass(slots=True)
class MemoryPark:
    """Keeps ids, a little later than it is asked to."""

    ids: set[str] = field(default_factory=set)

    async def add(self, events: Sequence[Unpublished], *, sink: str) -> None:
        assert "guest:***@" in sink
        await asyncio.sleep(PARKING_S)
        self.ids.update(event.envelope.message_id for event in events)


@dataclass(slots=True, eq=False)
class World:
    """One database and one broker, and one process of ours after another between them."""

    deeds: Sequence[Deed]
    schedule: Schedule
    tuning: Tuning
    park: MemoryPark = field(default_factory=MemoryPark)
    history: History = field(init=False)
    database: Database = field(init=False)
    broker: Broker = field(init=False)
    failures: list[PGEventsError] = field(default_factory=list)
    _ends: dict[str, int] = field(init=False)
    _checked: int = 0
    _bodies: dict[str, bytes] = field(default_factory=dict)
    _offered: int = 0
    _happened: int = 0
    _exit: Exit | None = None
    _loop: VirtualLoop | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _running: asyncio.Task[None] | None = None
    _is_dead: bool = False

    def __post_init__(self) -> None:
        self.history = History(self.deeds)
        self._ends = {due.id: due.end_lsn for due in self.history.due}
        self.database = Database(self.history, self._check_acknowledged)
        self.broker = Broker(self.schedule.turns, note=self._note)

    def play(self) -> "World":
        """Run the schedule to its end, and then until all is acknowledged. Raises AssertionError."""
        exits = iter(self.schedule.exits)
        for _ in range(len(self.schedule.exits) + len(self.schedule.turns) + SPARE):
            self._live(next(exits, None))
            if self.database.acknowledged >= self.history.end_lsn:
                self._check_all()
                return self
        raise AssertionError(f"stands at {self.database.acknowledged}; the last failures: {self.failures[-3:]}")

    # One process

    def _live(self, end: Exit | None) -> None:
        self._exit, self._happened, self._is_dead = end, 0, False
        with self._process() as loop:
            self._running = loop.create_task(self._supervise())
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(self._running)
            loop.run_until_complete(asyncio.sleep(0))
            if not self._is_dead:
                assert not loop.dialled, "a connection was left open"
                assert not loop.complaints, loop.complaints

    @contextmanager
    def _process(self) -> Iterator[VirtualLoop]:
        self._loop = VirtualLoop(self.broker)
        try:
            asyncio.set_event_loop(self._loop)
            self._stop = asyncio.Event()
            yield self._loop
        finally:
            self._loop.complaints.clear()
            self._end_rest(self._loop)
            asyncio.set_event_loop(None)
            self._loop.close()

    def _end_rest(self, loop: VirtualLoop) -> None:
        for session in tuple(self.broker.sessions):
            session.cut()
        others = asyncio.all_tasks(loop)
        for task in others:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*others, return_exceptions=True))
        loop.run_until_complete(asyncio.sleep(0))

    async def _supervise(self) -> None:
        """As the command does: what passes is tried again, all else ends the process."""
        progress = Progress()
        for _ in range(len(self.schedule.turns) + SPARE):
            try:
                await self._session(progress)
            except PGEventsError as error:
                self.failures.append(error)
                if not error.transient or self._stop.is_set():
                    return
                await asyncio.sleep(PAUSE_S)
            else:
                self._check_drained(progress)
                return
        raise AssertionError(f"gets nowhere; the last failures: {self.failures[-3:]}")

    async def _session(self, progress: Progress) -> None:
        tuning = self.tuning
        options = SinkOptions(on_unroutable=tuning.on_unroutable, park=self.park, hold_s=tuning.hold_s)
        sink = await amqp.open(URL, options)
        try:
            await pipeline(
                self.database.connect(chunk=tuning.chunk, again=tuning.again),
                sink,
                limits=Limits(
                    batch_events=tuning.batch_events,
                    batch_bytes=tuning.batch_bytes,
                    window=tuning.window,
                    stall_timeout_s=tuning.stall_timeout_s,
                    until=self.history.end_lsn,
                ),
                progress=progress,
                start_lsn=self.database.acknowledged,
            ).run(self._stop)
        except Unroutable as unroutable:
            await unroutable.routed
            raise
        finally:
            await sink.close()

    # Its end

    def _note(self) -> None:
        """Something happened at the broker: check it, and end our process if this was the moment."""
        self._check_offered()
        self._happened += 1
        if self._exit and self._happened == self._exit.moment:
            self._after(self._exit.steps, self._exit.way)

    def _after(self, steps: int, way: Way) -> None:
        assert self._loop
        if steps:
            self._loop.call_soon(self._after, steps - 1, way)
        elif way is Way.STOP:
            self._stop.set()
        else:
            self._kill()

    def _kill(self) -> None:
        """What was written to the sockets still arrives; nothing that the broker says does."""
        assert self._loop
        assert self._running
        self._is_dead = True
        self._loop.cut_all()
        self.database.cut()
        self._running.cancel()

    # What must hold

    def _check_acknowledged(self, lsn: Lsn) -> None:
        assert lsn in self.history.ends, f"{lsn} is no end of a transaction, a message or idle WAL"
        assert lsn > self.database.acknowledged, f"{lsn} is not after {self.database.acknowledged}"
        due = self.history.due
        while self._checked < len(due) and due[self._checked].end_lsn <= lsn:
            missing = due[self._checked].id
            assert self._is_kept(missing), f"{lsn} was acknowledged though {missing} was not confirmed"
            self._checked += 1

    def _is_kept(self, message_id: str) -> bool:
        if message_id in self.broker.delivered:
            return True
        match self.tuning.on_unroutable:
            case "drop":
                return message_id in self.broker.returned
            case "park":
                return message_id in self.broker.returned and message_id in self.park.ids
        return False

    def _check_offered(self) -> None:
        """Ids are those of the history and never change what they stand for; what is acknowledged never returns."""
        for message in self.broker.offered[self._offered :]:
            assert message.id in self._ends, f"{message.id} was never written"
            assert self._bodies.setdefault(message.id, message.body) == message.body
            assert self._ends[message.id] > self.database.acknowledged, f"{message.id} was acknowledged before"
        self._offered = len(self.broker.offered)

    def _check_drained(self, progress: Progress) -> None:
        """A stream that ended well leaves nothing for the next one to repeat."""
        assert self.database.acknowledged == progress.acknowledged
        half_done = {each.id for each in self.broker.offered if self._ends[each.id] > progress.acknowledged}
        # What an earlier, failed session offered and this one never came to may be left.
        assert not half_done or self._stop.is_set()

    def _check_all(self) -> None:
        assert [each for each in self.history.due if not self._is_kept(each.id)] == [], "events were lost"
        due = [each.id for each in self.history.due]
        assert first_seen(self.broker.offered) == due, "first published out of order"
        self._check_stored_order()
        stored = {each.id for each in self.broker.durable}
        duplicated = len(self.broker.durable) - len(stored)
        count(committed=len(due), delivered=len(stored), lost=0, duplicated=duplicated, unexpected=0, reordered=0)

    def _check_stored_order(self) -> None:
        """Of each row the events lie in order, counting of each its last copy; where none was refused, its first.

        What was parked or dropped has no last copy in the queue, and no place in its order.
        """
        given_up = set() if self.tuning.on_unroutable == "wait" else self.broker.returned
        place = {due.id: at for at, due in enumerate(self.history.due) if due.id not in given_up}
        row = {due.id: due.row for due in self.history.due}
        stored = [each.id for each in self.broker.durable]
        copies = [list(reversed(first_of(reversed(stored))))]
        if not any(turn.verdicts for turn in self.schedule.turns):
            copies.append(first_of(stored))
        for copy in copies:
            for each in set(row.values()):
                mine = [place[id_] for id_ in copy if id_ in place and row[id_] == each]
                assert mine == sorted(mine), f"events of row {each} are out of order"


def first_of(ids: Iterable[str]) -> list[str]:
    """Without repetitions, each where it came first."""
    return list(dict.fromkeys(ids))


def first_seen(messages: Iterable[Message]) -> list[str]:
    return first_of(each.id for each in messages)


def play(deeds: Sequence[Deed], schedule: Schedule, tuning: Tuning | None = None) -> World:
    """Run ``deeds`` through ``schedule`` and check everything. Raises AssertionError."""
    return World(deeds, schedule, tuning or Tuning()).play()
