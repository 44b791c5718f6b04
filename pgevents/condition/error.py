"""What can be wrong with a condition, and what can go wrong while it is evaluated."""

from pgevents.errors import ConfigError, PGEventsError


class ConditionError(ConfigError):
    """A condition that cannot be used: the message says where and what, the hint the nearest thing that can."""


class ConditionFailed(PGEventsError):
    """PostgreSQL would raise an error for this row, such as a division by zero. Holds no row values.

    ``sqlstate`` is PostgreSQL's code for it.
    """

    def __init__(self, reason: str, *, sqlstate: str) -> None:
        super().__init__(f"the condition failed on a row: {reason}", hint="Rewrite it so that no row can fail it.")
        self.reason = reason
        self.sqlstate = sqlstate


class Unsent(LookupError):
    """The condition needs a value PostgreSQL did not send; ``column`` names it, as ``old.total``."""

    def __init__(self, column: str) -> None:
        super().__init__(f"PostgreSQL did not send {column}")
        self.column = column
