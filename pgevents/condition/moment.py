"""Dates and times as numbers: microseconds since 2000-01-01 UTC, or since midnight; infinities are floats.

Reads what PostgreSQL prints with DateStyle ISO and the time zone UTC. What PostgreSQL reads besides (``Jan 5``,
``yesterday``) depends on settings or the clock, and is refused.
"""

import re
from calendar import monthrange
from datetime import datetime
from typing import Any

from pgevents.condition.error import ConditionFailed
from pgevents.condition.kind import DATE, SPACE, TIME, TIMESTAMP, TIMESTAMPTZ
from pgevents.condition.type_name import name_of

_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001  # every time here is in UTC
DAY_US = 86_400_000_000
_INFINITIES = {"infinity": float("inf"), "-infinity": float("-inf")}

_CLOCK = r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?"
_TIME = re.compile(_CLOCK, re.ASCII)
_MOMENT = re.compile(rf"(\d{{4,7}})-(\d\d)-(\d\d)(?:[T ]{_CLOCK}(?: ?(Z|[+-]\d\d(?::?\d\d)?))?)?( BC)?", re.ASCII)
# 4714-11-24 BC, and the first day behind each type's last.
_FIRST_DAY = -2_451_545
_BEHIND = {DATE: 2_145_031_949, TIMESTAMP: 106_751_983, TIMESTAMPTZ: 106_751_983}


def parse(text: str, oid: int) -> Any:
    """The number of a date, timestamp, timestamptz or time in ISO 8601. Raises ConditionFailed."""
    text = text.strip(SPACE)
    word = text.lower()
    if oid == TIME:
        match = _TIME.fullmatch(word)
        return _clock(match[1], match[2], match[3], match[4], oid) if match else _no(oid)
    if word in _INFINITIES:
        return _INFINITIES[word]
    match = _MOMENT.fullmatch(text)
    if not match or (oid == DATE and match[4]):
        return _no(oid)
    return _moment(match, oid)


def read(text: str, oid: int) -> Any:
    """As ``parse`` of what PostgreSQL printed for a date or timestamp, and faster for years of four digits."""
    if text[4] != "-" or (oid == TIMESTAMPTZ and not text.endswith("+00")):
        return parse(text, oid)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return parse(text, oid)
    since = moment.replace(tzinfo=None) - _EPOCH
    return since.days * DAY_US + since.seconds * 1_000_000 + since.microseconds


def _moment(match: re.Match[str], oid: int) -> int:
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    if not (year and 1 <= month <= 12):  # noqa: PLR2004
        return _no(oid)
    year = 1 - year if match[9] else year
    if not 1 <= day <= monthrange(2000 + year % 400, month)[1]:
        return _no(oid)
    days = _days(year, month, day)
    moment = days * DAY_US + (_clock(match[4], match[5], match[6], match[7], oid) if match[4] else 0)
    if oid == TIMESTAMPTZ and match[8]:
        moment -= _offset(match[8])
    if not _FIRST_DAY * DAY_US <= moment < _BEHIND[oid] * DAY_US:
        raise ConditionFailed(f"a {name_of(oid)} is out of range", sqlstate="22008")
    return moment


def _no(oid: int) -> int:
    raise ConditionFailed(f"a text is no {name_of(oid)} in ISO 8601", sqlstate="22007")


def _days(year: int, month: int, day: int) -> int:
    """Days since 2000-01-01 in the Gregorian calendar, also before its time; year 0 is 1 BC."""
    shifted = year - (month <= 2)  # noqa: PLR2004
    era, of_era = divmod(shifted, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 730_425


def _clock(hours: str, minutes: str, seconds: str | None, fraction: str | None, oid: int) -> int:
    whole = (int(hours), int(minutes), int(seconds or 0))
    micros = (whole[0] * 3600 + whole[1] * 60 + whole[2]) * 1_000_000 + int((fraction or "").ljust(6, "0"))
    if whole[0] > 24 or whole[1] > 59 or whole[2] > 59 or micros > DAY_US:  # noqa: PLR2004
        return _no(oid)
    return micros


def _offset(text: str) -> int:
    if text == "Z":
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return (-seconds if text[0] == "-" else seconds) * 1_000_000


def convert(value: Any, target: int) -> Any:
    """A date or timestamp as another such type, in UTC. Raises ConditionFailed."""
    if isinstance(value, float):
        return value
    if target == DATE:
        return value // DAY_US * DAY_US
    if value >= _BEHIND[target] * DAY_US:
        raise ConditionFailed("a date is out of range for a timestamp", sqlstate="22008")
    return value


def clock_of(value: Any) -> Any:
    """The time of day of a timestamp; NULL where it is infinite."""
    return None if isinstance(value, float) else value % DAY_US
