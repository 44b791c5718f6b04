"""Windows in a file, for streams of one host.

The file is replaced as a whole and synced, so that a reader needs no lock. Those who change it wait for each other.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from pgevents import disk
from pgevents.errors import StateError, StateRefused, StateUnavailable
from pgevents.rule import SkipRule
from pgevents.rule_table import timestamp
from pgevents.window import Window, kept, new_name, person, unknown, unusable, window_in, window_of

logger = logging.getLogger(__name__)

VERSION = 1

_HINT = "Restore the file, or move it away and add the windows again."
_NEVER = object()


class WindowFile:
    """The windows of one slot. Every method but ``changed`` may block for as long as the disk does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: object = _NEVER
        self._rules: tuple[SkipRule, ...] = ()

    def load(self) -> tuple[SkipRule, ...]:
        """The rules in the order they were added, none where there is no file. Raises StateError."""
        self._rules = tuple(window.rule for window in self.windows())
        return self._rules

    def windows(self) -> tuple[Window, ...]:
        """The rules with when they were added. Raises StateError: StateRefused where the file is damaged."""
        try:
            if self.path.exists() and not self.path.is_file():
                raise StateRefused(f"{self.path} is no regular file", hint="Move it away: windows are kept there.")
            with self.path.open("rb") as file:
                self._seen = _signature(os.fstat(file.fileno()))
                text = file.read()
        except FileNotFoundError:
            self._seen = None
            return ()
        except OSError as error:
            self._seen = error.errno
            raise _fault(error, "read", self.path) from error
        return _read(text, self.path)

    def changed(self) -> bool:
        """Whether the file is another one than was last read. Costs one ``stat``."""
        return self._seen != self._look()

    def fresh(self) -> tuple[SkipRule, ...]:
        """For a running stream: the rules as they are, the file being read only where it has changed.

        Where it cannot be read, the rules that were read last, and one warning in the log for each change.
        """
        try:
            return self.load() if self.changed() else self._rules
        except StateError as error:
            self._seen = self._look()
            logger.warning("kept the windows as they were", extra={"reason": str(error), "hint": error.hint})
            return self._rules

    def add(self, rule: SkipRule, *, now: datetime | None = None) -> Window:
        """Add a window. Returns once it would survive a crash. Raises StateError."""
        moment = now or datetime.now(UTC)
        with self._changing() as change:
            before = kept(self.windows(), moment)
            rule = replace(rule, name=new_name(window.rule.name for window in before))
            window = window_of(rule, rule.by or person(), timestamp(moment))
            change((*before, window))
        return window

    def remove(self, name: str) -> Window:
        """Returns once it would survive a crash. Raises ConfigError for an unknown name, else StateError."""
        with self._changing() as change:
            windows = {window.rule.name: window for window in self.windows()}
            if name not in windows:
                raise unknown(name, windows.values(), str(self))
            removed = windows.pop(name)
            change(kept(windows.values()))
        return removed

    def close(self) -> None:
        """Nothing is held open."""

    def __str__(self) -> str:
        return str(self.path)

    def _look(self) -> object:
        try:
            return _signature(self.path.stat())
        except FileNotFoundError:
            return None
        except OSError as error:
            return error.errno

    @contextmanager
    def _changing(self) -> Iterator[Callable[[tuple[Window, ...]], None]]:
        """Alone with the file. The lock is on a file beside it, because the file itself is replaced."""
        try:
            with self.path.with_name(f".{self.path.name}.lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield self._replace
        except OSError as error:
            raise _fault(error, "keep", self.path) from error

    def _replace(self, windows: tuple[Window, ...]) -> None:
        document = {"version": VERSION, "windows": [window.as_row() for window in windows]}
        disk.replace(self.path, orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _read(text: bytes, path: Path) -> tuple[Window, ...]:
    try:
        document = orjson.loads(text)
        version, rows = document["version"], document.get("windows")
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise StateRefused(f"{path} does not hold windows", hint=_HINT) from error
    if version != VERSION:
        raise StateRefused(
            f"{path} holds windows of version {version}, and this PGEvents reads version {VERSION}",
            hint="Use the PGEvents that wrote it, or a newer one.",
        )
    return _windows(rows, path)


def _windows(rows: Any, path: Path) -> tuple[Window, ...]:
    if not isinstance(rows, list):
        raise StateRefused(f"{path} does not hold windows", hint=_HINT)
    windows: dict[str, Window] = {}
    for number, row in enumerate(rows, 1):
        called = (isinstance(row, dict) and row.get("name")) or number
        window = window_in(row, str(path), called=called, hint=_HINT)
        if window.rule.name in windows:
            raise unusable(called, str(path), "name: another one has it", hint=_HINT)
        windows[window.rule.name] = window
    return tuple(windows.values())


def _fault(error: OSError, verb: str, path: Path) -> StateError:
    kind = StateUnavailable if disk.may_pass(error) else StateRefused
    return kind(f"cannot {verb} the windows in {path}: {disk.words(error)}", hint=disk.advice(error))
