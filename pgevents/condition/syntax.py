"""The tree of a condition, before anything is known of the table. ``at`` is a place in its text, from 0."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Literal:
    """``'text'``, or NULL where ``text`` is None: of no type yet."""

    at: int
    text: str | None


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written, with the minus sign PostgreSQL reads as part of it."""

    at: int
    text: str


@dataclass(frozen=True, slots=True)
class Boolean:
    at: int
    value: bool


@dataclass(frozen=True, slots=True)
class Column:
    """``new.name`` or ``old.name``; ``end`` is behind it."""

    at: int
    side: str
    name: str
    end: int


@dataclass(frozen=True, slots=True)
class Not:
    at: int
    operand: "Node"


@dataclass(frozen=True, slots=True)
class Logic:
    """``is_and``, else OR."""

    at: int
    is_and: bool
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Comparison:
    """``=  <>  <  <=  >  >=``."""

    at: int
    sign: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Distinct:
    """``left IS DISTINCT FROM right``, or not."""

    at: int
    left: "Node"
    right: "Node"
    negated: bool


@dataclass(frozen=True, slots=True)
class IsNull:
    at: int
    operand: "Node"
    negated: bool


@dataclass(frozen=True, slots=True)
class IsTruth:
    """IS TRUE, IS FALSE; IS UNKNOWN where ``truth`` is None."""

    at: int
    operand: "Node"
    truth: bool | None
    negated: bool


@dataclass(frozen=True, slots=True)
class InList:
    at: int
    operand: "Node"
    choices: "tuple[Node, ...]"
    negated: bool


@dataclass(frozen=True, slots=True)
class Like:
    """``escape`` is the character after ESCAPE, empty for none."""

    at: int
    operand: "Node"
    pattern: "Node"
    escape: str
    ignore_case: bool
    negated: bool


@dataclass(frozen=True, slots=True)
class Extract:
    """``->``, or ``->>`` where ``as_text``; ``key`` is an object's key or an array's index."""

    at: int
    operand: "Node"
    key: str | int
    as_text: bool


@dataclass(frozen=True, slots=True)
class Cast:
    """``type_name`` is one of ``kind.CAST_NAMES``."""

    at: int
    operand: "Node"
    type_name: str


@dataclass(frozen=True, slots=True)
class Collate:
    """``operand COLLATE "C"``."""

    at: int
    operand: "Node"


@dataclass(frozen=True, slots=True)
class Negation:
    at: int
    operand: "Node"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """``+  -  *  /  %``."""

    at: int
    sign: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Call:
    at: int
    name: str
    arguments: "tuple[Node, ...]"


Node = (
    Literal
    | Number
    | Boolean
    | Column
    | Not
    | Logic
    | Comparison
    | Distinct
    | IsNull
    | IsTruth
    | InList
    | Like
    | Extract
    | Cast
    | Collate
    | Negation
    | Arithmetic
    | Call
)


def children(node: Node) -> tuple[Node, ...]:
    """What ``node`` is made of, in order."""
    match node:
        case Logic() | Comparison() | Distinct() | Arithmetic():
            return node.left, node.right
        case InList():
            return node.operand, *node.choices
        case Like():
            return node.operand, node.pattern
        case Call():
            return node.arguments
        case Literal() | Number() | Boolean() | Column():
            return ()
        case _:
            return (node.operand,)


def walked(node: Node) -> Iterator[Node]:
    """``node`` and all it is made of, in order."""
    yield node
    for child in children(node):
        yield from walked(child)
