"""Windows in a table of the streamed database, for several hosts that may stream from one slot."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from shlex import quote
from typing import Any

import orjson

from pgevents.errors import PGEventsError, PrivilegeError, SourceError, SourceUnavailable, StateError, StateRefused
from pgevents.postgres import Sql
from pgevents.rule import SkipRule
from pgevents.window import Window, kept, new_name, person, unknown, unusable, window_in, window_of

logger = logging.getLogger(__name__)

NAME = "pgevents.skip_window"
MIGRATION = "0003_skip_window.sql"

# A stream asks twice a second. A server that does not answer is left alone for a moment, and never waited for long.
ANSWER_TIMEOUT_S = 5.0
PAUSE_S = 1.0

_EXISTS = f"select pg_catalog.to_regclass('{NAME}') is not null"
_AT = "pg_catalog.to_char({} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
_LOAD = f"select name, rule::text, added_by, {_AT.format('added_at')} from {NAME} where slot = %s order by number"
_ADD = f"""
insert into {NAME} (slot, name, rule, added_by, added_at)
values (%s, %s, %s::jsonb, %s, %s::timestamptz) on conflict do nothing returning 1
"""
_NOW = f"select {_AT.format('pg_catalog.clock_timestamp()')}"
_REMOVE = f"delete from {NAME} where slot = %s and name = any (%s) returning name"

_OTHER_SHAPE = "Drop the table, or rename it, and run that script: a window that it held is then to be added again."
_RIGHTS = (
    f"As the table's owner grant the role USAGE on the schema, and SELECT, INSERT and DELETE on {NAME}; "
    "deploy/sql/role.sql does it."
)

Row = tuple[str, str, str, str]
"""Name, rule as JSON, who added it, and when."""


class WindowTable:
    """The rows of ``pgevents.skip_window`` that are the slot's, on one connection that is opened when it is needed.

    Every method raises SourceError as well.
    """

    def __init__(self, dsn: str, slot: str) -> None:
        # A commit must be on disk when it returns, whatever the role's or the database's default is.
        settings = {"synchronous_commit": "on", "lock_timeout": "4s"}
        self._sql = Sql(dsn, settings=settings, answer_timeout_s=ANSWER_TIMEOUT_S)
        self._slot = slot
        self._asking = threading.Lock()
        self._has_table = False
        self._seen: list[Row] | None = None
        self._rules: tuple[SkipRule, ...] = ()
        self._is_lost = False
        self._not_before = 0.0

    def load(self) -> tuple[SkipRule, ...]:
        """The rules in the order they were added, none where there is no table. Raises StateError."""
        with self._asking:
            return self._load()

    def windows(self) -> tuple[Window, ...]:
        """The rules with when they were added. Raises StateError: StateRefused where a row is damaged."""
        with self._asking:
            return _read(self._rows())

    def fresh(self) -> tuple[SkipRule, ...]:
        """For a running stream: the rules as they are now.

        Where they cannot be read, or a question still hangs, those that were read last; one warning in the log for
        each time that the table is lost. The stream's own connection is what tells that the server is gone.
        """
        if time.monotonic() < self._not_before or not self._asking.acquire(blocking=False):
            return self._rules
        try:
            return self._load_again()
        except (StateError, SourceError) as error:
            self._not_before = time.monotonic() + PAUSE_S
            self._warn(error)
            return self._rules
        finally:
            self._asking.release()

    def add(self, rule: SkipRule) -> Window:
        """Add a window, by the clock of the server, whose commits it is about. Makes the table where it is missing.

        Raises StateError: StateRefused where the role may not.
        """
        with self._asking, _refusal_explained():
            rows = self._rows()
            self._create()
            self._prune(rows)
            now = self._sql.rows(_NOW)[0][0]
            while True:
                name = new_name(name for name, *_ in rows)
                window = window_of(replace(rule, name=name), rule.by or person(), now)
                if self._sql.rows(_ADD, self._slot, name, _rule_text(window), window.added_by, now):
                    return window

    def remove(self, name: str) -> Window | None:
        """Returns once it would survive a crash. Raises ConfigError for an unknown name, else StateError."""
        with self._asking, _refusal_explained():
            rows = self._rows()
            found = [row for row in rows if row[0] == name]
            if not found or not self._sql.rows(_REMOVE, self._slot, [name]):
                windows, damaged = _parted(rows)
                raise unknown(name, windows, str(self), damaged=damaged)
        return next(iter(_parted(found)[0]), None)

    def close(self) -> None:
        """Waits for nothing: a question that hangs ends by its own time-out."""
        if self._asking.acquire(blocking=False):
            try:
                self._sql.close()
            finally:
                self._asking.release()

    def __str__(self) -> str:
        return f"table {NAME}"

    def _load_again(self) -> tuple[SkipRule, ...]:
        """On a new connection where the server has ended the one that was idle meanwhile."""
        try:
            return self._load()
        except SourceUnavailable:
            return self._load()

    def _load(self) -> tuple[SkipRule, ...]:
        rows = self._rows()
        if rows != self._seen:
            self._rules = tuple(window.rule for window in _read(rows))
            self._seen = rows
        self._is_lost = False
        return self._rules

    def _rows(self) -> list[Row]:
        with _refusal_explained(self._forget):
            if not self._has_table:
                self._has_table = bool(self._sql.rows(_EXISTS)[0][0])
            return [tuple(row) for row in self._sql.rows(_LOAD, self._slot)] if self._has_table else []

    def _forget(self) -> None:
        """Whether there is a table is asked anew."""
        self._has_table = False

    def _warn(self, error: PGEventsError) -> None:
        if not self._is_lost:
            self._is_lost = True
            logger.warning("kept the windows as they were", extra={"reason": str(error), "hint": error.hint})

    def _prune(self, rows: list[Row]) -> None:
        windows, _ = _parted(rows)
        over = {window.rule.name for window in windows} - {window.rule.name for window in kept(windows)}
        if over:
            self._sql.rows(_REMOVE, self._slot, sorted(over))

    def _create(self) -> None:
        if self._has_table:
            return
        try:
            self._sql.run(files("pgevents.migrations").joinpath(MIGRATION).read_text("utf-8"))
        except PrivilegeError as error:
            raise StateRefused(
                f"there is no table {NAME}, and the role may not create it: {error}",
                hint=f"As the database's owner run migrations/{MIGRATION} and grant the role USAGE on the schema and "
                "SELECT, INSERT and DELETE on the table; deploy/sql/role.sql does all of it.",
            ) from error
        self._has_table = True


@contextmanager
def _refusal_explained(on_error: Callable[[], None] = lambda: None) -> Iterator[None]:
    try:
        yield
    except PGEventsError as error:
        on_error()
        if type(error) is SourceError:  # such as a column that is not there
            raise StateRefused(
                f"table {NAME} is not that of migrations/{MIGRATION}: {error}", hint=_OTHER_SHAPE
            ) from error
        if not isinstance(error, PrivilegeError):
            raise
        raise StateRefused(f"the role may not use the windows in table {NAME}: {error}", hint=_RIGHTS) from error


def _rule_text(window: Window) -> str:
    row: dict[str, Any] = window.as_row()
    for key in ("name", "added_by", "added_at"):
        del row[key]
    return orjson.dumps(row).decode()


def _read(rows: list[Row]) -> tuple[Window, ...]:
    return tuple(_window(*row) for row in rows)


def _window(name: str, rule: str, added_by: str, added_at: str) -> Window:
    place, hint = f"table {NAME}", f"Remove it with pgevents skip remove {quote(name)}, or correct its row."
    try:
        row = orjson.loads(rule)
    except ValueError as error:  # jsonb holds what orjson does not read, such as 1e400
        raise unusable(name, place, "its JSON cannot be read", hint=hint) from error
    if isinstance(row, dict):
        row |= {"name": name, "added_by": added_by, "added_at": added_at}
    return window_in(row, place, called=name, hint=hint)


def _parted(rows: list[Row]) -> tuple[list[Window], list[str]]:
    """The windows, and the names of those that are damaged, which must not hide the others."""
    windows: list[Window] = []
    damaged: list[str] = []
    for row in rows:
        try:
            windows.append(_window(*row))
        except StateRefused:
            damaged.append(row[0])
    return windows, damaged
