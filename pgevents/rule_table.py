"""One table of the configuration file, read key by key; what is wrong is said with the place where it stands."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

from pgevents.errors import ConfigError
from pgevents.filters import TableFilter
from pgevents.mask import mask_value
from pgevents.rule_mistake import place, refuse
from pgevents.spelling import nearest

T = TypeVar("T")

LONGEST_NAME = 100
_EMPTY = {
    "tables": 'Leave it out for a rule about every table, or name some, as in ["public.orders"].',
    "operations": "Leave it out for a rule about all of them.",
}
_MILLISECOND_S = 0.001
_AT_ONCE = "With 0 the broker drops what it cannot hand to a consumer at once."
SHORTSTR_BYTES = 255
"""The longest name of an exchange or a header, and the longest routing key, of AMQP 0-9-1."""


class KeyMistake(ConfigError):
    """What is wrong with the key ``key`` of a rule; ``key`` is empty where that is not one key's fault."""

    def __init__(self, message: str, *, hint: str, key: str) -> None:
        super().__init__(message, hint=hint)
        self.key = key


class RuleTable:
    """One ``[[kind]]`` of the file; ``position`` counts from 1.

    Every method raises KeyMistake for what cannot be.
    """

    def __init__(self, file: str, kind: str, position: int, given: Any) -> None:
        self.name = f"{kind} {position}"
        self._file, self._kind = file, kind
        if not isinstance(given, dict):
            raise self._mistake("", "it must be a table", f"Write [[{kind}]] and its keys below it.")
        self._given = dict(given)
        self._keys = frozenset(given)
        if "name" in given:
            self.name = self._checked_name()

    def __contains__(self, key: str) -> bool:
        """Whether the file gives the key, be it wrong."""
        return key in self._keys

    def forget(self, key: str) -> bool:
        """Read the key as if it were left out from here on, to see what else is wrong; False if it is so already."""
        if key not in self._given:
            return False
        del self._given[key]
        return True

    def wrong(self, key: str, what: str, *, hint: str = "") -> KeyMistake:
        return self._mistake(f"{key}: ", what, hint, key=key.partition(".")[0])

    def _mistake(self, where: str, what: str, hint: str, *, key: str = "") -> KeyMistake:
        message = f"{self._file} {place(self._kind, self.name)}: {where}{what}"
        return KeyMistake(message, hint=hint, key=key)

    def refuse_unknown(self, known: Iterable[str]) -> None:
        keys = ("name", *known)
        for key in self._given:
            if key not in keys:
                hint = nearest(key, keys) or f"The keys are {', '.join(keys)}."
                raise self.wrong(shown(key), "there is no such key", hint=hint)

    def text(self, key: str, default: str = "", *, longest: int = 0) -> str:
        """Text that is not empty, of at most ``longest`` bytes where that is not 0."""
        value = self._given.get(key, default)
        if not isinstance(value, str) or (key in self._given and not value):
            raise self.wrong(key, "it must be text that is not empty")
        if longest and len(value.encode("utf-8", "replace")) > longest:
            raise self.wrong(key, f"it is longer than {longest} bytes")
        return value

    def checked(self, key: str, check: Callable[[str], T]) -> T | None:
        """What ``check`` makes of the text of the key, None where it is left out."""
        text = self.text(key)
        try:
            return check(text) if text else None
        except ConfigError as error:
            raise self.wrong(key, str(error), hint=error.hint) from error

    def switch(self, key: str) -> bool:
        value = self._given.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "it must be true or false")
        return value

    def choice(self, key: str, choices: Iterable[str], default: str) -> str:
        value = self._given.get(key, default)
        self._check_choices(key, [value], list(choices))
        return str(value)

    def choices(self, key: str, choices: Iterable[str]) -> tuple[str, ...]:
        """All of the choices where the key is left out."""
        every = tuple(choices)
        names = self.names(key) if key in self._given else every
        self._check_choices(key, names, every)
        return names

    def _check_choices(self, key: str, values: Iterable[Any], choices: Iterable[str]) -> None:
        for value in values:
            if value not in choices:
                said = shown(value) if isinstance(value, str) else "that"
                near = nearest(value, choices) if isinstance(value, str) else ""
                raise self.wrong(key, f"{said} is none of {', '.join(choices)}", hint=near)

    def whole(self, key: str, lowest: int, highest: int) -> int | None:
        """A whole number; None where the key is left out."""
        if key not in self._given:
            return None
        value: int = self._given[key]
        if type(value) is not int or not lowest <= value <= highest:
            raise self.wrong(key, f"it must be a whole number from {lowest} to {highest}")
        return value

    def milliseconds(self, key: str, highest_s: int) -> int | None:
        """Of seconds, 0 or at least a millisecond; None where the key is left out."""
        if key not in self._given:
            return None
        value: float = self._given[key]
        if type(value) not in (int, float) or not 0 <= value <= highest_s:
            raise self.wrong(key, f"it must be a number of seconds from 0 to {highest_s}")
        if 0 < value < _MILLISECOND_S:
            raise self.wrong(key, "it is less than a millisecond, 0.001", hint=_AT_ONCE)
        return round(value * 1000)

    def names(self, key: str, *, may_be_empty: bool = False) -> tuple[str, ...]:
        """A list of text; empty where the key is left out."""
        value = self._given.get(key, [])
        if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
            example = "public.orders" if key.endswith("tables") else "status"
            raise self.wrong(key, f'it must be a list of text that is not empty, such as ["{example}"]')
        if key in self._given and not value and not may_be_empty:
            raise self.wrong(key, "the list is empty", hint=_EMPTY.get(key, "Leave the key out to say nothing."))
        return tuple(value)

    def tables(self) -> TableFilter:
        return TableFilter(self.names("tables"), self.names("exclude_tables", may_be_empty=True))

    def pairs(self, key: str) -> dict[str, Any]:
        """The table of this key; empty where the key is left out."""
        value = self._given.get(key, {})
        if not isinstance(value, dict) or (key in self._given and not value):
            raise self.wrong(key, "it must be a table that is not empty, such as { name = … }")
        return value

    def instant(self, key: str) -> str:
        """A time as ``Begin.committed_at`` has it: ISO 8601 in UTC, microseconds; empty where the key is left out."""
        time = _time(self._given[key]) if key in self._given else ""
        if time is None:
            raise self.wrong(key, "it must be a time with its zone, such as 2026-11-20T18:00:00Z")
        return time

    def _checked_name(self) -> str:
        name = self._given["name"]
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise self.wrong("name", f"it must be printable text of 1 to {LONGEST_NAME} characters")
        return name


def whole(table: RuleTable, read: Callable[[RuleTable], T]) -> T:
    """What ``read`` makes of a table. Raises all that is wrong with it, but for what follows from another mistake."""
    mistakes: dict[str, ConfigError] = {}
    while True:
        try:
            rule = read(table)
        except KeyMistake as mistake:
            is_of_key = table.forget(mistake.key)
            if not mistakes or (is_of_key and _FOLLOWS.get(mistake.key) not in mistakes):
                mistakes[mistake.key] = mistake
            if not is_of_key:
                break
        else:
            break
    refuse(list(mistakes.values()))
    return rule


# What is wrong with the one key may be so only because the other could not be read.
_FOLLOWS = {"ignore": "drop_unchanged", "exchange": "action", "routing_key": "action", "push_down": "action"}


def _time(value: Any) -> str | None:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(time, datetime) or time.tzinfo is None:
            return None
        return timestamp(time)
    except (ValueError, OverflowError):
        return None


def timestamp(moment: datetime) -> str:
    """As ``Begin.committed_at`` is written, so that the two compare as text. Raises OverflowError."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def shown(value: str) -> str:
    """Text as an error repeats it: a URL with a password may stand where it does not belong."""
    return repr(mask_value(value))
