"""Which operator two operands get, as PostgreSQL's parser resolves it; None where there is none we know.

Source: PostgreSQL manual, "Operator Type Resolution"; the operators are those of pg_operator.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from pgevents.condition import number
from pgevents.condition.arithmetic import computed
from pgevents.condition.cast import cast, renamed, without_blanks
from pgevents.condition.document import equal_form
from pgevents.condition.kind import (
    BOOL,
    BPCHAR,
    BYTEA,
    EQUAL_AS_PRINTED,
    FLOAT4,
    FLOAT8,
    FLOATS,
    JSONB,
    MOMENTS,
    NUMBERS,
    TEXT,
    TEXTS,
    TIME,
    UUID,
)
from pgevents.condition.term import Term, combined, mapped

TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MIRRORED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

Pair = tuple[Term, Term]


def comparable(left: Term, right: Term, is_enum: Callable[[int], bool]) -> Pair | None:
    """Both with values that Python compares for equality as PostgreSQL does."""
    one, other = left.oid, right.oid
    if one in NUMBERS and other in NUMBERS:
        return _numbers(left, right)
    if one in TEXTS and other in TEXTS:
        return _texts(left, right)
    if one in MOMENTS and other in MOMENTS:
        return left, right
    if one != other:
        return None
    if one == JSONB:
        return mapped(left, equal_form, JSONB), mapped(right, equal_form, JSONB)
    known = one in (BOOL, BYTEA, UUID, TIME) or one in EQUAL_AS_PRINTED or is_enum(one)
    return (left, right) if known else None


def is_ordered(left: Term, right: Term) -> bool:
    """Whether ``<`` of two comparable operands is PostgreSQL's too: of a text only by COLLATE "C"."""
    if left.oid in TEXTS:
        return left.ordered or right.ordered
    return left.oid in NUMBERS or left.oid in MOMENTS or left.oid in (BOOL, BYTEA, UUID, TIME)


def compare(sign: str, left: Term, right: Term) -> Term:
    """The comparison of what ``comparable`` gave."""
    if left.constant and not right.constant:
        return combined(TESTS[MIRRORED[sign]], right, left)
    return combined(TESTS[sign], left, right)


def _numbers(left: Term, right: Term) -> Pair:
    """With a float both are float8, but for two of float4; all else compares exactly."""
    if left.oid not in FLOATS and right.oid not in FLOATS:
        return left, right
    return _as_double(left), _as_double(right)


def _as_double(term: Term) -> Term:
    """float4 as it is: a float8 of the same value."""
    if term.oid in FLOATS:
        return term
    return mapped(term, lambda value: number.convert(value, term.oid, FLOAT8), FLOAT8)


def _texts(left: Term, right: Term) -> Pair:
    """A character with a text is compared as text, with character varying as character; either way without blanks."""
    kinds = {left.oid, right.oid}
    if BPCHAR not in kinds:
        return left, right
    if TEXT in kinds:
        return tuple(mapped(t, without_blanks, TEXT) if t.oid == BPCHAR else t for t in (left, right))  # type: ignore[return-value]
    return mapped(left, without_blanks, BPCHAR), mapped(right, without_blanks, BPCHAR)


def common_type(terms: Sequence[Term]) -> int | None:
    """The type of COALESCE and IN: the one the others convert to; None where there is none."""
    oids = [term.oid for term in terms]
    if all(oid in NUMBERS for oid in oids):
        return max(oids, key=NUMBERS.index)
    if all(oid in MOMENTS for oid in oids):
        return max(oids, key=MOMENTS.index)
    if all(oid in TEXTS for oid in oids):
        return oids[0]
    return oids[0] if len(set(oids)) == 1 else None


def as_type(term: Term, oid: int) -> Term:
    """``term`` as the common type; between kinds of text nothing changes but the name."""
    if term.oid == oid:
        return term
    if term.oid in TEXTS:
        return mapped(term, without_blanks, oid) if term.oid == BPCHAR else renamed(term, oid)
    converted = cast(term, oid)
    assert converted is not None, "a common type is one that the others convert to"  # noqa: S101
    return converted


def arithmetic(sign: str, left: Term, right: Term) -> Term | None:
    """The sum, product and so on of two numbers; None for anything else, and for ``%`` of floats."""
    if left.oid not in NUMBERS or right.oid not in NUMBERS:
        return None
    oid = max(left.oid, right.oid, key=NUMBERS.index)
    if oid in FLOATS:
        if sign == "%":
            return None
        oid = FLOAT4 if left.oid == right.oid == FLOAT4 else FLOAT8
    return combined(
        lambda one, other: computed(sign, one, other, oid), _as_number(left, oid), _as_number(right, oid), oid
    )


def _as_number(term: Term, oid: int) -> Term:
    return term if term.oid == oid else mapped(term, lambda value: number.convert(value, term.oid, oid), oid)
