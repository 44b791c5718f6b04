"""From the words of a condition to its tree, with PostgreSQL's precedence.

Precedence climbing. What is not in the grammar is refused where it stands.
"""

from pgevents.condition import syntax
from pgevents.condition.grammar import (
    EXTRACT,
    FUNCTIONS,
    IS,
    KNOWN,
    LIKE,
    MINUS,
    NOT,
    OR,
    REFUSED_WORDS,
    TYPE_WORDS,
)
from pgevents.condition.kind import CAST_NAMES
from pgevents.condition.lexer import Kind, Token
from pgevents.condition.reader import MAX_DEPTH, Reader
from pgevents.condition.syntax import Node
from pgevents.spelling import nearest


def parse(text: str) -> Node:
    """The tree of ``text``. Raises ConditionError where it is not a condition we know."""
    return _Parser(text).whole()


class _Parser(Reader):
    def whole(self) -> Node:
        node = self._expression(OR)
        if self._token.kind is not Kind.END:
            raise self._unexpected()
        return node

    def _expression(self, lowest: int) -> Node:
        """What binds at least as tightly as ``lowest``."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._refusal(self._token.start, f"it is nested more than {MAX_DEPTH} deep")
        node, links = self._prefix(), 0
        while (level := self._level()) >= lowest and level:
            links += 1
            if links > MAX_DEPTH:
                hint = "Write x IN (1, 2, 3) for x = 1 OR x = 2 OR x = 3, or make it several filters."
                raise self._refusal(self._token.start, f"it has more than {MAX_DEPTH} parts in a row", hint=hint)
            node = self._infix(node, level)
        self._depth -= 1
        return node

    def _operand(self, level: int) -> Node:
        """The right side of an operator that does not associate: ``a < b < c`` is an error in PostgreSQL."""
        node = self._expression(level + 1)
        if self._level() == level:
            raise self._refusal(self._token.start, "PostgreSQL wants parentheses here")
        return node

    def _prefix(self) -> Node:
        at = self._token.start
        if self._has("not"):
            return syntax.Not(at, self._expression(NOT + 1))
        if self._has("-"):
            return self._minus(at)
        if self._has("+"):
            return self._expression(MINUS)
        if self._has("("):
            node = self._expression(OR)
            self._need(")")
            return node
        return self._atom()

    def _minus(self, at: int) -> Node:
        operand = self._expression(MINUS)
        if isinstance(operand, syntax.Number):
            text = operand.text
            return syntax.Number(at, text.removeprefix("-") if text.startswith("-") else f"-{text}")
        return syntax.Negation(at, operand)

    def _atom(self) -> Node:
        token = self._token
        match token.kind:
            case Kind.STRING:
                return syntax.Literal(self._take().start, token.text)
            case Kind.NUMBER:
                return syntax.Number(self._take().start, token.text)
            case Kind.NAME:
                return self._column()
            case Kind.WORD:
                return self._word()
        raise self._unexpected()

    def _word(self) -> Node:
        token, after = self._token, self._tokens[self._next + 1]
        if self._has("null"):
            return syntax.Literal(token.start, None)
        if self._has("true", "false"):
            return syntax.Boolean(token.start, token.text == "true")
        if self._has("cast"):
            return self._cast_call(token.start)
        if token.text in REFUSED_WORDS:
            raise self._unexpected()
        if after.text == "(" and after.kind is Kind.SIGN:
            return self._call()
        if token.text in TYPE_WORDS and not (after.kind is Kind.SIGN and after.text == "."):
            return self._typed_literal()
        if token.text in KNOWN and token.text not in ("new", "old"):
            raise self._unexpected()
        return self._column()

    def _typed_literal(self) -> Node:
        at = self._token.start
        type_name = self._type()
        if self._token.kind is not Kind.STRING:
            raise self._refusal(at, "a column is written new.x or old.x", "Write new. or old. before it.")
        return syntax.Cast(at, syntax.Literal(self._token.start, self._take().text), type_name)

    def _column(self) -> Node:
        token = self._take()
        if token.text in ("new", "old") and self._has("."):
            name = self._token
            if name.kind in (Kind.NAME, Kind.WORD):
                self._take()
                if self._has("."):
                    raise self._refusal(token.start, "a field of a column is not supported")
                return syntax.Column(token.start, token.text, name.text, name.end)
            if name.text == "*":
                raise self._whole_row(token)
            raise self._refusal(name.start, "a column's name is missing")
        if self._has("."):
            raise self._refusal(
                token.start, f"{token.text}. is neither new. nor old.", f"{nearest(token.text, ('new', 'old'))}"
            )
        if token.text in ("new", "old"):
            raise self._whole_row(token)
        raise self._bare_name(token)

    def _call(self) -> Node:
        name = self._take()
        if name.text not in FUNCTIONS:
            hint = nearest(name.text, FUNCTIONS, likeness=0.6) or f"The functions are {', '.join(sorted(FUNCTIONS))}."
            raise self._refusal(name.start, f"the function {name.text} is not supported", hint)
        arguments = self._list()
        fewest, most = FUNCTIONS[name.text]
        if not fewest <= len(arguments) <= most:
            raise self._refusal(name.start, f"{name.text} takes {fewest} argument{'s' if fewest > 1 else ''}")
        return syntax.Call(name.start, name.text, arguments)

    def _list(self) -> tuple[Node, ...]:
        self._need("(")
        if self._has(")"):
            return ()
        found = [self._expression(OR)]
        while self._has(","):
            found.append(self._expression(OR))
        self._need(")")
        return tuple(found)

    def _cast_call(self, at: int) -> Node:
        self._need("(")
        operand = self._expression(OR)
        self._need("as")
        type_name = self._type()
        self._need(")")
        return syntax.Cast(at, operand, type_name)

    def _type(self) -> str:
        """The name of a type, of one word or several: the longest that is one."""
        first = self._token
        words: list[str] = []
        while self._tokens[self._next + len(words)].kind is Kind.WORD and len(words) < 4:  # noqa: PLR2004
            words.append(self._tokens[self._next + len(words)].text)
        for count in range(len(words), 0, -1):
            name = " ".join(words[:count])
            if name in CAST_NAMES:
                self._next += count
                if self._token.text == "(" and self._token.kind is Kind.SIGN:
                    raise self._refusal(first.start, "a type with a length is not supported", f"Write {name} alone.")
                return name
        known = nearest(first.text, CAST_NAMES) or f"The types are {', '.join(sorted(CAST_NAMES))}."
        raise self._refusal(first.start, f"a cast to {first.text or 'nothing'} is not supported", known)

    def _infix(self, left: Node, level: int) -> Node:
        token = self._take()
        at, text = token.start, token.text
        match level:
            case 1 | 2:
                return syntax.Logic(at, text == "and", left, self._expression(level + 1))
            case 4:
                return self._is(left, token)
            case 5:
                return syntax.Comparison(at, "<>" if text == "!=" else text, left, self._operand(level))
            case 6:
                negated = text == "not"
                return self._like(left, self._take() if negated else token, negated=negated)
            case 7:
                return syntax.Extract(at, left, self._key(), text == "->>")
            case 8 | 9:
                return syntax.Arithmetic(at, text, left, self._expression(level + 1))
            case 10:
                return self._collate(left, at)
            case _:
                return syntax.Cast(at, left, self._type())

    def _is(self, left: Node, token: Token) -> Node:
        if token.text != "is":
            return syntax.IsNull(token.start, left, token.text == "notnull")
        negated = self._has("not")
        if self._has("null"):
            return syntax.IsNull(token.start, left, negated)
        if self._has("distinct"):
            self._need("from")
            return syntax.Distinct(token.start, left, self._operand(IS), negated)
        for word, truth in (("true", True), ("false", False), ("unknown", None)):
            if self._has(word):
                return syntax.IsTruth(token.start, left, truth, negated)
        raise self._unexpected()

    def _like(self, left: Node, token: Token, *, negated: bool) -> Node:
        at = token.start
        match token.text:
            case "in":
                return self._in(left, at, negated=negated)
            case "between":
                return self._between(left, at, negated=negated)
            case "like" | "ilike":
                pattern = self._expression(LIKE + 1)
                escape = self._escape() if self._has("escape") else "\\"
                if self._level() == LIKE:
                    raise self._refusal(self._token.start, "PostgreSQL wants parentheses here")
                return syntax.Like(at, left, pattern, escape, token.text == "ilike", negated)
        self._next -= 1
        raise self._unexpected()

    def _in(self, left: Node, at: int, *, negated: bool) -> Node:
        if self._token.text != "(":
            raise self._refusal(self._token.start, "( is missing", "Write IN ('a', 'b').")
        choices = self._list()
        if not choices:
            raise self._refusal(at, "the list after IN is empty")
        for choice in choices:
            if not isinstance(choice, syntax.Literal | syntax.Number | syntax.Boolean | syntax.Cast):
                raise self._refusal(max(at, choice.at), "the list after IN takes only literals")
        return syntax.InList(at, left, choices, negated)

    def _between(self, left: Node, at: int, *, negated: bool) -> Node:
        if self._has("symmetric"):
            raise self._refusal(at, "BETWEEN SYMMETRIC is not supported")
        self._has("asymmetric")
        low = self._expression(LIKE + 1)
        self._need("and")
        high = self._operand(LIKE)
        above = syntax.Comparison(at, ">=", left, low)
        inside = syntax.Logic(at, is_and=True, left=above, right=syntax.Comparison(at, "<=", left, high))
        return syntax.Not(at, inside) if negated else inside

    def _escape(self) -> str:
        token = self._take()
        if token.kind is not Kind.STRING or len(token.text) > 1:
            raise self._refusal(token.start, "ESCAPE takes one character in quotes, or none")
        return token.text

    def _key(self) -> str | int:
        at = self._token.start
        key = self._expression(EXTRACT + 1)
        match key:
            case syntax.Literal(text=str(text)):
                return text
            case syntax.Number(text=text) if text.removeprefix("-").isdecimal() and -(2**31) <= int(text) < 2**31:
                return int(text)
        raise self._refusal(at, "-> and ->> take a key in quotes or a whole number")

    def _collate(self, left: Node, at: int) -> Node:
        token = self._take()
        if token.kind is not Kind.NAME or token.text != "C":
            what = 'only COLLATE "C" is supported'
            raise self._refusal(token.start, what, "Other orders differ from server to server.")
        return syntax.Collate(at, left)
