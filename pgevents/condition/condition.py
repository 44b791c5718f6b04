"""A condition as its author wrote it, and the closure it becomes for one relation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pgevents.condition import syntax
from pgevents.condition.binder import Binder
from pgevents.condition.never import never
from pgevents.condition.operand import Enums
from pgevents.condition.parser import parse
from pgevents.condition.row_filter import row_filter
from pgevents.condition.syntax import Node
from pgevents.wal import Row

Test = Callable[[Row | None, Row | None], bool | None]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on the columns of ``new`` and ``old``, whose types are not known yet."""

    text: str
    tree: Node
    columns: frozenset[tuple[str, str]]

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """The condition ``text`` says. Raises ConditionError, with the place in it."""
        tree = parse(text)
        found = frozenset((node.side, node.name) for node in syntax.walked(tree) if isinstance(node, syntax.Column))
        return cls(text, tree, found)

    def bind(self, types: Mapping[str, int], *, enums: Enums | None = None) -> Test:
        """A closure over the raw rows ``new`` and ``old`` of one relation: true, false, or None for unknown.

        ``types`` has for each column the OID of its type, or of the base type of its domain. ``enums`` are the OIDs
        that are enums; without them every type that is not PostgreSQL's own counts as one, which suits what was bound
        with them before. Where they map to an Enum, a literal must be one of its labels. Raises ConditionError where
        PostgreSQL would not take the condition, and where we could not tell what it would say.

        A row that is None reads as all NULL, as that of an insert or delete in a trigger does. An old row of an
        update that was not sent must be given as ``{}``. The closure raises Unsent for a column that is not in its
        row and that the outcome depends on, and ConditionFailed where PostgreSQL would raise an error for the row.
        """
        return Binder(self.text, types, enums).condition(self.tree).read

    def never(self) -> bool:
        """Whether it is sure that no row makes it true. False where it is not known."""
        return never(self.tree)

    def never_with(self, other: "Condition") -> bool:
        """Whether it is sure that no row makes both true."""
        return never(syntax.Logic(0, is_and=True, left=self.tree, right=other.tree))

    def as_row_filter(self, types: Mapping[str, int]) -> str:
        """The condition as the WHERE of a table in CREATE PUBLICATION, with ``types`` as ``bind`` has them.

        It then takes out fewer events than here, and others: PostgreSQL asks it of both rows of an update, and
        publishes one that only the new row fits as an insert, one that only the old row fits as a delete.

        Raises Unfit, with the reason, where a publication would refuse it, or the server could fail on a row or say
        something else than we do. Columns of types or collations that are not PostgreSQL's own are not looked for.
        """
        return row_filter(self.text, self.tree, types)
