"""The command line as a user meets it: ``python -m pgevents`` in a process of its own, with a clean environment."""

import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from psycopg2.extensions import make_dsn, parse_dsn

from pgevents import slot
from pgevents.demo.process import eventually
from pgevents.lsn import Lsn
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
    """A database with the table ``orders`` and a slot that sees all that is put into it."""

    def __init__(self, dsn: str, *, plugin: str = "wal2json") -> None:
        self.dsn = dsn
        self.database: str = parse_dsn(dsn)["dbname"]
        # Slots are the server's, not the database's.
        self.slot = self.database
        run(dsn, "CREATE TABLE orders (id int PRIMARY KEY, note text)")
        slot.create(dsn, slot=self.slot, plugin=plugin, publication="pgevents", tables=())

    @property
    def options(self) -> tuple[str, ...]:
        return ("--dsn", self.dsn, "--slot", self.slot)

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
        return ("--dsn", make_dsn(self.dsn, **changes), "--slot", self.slot)


def stored(path: Path) -> list[Json]:
    """The events in a file, whole lines only."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def ids_of(events: Sequence[Mapping[str, Any]]) -> list[int]:
    return [event["new"]["id"] for event in events]


class Proxy:
    """A TCP port in front of another that can be closed, with all that goes through it, and opened again."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[socket.socket] = []
        self._serve()

    def cut(self) -> None:
        """Refuse connections from now on and reset those there are."""
        _end(self._listener)
        for each in self._pairs:
            _end(each)
        self._pairs = []

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._pairs += [client, server]
                threading.Thread(target=_relay, args=(client, server), daemon=True).start()


def _relay(client: socket.socket, server: socket.socket) -> None:
    other = {client: server, server: client}
    with suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
        for each in other:
            selector.register(each, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                each = client if key.fileobj is client else server
                chunk = each.recv(65536)
                if not chunk:
                    _end(client)
                    _end(server)
                    return
                other[each].sendall(chunk)


def _end(each: socket.socket) -> None:
    """Close it and wake whoever waits for it."""
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    opened = Proxy(port)
    try:
        yield opened
    finally:
        opened.cut()


def through(url: str, port: int) -> str:
    """The URL with another port."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition(":")[0] + f":{port}"))
