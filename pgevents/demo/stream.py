"""The demo's stream: the very command a user would type, as a process of its own."""

import os
import re
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from psycopg2.extensions import connection

import pgevents
from pgevents.demo.ledger import EXCLUDED
from pgevents.demo.process import LaunchError, ServerProcess, eventually

SLOT = "pgevents_demo"
START_DEADLINE_S = 60.0
DRAIN_DEADLINE_S = 30.0
BANNER_DEADLINE_S = 3.0

_CONFIRMED = re.compile(r"^done: .*confirmed=(\d+)", re.MULTILINE)


_ARGUMENTS = ("stream", "--slot", SLOT, "--create-slot", "--exclude-table", EXCLUDED)


class Stream:
    """A running ``pgevents stream``; ``start`` returns once it reads its slot."""

    def __init__(self, process: ServerProcess) -> None:
        self._process = process

    @classmethod
    def start(cls, folder: Path, *, dsn: str, sink: str) -> Self:
        # In a folder of its own, so that no pgevents.toml of the user's is read.
        process = ServerProcess.start(
            [sys.executable, "-m", "pgevents", *_ARGUMENTS],
            log_path=folder / "stream.log",
            # Both hold a password, and a command line can be read by every user of the machine.
            env=_environment() | {"PGEVENTS_DSN": dsn, "PGEVENTS_SINK": sink},
            cwd=folder,
            on_our_death=signal.SIGTERM,
        )
        return cls(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.end(deadline_s=DRAIN_DEADLINE_S)

    @property
    def is_running(self) -> bool:
        return self._process.is_running

    def await_reading(self, database: connection) -> None:
        """Wait until the slot is in use. Raises LaunchError with what the command said when it ended instead."""
        ready = eventually(lambda: not self.is_running or _is_read(database), deadline_s=START_DEADLINE_S)
        if not ready or not self.is_running:
            log = self._process.log_tail()
            raise LaunchError(f"pgevents stream did not start{self._ending()}; it said:\n{log}")

    def _ending(self) -> str:
        return "" if self.is_running else f" but ended with {self._process.exit_code}"

    def banner(self) -> str:
        """What it says when it is ready, which may come a moment after it took the slot."""
        log = self._process.log_path
        eventually(lambda: "\nReady" in log.read_text(), deadline_s=BANNER_DEADLINE_S)
        return log.read_text().strip()

    def drain(self) -> int:
        """Ask it to stop, and give the number of events it says were confirmed."""
        self._process.end(signal.SIGTERM, deadline_s=DRAIN_DEADLINE_S)
        confirmed = _CONFIRMED.search(self._process.log_path.read_text())
        if self._process.exit_code != 0 or confirmed is None:
            code = self._process.exit_code
            raise LaunchError(f"pgevents stream ended with {code}; it said:\n{self._process.log_tail()}")
        return int(confirmed[1])


def _environment() -> dict[str, str]:
    """Ours without what would configure libpq or PGEvents, and able to import what we are ourselves."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "RABBITMQ"))}
    package = str(Path(pgevents.__path__[0]).parent)
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}


def _is_read(database: connection) -> bool:
    """Whether the slot is being read. Active alone it is already for a moment while it is created."""
    with database, database.cursor() as cursor:
        cursor.execute(
            "SELECT FROM pg_replication_slots JOIN pg_stat_replication ON pid = active_pid"
            " WHERE slot_name = %s AND state IN ('catchup', 'streaming')",
            (SLOT,),
        )
        return cursor.rowcount == 1
