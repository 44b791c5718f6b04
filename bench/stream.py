"""``pgevents stream`` as a user runs it, with what it used."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pgevents
from bench.backlog import Backlog, confirmed_flush
from bench.fault import WrongRun
from bench.run import Run
from bench.servers import Servers

# No run takes as long; one that does hangs, and says nothing of speed.
LONGEST_RUN_S = 300.0

STATE_FILE = "state.json"

_DONE = re.compile(r"^done: .*confirmed=(\d+)")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class StreamRun(Run):
    """One finished run. ``seconds`` and ``cpu_s`` count from its word that it is ready, ``startup_s`` until then.

    ``peak_rss_mib`` is that of the whole life of the process, imports included.
    """

    startup_s: float
    peak_rss_mib: float


class StreamProcess:
    """A running stream. ``finish`` it; leaving the ``with`` block kills what is left of it."""

    def __init__(self, folder: Path, *arguments: str, state: str = STATE_FILE) -> None:
        # Slots are made anew under one name; a watermark of an earlier one would be a gap.
        (folder / STATE_FILE).unlink(missing_ok=True)
        self._began = self._ready = time.perf_counter()
        self._startup_cpu_s = 0.0
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pgevents", "stream", *arguments, "--state", state],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=_environment(),
        )
        self._watch = threading.Timer(LONGEST_RUN_S, self._process.kill)
        self._watch.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.cancel()
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()

    def await_ready(self) -> None:
        """Return when it says that it is ready. Raises WrongRun when it ends instead."""
        while not self._read_line().startswith("Ready"):
            pass
        self._ready = time.perf_counter()
        self._startup_cpu_s = _cpu_s(self._process.pid)

    def stop(self) -> None:
        """Ask it to drain."""
        self._process.send_signal(signal.SIGTERM)

    def finish(self) -> StreamRun:
        """Wait for its end. Raises WrongRun unless it ended well and said what it confirmed."""
        while (done := _DONE.match(self._read_line())) is None:
            pass
        ended = time.perf_counter()
        peak_rss_mib = _peak_rss_mib(self._process.pid)
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode != 0:
            self._lines += self._process.stderr or ()
            raise WrongRun(f"the stream ended with {self._process.returncode}:\n{self._said}")
        return StreamRun(
            confirmed=int(done[1]),
            seconds=ended - self._ready,
            cpu_s=usage.ru_utime + usage.ru_stime - self._startup_cpu_s,
            startup_s=self._ready - self._began,
            peak_rss_mib=peak_rss_mib or usage.ru_maxrss / 1024,
        )

    @property
    def _said(self) -> str:
        return "".join(self._lines)

    def _read_line(self) -> str:
        line = self._process.stderr.readline() if self._process.stderr else ""
        if not line:
            raise WrongRun(f"the stream ended early or hung, and said:\n{self._said}")
        self._lines.append(line)
        return line


def stream_once(
    servers: Servers, backlog: Backlog, slot: str, sink: str, *options: str, state: str = STATE_FILE
) -> StreamRun:
    """Stream the whole backlog with more ``options``. Raises WrongRun unless it was acknowledged to its end."""
    source = ("--dsn", servers.dsn, "--slot", slot, "--until-lsn", str(backlog.until))
    with StreamProcess(servers.folder, *source, "--sink", sink, *options, state=state) as stream:
        stream.await_ready()
        run = stream.finish()
    if confirmed_flush(servers.database, slot) < backlog.until:
        raise WrongRun(f"the stream ended before it had acknowledged {backlog.until}")
    return run


def _cpu_s(pid: int) -> float:
    """Processor time used so far by all threads, in ticks of usually 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _peak_rss_mib(pid: int) -> float:
    """The peak so far; 0 when the process is gone already.

    rusage would do as well, but its maximum starts with our own memory: Linux carries it over the exec.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _environment() -> dict[str, str]:
    """Ours without what would configure the stream, and able to import what we test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "RABBITMQ"))}
    return kept | {"PYTHONPATH": str(Path(pgevents.__path__[0]).parent)}
