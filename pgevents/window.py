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
from pgevents.rule_mistake import Mistakes
from pgevents.rule_mistake import place as position
from pgevents.rule_table import LONGEST_NAME, timestamp
from pgevents.rules import parse_rules
from pgevents.settings import Settings
from pgevents.spelling import nearest, some

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


def window_in(row: Any, place: str, *, called: object, hint: str) -> Window:
    """The window in a row as ``as_row`` gives it. Raises StateRefused, which calls it ``called``."""
    try:
        return _window_in(row)
    except ConfigError as error:
        raise unusable(called, place, str(error), hint=hint) from error


def _window_in(row: Any) -> Window:
    if not isinstance(row, dict):
        raise ConfigError("it is no rule")
    name = row.get("name")
    if not (isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()):
        raise ConfigError(f"name: it must be printable text of 1 to {LONGEST_NAME} characters")
    rule = _rule_in({key: value for key, value in row.items() if key not in ("name", "added_by", "added_at")})
    return window_of(replace(rule, name=name), row.get("added_by"), row.get("added_at"))


def _rule_in(row: dict[str, Any]) -> SkipRule:
    try:
        (rule,) = parse_rules({"skip": [row]}, "").skip
    except ConfigError as error:
        first = error.mistakes[0] if isinstance(error, Mistakes) else error
        # Where it stands in a configuration is left out: it stands in none.
        raise ConfigError(str(first).partition(f"{position('skip', 'skip 1')}: ")[2]) from error
    return rule


def unusable(called: object, place: str, what: str, *, hint: str) -> StateRefused:
    """What is said of a window that is damaged."""
    return StateRefused(f"window {called} in {place} cannot be used: {what}", hint=hint)


def window_of(rule: SkipRule, added_by: Any, added_at: Any) -> Window:
    """Raises ConfigError, which names the key, for what is no window."""
    if not rule.is_window:
        raise ConfigError("it is not for an xid, for LSNs or for a time")
    if rule.action not in ACTIONS:
        raise ConfigError(f"action: {rule.action} is none of {', '.join(ACTIONS)}")
    if not isinstance(added_by, str):
        raise ConfigError("added_by: it must be text")
    try:
        moment = datetime.fromisoformat(added_at)
        if rule.xid is not None:
            rule = replace(rule, until=timestamp(moment + XID_LIFETIME))
        return Window(replace(rule, by=added_by), timestamp(moment))
    except (OverflowError, TypeError, ValueError) as error:
        raise ConfigError("added_at: it must be a time") from error


def kept(windows: Iterable[Window], now: datetime | None = None) -> tuple[Window, ...]:
    """Those that have not been over for KEPT_OVER."""
    moment = (now or datetime.now(UTC)) - KEPT_OVER
    return tuple(window for window in windows if not window.is_over(moment))


def new_name(taken: Iterable[str]) -> str:
    names = set(taken)
    while (name := f"window-{secrets.token_hex(2)}") in names:
        pass
    return name


def unknown(name: str, windows: Iterable[Window], place: str, *, damaged: Iterable[str] = ()) -> ConfigError:
    """What is said of a name that no window has, ``damaged`` being the names of those that cannot be used."""
    rules, names = [window.rule for window in windows], list(damaged)
    of_xid = [rule.name for rule in rules if str(rule.xid) == name]
    if of_xid:
        hint = f"xid {name} is skipped by {' and '.join(of_xid)}."
    else:
        hint = nearest(name, [*(rule.name for rule in rules), *names])
    if not hint and names:
        hint = f"Damaged, and to be removed: {some(names)}."
    elif not hint:
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
