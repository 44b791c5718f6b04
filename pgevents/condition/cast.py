"""Casts from one known type to another, as PostgreSQL makes them."""

from collections.abc import Callable
from typing import Any

from pgevents.condition import moment, number, value
from pgevents.condition.kind import (
    BOOL,
    BPCHAR,
    CIDR,
    DATE,
    INET,
    INT4,
    JSON,
    JSONB,
    MOMENTS,
    NUMBERS,
    TEXTS,
    TIME,
    UUID,
)
from pgevents.condition.term import Term, column, mapped

_FROM_TEXT = (*NUMBERS, *MOMENTS, BOOL, TIME, UUID)


def cast(term: Term, target: int) -> Term | None:
    """``term``, which is no untyped literal, as another type; None where there is no such cast, or none we know."""
    source = term.oid
    if target in TEXTS:
        return to_text(term, target) if target != source else term
    if source == target:
        return term
    function = _function(source, target)
    return mapped(term, function, target) if function else None


def _function(source: int, target: int) -> Callable[[Any], Any] | None:
    if source in TEXTS and target in _FROM_TEXT:
        return lambda text: value.parse(text, target)
    if source in NUMBERS and target in NUMBERS:
        return lambda found: number.convert(found, source, target)
    if source in MOMENTS and target in MOMENTS:
        return lambda found: moment.convert(found, target)
    if source in MOMENTS and source != DATE and target == TIME:
        return moment.clock_of
    return {(INT4, BOOL): bool, (BOOL, INT4): int}.get((source, target))


def to_text(term: Term, target: int) -> Term | None:
    """``term`` as text; None where that depends on settings, or on more than the value."""
    source = term.oid
    if source == BPCHAR:
        return mapped(term, without_blanks, target)
    if source in TEXTS or source in (JSON, JSONB, UUID):
        return renamed(term, target)
    if source in value.PRINTED or source in NUMBERS:
        return mapped(term, lambda found: value.printed(found, source), target)
    # PostgreSQL printed it so, but for inet, whose cast adds the length of the mask.
    if term.column and term.decode is value.DECODERS.get(source) and source not in (INET, CIDR):
        return column(*term.column, target, None)
    return None


def without_blanks(text: str) -> str:
    return text.rstrip(" ")


def renamed(term: Term, target: int) -> Term:
    """The same value under another type."""
    return Term(target, term.read, term.constant, term.value, term.column, term.decode, term.ordered)
