"""Windows: skip rules that a person adds while a stream runs. Kept in a file, or in a table for many hosts."""

import os
import pwd
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from pgevents.errors import ConfigError, StateRefused
from pgevents.rule import Action, SkipRule
from pgevents.rule_table import timestamp
from pgevents.rules import parse_rules
from pgevents.settings import Settings
from pgevents.spelling import nearest

# A lane's exchange and the park are opened before the stream begins.
ACTIONS = (Action.DROP, Action.SUMMARISE, Action.PUBLISH)

# The stream has only the lower 32 bits of a transaction id. A server that writes 50,000 transactions a second
# needs a day to come round to the same ones.
XID_LIFETIME = timedelta(days=1)

# A stream that stood still for a long weekend still finds the windows of what it has to read.
KEPT_OVER = timedelta(days=7)

TABLE = "postgres"
"""In the place of a file's path: windows are in a table of the streamed database."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rule with ``by`` and a name, and when it was added, ISO 8601 in UTC.

    A rule with ``xid`` also has ``until``: transaction ids come round again, and both tests must hold.
    """

    rule: SkipRule
    added_at: str

    @property
    def added_by(self) -> str:
        return self.rule.by

    def is_over(self, moment: datetime) -> bool:
        """Whether nothing that is committed from then on can match. A range of LSNs has no such time."""
        return bool(self.rule.until) and max(self.rule.until, self.added_at) <= timestamp(moment)

    def as_dict(self) -> dict[str, Any]:
        """What is set, under the keys of ``[[skip]]``."""
        rule = self.rule
        row: dict[str, Any] = {"name": rule.name, "action": str(rule.action), "reason": rule.reason, "xid": rule.xid}
        row["lsn"] = f"{rule.first}..{rule.last}" if rule.last else None
        row |= {key: getattr(rule, key) for key in ("since", "until", "exchange", "routing_key")}
        row |= {"added_by": self.added_by, "added_at": self.added_at}
        return {key: value for key, value in row.items() if value}

    def as_row(self) -> dict[str, Any]:
        """As it is kept: how long an xid is skipped follows from when it was added."""
        row = self.as_dict()
        if self.rule.xid is not None:
            del row["until"]
        return row


class Windows(Protocol):
    """Where the windows of one slot are kept; ``str()`` names it. Every method may block.

    Every method but ``fresh`` raises StateError or SourceError: StateRefused for what a person must mend.
    """

    def windows(self) -> tuple[Window, ...]:
        """In the order they were added."""
        ...

    def load(self) -> tuple[SkipRule, ...]:
        """Their rules."""
        ...

    def fresh(self) -> tuple[SkipRule, ...]:
        """For a running stream, twice a second: the rules as they are now, cheaply where nothing has changed.

        Where they cannot be read, the last that were, and a warning in the log, once for each trouble.
        """
        ...

    def add(self, rule: SkipRule) -> Window:
        """Add a window, under a name that it is given, and for an ``xid`` until a day from now.

        Returns once it would survive a crash. A rule without ``by`` is this account's. Windows that have been over
        for KEPT_OVER are left out.
        """
        ...

    def remove(self, name: str) -> Window | None:
        """Returns once it would survive a crash, None for a damaged one. Raises ConfigError for no such name."""
        ...

    def close(self) -> None: ...


def place_of(settings: Settings, config: str | None = None) -> str:
    """Where the windows of the slot are: TABLE, or a file beside its watermark, else beside ``config``."""
    if settings.state == "postgres":
        return TABLE
    if settings.state in ("none", ""):
        return str(Path(config or "").parent / f"pgevents-{settings.slot}.skips.json")
    state = Path(settings.state.removeprefix("file:"))
    return str(state.with_name(f"{state.name.removesuffix('.json').removesuffix('.state')}.skips.json"))


def windows_of(rows: Any, place: str, *, hint: str) -> tuple[Window, ...]:
    """The windows in rows as ``as_row`` gives them. Raises StateRefused for rows that hold none."""
    try:
        persons = [(row.pop("added_by"), row.pop("added_at")) for row in rows]
        rules = parse_rules({"skip": rows}, place).skip
        return tuple(window_of(rule, *person) for rule, person in zip(rules, persons, strict=True))
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError, ConfigError) as error:
        what = str(error) if isinstance(error, ConfigError) else f"{place} does not hold windows"
        raise StateRefused(what, hint=hint) from error


def window_of(rule: SkipRule, added_by: str, added_at: str) -> Window:
    """Raises ValueError for what is no window."""
    if not (rule.is_window and rule.action in ACTIONS and isinstance(added_by, str)):
        raise ValueError
    moment = datetime.fromisoformat(added_at)
    if rule.xid is not None:
        rule = replace(rule, until=timestamp(moment + XID_LIFETIME))
    return Window(replace(rule, by=added_by), timestamp(moment))


def kept(windows: Iterable[Window], now: datetime | None = None) -> tuple[Window, ...]:
    """Those that have not been over for KEPT_OVER."""
    moment = (now or datetime.now(UTC)) - KEPT_OVER
    return tuple(window for window in windows if not window.is_over(moment))


def new_name(taken: Iterable[str]) -> str:
    names = set(taken)
    while (name := f"window-{secrets.token_hex(2)}") in names:
        pass
    return name


def unknown(name: str, windows: Iterable[Window], place: str) -> ConfigError:
    """What is said of a name that no window has."""
    rules = [window.rule for window in windows]
    of_xid = [rule.name for rule in rules if str(rule.xid) == name]
    if of_xid:
        hint = f"xid {name} is skipped by {' and '.join(of_xid)}."
    else:
        hint = nearest(name, [rule.name for rule in rules])
    if not hint:
        hint = (
            "pgevents skip list shows them." if rules else "There are none. Are --config, --slot and --state right?"
        )
    return ConfigError(f"there is no window {name} in {place}", hint=hint)


def person() -> str:
    """Who runs this, as user@host."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under an id that has no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"
