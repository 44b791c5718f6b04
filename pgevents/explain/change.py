"""What becomes of one change, as lines and as JSON."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from pgevents.log import one_line


class Outcome(StrEnum):
    """What becomes of one change."""

    PUBLISHED = "published"
    PARKED = "parked"
    FILTERED = "filtered"
    NOT_STREAMED = "not streamed"
    NOT_IN_FORMAT = "not in format"
    STOPS = "stops"


@dataclass(frozen=True, slots=True)
class Where:
    """Where a change goes and as what. ``route`` is the rule's name, and empty without one."""

    exchange: str
    routing_key: str
    route: str
    format: str
    messages: int
    bytes: int

    def __str__(self) -> str:
        place = f"{self.exchange}/{self.routing_key}" if self.exchange else self.routing_key
        route = f" by route {self.route}" if self.route else ""
        size = f"{self.bytes:,} bytes" + (f" in {self.messages} messages" if self.messages > 1 else "")
        return f"{place}{route} ({self.format}, {size})"


@dataclass(frozen=True, slots=True)
class ChangeVerdict:
    """``table`` is a prefix where ``op`` is message. ``key`` is the event's, so that what is masked is. ``rule`` is
    the filter, or who parks it; ``problem`` is why the stream would stop, ``hint`` what can be done.
    """

    seq: int
    op: str
    table: str
    outcome: Outcome
    key: dict[str, Any] | None = None
    where: Where | None = None
    rule: str = ""
    problem: str = ""
    hint: str = ""

    def as_dict(self) -> dict[str, Any]:
        where = self.where
        return {
            "seq": self.seq,
            "op": self.op,
            "table": self.table,
            "key": self.key,
            "verdict": str(self.outcome),
            "rule": self.rule or None,
            "problem": self.problem or None,
            "hint": self.hint or None,
            "route": where and (where.route or None),
            "exchange": where and (where.exchange or None),
            "routing_key": where and where.routing_key,
            "format": where and where.format,
            "messages": where and where.messages,
            "bytes": where and where.bytes,
        }

    def __str__(self) -> str:
        key = f" {orjson.dumps(self.key).decode()}" if self.key is not None else ""
        return one_line(f"{self.seq or '-':>5} {self.op} {self.table}{key} → {self._said()}")

    def lines(self) -> list[str]:
        return [str(self), *([one_line(f"{'':>10}hint: {self.hint}")] if self.hint else [])]

    def _said(self) -> str:
        match self.outcome:
            case Outcome.PUBLISHED:
                return str(self.where)
            case Outcome.PARKED:
                return f"parked by {self.rule}, else {self.where}"
            case Outcome.FILTERED:
                return f"filtered by {self.rule}"
            case Outcome.NOT_IN_FORMAT:
                return f"nothing: the format {self.where.format if self.where else ''} has no word for it"
            case Outcome.STOPS:
                return f"the stream stops here: {self.problem}"
        return "not streamed"
