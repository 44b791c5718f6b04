"""The words of a condition, with their places, as sqlglot's tokenizer for PostgreSQL finds them.

Only its tokens are used. Its tree has no places for most nodes, drops what it thinks redundant, and binds some
operators otherwise than PostgreSQL (``a < b < c``), so ``parser`` makes a tree of our own.
"""

import re
import string
from enum import Enum, auto
from typing import NamedTuple

from pgevents.condition.error import ConditionError
from pgevents.errors import ConfigError


class Kind(Enum):
    """What a token is. A NAME was quoted; a WORD was not, and is in lower case as PostgreSQL folds it."""

    WORD = auto()
    NAME = auto()
    STRING = auto()
    NUMBER = auto()
    SIGN = auto()
    OTHER = auto()
    END = auto()


class Token(NamedTuple):
    """``text`` without quotes; ``start`` and ``end`` are the place of what was written, from 0, end excluded."""

    kind: Kind
    text: str
    start: int
    end: int


# PostgreSQL folds only these in a database of UTF-8.
_FOLDED = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_WORD = re.compile(r"[^\W\d][\w$]*")
_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_KINDS = {"STRING": Kind.STRING, "IDENTIFIER": Kind.NAME, "NUMBER": Kind.NUMBER}


def tokens(text: str) -> list[Token]:
    """The tokens of ``text``, without comments, and an END behind them. Raises ConditionError."""
    try:
        from sqlglot.dialects.postgres import Postgres
        from sqlglot.errors import TokenError
    except ImportError as error:
        raise ConfigError(
            "conditions need sqlglot, which is not installed", hint="pip install 'pgevents-stream[rules]'"
        ) from error
    try:
        found = Postgres().tokenize(text)
    except TokenError as error:
        raise ConditionError(
            f"the condition {text!r} ends inside a quoted text or a comment",
            hint="A quote inside a text in quotes is written twice.",
        ) from error
    result: list[Token] = []
    for token in found:
        result += _ours(token.token_type.name, token.text, text[token.start : token.end + 1], token.start)
    return [*result, Token(Kind.END, "", len(text), len(text))]


def _ours(type_name: str, value: str, written: str, start: int) -> list[Token]:
    end = start + len(written)
    if type_name == "NUMBER" and not _NUMBER.fullmatch(written):
        return [Token(Kind.OTHER, written, start, end)]
    if type_name in _KINDS:
        return [Token(_KINDS[type_name], value if type_name != "NUMBER" else written, start, end)]
    if "'" in written or '"' in written or written.startswith("$"):
        return [Token(Kind.OTHER, written, start, end)]
    # sqlglot makes one token of several words: double precision.
    words = [
        Token(Kind.WORD, m[0].translate(_FOLDED), start + m.start(), start + m.end()) for m in _WORD.finditer(written)
    ]
    return words or [Token(Kind.SIGN, written, start, end)]


def in_quotes(name: str) -> str:
    """A name of whatever letters, as it is read back."""
    return '"' + name.replace('"', '""') + '"'
