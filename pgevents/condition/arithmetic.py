"""Sums, products and quotients as PostgreSQL computes them. Sources: numeric.c, float.c, int.c, int8.c."""

import math
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from typing import Any

from pgevents.condition.error import ConditionFailed
from pgevents.condition.kind import FLOAT8, NUMERIC
from pgevents.condition.number import BITS, EXACT, MOST_SCALE, NAN, integer, numeric, out_of_range, single

# numeric.c: significant digits of a quotient, and digits behind its decimal point.
_LEAST_DIGITS, _QUOTIENT_SCALE = 16, 1000


def negated(value: Any, oid: int) -> Any:
    if value is NAN:
        return NAN
    if oid in BITS:
        return integer(-value, oid)
    return value.copy_negate() if oid == NUMERIC and value else -value


def absolute(value: Any, oid: int) -> Any:
    if value is NAN:
        return NAN
    return integer(abs(value), oid) if oid in BITS else value.copy_abs() if oid == NUMERIC else abs(value)


def computed(sign: str, left: Any, right: Any, oid: int) -> Any:
    """``left sign right``, both of this type. Raises ConditionFailed as PostgreSQL would."""
    if oid in BITS:
        return _integers(sign, left, right, oid)
    if left is NAN or right is NAN:
        return NAN
    return _numerics(sign, left, right) if oid == NUMERIC else _floats(sign, left, right, oid)


def _division_by_zero() -> ConditionFailed:
    return ConditionFailed("division by zero", sqlstate="22012")


def _integers(sign: str, left: int, right: int, oid: int) -> int:
    match sign:
        case "+":
            return integer(left + right, oid)
        case "-":
            return integer(left - right, oid)
        case "*":
            return integer(left * right, oid)
    if not right:
        raise _division_by_zero()
    quotient = abs(left) // abs(right)
    quotient = quotient if (left < 0) == (right < 0) else -quotient
    return integer(quotient, oid) if sign == "/" else left - quotient * right


def _numerics(sign: str, left: Decimal, right: Decimal) -> Any:
    match sign:
        case "+":
            return numeric(EXACT.add(left, right))
        case "-":
            return numeric(EXACT.subtract(left, right))
        case "*":
            return numeric(_rounded(EXACT.multiply(left, right)))
    if not right:
        # numeric_div_opt_error: NaN first, then infinities, and only then zero.
        raise _division_by_zero()
    if not (left.is_finite() and right.is_finite()):
        return _infinite_quotient(sign, left, right)
    return numeric(_quotient(left, right)) if sign == "/" else EXACT.remainder(left, right)


def _rounded(value: Decimal) -> Decimal:
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > MOST_SCALE:
        return EXACT.quantize(value, Decimal((0, (1,), -MOST_SCALE)))
    return value


def _infinite_quotient(sign: str, left: Decimal, right: Decimal) -> Any:
    if left.is_infinite():
        return NAN if right.is_infinite() or sign == "%" else left if right > 0 else left.copy_negate()
    return Decimal(0) if sign == "/" else left


def _quotient(left: Decimal, right: Decimal) -> Decimal:
    """numeric.c, select_div_scale: at least 16 significant digits, counted in groups of four."""
    weight_left, first_left = _first_group(left)
    weight_right, first_right = _first_group(right)
    weight = weight_left - weight_right - (first_left <= first_right)
    scale = max(_LEAST_DIGITS - weight * 4, _scale(left), _scale(right), 0)
    scale = min(scale, _QUOTIENT_SCALE)
    # Rounded once: to more digits than are kept, and away from a tie that is none.
    wide = Context(prec=max(left.adjusted() - right.adjusted(), 0) + scale + 30, rounding="ROUND_05UP", traps=[])
    wide.Emax, wide.Emin = MAX_EMAX, MIN_EMIN
    return EXACT.quantize(wide.divide(left, right), Decimal((0, (1,), -scale)))


def _first_group(value: Decimal) -> tuple[int, int]:
    """Weight and value of the first group of four decimal digits; zero has neither."""
    if not value:
        return 0, 0
    weight = value.adjusted() // 4
    return weight, int(abs(value).scaleb(-weight * 4, EXACT))


def _scale(value: Decimal) -> int:
    return max(-int(value.as_tuple().exponent), 0)


def _floats(sign: str, left: float, right: float, oid: int) -> Any:
    """float.c: an infinity out of finite numbers, or zero out of others, is an error."""
    if sign == "/" and right == 0.0:
        raise _division_by_zero()
    value = left + right if sign == "+" else left - right if sign == "-" else _times(sign, left, right)
    if math.isnan(value):
        return NAN
    if math.isinf(value) and not (math.isinf(left) or math.isinf(right)):
        raise out_of_range(oid)
    if value == 0.0 and sign in "*/" and left != 0.0 and (sign == "/" or right != 0.0) and not math.isinf(right):
        raise out_of_range(oid)
    return value if oid == FLOAT8 else _single_sum(value, sign)


def _times(sign: str, left: float, right: float) -> float:
    return left * right if sign == "*" else left / right


def _single_sum(value: float, sign: str) -> Any:
    """Only a product or quotient can underflow: a sum of floats that small is exact."""
    return value if value == 0.0 and sign in "+-" else single(value)
