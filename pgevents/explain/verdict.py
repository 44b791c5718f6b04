"""What becomes of a transaction, as lines and as JSON."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from pgevents.explain.change import ChangeVerdict
from pgevents.explain.contest import Match
from pgevents.log import one_line
from pgevents.wal import Outline

_DONE = {
    "publish": "published whole",
    "drop": "dropped",
    "summarise": "summarised",
    "slow-lane": "sent to the slow lane",
    "park": "parked",
}
_TAKEN_OUT = ("drop", "summarise", "park")


@dataclass(slots=True)
class TransactionVerdict:
    """One transaction. ``rule`` decided on it, empty where none did; ``matches`` are all that match, it among them.

    ``skipped`` counts what the rule took out, ``rows`` the changes of tables that are streamed, ``not_streamed``
    those of the others. ``changes`` went on to filters and routes, ``unlisted`` more did. A message outside any
    transaction has a verdict of its own, without ``xid``. ``by`` is who marked it, or added the window.

    ``stops``: the stream would stop at the last of the changes, and what is behind it is not known.
    """

    xid: int | None = None
    commit_lsn: str = ""
    committed_at: str | None = None
    origin: str | None = None
    rule: str = ""
    action: str = ""
    reason: str = ""
    by: str = ""
    is_marked: bool = False
    application: str = ""
    from_seq: int = 0
    is_resent: bool = False
    matches: tuple[Match, ...] = ()
    late_marks: int = 0
    malformed_marks: int = 0
    skipped: dict[Outline, int] = field(default_factory=dict)
    rows: Counter[Outline] = field(default_factory=Counter)
    not_streamed: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)
    events: int = 0
    bytes: int = 0
    stops: bool = False
    changes: list[ChangeVerdict] = field(default_factory=list)
    unlisted: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is to be told: it changed no rows, or none that are decoded."""
        return not (self.rows or self.not_streamed or self.changes or self.unlisted)

    def as_json(self) -> str:
        """One line."""
        return orjson.dumps(self.as_dict()).decode()

    def as_dict(self) -> dict[str, Any]:
        return {
            "xid": self.xid,
            "commit_lsn": self.commit_lsn,
            "committed_at": self.committed_at,
            "origin": self.origin,
            "confirmed_before": self.is_resent,
            "rule": self.rule or None,
            "action": self.action or None,
            "reason": self.reason or None,
            "by": self.by or None,
            "application": self.application or None,
            "from_seq": self.from_seq or None,
            "matches": [match._asdict() for match in self.matches],
            "late_marks": self.late_marks,
            "malformed_marks": self.malformed_marks,
            "rows": _counted(self.rows),
            "skipped": _counted(self.skipped),
            "not_streamed": dict(self.not_streamed),
            "filtered": dict(self.filtered),
            "events": self.events,
            "bytes": self.bytes,
            "stops": self.stops,
            "changes": [change.as_dict() for change in self.changes],
            "unlisted": self.unlisted,
        }

    def lines(self) -> list[str]:
        more = [f"  {self.unlisted:,} {_plural('change', self.unlisted)} not listed"] if self.unlisted else []
        changes = [line for change in self.changes for line in change.lines()]
        if self.stops:  # the last line is what it is about
            changes, more = [*more, *changes], []
        notes = [self._rivals(), self._marks(), self._filtered(), self._not_streamed()]
        heads = [self._head(), *(f"  {note}" for note in notes if note)]
        return [*map(one_line, heads), *changes, *more]

    def _head(self) -> str:
        outside = "outside any transaction" if self.stops else "message outside any transaction"
        who = outside if self.xid is None else f"xid {self.xid}"
        parts = [who, f"commit {self.commit_lsn}" if self.xid else self.commit_lsn, self.committed_at or ""]
        parts += [f"origin {self.origin}" if self.origin else ""]
        return f"{'  '.join(filter(None, parts))}  → {self._said()}"

    def _said(self) -> str:
        if self.is_resent:
            return "confirmed before, and not published again"
        events = f"{self.events:,} {_plural('event', self.events)}, {self.bytes:,} bytes"
        if self.stops:
            seq = self.changes[-1].seq
            before = f"published before it: {events}" if self.events else "nothing is published before it"
            return f"the stream stops{f' at change {seq}' if seq else ''}; {before}"
        published = f"published: {events}" if self.events else "nothing is published"
        return f"{self._ruled()}; {published}" if self.rule else published

    def _ruled(self) -> str:
        rule = f"rule {self.rule} ({self._why()})"
        if self.action in _TAKEN_OUT and not self.skipped:
            return f"{rule} takes out nothing"
        since = f" from change {self.from_seq} on" if self.from_seq > 1 else ""
        skipped = f": {self._skipped()}{since}" if self.skipped else ""
        return f"{_DONE[self.action]} by {rule}{skipped}"

    def _why(self) -> str:
        if not self.by:
            return f'"{self.reason}"'
        if not self.is_marked:
            return f'added by {self.by}: "{self.reason}"'
        return f'marked by {self.by}{f" with {self.application}" if self.application else ""}: "{self.reason}"'

    def _skipped(self) -> str:
        tables: Counter[str] = Counter()
        for (_, schema, table), count in self.skipped.items():
            tables[f"{schema}.{table}" if table else ""] += count
        return ", ".join(
            f"{count:,} {_plural('row', count)} of {table}" if table else f"{count:,} {_plural('message', count)}"
            for table, count in tables.items()
        )

    def _rivals(self) -> str:
        """What other rules would have done, in the order in which they are known to match."""
        others = [f"{name} ({action}, {reason})" for name, action, reason in self.matches if name != self.rule]
        if not others or self.is_resent:
            return ""
        if not self.rule:
            return f"matches too late, and decides nothing: {', '.join(others)}"
        return f"would match as well: {', '.join(others)}; {self.rule} was known first"

    def _marks(self) -> str:
        said = []
        if self.late_marks:
            said.append(f"{self.late_marks} {_plural('mark', self.late_marks)} came too late, and not obeyed")
        if self.malformed_marks:
            said.append(f"{self.malformed_marks} malformed {_plural('mark', self.malformed_marks)}, not obeyed")
        return "; ".join(said)

    def _filtered(self) -> str:
        return ", ".join(f"{count:,} filtered by {rule}" for rule, count in self.filtered.items())

    def _not_streamed(self) -> str:
        tables = ", ".join(f"{count:,} of {table}" for table, count in self.not_streamed.items())
        return f"not streamed: {tables}" if tables else ""


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _counted(rows: "Counter[Outline] | dict[Outline, int]") -> list[dict[str, Any]]:
    return [
        {"op": op, "schema": schema or None, "table": table or None, "rows": count}
        for (op, schema, table), count in rows.items()
    ]
