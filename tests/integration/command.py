"""The command line as a user meets it: ``python -m pgevents`` in a process of its own, with a clean environment."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from psycopg2.extensions import make_dsn, parse_dsn

from pgevents import slot
from pgevents.demo.process import eventually
from pgevents.lsn import Lsn
from pgevents.start import Wish, create_slot
from tests.integration.role import as_role, install_role, publish_all
from tests.integration.streaming import ask, run

DEADLINE_S = 20.0
OURS = ("PG", "RABBITMQ", "NO_COLOR", "COLUMNS")

Json = dict[str, Any]

TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, and what it left to read."""

    code: int
    stdout: str
    stderr: str

    @property
    def events(self) -> list[Json]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    def refusal(self, code: int) -> tuple[str, str]:
        """The one error and the one hint, of a command that ended with ``code`` and nothing else to say for it."""
        assert self.code == code, f"exit code {self.code}\n{self.stderr}"
        assert "Traceback" not in self.stderr, self.stderr
        errors, hints = (re.findall(rf"^{word}: (.+)$", self.stderr, re.MULTILINE) for word in ("error", "hint"))
        assert len(errors) == len(hints) == 1, self.stderr
        return errors[0], hints[0]

    def refused(self, code: int, *, error: str, hint: str) -> None:
        """Check the exit code, and error and hint against patterns."""
        said, advised = self.refusal(code)
        assert re.search(error, said), said
        assert re.search(hint, advised), advised


class Command:
    """One run of ``pgevents``. Its output is collected in files, which may be read while it runs."""

    def __init__(
        self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"run-{len(list(folder.glob('run-*.out')))}"
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "pgevents", *arguments],
                cwd=folder,
                env=environment(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def says(self, pattern: str, *, times: int = 1) -> None:
        """Wait for lines of standard error."""
        self._waits_for(lambda: len(re.findall(pattern, self.stderr, re.MULTILINE)) >= times, pattern)

    def shows(self, pattern: str) -> None:
        """Wait for a line of standard output."""
        self._waits_for(lambda: re.search(pattern, self.stdout, re.MULTILINE) is not None, pattern)

    def ready(self) -> Self:
        self.says("^Ready")
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self, deadline_s: float = DEADLINE_S) -> Outcome:
        try:
            code = self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline_s} s\n{self.stderr}") from None
        return Outcome(code, self.stdout, self.stderr)

    def stopped(self, number: signal.Signals = TERM) -> Outcome:
        self.send(number)
        return self.ended()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.has_ended:
            self.send(KILL)
            self._process.wait()

    def _waits_for(self, condition: Any, what: str) -> None:
        eventually(lambda: condition() or self.has_ended, deadline_s=DEADLINE_S)
        assert condition(), f"{what!r} was not seen\nstdout: {self.stdout[-2000:]}\nstderr: {self.stderr[-4000:]}"


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without anything that PGEvents or libpq would read."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return kept | {"PYTHONUNBUFFERED": "1"} | dict(more)


def pgevents(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> Outcome:
    """Run to the end."""
    with Command(folder, *arguments, env=env, prefix=prefix) as command:
        return command.ended()


class Shop:
    """A database with the table ``orders`` and a slot that sees all that is put into it.

    ``dsn`` is the superuser's, for what a test does itself; commands get ``role_dsn``.
    """

    def __init__(self, dsn: str, *, plugin: str = "wal2json") -> None:
        self.dsn = dsn
        self.database: str = parse_dsn(dsn)["dbname"]
        # Slots are the server's, not the database's.
        self.slot = self.database
        self.role_dsn = as_role(dsn)
        install_role(dsn)
        run(dsn, "CREATE TABLE orders (id int PRIMARY KEY, note text)")
        if plugin == "pgoutput":
            publish_all(dsn)
        create_slot(self.role_dsn, Wish(self.slot, plugin, "pgevents"))

    @property
    def options(self) -> tuple[str, ...]:
        return ("--dsn", self.role_dsn, "--slot", self.slot)

    @property
    def confirmed(self) -> Lsn:
        return Lsn.parse(slot.status(self.dsn, self.slot).confirmed_flush_lsn or "")

    @property
    def lsn(self) -> Lsn:
        """Where the server writes now."""
        return Lsn.parse(ask(self.dsn, "SELECT pg_current_wal_lsn()::text"))

    def add(self, *ids: int) -> None:
        """A transaction a row."""
        run(self.dsn, *(f"INSERT INTO orders VALUES ({each}, 'note {each}')" for each in ids))

    def with_dsn(self, **changes: str) -> tuple[str, ...]:
        return ("--dsn", make_dsn(self.role_dsn, **changes), "--slot", self.slot)


def stored(path: Path) -> list[Json]:
    """The events in a file, whole lines only."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def ids_of(events: Sequence[Mapping[str, Any]]) -> list[int]:
    return [event["new"]["id"] for event in events]


def through(url: str, port: int) -> str:
    """The URL with another port."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition(":")[0] + f":{port}"))
