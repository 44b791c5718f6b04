"""Starting server processes that never outlive us, and ending them without leaving a child behind."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from pgevents.errors import PGEventsError

POLL_S = 0.02
LOG_TAIL_LINES = 15


class LaunchError(PGEventsError):
    """A private server could not be had; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who a process runs as: a command to put in front, or a user and group to become."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None

    def run(self, command: Sequence[str], *, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run to the end and collect the output; the caller reads the exit code."""
        return subprocess.run(
            [*self.prefix, *command],
            cwd=cwd,
            user=self.user,
            group=self.group,
            extra_groups=None if self.user is None else [],
            capture_output=True,
            text=True,
            check=False,
        )

    def own(self, path: Path) -> None:
        """Hand a file or folder over to the user of this account."""
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)


OURSELVES = Account()


class ServerProcess:
    """One server in a session of its own, so that Ctrl-C in a terminal reaches us and not the server."""

    def __init__(self, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self._process = process
        self.log_path = log_path

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        log_path: Path,
        account: Account = OURSELVES,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_our_death: signal.Signals = signal.SIGKILL,
    ) -> Self:
        """Launch ``command``, its output appended to ``log_path``.

        Call it from a thread that lasts: where Linux lets us, the server gets ``on_our_death`` when that thread ends.
        """
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*account.prefix, *_tied_to_us(on_our_death), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=cwd,
                user=account.user,
                group=account.group,
                extra_groups=None if account.user is None else [],
                start_new_session=True,
            )
        return cls(process, log_path)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    def log_tail(self) -> str:
        return tail(self.log_path)

    def end(self, *signals: signal.Signals, deadline_s: float) -> None:
        """Send the signals in turn, each ``deadline_s`` apart, then SIGKILL, until all descendants are gone."""
        family = [self.pid, *descendants(self.pid)]
        for number in (*signals, signal.SIGKILL):
            _send(self._process, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(deadline_s)
                break
        _reap(family[1:])


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _reap(pids: Sequence[int]) -> None:
    # Port programs of a virtual machine follow it within milliseconds; what does not is ended here.
    if not eventually(lambda: not any(map(is_alive, pids)), deadline_s=2):
        for pid in filter(is_alive, pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@cache
def _setpriv() -> str | None:
    return shutil.which("setpriv")


def _tied_to_us(number: signal.Signals) -> list[str]:
    """A prefix that has the kernel send ``number`` when the thread that started the process dies."""
    setpriv = _setpriv()
    return [setpriv, "--pdeathsig", number.name.removeprefix("SIG"), "--"] if setpriv else []


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    state = _stat(pid)
    return state is not None and state[0] != "Z"


def descendants(pid: int) -> list[int]:
    """All processes below ``pid``, as /proc shows them now."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    parents = {child: stat[1] for child in pids if (stat := _stat(child))}
    found: list[int] = []
    generation = {pid}
    while generation := {child for child, parent in parents.items() if parent in generation}:
        found += generation
    return found


def _stat(pid: int) -> tuple[str, int] | None:
    """The state and the parent of a process; the name before them may hold spaces and parentheses."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)


def eventually(condition: Callable[[], bool], *, deadline_s: float) -> bool:
    """Ask again and again until ``condition`` holds; False when ``deadline_s`` passed first."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now; another process may take one before you do."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def private_folder(parent: Path | None = None) -> Path:
    """A fresh folder that a server under another account may pass through, and only that."""
    folder = Path(tempfile.mkdtemp(prefix="pgevents-", dir=parent))
    folder.chmod(0o711)
    return folder


def tail(path: Path) -> str:
    """The last lines of a log, or a word that there is none."""
    if not path.exists():
        return "(no log was written)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]) or "(the log is empty)"
