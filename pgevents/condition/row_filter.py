"""A condition as the row filter of a publication. Source: PostgreSQL manual, CREATE PUBLICATION."""

from collections.abc import Iterator

from pgevents.condition import syntax
from pgevents.condition.lexer import Kind, tokens
from pgevents.condition.syntax import Node


def row_filter(text: str, tree: Node) -> str | None:
    """``text`` with its columns as a publication names them; None where it would not take it.

    A publication knows no old row, and takes only what it knows to be immutable. A literal is read when it is made.
    """
    nodes = list(syntax.walked(tree))
    columns = {node.at: node for node in nodes if isinstance(node, syntax.Column)}
    if any(column.side == "old" for column in columns.values()) or any(map(_is_computed_cast, nodes)):
        return None
    return " ".join(_words(text, columns))


def _is_computed_cast(node: Node) -> bool:
    """A publication refuses a cast by way of text or of settings; which it is depends on types not known here."""
    return isinstance(node, syntax.Cast) and not isinstance(node.operand, syntax.Literal)


def _words(text: str, columns: dict[int, syntax.Column]) -> Iterator[str]:
    behind = 0
    for token in tokens(text):
        if token.start in columns:
            column = columns[token.start]
            behind = column.end
            yield '"' + column.name.replace('"', '""') + '"'
        elif token.start >= behind and token.kind is not Kind.END:
            yield text[token.start : token.end]
