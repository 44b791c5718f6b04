"""From the tree of a condition to closures, for a table whose columns' types are known."""

from typing import Any

from pgevents.condition import logic, operator, syntax
from pgevents.condition.error import ConditionError, ConditionFailed
from pgevents.condition.kind import BOOL, JSON, TEXTS, UNKNOWN
from pgevents.condition.operand import Operands
from pgevents.condition.syntax import Node
from pgevents.condition.term import Term, mapped


class Binder(Operands):
    """``condition`` gives the term of a whole condition; raises ConditionError."""

    def condition(self, node: Node) -> Term:
        """The whole condition, which is a boolean."""
        return self._boolean(node)

    def _term(self, node: Node) -> Term:
        """The term of ``node``. What fails without a row fails for every row."""
        try:
            return self._made(node)
        except ConditionFailed as error:
            raise self._refusal(node, error.reason) from error

    def _made(self, node: Node) -> Term:
        match node:
            case syntax.Not(operand=operand):
                return logic.opposite(self._boolean(operand))
            case syntax.Logic(is_and=is_and, left=left, right=right):
                return logic.junction(self._boolean(left), self._boolean(right), is_and=is_and)
            case syntax.IsNull(operand=operand, negated=negated):
                return logic.is_null(self._term(operand), negated=negated)
            case syntax.IsTruth(operand=operand, truth=wanted, negated=negated):
                return logic.is_value(self._boolean(operand), wanted, negated=negated)
            case syntax.Comparison():
                return self._comparison(node)
            case syntax.Distinct(left=left, right=right, negated=negated):
                pair = self._pair(node, self._term(left), self._term(right), "=")
                return logic.distinct(*pair, negated=negated)
            case syntax.InList():
                return self._in(node)
            case _:
                return self._value(node)

    def _boolean(self, node: Node) -> Term:
        term = self._term(node)
        if term.oid == UNKNOWN:
            term = self._literal(term, BOOL, node)
        if term.oid != BOOL:
            raise self._refusal(node, f"this is of type {self._name(term.oid)}, not boolean")
        return term

    def _comparison(self, node: syntax.Comparison) -> Term:
        left, right = self._pair(node, self._term(node.left), self._term(node.right), node.sign)
        return operator.compare(node.sign, left, right)

    def _pair(self, node: Any, left: Term, right: Term, sign: str) -> operator.Pair:
        """Two operands that can be compared so. ``node`` has a ``left`` and a ``right``."""
        left, right = self._resolved([left, right], [node.left, node.right])
        self._check(node, left.oid, right.oid)
        pair = operator.comparable(left, right, self._is_enum)
        if pair is None:
            raise self._no_operator(node, left.oid, right.oid, sign)
        if sign not in ("=", "<>") and not operator.is_ordered(left, right):
            raise self._unordered(node, left.oid, sign)
        return pair

    def _check(self, node: Node, *oids: int) -> None:
        if JSON in oids:
            raise self._refusal(node, "json has no equality", "Cast it with ::text, or read a part of it with ->>.")

    def _no_operator(self, node: Node, left: int, right: int, sign: str) -> ConditionError:
        if left == right:
            return self._refusal(
                node, f"values of {self._name(left)} cannot be compared here", "Cast both sides with ::text."
            )
        hint = "Cast one side, as in new.x::numeric."
        return self._refusal(node, f"there is no operator {self._name(left)} {sign} {self._name(right)}", hint)

    def _unordered(self, node: Node, oid: int, sign: str) -> ConditionError:
        if oid in TEXTS:
            hint = 'Write COLLATE "C" behind one side to compare by the bytes.'
            return self._refusal(node, f"the order of texts depends on the server, so {sign} is not supported", hint)
        return self._refusal(node, f"{sign} of {self._name(oid)} is not supported")

    def _in(self, node: syntax.InList) -> Term:
        """``=`` to one choice; to several, all as their common type, as PostgreSQL makes an array of them."""
        nodes = [node.operand, *node.choices]
        terms = self._resolved([self._term(each) for each in nodes], nodes)
        for choice, term in zip(node.choices, terms[1:], strict=True):
            if not term.constant:
                raise self._refusal(choice, "the list after IN takes only literals")
        common = operator.common_type(terms)
        operand, *choices = terms
        if common is not None and len(choices) > 1:
            choices = [operator.as_type(choice, common) for choice in choices]
        pairs = [self._in_pair(node, operand, choice) for choice in choices]
        found = _one_of(pairs)
        return logic.opposite(found) if node.negated else found

    def _in_pair(self, node: syntax.InList, operand: Term, choice: Term) -> operator.Pair:
        self._check(node, operand.oid, choice.oid)
        pair = operator.comparable(operand, choice, self._is_enum)
        if pair is None:
            raise self._no_operator(node, operand.oid, choice.oid, "=")
        return pair


def _one_of(pairs: list[operator.Pair]) -> Term:
    """``=`` to any of them; looked up at once where all are compared with the same value."""
    operand = pairs[0][0]
    if all(left is operand for left, _ in pairs):
        return _member(operand, [right.value for _, right in pairs])
    found = operator.compare("=", *pairs[0])
    for pair in pairs[1:]:
        found = logic.junction(found, operator.compare("=", *pair), is_and=False)
    return found


def _member(operand: Term, values: list[Any]) -> Term:
    known = frozenset(value for value in values if value is not None)
    absent = None if None in values else False
    return mapped(operand, lambda value: True if value in known else absent, BOOL)
