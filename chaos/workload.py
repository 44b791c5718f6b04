"""Writers that commit, roll back, fail and are cut off, and know in the end which of their transactions committed."""

import itertools
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg2

from chaos.fault import BrokenRig
from chaos.step import Steps

SHARED_KEYS = range(1, 201)
LONG_KEYS = range(201, 261)

_SETTINGS = "-c lock_timeout=2s -c statement_timeout=30s -c timezone=UTC"
_ROLLBACK_CHANCE = 0.08
_HUGE_CHANCE = 0.003
_AGAIN_S = 0.1
_RESOLVE_DEADLINE_S = 60.0
_STOP_DEADLINE_S = 90.0
_TOKENS_A_WRITER = 10**12


@dataclass(slots=True)
class Tally:
    """What one writer, or all of them, did. ``attempted`` counts rows, the others transactions.

    ``unknown`` are those whose COMMIT was never answered; each was resolved, and is in one of the other counts too.
    """

    attempted: int = 0
    committed: set[int] = field(default_factory=set)
    """Tokens."""
    not_committed: set[int] = field(default_factory=set)
    rolled_back: int = 0
    failed: int = 0
    unknown: int = 0

    def add(self, other: "Tally") -> None:
        self.attempted += other.attempted
        self.committed |= other.committed
        self.not_committed |= other.not_committed
        self.rolled_back += other.rolled_back
        self.failed += other.failed
        self.unknown += other.unknown


@dataclass(frozen=True, slots=True)
class Pace:
    """How a writer works: steps in a transaction, mean pause after each step and after each transaction."""

    steps: int = 6
    step_pause_s: float = 0.0
    pause_s: float = 0.1


SHORT = Pace()
# Its transactions are open while hundreds of others commit.
LONG = Pace(steps=25, step_pause_s=0.25, pause_s=0.5)


class Writer(threading.Thread):
    """One connection, opened again whenever it is lost."""

    def __init__(self, dsn: str, number: int, *, seed: int, pace: Pace, stopping: threading.Event) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self._dsn = dsn
        self._chance = random.Random(f"{seed}-writer-{number}")
        self._pace = pace
        self._keys = LONG_KEYS if pace.step_pause_s else SHARED_KEYS
        self._stopping = stopping
        self._tokens = itertools.count(number * _TOKENS_A_WRITER)
        self._connection: Any = None
        self.tally = Tally()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                if self._connected():
                    self._transaction()
                    self._stopping.wait(self._chance.expovariate(1 / self._pace.pause_s))
                else:
                    self._stopping.wait(_AGAIN_S)
        except BaseException as error:  # noqa: BLE001  # raised again by whoever stops the workload
            self.failure = error
        finally:
            self._disconnect()

    def _connected(self) -> bool:
        if self._connection is not None and not self._connection.closed:
            return True
        with suppress(psycopg2.OperationalError):
            self._connection = psycopg2.connect(
                self._dsn, connect_timeout=5, options=_SETTINGS, application_name="chaos-writer"
            )
            return True
        return False

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _transaction(self) -> None:
        token, tally = next(self._tokens), self.tally
        try:
            xid = self._work(token)
            if self._chance.random() < _ROLLBACK_CHANCE:
                self._connection.rollback()
                tally.rolled_back += 1
                return
        except (psycopg2.Error, psycopg2.Warning):
            tally.failed += 1
            self._give_up()
            return
        try:
            self._connection.commit()
        except psycopg2.Error:
            tally.unknown += 1
            self._give_up()
            self._resolve(token, xid)
        else:
            tally.committed.add(token)

    def _work(self, token: int) -> str:
        with self._connection.cursor() as cursor:
            cursor.execute("INSERT INTO audit.transaction (token) VALUES (%s) RETURNING xid::text", (token,))
            (xid,) = cursor.fetchone()
            steps = Steps(cursor, self._chance, self._keys)
            try:
                self._steps(steps)
            finally:
                self.tally.attempted += steps.rows
            return str(xid)

    def _steps(self, steps: Steps) -> None:
        if not self._pace.step_pause_s and self._chance.random() < _HUGE_CHANCE:
            steps.huge()
        for _ in range(self._chance.randint(1, self._pace.steps)):
            steps.some(1)
            if self._pace.step_pause_s:
                self._stopping.wait(self._chance.expovariate(1 / self._pace.step_pause_s))

    def _give_up(self) -> None:
        try:
            self._connection.rollback()
        except psycopg2.Error:
            self._disconnect()

    def _resolve(self, token: int, xid: str) -> None:
        """Find out whether a transaction committed whose COMMIT was not answered."""
        deadline = time.monotonic() + _RESOLVE_DEADLINE_S
        while time.monotonic() < deadline:
            if self._connected():
                with suppress(psycopg2.Error):
                    committed = self._has_committed(token, xid)
                    (self.tally.committed if committed else self.tally.not_committed).add(token)
                    return
                self._disconnect()
            time.sleep(_AGAIN_S)
        raise BrokenRig(f"the outcome of transaction {xid} could not be had")

    def _has_committed(self, token: int, xid: str) -> bool:
        with self._connection, self._connection.cursor() as cursor:
            while True:
                cursor.execute("SELECT pg_xact_status(%s::xid8)", (xid,))
                (status,) = cursor.fetchone()
                if status != "in progress":
                    break
                time.sleep(_AGAIN_S)
            # After a crash the number of a transaction that left nothing on disk is given to another one.
            cursor.execute("SELECT EXISTS (SELECT FROM audit.transaction WHERE token = %s)", (token,))
            (exists,) = cursor.fetchone()
            return bool(exists) and status == "committed"


class Workload:
    """``writers`` of short transactions and one of long ones, from ``start`` to ``stop``."""

    def __init__(self, dsn: str, *, seed: int, writers: int = 3, pace: Pace = SHORT) -> None:
        self._stopping = threading.Event()
        paces = [*[pace] * writers, LONG]
        self._writers = [
            Writer(dsn, number, seed=seed, pace=each, stopping=self._stopping) for number, each in enumerate(paces, 1)
        ]

    def start(self) -> None:
        for writer in self._writers:
            writer.start()

    def stop(self) -> Tally:
        """End it, with every outcome known. Raises what a writer failed with, which is never a server's fault."""
        self._stopping.set()
        for writer in self._writers:
            if writer.ident is not None:
                writer.join(_STOP_DEADLINE_S)
                if writer.is_alive():
                    raise BrokenRig(f"{writer.name} does not end")
            if writer.failure is not None:
                raise writer.failure
        return self.tally()

    def tally(self) -> Tally:
        total = Tally()
        for writer in self._writers:
            total.add(writer.tally)
        return total
