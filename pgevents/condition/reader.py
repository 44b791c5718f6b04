"""The tokens of a condition, one after another, and what is said of one that does not fit."""

from pgevents.condition.error import ConditionError
from pgevents.condition.grammar import KNOWN, REFUSED_SIGNS, REFUSED_WORDS, SIGNS, WORDS
from pgevents.condition.lexer import Kind, Token, tokens
from pgevents.condition.spelling import nearest

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
                raise self._refusal(self._token.start, f"{text.upper()} is missing")

    def _refusal(self, at: int, what: str, hint: str = "") -> ConditionError:
        return ConditionError(
            f"the condition {self._text!r} cannot be used: {what} {place(self._text, at)}", hint=hint
        )

    def _unexpected(self) -> ConditionError:
        token = self._token
        if token.kind is Kind.WORD and token.text in REFUSED_WORDS:
            return self._refusal(token.start, f"{REFUSED_WORDS[token.text]} is not supported")
        if token.kind is Kind.SIGN and token.text in REFUSED_SIGNS:
            hint = "Use LIKE or ILIKE." if "~" in token.text else "Read from JSON with -> and ->>."
            return self._refusal(token.start, f"{REFUSED_SIGNS[token.text]} is not supported", hint)
        if token.kind is Kind.OTHER:
            return self._refusal(token.start, "only 'text' in plain quotes is supported")
        hint = nearest(token.text, KNOWN, likeness=0.6) if token.kind is Kind.WORD else ""
        return self._refusal(token.start, "it is not understood", hint)

    def _level(self) -> int:
        token = self._token
        if token.kind is Kind.SIGN:
            return SIGNS.get(token.text, 0)
        return WORDS.get(token.text, 0) if token.kind is Kind.WORD else 0
