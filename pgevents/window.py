"""Windows: skip rules that a person adds while a stream runs, in a file that the stream looks at.

The file is replaced as a whole and synced, so that a reader needs no lock. Those who change it wait for each other.
"""

import fcntl
import logging
import os
import pwd
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pgevents import disk
from pgevents.errors import ConfigError, StateError, StateRefused, StateUnavailable
from pgevents.rule import Action, SkipRule
from pgevents.rule_table import timestamp
from pgevents.rules import parse_rules
from pgevents.settings import Settings, nearest

logger = logging.getLogger(__name__)

VERSION = 1

# A lane's exchange and the park are opened before the stream begins.
ACTIONS = (Action.DROP, Action.SUMMARISE, Action.PUBLISH)

# The stream has only the lower 32 bits of a transaction id. A server that writes 50,000 transactions a second
# needs a day to come round to the same ones.
XID_LIFETIME = timedelta(days=1)

_NEVER = object()


@dataclass(frozen=True, slots=True)
class Window:
    """A rule, and who added it, as user@host, and when, ISO 8601 in UTC."""

    rule: SkipRule
    added_by: str
    added_at: str

    def as_dict(self) -> dict[str, Any]:
        """What is set, under the keys of ``[[skip]]``."""
        rule = self.rule
        row: dict[str, Any] = {"name": rule.name, "action": str(rule.action), "reason": rule.reason, "xid": rule.xid}
        row["lsn"] = f"{rule.first}..{rule.last}" if rule.last else None
        row |= {key: getattr(rule, key) for key in ("since", "until", "exchange", "routing_key")}
        row |= {"added_by": self.added_by, "added_at": self.added_at}
        return {key: value for key, value in row.items() if value}


class WindowFile:
    """The windows of one slot. Every method but ``changed`` may block for as long as the disk does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: object = _NEVER
        self._rules: tuple[SkipRule, ...] = ()

    def load(self) -> tuple[SkipRule, ...]:
        """The rules in the order they were added, none where there is no file. Raises StateError.

        A rule with ``xid`` also has ``until``: transaction ids come round again, and both tests must hold.
        """
        self._rules = tuple(window.rule for window in self.windows())
        return self._rules

    def windows(self) -> tuple[Window, ...]:
        """The rules with who added them. Raises StateError: StateRefused where the file is damaged."""
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

    def add(self, rule: SkipRule) -> Window:
        """Add a window, under a name that it is given, and for an ``xid`` until a day from now.

        Returns once it would survive a crash. Raises StateError.
        """
        now = datetime.now(UTC)
        with self._changing() as change:
            kept = self.windows()
            rule = replace(rule, name=_new_name({window.rule.name for window in kept}))
            window = _window(rule, _person(), timestamp(now))
            change((*kept, window))
        return window

    def remove(self, name: str) -> Window:
        """Returns once it would survive a crash. Raises ConfigError for an unknown name, else StateError."""
        with self._changing() as change:
            kept = {window.rule.name: window for window in self.windows()}
            if name not in kept:
                near = nearest(name, kept) or "pgevents skip list shows them."
                raise ConfigError(f"there is no window {name} in {self.path}", hint=near)
            removed = kept.pop(name)
            change(tuple(kept.values()))
        return removed

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
        import orjson  # every command that has settings imports this module

        document = {"version": VERSION, "windows": [_row(window) for window in windows]}
        disk.replace(self.path, orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def path_of(settings: Settings, config: str | None = None) -> Path:
    """Where the windows of the slot are: beside its watermark, else beside ``config``, the file that was read."""
    if settings.state in ("postgres", "none", ""):
        return Path(config or "").parent / f"pgevents-{settings.slot}.skips.json"
    state = Path(settings.state.removeprefix("file:"))
    return state.with_name(f"{state.name.removesuffix('.json').removesuffix('.state')}.skips.json")


def _new_name(taken: set[str]) -> str:
    while (name := f"window-{secrets.token_hex(2)}") in taken:
        pass
    return name


def _person() -> str:
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under an id that has no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _read(text: bytes, path: Path) -> tuple[Window, ...]:
    import orjson

    try:
        document = orjson.loads(text)
        if document["version"] != VERSION:
            raise StateRefused(
                f"{path} holds windows of version {document['version']}, and this PGEvents reads version {VERSION}",
                hint="Use the PGEvents that wrote it, or a newer one.",
            )
        rows = document["windows"]
        persons = [(row.pop("added_by"), row.pop("added_at")) for row in rows]
        rules = parse_rules({"skip": rows}, str(path)).skip
        return tuple(_window(rule, *person) for rule, person in zip(rules, persons, strict=True))
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError, ConfigError) as error:
        what = str(error) if isinstance(error, ConfigError) else f"{path} does not hold windows"
        raise StateRefused(what, hint="Restore the file, or move it away and add the windows again.") from error


def _window(rule: SkipRule, added_by: str, added_at: str) -> Window:
    if not (rule.is_window and rule.action in ACTIONS and isinstance(added_by, str)):
        raise ValueError
    moment = datetime.fromisoformat(added_at)
    if rule.xid is not None:
        rule = replace(rule, until=timestamp(moment + XID_LIFETIME))
    return Window(rule, added_by, timestamp(moment))


def _row(window: Window) -> dict[str, Any]:
    """As it stands in the file: how long an xid is skipped follows from when it was added."""
    row = window.as_dict()
    if window.rule.xid is not None:
        del row["until"]
    return row


def _fault(error: OSError, verb: str, path: Path) -> StateError:
    kind = StateUnavailable if disk.may_pass(error) else StateRefused
    return kind(f"cannot {verb} the windows in {path}: {disk.words(error)}", hint=disk.advice(error))
