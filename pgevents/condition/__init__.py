"""Conditions in SQL, as a trigger author writes them in WHEN, compiled to closures over raw rows."""

from pgevents.condition.condition import Condition
from pgevents.condition.error import ConditionError, ConditionFailed, Unsent
from pgevents.condition.kind import Enum
from pgevents.condition.row_filter import Unfit

__all__ = ["Condition", "ConditionError", "ConditionFailed", "Enum", "Unfit", "Unsent"]
