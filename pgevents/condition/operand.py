"""The values in a condition: columns, literals, casts, parts of documents, computations, and calls."""

from collections.abc import Mapping

from pgevents.condition import arithmetic, document, logic, number, operator, pattern, syntax, value
from pgevents.condition.cast import cast, without_blanks
from pgevents.condition.error import ConditionError, ConditionFailed
from pgevents.condition.kind import (
    BOOL,
    BPCHAR,
    BYTEA,
    CAST_NAMES,
    FIRST_CUSTOM,
    INT2,
    INT4,
    INT8,
    JSON,
    JSONB,
    NUMBERS,
    NUMERIC,
    TEXT,
    TEXTS,
    UNKNOWN,
    Enum,
)
from pgevents.condition.lexer import in_quotes
from pgevents.condition.reader import place
from pgevents.condition.syntax import Node
from pgevents.condition.term import Term, column, combined, constant, mapped
from pgevents.condition.type_name import name_of
from pgevents.spelling import nearest

_LONGEST_BIGINT = 21


Enums = frozenset[int] | Mapping[int, Enum]
"""The OIDs that are enums, with what the enum is where its labels are to be checked."""


class Operands:
    """``types``: column name → OID of its base type. ``enums``: where None is given, every type that is not
    PostgreSQL's own is one.

    What makes a term of a node raises ConditionError.
    """

    def __init__(self, text: str, types: Mapping[str, int], enums: Enums | None = None) -> None:
        self._text = text
        self._types = types
        self._enums = enums

    def _refusal(self, node: Node, what: str, hint: str = "") -> ConditionError:
        return ConditionError(
            f"the condition {self._text!r} cannot be used: {what} {place(self._text, node.at)}", hint=hint
        )

    def _name(self, oid: int) -> str:
        """The type's name for a message."""
        enum = self._enums.get(oid) if isinstance(self._enums, Mapping) else None
        return f"the enum {enum.name}" if enum else name_of(oid)

    def _is_enum(self, oid: int) -> bool:
        return oid in self._enums if self._enums is not None else oid >= FIRST_CUSTOM

    def _term(self, node: Node) -> Term:
        """The term of any node."""
        raise NotImplementedError

    def _value(self, node: Node) -> Term:
        match node:
            case syntax.Literal() | syntax.Number() | syntax.Boolean():
                return _untyped(node)
            case syntax.Column():
                return self._column(node)
            case syntax.Like():
                return self._like(node)
            case syntax.Extract():
                return self._extract(node)
            case syntax.Cast():
                return self._cast(node)
            case syntax.Collate(operand=operand):
                term = self._collatable(operand, node)
                return Term(term.oid, term.read, term.constant, term.value, term.column, term.decode, ordered=True)
            case syntax.Negation():
                return self._negation(node)
            case syntax.Arithmetic():
                return self._arithmetic(node)
            case syntax.Call():
                return self._call(node)
        raise AssertionError(node)

    def _column(self, node: syntax.Column) -> Term:
        oid = self._types.get(node.name)
        if oid is None:
            raise self._refusal(node, f"there is no column {node.name}", self._nearest_column(node))
        return column(node.side, node.name, oid, value.DECODERS.get(oid))

    def _nearest_column(self, node: syntax.Column) -> str:
        for name in self._types:
            if name.lower() == node.name.lower() and written(name) != name:
                return f"Did you mean {node.side}.{written(name)}? Without the quotes a name is in small letters."
        names = [written(name) for name in self._types]
        return nearest(node.name, names) or f"The columns are {', '.join(names)}."

    def _literal(self, term: Term, oid: int, node: Node) -> Term:
        """An untyped literal as what PostgreSQL takes it for."""
        if term.value is None:
            return constant(None, oid, ordered=term.ordered)
        if self._is_enum(oid):
            self._check_label(term.value, oid, node)
            return constant(term.value, oid)
        if oid not in value.LITERALS:
            hint = "Cast the column: ::text." if oid not in (JSON, JSONB) else "Read a part of it with ->>."
            raise self._refusal(node, f"a literal of type {self._name(oid)} is not supported", hint)
        try:
            return constant(value.parse(term.value, oid), oid, ordered=term.ordered)
        except ConditionFailed as error:
            raise self._refusal(node, error.reason) from error

    def _check_label(self, label: str, oid: int, node: Node) -> None:
        """PostgreSQL would take no other; a row could never have it."""
        enum = self._enums[oid] if isinstance(self._enums, Mapping) else None
        if enum and label not in enum.labels:
            hint = nearest(label, enum.labels) or f"The labels are {', '.join(enum.labels)}."
            raise self._refusal(node, f"the enum {enum.name} has no label {label!r}", hint)

    def _resolved(self, terms: list[Term], nodes: "list[Node]") -> list[Term]:
        """Untyped literals as the type of the others, or text where all are untyped."""
        known = next((term.oid for term in terms if term.oid != UNKNOWN), TEXT)
        return [
            self._literal(term, known, node) if term.oid == UNKNOWN else term
            for term, node in zip(terms, nodes, strict=True)
        ]

    def _text_of(self, node: Node, parent: Node, what: str) -> Term:
        term = self._term(node)
        if term.oid == UNKNOWN:
            return self._literal(term, TEXT, node)
        if term.oid not in TEXTS:
            raise self._refusal(parent, f"{what} takes a text, not {self._name(term.oid)}", "Cast it with ::text.")
        return term

    def _collatable(self, node: Node, parent: Node) -> Term:
        """A literal stays without a type."""
        term = self._term(node)
        return term if term.oid == UNKNOWN else self._text_of(node, parent, "COLLATE")

    def _like(self, node: syntax.Like) -> Term:
        word = "ILIKE" if node.ignore_case else "LIKE"
        operand, like = self._text_of(node.operand, node, word), self._text_of(node.pattern, node, word)
        if not like.constant:
            raise self._refusal(node.pattern, f"{word} takes a pattern in quotes")
        if like.value is None:
            return constant(None, BOOL)
        written = pattern.lower(like.value) if node.ignore_case else like.value
        try:
            matches = pattern.matcher(written, node.escape)
        except pattern.BadPattern as error:
            raise self._refusal(
                node.pattern, "the pattern ends with its escape character", "Write that character twice."
            ) from error
        if node.ignore_case:
            operand = mapped(operand, pattern.lower, TEXT)
        found = mapped(operand, matches, BOOL)
        return logic.opposite(found) if node.negated else found

    def _extract(self, node: syntax.Extract) -> Term:
        operand = self._term(node.operand)
        if operand.oid not in (JSON, JSONB):
            arrow = "->>" if node.as_text else "->"
            raise self._refusal(node, f"{arrow} takes json or jsonb, not {self._name(operand.oid)}")
        key, binary = node.key, operand.oid == JSONB
        if node.as_text:
            return mapped(operand, lambda text: document.as_text(document.member(text, key, binary=binary)), TEXT)
        return mapped(operand, lambda text: document.member(text, key, binary=binary), operand.oid)

    def _cast(self, node: syntax.Cast) -> Term:
        operand, target = self._term(node.operand), CAST_NAMES[node.type_name]
        if operand.oid == UNKNOWN:
            return self._literal(operand, target, node)
        term = cast(operand, target)
        if term is None:
            raise self._refusal(node, f"a cast from {self._name(operand.oid)} to {node.type_name} is not supported")
        return term

    def _negation(self, node: syntax.Negation) -> Term:
        operand = self._number_of(node.operand, node, "-")
        return mapped(operand, lambda found: arithmetic.negated(found, operand.oid), operand.oid)

    def _number_of(self, node: Node, parent: Node, what: str) -> Term:
        term = self._term(node)
        if term.oid not in NUMBERS:
            raise self._refusal(parent, f"{what} takes a number, not {self._name(term.oid)}")
        return term

    def _arithmetic(self, node: syntax.Arithmetic) -> Term:
        left, right = self._resolved([self._term(node.left), self._term(node.right)], [node.left, node.right])
        term = operator.arithmetic(node.sign, left, right)
        if term is None:
            raise self._refusal(node, f"{self._name(left.oid)} {node.sign} {self._name(right.oid)} is not supported")
        return term

    def _call(self, node: syntax.Call) -> Term:
        match node.name:
            case "coalesce":
                return self._coalesce(node)
            case "abs":
                operand = self._number_of(node.arguments[0], node, "abs")
                return mapped(operand, lambda found: arithmetic.absolute(found, operand.oid), operand.oid)
            case "length":
                return self._length(node)
            case "left":
                return self._left(node)
        text = self._plain_text(node)
        return mapped(text, pattern.lower if node.name == "lower" else pattern.upper, TEXT)

    def _plain_text(self, node: syntax.Call) -> Term:
        """The first argument as text: character loses its blanks."""
        text = self._text_of(node.arguments[0], node, node.name)
        return mapped(text, without_blanks, TEXT) if text.oid == BPCHAR else text

    def _length(self, node: syntax.Call) -> Term:
        term = self._term(node.arguments[0])
        return mapped(term if term.oid == BYTEA else self._plain_text(node), len, INT4)

    def _left(self, node: syntax.Call) -> Term:
        """A negative count leaves out so many at the end."""
        text, count = self._plain_text(node), self._term(node.arguments[1])
        if count.oid == UNKNOWN:
            count = self._literal(count, INT4, node.arguments[1])
        if count.oid not in (INT2, INT4):
            raise self._refusal(node.arguments[1], f"left takes an integer, not {self._name(count.oid)}")
        return combined(lambda whole, letters: whole[:letters], text, count, TEXT)

    def _coalesce(self, node: syntax.Call) -> Term:
        nodes = list(node.arguments)
        terms = self._resolved([self._term(each) for each in nodes], nodes)
        common = operator.common_type(terms)
        if common is None:
            names = ", ".join(self._name(term.oid) for term in terms)
            raise self._refusal(node, f"coalesce takes values of one type, not {names}")
        return logic.first_known([operator.as_type(term, common) for term in terms])


def written(name: str) -> str:
    """The name of a column as a condition has it, in quotes where it needs them."""
    return name if name.isidentifier() and name == name.lower() else in_quotes(name)


def _untyped(node: syntax.Literal | syntax.Number | syntax.Boolean) -> Term:
    match node:
        case syntax.Literal(text=text):
            return constant(text, UNKNOWN)
        case syntax.Number(text=text):
            return _number(text)
        case syntax.Boolean(value=truth):
            return constant(truth, BOOL)


def _number(text: str) -> Term:
    """An integer where it fits, else bigint, else numeric."""
    if text.removeprefix("-").isdecimal() and len(text) < _LONGEST_BIGINT:
        for oid in (INT4, INT8):
            bits = number.BITS[oid]
            if -(1 << bits) <= int(text) < 1 << bits:
                return constant(int(text), oid)
    return constant(number.parse(text, NUMERIC), NUMERIC)
