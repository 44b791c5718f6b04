"""Lines of JSON into a file, a pipe or a device; what is confirmed is whole and stays.

A regular file is locked against a second writer, synced before anything is confirmed, and cut back to its last whole
line when it is opened after a crash or a write failed: what is cut was never confirmed, and never somebody else's.
"""

import errno
import fcntl
import logging
import os
import select
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from pgevents import disk
from pgevents.errors import SinkError, SinkRefused, SinkUnavailable

logger = logging.getLogger(__name__)

_TAIL_BYTES = 64 * 1024
# A pipe that polls as writable takes this many bytes without blocking (POSIX), so that a stop is always heard.
_STREAM_BYTES = select.PIPE_BUF
_POLL_MS = 200
_RIVAL = "Give each stream a file of its own."


class Lines(Protocol):
    """Somewhere lines go. The methods block, and are called from one thread at a time, but for ``stop``."""

    def append(self, lines: bytes) -> None:
        """Write whole lines so that they stay. Raises SinkError, and then they count as not written."""
        ...

    def stop(self) -> None:
        """Make an ``append`` that waits for a reader give up. May be called at any time."""
        ...

    def close(self) -> None: ...


class LineFile:
    """A regular file, appended to and synced, whose lines all begin with one of ``starts``."""

    def __init__(self, path: Path, starts: Sequence[bytes], *, mode: int = 0o666, rival: str = _RIVAL) -> None:
        """Open or create ``path``, lock it and cut a torn last line of ours. Raises SinkError.

        ``mode`` is what a new file allows, less the umask; ``rival`` the hint where another process holds it.
        """
        self._path = path
        self._rival = rival
        try:
            is_new = not path.exists()
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, mode)
        except OSError as error:
            raise _fault(error, str(path)) from error
        try:
            self._refuse_devices()
            self._lock()
            self._cut_torn_line(starts)
            if is_new:
                _sync_folder(path.parent)
        except OSError as error:
            self.close()
            raise _fault(error, str(path)) from error
        except SinkError:
            self.close()
            raise

    def append(self, lines: bytes) -> None:
        try:
            # Asked each time: somebody may have cut the file.
            size = os.fstat(self._fd).st_size
            self._write(lines, size)
            is_there = self._is_there()
        except OSError as error:
            raise _fault(error, str(self._path)) from error
        if not is_there:
            raise SinkUnavailable(f"{self._path} was removed or replaced while it was written")

    def stop(self) -> None:
        """A regular file keeps nobody waiting."""

    def close(self) -> None:
        os.close(self._fd)

    def _refuse_devices(self) -> None:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise SinkRefused(
                f"{self._path} is no regular file, and what is written there would not stay",
                hint="Name a file on a disk.",
            )

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SinkRefused(f"another process is writing {self._path}", hint=self._rival) from error

    def _write(self, lines: bytes, size: int) -> None:
        try:
            _write(self._fd, lines)
            os.fsync(self._fd)
        except OSError:
            # Where this fails too, the torn line is cut when the file is opened again.
            with suppress(OSError):
                os.ftruncate(self._fd, size)
            raise

    def _is_there(self) -> bool:
        """Whether what was written can still be found under the path; a rotation of logs moves it away."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))  # noqa: PTH116 - beside fstat
        except FileNotFoundError:
            return False

    def _cut_torn_line(self, starts: Sequence[bytes]) -> None:
        size = os.fstat(self._fd).st_size
        whole = _end_of_last_line(self._fd, size)
        if whole == size:
            return
        torn = os.pread(self._fd, max(map(len, starts)), whole)
        if not any(torn.startswith(start) or start.startswith(torn) for start in starts):
            raise SinkRefused(
                f"{self._path} does not end with a line of ours",
                hint="Nothing was changed. Name another file, or end its last line with a line break.",
            )
        os.ftruncate(self._fd, whole)
        os.fsync(self._fd)
        logger.warning("cut a torn, never confirmed line", extra={"path": str(self._path), "bytes": size - whole})


class LineStream:
    """A pipe, a terminal or a device: written is all it can promise."""

    def __init__(self, fd: int, name: str, *, gone: Callable[[], SinkError], is_ours: bool = False) -> None:
        self._fd, self._name, self._gone, self._is_ours = fd, name, gone, is_ours
        self._stopped = False
        try:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        except OSError as error:
            raise gone() from error
        self._chunk = 1 << 20 if is_file else _STREAM_BYTES
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def append(self, lines: bytes) -> None:
        rest = memoryview(lines)
        while rest:
            if self._stopped:
                raise SinkUnavailable(f"{self._name} was closed before it took everything")
            if self._poll.poll(_POLL_MS):
                rest = rest[self._write(rest[: self._chunk]) :]

    def _write(self, part: memoryview) -> int:
        try:
            return os.write(self._fd, part)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._gone() from error
        except OSError as error:
            raise _fault(error, self._name) from error

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        if self._is_ours:
            os.close(self._fd)


def open_lines(path: Path, *, starts: Sequence[bytes]) -> Lines:
    """The file, pipe or device at ``path``; a file is created. Every line will begin with one of ``starts``.

    Raises SinkError, and SinkRefused where a file ends in the middle of a line that does not begin so.
    """
    try:
        if not path.exists() or path.is_file():
            return LineFile(path, starts)
        # Without O_NONBLOCK this would wait for a pipe's reader for ever.
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _fault(error, str(path)) from error
    return LineStream(fd, str(path), gone=lambda: _no_reader(str(path)), is_ours=True)


def _write(fd: int, lines: bytes) -> None:
    rest = memoryview(lines)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _end_of_last_line(fd: int, size: int) -> int:
    end = size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _no_reader(name: str) -> SinkUnavailable:
    return SinkUnavailable(f"nobody reads the pipe {name}", hint="Start what reads it; the stream then goes on.")


def _fault(error: OSError, name: str) -> SinkError:
    if error.errno == errno.ENXIO:
        return _no_reader(name)
    kind = SinkUnavailable if disk.may_pass(error) else SinkRefused
    return kind(f"cannot write {name}: {disk.words(error)}", hint=disk.advice(error))
