"""What an administrator decides: which transactions are skipped, which changes published, how, and where to."""

from dataclasses import dataclass, field
from enum import StrEnum

from pgevents.condition import Condition
from pgevents.event import Headers
from pgevents.filters import TableFilter
from pgevents.lsn import NOWHERE, Lsn

OPERATIONS = ("insert", "update", "delete", "truncate", "message")


class Action(StrEnum):
    """What becomes of a transaction that a skip rule matches."""

    PUBLISH = "publish"
    DROP = "drop"
    SUMMARISE = "summarise"
    SLOW_LANE = "slow-lane"
    PARK = "park"


class Missing(StrEnum):
    """What becomes of a change without a value that a condition asks for."""

    STOP = "stop"
    PUBLISH = "publish"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class SkipRule:
    """A rule about whole transactions. Exactly one of its tests is set: marked, origin, rows, or a window.

    ``rows``: more changed rows than this in one transaction, of one table that ``tables`` matches where that is set,
    else in all. A window matches by ``xid``, by commit LSN from ``first`` up to and with ``last``, or by commit time,
    ISO 8601 in UTC as ``Begin.committed_at``, from ``since`` up to ``until``, either of which may be left out.
    ``by`` is who added a window while a stream runs. ``exchange`` and ``routing_key`` are those of the slow lane.
    ``push_down``: the plug-in is told to leave the origin's transactions out where it can, of which nothing is left
    then, not even a record.
    """

    name: str
    action: Action = Action.DROP
    reason: str = ""
    marked: bool = False
    origin: str = ""
    rows: int | None = None
    tables: TableFilter | None = None
    xid: int | None = None
    first: Lsn = NOWHERE
    last: Lsn = NOWHERE
    since: str = ""
    until: str = ""
    exchange: str = ""
    routing_key: str = ""
    push_down: bool = False
    by: str = ""

    @property
    def is_window(self) -> bool:
        return self.xid is not None or bool(self.first or self.last or self.since or self.until)

    @property
    def parks(self) -> bool:
        return self.action is Action.PARK


@dataclass(frozen=True, slots=True)
class FilterRule:
    """Of the changes of ``tables``, only those of ``operations`` go on for which ``when`` is true.

    ``unchanged`` also takes out updates in which nothing changed but the columns of ``ignore``.
    """

    name: str
    tables: TableFilter
    operations: frozenset[str] = frozenset(OPERATIONS)
    when: Condition | None = None
    unchanged: bool = False
    ignore: frozenset[str] = frozenset()
    on_missing: Missing = Missing.STOP


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """What becomes of the columns of ``tables``. An empty ``include`` means every column.

    ``mask`` replaces a value by ``***``, ``hash`` by an HMAC-SHA-256 in hex, ``truncate`` cuts text to so many
    characters. NULL stays NULL. ``allow_missing``: columns may be named that no table has any more.
    """

    name: str
    tables: TableFilter
    include: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    mask: frozenset[str] = frozenset()
    hash: frozenset[str] = frozenset()
    truncate: dict[str, int] = field(default_factory=dict)
    allow_missing: bool = False


@dataclass(frozen=True, slots=True)
class RouteRule:
    """Where the events of ``tables`` and ``operations`` go for which ``when`` is true; the first route that fits.

    What it leaves empty is as without a route. ``expiration_ms`` and ``priority`` are AMQP's; ``format`` names a
    codec, ``compression`` a content encoding.
    """

    name: str
    tables: TableFilter
    operations: frozenset[str] = frozenset(OPERATIONS)
    when: Condition | None = None
    exchange: str = ""
    routing_key: str = ""
    headers: Headers = ()
    priority: int | None = None
    expiration_ms: int | None = None
    format: str = ""
    compression: str = ""
    on_missing: Missing = Missing.STOP


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules, each kind in the order of the file."""

    skip: tuple[SkipRule, ...] = ()
    filter: tuple[FilterRule, ...] = ()
    columns: tuple[ColumnRule, ...] = ()
    route: tuple[RouteRule, ...] = ()

    @property
    def pushed_origins(self) -> tuple[str, ...]:
        """The origins that the plug-in is to leave out."""
        return tuple(rule.origin for rule in self.skip if rule.push_down)
