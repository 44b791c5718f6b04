"""Compares what was committed with what was delivered, and counts as Jepsen does.

The ledger says which changes were committed, each once, in an order that holds for every key and within every
transaction. The arrivals say what a consumer got, and in which order. Events are taken once by their id, the first of
each, and the tables rebuilt from them must be those of the database.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from chaos.arrival import Arrival, Kind
from chaos.ledger import Entry, Tables
from chaos.replica import Event, Replica
from pgevents.lsn import Lsn

_EXAMPLES = 5
_CHANGING = "side"
"""The table whose columns come and go, so that what an event lists as missing may too."""

Change = tuple[int, str, str, int | None, int | None, int | None]
"""What the ledger and an event both know of a change: xid, table, op, key, old key, op id."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The counters. All but ``attempted`` count changes; ``examples`` names some of what is wrong, without values.

    ``lost``: committed and never delivered. ``unexpected``: delivered and not committed, or delivered again with
    another content. ``reordered``: each taken once, behind a later one of all, of its key or of its transaction.
    ``duplicated``: published again. ``acknowledged_again``: those of them that the slot had been acknowledged past
    before. ``requeued``: given again by the broker, which is no matter of the stream. ``differing``: rows in which
    the rebuilt tables differ, and events that did not fit them.
    """

    attempted: int
    committed: int
    delivered: int
    lost: int
    duplicated: int
    acknowledged_again: int
    requeued: int
    unexpected: int
    reordered: int
    differing: int
    transactions: int
    examples: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.unexpected or self.reordered or self.differing)

    def counters(self) -> dict[str, int]:
        counted = asdict(self)
        del counted["examples"]
        return counted

    def lines(self) -> list[str]:
        width = max(map(len, self.counters()))
        lines = [f"  {name.replace('_', ' '):<{width}} {value:>12,}" for name, value in self.counters().items()]
        return [*lines, *(f"  ! {example}" for example in self.examples)]


def judge(
    ledger: Iterable[Entry],
    arrivals: Iterable[Arrival],
    tables: Tables,
    *,
    attempted: int = 0,
    by_last_copy: bool = False,
) -> Verdict:
    """Compare. ``tables`` are the database's rows at the end, in an event's form.

    ``by_last_copy`` takes of each event the last one instead of the first: where a broker refuses an event and takes
    the ones behind it, those come before it, and once more behind it.
    """
    oracle = Oracle(ledger)
    for arrival in _last_copies(arrivals) if by_last_copy else arrivals:
        oracle.take(arrival)
    return oracle.verdict(tables, attempted=attempted)


class Oracle:
    """Takes arrivals one after another; only numbers, ids and the rebuilt tables stay in memory."""

    def __init__(self, ledger: Iterable[Entry]) -> None:
        self._awaited: dict[Change, list[int]] = {}
        self._transactions: set[int] = set()
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._contents: dict[str, int] = {}
        self._latest: dict[object, Any] = {}
        self._replica = Replica()
        self._mark = 0
        for entry in ledger:
            self._awaited.setdefault(entry[1:], []).append(entry.seq)
            self._transactions.add(entry.xid)
            self._counts["committed"] += 1

    def take(self, arrival: Arrival) -> None:
        if arrival.kind is Kind.MARK:
            self._mark = max(self._mark, Lsn.parse(arrival.body.decode()))
            return
        event: Event = orjson.loads(arrival.body)
        content = hash(_content(event, arrival.body))
        first = self._contents.setdefault(event["id"], content)
        if len(self._contents) > self._counts["delivered"]:
            self._counts["delivered"] += 1
            self._take_first(event)
        else:
            self._take_again(event, arrival.kind, is_same=first == content)

    def _take_again(self, event: Event, kind: Kind, *, is_same: bool) -> None:
        if not is_same:
            self._note("unexpected", event, "came again with another content")
        if kind is Kind.AGAIN:
            self._counts["requeued"] += 1
            return
        self._counts["duplicated"] += 1
        # Records do not overlap: a commit that starts before an acknowledged LSN ends by then.
        if Lsn.parse(event["tx"]["lsn"]) < self._mark:
            self._note("acknowledged_again", event, "came again after it was acknowledged")

    def _take_first(self, event: Event) -> None:
        change = _change(event)
        awaited = self._awaited.get(change)
        if not awaited:
            self._note("unexpected", event, "was not committed")
        elif not self._is_in_order(event, change, awaited.pop(0)):
            self._note("reordered", event, "came behind a later one")
        if complaint := self._replica.apply(event):
            self._note("differing", event, complaint)

    def _is_in_order(self, event: Event, change: Change, seq: int) -> bool:
        """The commit order as a whole, and the ledger's within the transaction and for each key."""
        xid, table, _, key, old_key, _ = change
        position = (Lsn.parse(event["tx"]["lsn"]), event["tx"]["seq"])
        threads = {"all": position, ("xid", xid): seq}
        threads |= {(table, each): seq for each in (key, old_key) if each is not None}
        late = [thread for thread, number in threads.items() if self._latest.get(thread, number) > number]
        self._latest |= {thread: number for thread, number in threads.items() if thread not in late}
        return not late

    def verdict(self, tables: Tables, *, attempted: int) -> Verdict:
        missing = [(change, len(seqs)) for change, seqs in self._awaited.items() if seqs]
        differences = self._replica.differences(tables)
        examples = [f"lost: {change}" for change, _ in missing[:_EXAMPLES]]
        examples += [f"{kind}: {each}" for kind, some in self._examples.items() for each in some]
        examples += [f"differing: row {each}" for each in differences[:_EXAMPLES]]
        count = self._counts
        return Verdict(
            attempted=attempted,
            committed=count["committed"],
            delivered=count["delivered"],
            lost=sum(number for _, number in missing),
            duplicated=count["duplicated"],
            acknowledged_again=count["acknowledged_again"],
            requeued=count["requeued"],
            unexpected=count["unexpected"],
            reordered=count["reordered"],
            differing=count["differing"] + len(differences),
            transactions=len(self._transactions),
            examples=tuple(examples),
        )

    def _note(self, kind: str, event: Event, what: str) -> None:
        self._counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(f"{event['op']} {event['table'] or ''} {event['id']} {what}")


def _last_copies(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """The last copy of each event in their order, and behind them all others. Marks are left out."""
    events = [arrival for arrival in arrivals if arrival.kind is not Kind.MARK]
    last = {orjson.loads(arrival.body)["id"]: index for index, arrival in enumerate(events)}
    kept = set(last.values())
    return [events[index] for index in sorted(kept)] + [
        arrival for index, arrival in enumerate(events) if index not in kept
    ]


def _change(event: Event) -> Change:
    op, tx, new, old = event["op"], event["tx"], event["new"], event["old"]
    if op == "message":
        number, _, _ = event["message"]["content"].partition(" ")
        return tx["xid"], event["message"]["prefix"], op, int(number), None, None
    if op == "truncate":
        return tx["xid"], event["table"], op, None, None, None
    return (
        tx["xid"],
        event["table"],
        op,
        event["key"]["id"],
        old and old["id"],
        new and new["op"],
    )


def _content(event: Event, body: bytes) -> object:
    """What must be the same whenever an event comes again."""
    if event["table"] == _CHANGING:
        return str((event["op"], event["new"], event["tx"]))
    return body
