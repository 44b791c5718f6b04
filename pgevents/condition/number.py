"""Numbers as PostgreSQL reads, prints and converts them.

Integers are ``int``, numerics ``Decimal`` with their scale, floats ``float``; NaN is one object of its own, since
PostgreSQL's is equal to itself and greater than everything. Sources: numeric.c, float.c, int.c, int8.c.
"""

import math
import re
import struct
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_UP, Context, Decimal
from functools import total_ordering
from typing import Any, Final

from pgevents.condition.error import ConditionFailed
from pgevents.condition.kind import FLOAT4, FLOAT8, INT2, INT4, INT8, NUMERIC, SPACE
from pgevents.condition.type_name import name_of

BITS = {INT2: 15, INT4: 31, INT8: 63}
EXACT = Context(prec=400_000, Emax=MAX_EMAX, Emin=MIN_EMIN, rounding=ROUND_HALF_UP, traps=[])
# numeric.c: digits before the decimal point, and behind it.
_MOST_DIGITS, MOST_SCALE = 131_072, 16_383
_EXPONENT_DIGITS = 6
# int() itself refuses a text that is longer.
_LONGEST_INTEGER = 4_000
# f2s.c and d2s.c: the exponents between which a number is printed without one.
_LEAST_PLAIN = -4
_MOST_PLAIN = {FLOAT4: 6, FLOAT8: 15}

# With a byte order given, what does not fit is an error and no infinity.
_SINGLE = struct.Struct("<f")
_GREATEST_SINGLE = 3.4028235e38
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SPECIAL = re.compile(r"nan|[+-]?inf(inity)?")


@total_ordering
class _NaN:
    """Equal to itself, greater than every number."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is self

    def __gt__(self, other: object) -> bool:
        return other is not self

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "NaN"


NAN: Final = _NaN()


def out_of_range(oid: int) -> ConditionFailed:
    return ConditionFailed(f"a value is out of range for {name_of(oid)}", sqlstate="22003")


def invalid(oid: int) -> ConditionFailed:
    return ConditionFailed(f"a text is no {name_of(oid)}", sqlstate="22P02")


def integer(value: int, oid: int) -> int:
    """``value``, or ConditionFailed where the type cannot hold it."""
    bits = BITS[oid]
    if -(1 << bits) <= value < 1 << bits:
        return value
    raise out_of_range(oid)


def numeric(value: Decimal) -> Any:
    """``value`` as a numeric, or ConditionFailed where it is too large."""
    if value.is_nan():
        return NAN
    if value.is_finite() and value and value.adjusted() >= _MOST_DIGITS:
        raise out_of_range(NUMERIC)
    return value


def single(value: Any) -> Any:
    """A float rounded to float4. ConditionFailed where nothing is left of it, or it becomes infinite."""
    if value is NAN or math.isinf(value):
        return value
    try:
        (rounded,) = _SINGLE.unpack(_SINGLE.pack(value))
    except OverflowError:
        raise out_of_range(FLOAT4) from None
    if rounded == 0.0 and value != 0.0:
        raise out_of_range(FLOAT4)
    return rounded


def parse(text: str, oid: int) -> Any:
    """What the type's input function makes of ``text``. Raises ConditionFailed."""
    text = text.strip(SPACE)
    if oid in BITS:
        if not _INTEGER.fullmatch(text):
            raise invalid(oid)
        return integer(int(text), oid) if len(text) < _LONGEST_INTEGER else _too_large(oid)
    if _SPECIAL.fullmatch(text.lower()):
        return NAN if text.lower() == "nan" else Decimal(text) if oid == NUMERIC else float(text)
    if not _NUMBER.fullmatch(text):
        raise invalid(oid)
    return _numeric_of(text) if oid == NUMERIC else float_of(text, oid)


def _too_large(oid: int) -> int:
    raise out_of_range(oid)


def _numeric_of(text: str) -> Any:
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent.lstrip("+-0")) > _EXPONENT_DIGITS:
        raise out_of_range(NUMERIC)
    value = Decimal(text)
    if not value:
        return Decimal(mantissa)
    if value.adjusted() >= _MOST_DIGITS or -int(value.as_tuple().exponent) > MOST_SCALE:
        raise out_of_range(NUMERIC)
    return EXACT.quantize(value, Decimal(1)) if int(value.as_tuple().exponent) > 0 else value


def float_of(text: str, oid: int) -> float:
    """A float from decimal digits. ConditionFailed where it becomes zero or infinite."""
    value = float(text)
    if math.isinf(value) or (value == 0.0 and any(digit in "123456789" for digit in re.split("[eE]", text)[0])):
        raise out_of_range(oid)
    found: float = value if oid == FLOAT8 else single(value)
    return found


def is_infinite(value: Any) -> bool:
    """Of any number; ``math`` would take a numeric that no float can hold for one."""
    return bool(value.is_infinite()) if isinstance(value, Decimal) else math.isinf(value)


def printed(value: Any, oid: int) -> str:
    """What the type's output function makes of it."""
    if value is NAN:
        return "NaN"
    if oid in BITS:
        return str(value)
    if is_infinite(value):
        return "Infinity" if value > 0 else "-Infinity"
    if oid == NUMERIC:
        return f"{value or abs(value):f}"
    return _float_text(value, oid)


def _float_text(value: float, oid: int) -> str:
    """The shortest digits that are this float and no other; PostgreSQL leaves the plain form early."""
    shortest = repr(value) if oid == FLOAT8 else _shortest_single(value)
    sign, digits, exponent = Decimal(shortest).as_tuple()
    text = "".join(map(str, digits)).rstrip("0") or "0"
    point = len(digits) + int(exponent) - 1 if value else 0
    minus = "-" if sign else ""
    if _LEAST_PLAIN <= point < _MOST_PLAIN[oid]:
        plain = Decimal((0, tuple(map(int, text)), point - len(text) + 1))
        return f"{minus}{plain:f}"
    fraction = f".{text[1:]}" if len(text) > 1 else ""
    return f"{minus}{text[0]}{fraction}e{'-' if point < 0 else '+'}{abs(point):02d}"


def _shortest_single(value: float) -> str:
    for precision in range(8):
        text = f"{value:.{precision}e}"
        # Rounded up, the greatest would not fit.
        if abs(float(text)) <= _GREATEST_SINGLE and _SINGLE.pack(float(text)) == _SINGLE.pack(value):
            return text
    return f"{value:.8e}"


def convert(value: Any, source: int, target: int) -> Any:
    """The value of one number type as another. Raises ConditionFailed."""
    if source == target:
        return value
    if target in BITS:
        return value if source in BITS and BITS[source] <= BITS[target] else _to_integer(value, source, target)
    if target == NUMERIC:
        return Decimal(value) if source in BITS else _float_to_numeric(value, source)
    return _to_float(value, source, target)


def _to_integer(value: Any, source: int, target: int) -> int:
    if value is NAN or is_infinite(value):
        # What PostgreSQL says of a float; of a numeric it says that it is not supported.
        raise ConditionFailed("NaN or an infinity is no integer", sqlstate="0A000" if source == NUMERIC else "22003")
    if source == NUMERIC:
        value = EXACT.quantize(value, Decimal(1))
    elif source not in BITS:
        value = round(value)
    return integer(int(value), target)


def _float_to_numeric(value: Any, source: int) -> Any:
    if value is NAN:
        return NAN
    # DBL_DIG and FLT_DIG.
    return _numeric_of(f"{value:.{15 if source == FLOAT8 else 6}g}") if math.isfinite(value) else Decimal(value)


def _to_float(value: Any, source: int, target: int) -> Any:
    if value is NAN:
        return NAN
    if source == NUMERIC:
        return float_of(str(value), target) if value.is_finite() else float(value)
    # FLOAT4 to FLOAT8 changes nothing.
    return float(value) if target == FLOAT8 else single(float(value))
