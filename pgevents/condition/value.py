"""Values of the types a condition knows: from what a plug-in printed, from a literal, and to text.

A type that is not here has no value of its own: its text is compared as it is.
"""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from pgevents.condition import moment, number
from pgevents.condition.error import ConditionFailed
from pgevents.condition.kind import (
    BOOL,
    BYTEA,
    DATE,
    FLOAT4,
    FLOAT8,
    INT2,
    INT4,
    INT8,
    MOMENTS,
    NUMBERS,
    NUMERIC,
    OID,
    SPACE,
    TEXTS,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
)
from pgevents.condition.type_name import name_of

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_UUID = re.compile(r"(\{)?((?:[0-9a-f]{4}-?){7}[0-9a-f]{4})(?(1)\})")


def _boolean(raw: Any) -> bool:
    """wal2json gives booleans; PostgreSQL prints ``t``."""
    return raw is True or raw == "t"


def _numeric(raw: str) -> Any:
    return number.NAN if raw == "NaN" else Decimal(raw)


def _double(raw: Any) -> Any:
    value = float(raw)
    return number.NAN if math.isnan(value) else value


def _single(raw: Any) -> Any:
    return number.single(_double(raw))


def _bytes(raw: str) -> bytes:
    """wal2json leaves out the mark of hex."""
    return bytes.fromhex(raw.removeprefix("\\x"))


def _of_moment(oid: int) -> Callable[[Any], Any]:
    convert = moment.parse if oid == TIME else moment.read
    return lambda raw: convert(raw, oid)


DECODERS: dict[int, Callable[[Any], Any]] = {
    BOOL: _boolean,
    INT2: int,
    INT4: int,
    INT8: int,
    NUMERIC: _numeric,
    FLOAT4: _single,
    FLOAT8: _double,
    BYTEA: _bytes,
    # wal2json prints it as a number, but one of a domain as text.
    OID: str,
    **{oid: _of_moment(oid) for oid in (DATE, TIME, TIMESTAMP, TIMESTAMPTZ)},
}
"""From what a plug-in printed, never None; without an entry, that is the value."""


def parse(text: str, oid: int) -> Any:
    """What the type's input function makes of ``text``. Raises ConditionFailed."""
    if oid in NUMBERS:
        return number.parse(text, oid)
    if oid in MOMENTS or oid == TIME:
        return moment.parse(text, oid)
    if oid in TEXTS:
        return text
    return _PARSERS[oid](text)


def _parse_boolean(text: str) -> bool:
    """Any beginning that fits one word only."""
    word = text.strip(SPACE).lower()
    fitting = {value for name, value in _WORDS.items() if word and name.startswith(word)}
    if len(fitting) != 1:
        raise number.invalid(BOOL)
    return fitting.pop()


def _parse_uuid(text: str) -> str:
    match = _UUID.fullmatch(text.lower())
    if not match:
        raise number.invalid(UUID)
    digits = match[2].replace("-", "")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _parse_bytes(text: str) -> bytes:
    if text.startswith("\\x"):
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            raise number.invalid(BYTEA) from None
    if "\\" in text:
        raise ConditionFailed(f"a text is no {name_of(BYTEA)} in hex", sqlstate="22P02")
    return text.encode()


_PARSERS: dict[int, Callable[[str], Any]] = {BOOL: _parse_boolean, UUID: _parse_uuid, BYTEA: _parse_bytes}

LITERALS = frozenset({*NUMBERS, *MOMENTS, TIME, *TEXTS, *_PARSERS})
"""The types that ``parse`` reads."""


def printed(value: Any, oid: int) -> str:
    """The text a cast makes of a value. KeyError for a type whose text is not known from its value."""
    if oid in NUMBERS:
        return number.printed(value, oid)
    return PRINTED[oid](value)


PRINTED: dict[int, Callable[[Any], str]] = {
    BOOL: lambda value: "true" if value else "false",
    BYTEA: lambda value: "\\x" + value.hex(),
    OID: str,
}
"""The text a cast makes of a value."""
