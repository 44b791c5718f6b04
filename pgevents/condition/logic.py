"""AND, OR, NOT and the tests of IS, in three-valued logic: True, False, and None for unknown."""

from collections.abc import Sequence
from typing import Any

from pgevents.condition.error import Unsent
from pgevents.condition.kind import BOOL
from pgevents.condition.term import Read, Term, constant
from pgevents.wal import Row


def junction(left: Term, right: Term, *, is_and: bool) -> Term:
    """AND, else OR. What decides alone decides, also where the other side was not sent."""
    decisive = not is_and
    for one, other in ((left, right), (right, left)):
        # PostgreSQL folds constants before it looks at a row.
        if one.constant and one.value is decisive:
            return constant(decisive, BOOL)
        if one.constant and one.value is (not decisive):
            return other
    if left.constant and right.constant:
        return constant(None, BOOL)
    return Term(BOOL, _junction(left.read, right.read, decisive))


def _junction(left: Read, right: Read, decisive: bool) -> Read:  # noqa: FBT001
    def run(new: Row | None, old: Row | None) -> Any:
        try:
            first = left(new, old)
        except Unsent:
            if right(new, old) is decisive:
                return decisive
            raise
        if first is decisive:
            return decisive
        second = right(new, old)
        return second if second is decisive or first is not None else None

    return run


def opposite(term: Term) -> Term:
    if term.constant:
        return constant(None if term.value is None else not term.value, BOOL)
    read = term.read

    def run(new: Row | None, old: Row | None) -> Any:
        value = read(new, old)
        return None if value is None else not value

    return Term(BOOL, run)


def is_value(term: Term, wanted: bool | None, *, negated: bool) -> Term:  # noqa: FBT001
    """IS TRUE, IS FALSE, and for None IS NULL or IS UNKNOWN; never unknown itself."""
    if term.constant:
        return constant((term.value is wanted) is not negated, BOOL)
    read = term.read
    if negated:
        return Term(BOOL, lambda new, old: read(new, old) is not wanted)
    return Term(BOOL, lambda new, old: read(new, old) is wanted)


def is_null(term: Term, *, negated: bool) -> Term:
    return is_value(term, None, negated=negated)


def distinct(left: Term, right: Term, *, negated: bool) -> Term:
    """IS DISTINCT FROM, of values that compare by ``==``."""
    for one, other in ((left, right), (right, left)):
        if one.constant and one.value is None:
            return is_null(other, negated=not negated)
    if left.constant and right.constant:
        return constant((left.value != right.value) is not negated, BOOL)
    if (left.column, right.column) != (None, None) and _across(left, right):
        return Term(BOOL, _changed(left, right, negated=negated))
    first, second = left.read, right.read
    if negated:
        return Term(BOOL, lambda new, old: first(new, old) == second(new, old))
    return Term(BOOL, lambda new, old: first(new, old) != second(new, old))


def _across(left: Term, right: Term) -> bool:
    """One column of each row, of the same type: what was printed alike is alike."""
    sides = {term.column[0] for term in (left, right) if term.column}
    return len(sides) == 2 and left.oid == right.oid and left.decode is right.decode  # noqa: PLR2004


def _changed(left: Term, right: Term, *, negated: bool) -> Read:
    if left.column and left.column[0] == "old":
        left, right = right, left
    new_name, old_name = (term.column[1] for term in (left, right) if term.column)
    exact = left.decode is None and right.decode is None
    slow_new, slow_old = left.read, right.read

    def run(new: Row | None, old: Row | None) -> Any:
        if new is None or old is None:
            return (slow_new(new, old) != slow_old(new, old)) is not negated
        try:
            first, second = new[new_name], old[old_name]
        except KeyError:
            return (slow_new(new, old) != slow_old(new, old)) is not negated
        if first == second:
            return negated
        return not negated if exact else (slow_new(new, old) != slow_old(new, old)) is not negated

    return run


def first_known(terms: Sequence[Term]) -> Term:
    """COALESCE of terms of one type."""
    kept: list[Term] = []
    for term in terms:
        if not (term.constant and term.value is None):
            kept.append(term)
        if term.constant and term.value is not None:
            break
    if not kept or kept[0].constant:
        return kept[0] if kept else constant(None, terms[0].oid)
    reads = [term.read for term in kept]

    def run(new: Row | None, old: Row | None) -> Any:
        for read in reads:
            value = read(new, old)
            if value is not None:
                return value
        return None

    return Term(kept[0].oid, run)
