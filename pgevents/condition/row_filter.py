"""A condition as the row filter of a publication. Sources: PostgreSQL manual, CREATE PUBLICATION; publicationcmds.c.

A server that fails on a row in a row filter fails on it for ever: it takes the filter as it was at that change. So of
what PostgreSQL would take, only what no row can fail is taken.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeGuard

from pgevents.condition import syntax
from pgevents.condition.binder import Binder
from pgevents.condition.kind import DATE, FLOATS, INTEGERS, JSON, NUMERIC, TIMESTAMP, TIMESTAMPTZ, VARCHAR
from pgevents.condition.lexer import Kind, in_quotes, tokens
from pgevents.condition.syntax import Node
from pgevents.condition.term import Term

_LOCALE = "it folds letters, which PostgreSQL does as the database's locale says, and the stream as Unicode does"
_ZONE = "it compares timestamptz with date or timestamp, which depends on the server's time zone"
_VARCHAR = "PostgreSQL takes no IN of character varying but of a column"


class Unfit(ValueError):
    """Why a condition cannot be a row filter, or may not be one."""


def row_filter(text: str, tree: Node, types: Mapping[str, int]) -> str:
    """``text`` with its columns as a publication names them. Raises Unfit; ConditionError as binding does."""
    kinds = _Kinds(text, types)
    kinds.condition(tree)
    nodes = list(syntax.walked(tree))
    for node in nodes:
        if reason := _objection(node, kinds):
            raise Unfit(reason)
    columns = {node.at: node for node in nodes if isinstance(node, syntax.Column)}
    # Of a list PostgreSQL makes an array of text, and converts no array of varchar in a row filter.
    as_text = {node.operand.at for node in nodes if _is_list_of_varchar(node, kinds)}
    return " ".join(_words(text, columns, as_text=as_text))


class _Kinds(Binder):
    """Binds a condition, and knows the term of each of its nodes then."""

    def __init__(self, text: str, types: Mapping[str, int]) -> None:
        super().__init__(text, types)
        self._terms: dict[int, Term] = {}

    def _term(self, node: Node) -> Term:
        term = super()._term(node)
        self._terms[id(node)] = term
        return term

    def of(self, node: Node) -> Term:
        return self._terms[id(node)]


def _objection(node: Node, kinds: _Kinds) -> str:
    match node:
        case syntax.Column(side="old"):
            return "it asks for old, which a row filter does not know"
        case syntax.Cast(operand=operand) if not isinstance(operand, syntax.Literal):
            return "it has a cast, which may fail on a row or depend on settings"
        case syntax.Arithmetic() if not kinds.of(node).constant:
            return _failing("arithmetic")
        case syntax.Negation(operand=operand) if _is_varying(kinds.of(operand), INTEGERS):
            return _failing("the negative of an integer")
        case syntax.Extract(operand=operand) if kinds.of(operand).oid == JSON:
            return _failing("a part of a json document (jsonb has what it takes)")
        case syntax.Like(ignore_case=True):
            return _LOCALE
        case syntax.Call():
            return _objection_to_call(node, kinds)
        case syntax.Comparison() | syntax.Distinct() | syntax.InList():
            return _objection_to_pair(node, kinds)
    return ""


def _objection_to_call(node: syntax.Call, kinds: _Kinds) -> str:
    terms = [kinds.of(argument) for argument in node.arguments]
    match node.name:
        case "lower" | "upper":
            return _LOCALE
        case "abs" if _is_varying(terms[0], INTEGERS):
            return _failing("abs of an integer")
        case "coalesce":
            if _has(terms, [TIMESTAMP]) and any(_is_varying(term, [DATE]) for term in terms):
                return _failing("a date as a timestamp")
            return _objection_to_kinds(terms)
    return ""


def _objection_to_pair(node: syntax.Comparison | syntax.Distinct | syntax.InList, kinds: _Kinds) -> str:
    if _is_list_of_varchar(node, kinds) and not isinstance(node.operand, syntax.Column):
        return _VARCHAR
    return _objection_to_kinds([kinds.of(child) for child in syntax.children(node)])


def _objection_to_kinds(terms: Sequence[Term]) -> str:
    """To what they are converted to, to be compared."""
    if _has(terms, [TIMESTAMPTZ]) and _has(terms, [DATE, TIMESTAMP]):
        return _ZONE
    if _has(terms, FLOATS) and any(_is_varying(term, [NUMERIC]) for term in terms):
        return _failing("numeric as a floating-point number")
    return ""


def _failing(what: str) -> str:
    return f"{what} may fail on a row, and then the server could send nothing any more"


def _has(terms: Sequence[Term], oids: Collection[int]) -> bool:
    return any(term.oid in oids for term in terms)


def _is_varying(term: Term, oids: Collection[int]) -> bool:
    """A constant that fails was refused when it was bound."""
    return term.oid in oids and not term.constant


def _is_list_of_varchar(node: Node, kinds: _Kinds) -> TypeGuard[syntax.InList]:
    return isinstance(node, syntax.InList) and len(node.choices) > 1 and kinds.of(node.operand).oid == VARCHAR


def _words(text: str, columns: Mapping[int, syntax.Column], *, as_text: Collection[int]) -> Iterator[str]:
    behind = 0
    for token in tokens(text):
        if token.start in columns:
            column = columns[token.start]
            behind = column.end
            yield in_quotes(column.name) + ("::text" if token.start in as_text else "")
        elif token.start >= behind and token.kind is not Kind.END:
            yield text[token.start : token.end]
