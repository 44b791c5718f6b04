"""Conditions that no row can make true, as far as that shows without knowing the table.

Every way in which the columns may be NULL, and the comparisons true or false, is tried; comparisons of one thing with
several numbers, or several words, agree with each other. What is not understood may be anything.
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

from pgevents.condition import syntax
from pgevents.condition.syntax import Node

# Nodes looked at; a condition of a few parts is tried in every way, and none takes more than a moment.
MAX_STEPS = 30_000
_WORD = re.compile(r"[A-Za-z_]{1,31}")
# Words of which two may be the same value: as booleans, or as special dates and numbers.
_ALIASES = re.compile(
    r"t(r(ue?)?)?|f(a(l(se?)?)?)?|y(es?)?|no?|on|off?|nan|inf(inity)?|now|today|epoch", re.IGNORECASE
)
_BOOLEAN = (
    syntax.Boolean
    | syntax.Not
    | syntax.Logic
    | syntax.Comparison
    | syntax.Distinct
    | syntax.IsNull
    | syntax.IsTruth
    | syntax.InList
    | syntax.Like
)


def never(tree: Node) -> bool:
    """Whether it is sure that no row makes it true; False also where trying takes too long."""
    guess = _Guess(_points(tree))
    for _ in range(MAX_STEPS // sum(1 for _ in syntax.walked(tree))):
        if _truth(tree, guess):
            return False
        if not guess.next():
            return True
    return False


class _Guess:
    """One assumption about the row after another: what was chosen, of what, in the order it was asked for."""

    def __init__(self, points: dict[Hashable, list[Any]]) -> None:
        self.places = {form: {point: place for place, point in enumerate(each)} for form, each in points.items()}
        self._forms: dict[int, Hashable] = {}
        self._chosen: dict[Hashable, int] = {}
        self._options: dict[Hashable, Sequence[Any]] = {}

    def of(self, what: Hashable, options: Sequence[Any]) -> Any:
        if what not in self._chosen:
            self._chosen[what], self._options[what] = 0, options
        return self._options[what][self._chosen[what]]

    def form(self, node: Node) -> Hashable:
        """As ``_form`` of a node of the tree, worked out once."""
        key = id(node)
        if key not in self._forms:
            self._forms[key] = _form(node)
        return self._forms[key]

    def next(self) -> bool:
        """Whether there is another assumption; counts up the last choice that has one left."""
        while self._chosen:
            what, index = self._chosen.popitem()
            options = self._options.pop(what)
            if index + 1 < len(options):
                self._chosen[what], self._options[what] = index + 1, options
                return True
        return False


def _form(node: Any) -> Hashable:
    """The same for what is written the same, wherever it stands."""
    if is_dataclass(node):
        return (
            type(node).__name__,
            *(_form(getattr(node, f.name)) for f in fields(node) if f.name not in ("at", "end")),
        )
    return tuple(map(_form, node)) if isinstance(node, tuple) else node


def _point(node: Node) -> Any:
    """A literal of which it is known whether it equals another such; None for any other node."""
    match node:
        case syntax.Number(text=text):
            return Decimal(text)
        case syntax.Literal(text=str(text)) if _WORD.fullmatch(text) and not _ALIASES.fullmatch(text):
            return text
    return None


def _points(tree: Node) -> dict[Hashable, list[Any]]:
    """For each thing that is compared with such literals, all of them in order."""
    found: dict[Hashable, set[Any]] = {}
    for node in syntax.walked(tree):
        for thing, literal in _compared(node):
            found.setdefault(_form(thing), set()).add(_point(literal))
    return {form: sorted(points, key=lambda p: (isinstance(p, str), p)) for form, points in found.items()}


def _compared(node: Node) -> list[tuple[Node, Node]]:
    match node:
        case syntax.Comparison(left=left, right=right) if _point(right) is not None:
            return [(left, right)]
        case syntax.Comparison(left=left, right=right) if _point(left) is not None:
            return [(right, left)]
        case syntax.InList(operand=operand, choices=choices):
            return [(operand, choice) for choice in choices if _point(choice) is not None]
    return []


def _truth(node: Node, guess: _Guess) -> bool | None:
    match node:
        case syntax.Boolean(value=truth):
            return truth
        case syntax.Not(operand=operand):
            inner = _truth(operand, guess)
            return None if inner is None else not inner
        case syntax.Logic():
            return _junction(node, guess)
        case syntax.IsTruth(operand=operand, truth=wanted, negated=negated):
            return (_truth(operand, guess) is wanted) is not negated
        case syntax.IsNull(operand=operand, negated=negated):
            return _is_null(operand, guess) is not negated
        case syntax.Distinct(left=left, right=right, negated=negated):
            nulls = _is_null(left, guess), _is_null(right, guess)
            same = all(nulls) if any(nulls) else _equal(left, right, guess)
            return same is negated
        case syntax.Comparison():
            return _comparison(node, guess)
        case syntax.InList():
            return _in(node, guess)
        case syntax.Like(operand=operand, pattern=pattern):
            unknown = _is_null(operand, guess) or _is_null(pattern, guess)
            return (
                None
                if unknown
                else bool(
                    guess.of(
                        ("like", guess.form(operand), guess.form(pattern), node.escape, node.ignore_case),
                        (True, False),
                    )
                )
                is not node.negated
            )
    return None if _is_null(node, guess) else bool(guess.of(("truth", guess.form(node)), (True, False)))


def _junction(node: syntax.Logic, guess: _Guess) -> bool | None:
    decisive = not node.is_and
    # A constant first: it may leave nothing to try.
    one, other = (node.right, node.left) if isinstance(node.right, syntax.Boolean) else (node.left, node.right)
    first = _truth(one, guess)
    if first is decisive:
        return decisive
    second = _truth(other, guess)
    return second if second is decisive or first is not None else None


def _comparison(node: syntax.Comparison, guess: _Guess) -> bool | None:
    left, right, sign = node.left, node.right, node.sign
    if _is_null(left, guess) or _is_null(right, guess):
        return None
    if _point(left) is not None and _point(right) is None:
        left, right, sign = right, left, _MIRRORED[sign]
    if sign in ("=", "<>"):
        return _equal(left, right, guess) is (sign == "=")
    place = _place(left, right, guess)
    if place is None or isinstance(_point(right), str):
        below = bool(guess.of(("<", guess.form(left), guess.form(right)), (True, False)))
        same = not below and _equal(left, right, guess)
        place = -1 if below else 0 if same else 1
    return {"<": place < 0, "<=": place <= 0, ">": place > 0, ">=": place >= 0}[sign]


_MIRRORED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _place(left: Node, right: Node, guess: _Guess) -> int | None:
    """Where ``left`` lies, beside the literal ``right``: under 0 below it, 0 on it; None without such a literal."""
    places, point = guess.places.get(guess.form(left), {}), _point(right)
    if isinstance(left, syntax.Number) and isinstance(right, syntax.Number):
        return int(_point(left).compare(point))
    if point is None or point not in places:
        return None
    # Even places lie between the points.
    place: int = guess.of(("place", guess.form(left)), range(2 * len(places) + 1))
    return place - (2 * places[point] + 1)


def _equal(left: Node, right: Node, guess: _Guess) -> bool:
    place = _place(left, right, guess)
    if place is not None:
        return place == 0
    if guess.form(left) == guess.form(right):
        return True
    return bool(guess.of(("=", frozenset((guess.form(left), guess.form(right)))), (True, False)))


def _in(node: syntax.InList, guess: _Guess) -> bool | None:
    if _is_null(node.operand, guess):
        return None
    found = any(_equal(node.operand, choice, guess) for choice in node.choices if not _is_null(choice, guess))
    if not found and any(_is_null(choice, guess) for choice in node.choices):
        return None
    return found is not node.negated


def _is_null(node: Node, guess: _Guess) -> bool:
    match node:
        case syntax.Literal(text=text):
            return text is None
        case syntax.Number():
            return False
        case syntax.Column():
            return bool(guess.of(("null", guess.form(node)), (False, True)))
        case syntax.Call(name="coalesce", arguments=arguments):
            return all(_is_null(argument, guess) for argument in arguments)
    if isinstance(node, _BOOLEAN):
        return _truth(node, guess) is None
    if any(_is_null(child, guess) for child in syntax.children(node)):
        return True
    # A document may lack the key; the time of an infinite timestamp is NULL.
    may_be = isinstance(node, syntax.Extract | syntax.Cast)
    return may_be and bool(guess.of(("null", guess.form(node)), (False, True)))
