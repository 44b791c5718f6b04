"""The tokens of a condition, one after another, and what is said of one that does not fit."""

from pgevents.condition.error import ConditionError
from pgevents.condition.grammar import (
    COMPARISON,
    HINTS,
    KNOWN,
    LIKE,
    REFUSED_SIGNS,
    REFUSED_WORDS,
    SIGNS,
    TRIGGER_WORDS,
    WORDS,
)
from pgevents.condition.lexer import Kind, Token, tokens
from pgevents.spelling import nearest

MAX_DEPTH = 100


def place(text: str, at: int) -> str:
    """Where ``at`` is, in words: ``at character 7: near 'totl > 1'``."""
    rest = " ".join(text[at:].split())
    if not rest:
        return f"at character {at + 1}: at the end"
    return f"at character {at + 1}: near {rest[:24]!r}"


class Reader:
    """What a parser of ``text`` stands on."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._next = 0
        self._depth = 0

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._token
        self._next += 1
        return token

    def _has(self, *texts: str) -> bool:
        """Whether the next token is one of these words or signs; takes it."""
        token = self._token
        if token.kind in (Kind.WORD, Kind.SIGN) and token.text in texts:
            self._next += 1
            return True
        return False

    def _need(self, *texts: str) -> None:
        for text in texts:
            if not self._has(text):
                raise self._refused() or self._refusal(self._token.start, f"{text.upper()} is missing")

    def _refusal(self, at: int, what: str, hint: str = "") -> ConditionError:
        return ConditionError(
            f"the condition {self._text!r} cannot be used: {what} {place(self._text, at)}", hint=hint
        )

    def _refused(self) -> ConditionError | None:
        """What is said of a word or sign that PostgreSQL knows, or another language, and we do not."""
        token = self._token
        known = {Kind.WORD: REFUSED_WORDS, Kind.SIGN: REFUSED_SIGNS}.get(token.kind, {})
        if token.text not in known:
            return None
        return self._refusal(token.start, f"{known[token.text]} is not supported", HINTS.get(token.text, ""))

    def _unexpected(self) -> ConditionError:
        token = self._token
        if refused := self._refused():
            return refused
        if token.kind is Kind.OTHER:
            return self._refusal(token.start, "only 'text' in plain quotes is supported")
        hint = nearest(token.text, KNOWN, likeness=0.6) if token.kind is Kind.WORD else ""
        return self._refusal(token.start, "it is not understood", hint)

    def _whole_row(self, token: Token) -> ConditionError:
        hint = f"Name a column: {token.text}.x. A filter with drop_unchanged = true compares all."
        return self._refusal(token.start, "the whole row is not supported", hint)

    def _bare_name(self, token: Token) -> ConditionError:
        """A name without its row: a column, a variable of a trigger, or a text in the wrong quotes."""
        name = token.text
        if token.kind is Kind.NAME:
            what = "a name in double quotes is a column's, written new.x or old.x"
            text = name.replace("'", "''")
            hint = f"""A text stands in single quotes: '{text}'. A column is new."{name}" or old."{name}"."""
            return self._refusal(token.start, what, hint)
        if name in TRIGGER_WORDS:
            return self._refusal(token.start, f"{name.upper()} is not supported", TRIGGER_WORDS[name])
        hint = f"Did you mean new.{name} or old.{name}?"
        if self._is_compared(token):
            hint += f" A text stands in single quotes: '{name}'."
        return self._refusal(token.start, "a column is written new.x or old.x", hint)

    def _is_compared(self, token: Token) -> bool:
        """Whether it stands where a text often does: behind an operator, or in a list."""
        before = self._tokens[self._tokens.index(token) - 1].text
        return SIGNS.get(before) == COMPARISON or WORDS.get(before) == LIKE or before in ("(", ",")

    def _level(self) -> int:
        token = self._token
        if token.kind is Kind.SIGN:
            return SIGNS.get(token.text, 0)
        return WORDS.get(token.text, 0) if token.kind is Kind.WORD else 0
