"""What a skip rule takes of one transaction: counted, digested for a summary, and written down in the end."""

import logging
from collections import Counter

from pgevents.look_ahead import Item
from pgevents.rule import Action
from pgevents.skip import Ruling
from pgevents.tally import Counts, Digest, Skipped
from pgevents.wal import Begin, Change, Outline, Relation

logger = logging.getLogger(__name__)

GONE = frozenset({Action.DROP, Action.SUMMARISE})
"""Actions that leave nothing of a change."""

_RECORDED = frozenset({Action.DROP, Action.SUMMARISE, Action.PARK})


class Evidence:
    """Counts what is taken; ``records`` are those written down so far."""

    def __init__(self) -> None:
        self.records: list[Item] = []
        self._clear()

    def _clear(self) -> None:
        self._tally: Counter[Outline] = Counter()
        self._digests: dict[tuple[str, str], Digest] = {}
        self._from_seq = 0

    def add(self, outline: Outline, seq: int, rows: int = 1) -> None:
        """So many changes from number ``seq`` on."""
        self._tally[outline] += rows
        self._from_seq = self._from_seq or seq

    def digest(self, item: Item) -> None:
        """One change, as it was."""
        match item:
            case Change(relation=relation):
                self._digest_of(relation).add(item)
            case Relation():
                self._digest_of(item).truncated()

    def close(self, ruling: Ruling, begin: Begin, counts: Counts) -> None:
        """Write down what the ruling took: the transaction has ended, or another ruling takes over."""
        if not (self._tally or ruling.rule.marked):
            return
        if not self._tally:
            logger.warning(
                "a mark names tables in which nothing was changed"
                if ruling.tables
                else "a marked transaction changed nothing that is streamed",
                extra={"xid": begin.xid, "reason": ruling.reason, "by": ruling.by},
            )
        self._log(ruling, begin)
        if ruling.action in _RECORDED:
            counts.skipped(ruling.rule.name, sum(n for outline, n in self._tally.items() if outline.op != "message"))
            self.records.append(self._record(ruling))
        self.records += [digest.summary() for digest in self._digests.values()]
        self._clear()

    def _digest_of(self, relation: Relation) -> Digest:
        name = (relation.schema, relation.name)
        if name not in self._digests:
            self._digests[name] = Digest(relation)
        return self._digests[name]

    def _record(self, ruling: Ruling) -> Skipped:
        rows = dict(self._tally)
        return Skipped(
            ruling.rule.name, ruling.action, ruling.reason, ruling.by, ruling.application, rows, self._from_seq
        )

    def _log(self, ruling: Ruling, begin: Begin) -> None:
        rows = {f"{o.schema}.{o.table} {o.op}" if o.table else o.op: n for o, n in self._tally.items()}
        logger.info(
            "transaction skipped" if ruling.action in GONE else "transaction ruled",
            extra={
                "rule": ruling.rule.name,
                "action": str(ruling.action),
                "reason": ruling.reason,
                "xid": begin.xid,
                "lsn": str(begin.commit_lsn),
                "by": ruling.by,
                "rows": rows,
                "from_seq": self._from_seq,
            },
        )
