"""``pgevents stream`` as a process that is killed, stopped and started again, and never meant to end by itself."""

import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pgevents
from chaos.fault import BrokenRig
from pgevents.demo.process import ServerProcess, eventually

STOP_DEADLINE_S = 30.0
READY_DEADLINE_S = 30.0
# A service manager would wait as well.
_AGAIN_S = 0.5


class Stream:
    """Runs in ``folder``; what it says is appended to ``log_path``. ``exits`` are those that nobody asked for."""

    def __init__(self, folder: Path, arguments: Sequence[str], *, dsn: str, sink: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log_path = folder / "stream.log"
        self._command = [sys.executable, "-m", "pgevents", "stream", *arguments]
        # In the environment, because every user of the machine can read a command line.
        self._environment = _environment() | {"PGEVENTS_DSN": dsn, "PGEVENTS_SINK": sink}
        self._process: ServerProcess | None = None
        self._again_at = 0.0
        self.exits: list[str] = []
        self.starts = 0

    @property
    def pid(self) -> int:
        """0 where it does not run."""
        return self._process.pid if self._process and self._process.is_running else 0

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def start(self) -> None:
        self.starts += 1
        self._process = ServerProcess.start(
            self._command, log_path=self.log_path, env=self._environment, cwd=self.folder
        )

    def await_ready(self) -> None:
        """Wait until it streams. Raises BrokenRig when it ends instead."""
        ready = eventually(
            lambda: self.log.count("\nReady") >= self.starts or not self.pid, deadline_s=READY_DEADLINE_S
        )
        if not ready or not self.pid:
            raise BrokenRig(f"the stream does not start; it said:\n{self.log[-2000:]}")

    def keep_running(self) -> None:
        """Start it again a moment after it ended by itself, and remember that it did."""
        if self._process is None or self._process.is_running:
            return
        if not self._again_at:
            self.exits.append(self._last_words(self._process.exit_code))
            self._again_at = time.monotonic() + _AGAIN_S
        elif time.monotonic() >= self._again_at:
            self._again_at = 0.0
            self.start()

    def send(self, number: signal.Signals) -> None:
        if pid := self.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Returns when it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to drain; the exit code. A stream that does not end in time is killed, which counts as an exit."""
        return self._end(signal.SIGTERM)

    def close(self) -> None:
        if self._process is not None:
            self._process.end(deadline_s=STOP_DEADLINE_S)

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        if process is None:
            return 0
        self.send(number)
        if not eventually(lambda: not process.is_running, deadline_s=STOP_DEADLINE_S):
            self.exits.append(f"did not end within {STOP_DEADLINE_S:g} s of {number.name}")
            process.end(deadline_s=STOP_DEADLINE_S)
        self._process = None
        self._again_at = 0.0
        return process.exit_code or 0

    def _last_words(self, code: int | None) -> str:
        errors = re.findall(r"^error: (.+)$", self.log, re.MULTILINE)
        return f"ended by itself with {code}: {errors[-1] if errors else self.log.splitlines()[-1:]}"


def _environment() -> dict[str, str]:
    """Ours without what would configure the stream, and able to import what we test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "RABBITMQ"))}
    return kept | {"PYTHONPATH": str(Path(pgevents.__path__[0]).parent), "PYTHONUNBUFFERED": "1"}
