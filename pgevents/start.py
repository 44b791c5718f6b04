"""Where a stream may start: its slot, checked against the watermark, and created where it is missing and may be."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pgevents import publication as publications
from pgevents.errors import ConfigError, GapDetected, NotPrimary
from pgevents.filters import TableFilter
from pgevents.interfaces import State
from pgevents.lsn import Lsn
from pgevents.postgres import Sql
from pgevents.server import Server, check_server, look
from pgevents.slot import SlotReport, check_slot, create, find, report
from pgevents.table import check_patterns, inexact_columns, keyless_tables
from pgevents.watermark import AcceptedGap, Standing, Watermark, gap_between, overtaken

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be streamed. ``create`` the slot where it is missing; ``accept_gap`` goes on behind lost changes."""

    slot: str
    plugin: str
    publication: str
    tables: Sequence[str] = ()
    excluded: Sequence[str] = ()
    create: bool = False
    accept_gap: bool = False


@dataclass(slots=True)
class Kept:
    """A watermark, and where it is kept; ``is_new`` when nothing of this slot was acknowledged to us before."""

    state: State
    watermark: Watermark
    is_new: bool = False

    def move(self, end_lsn: Lsn) -> None:
        """Keep a later LSN; it may be acknowledged once this returns. Blocks; raises StateError or SourceError."""
        moved = self.watermark.moved_to(end_lsn)
        self.state.save(moved)
        self.watermark = moved


def prepare(dsn: str, state: State, wish: Wish) -> tuple[SlotReport, Kept]:
    """The slot to start from and its watermark. Blocks; raises SourceError, GapDetected, StateError, ConfigError."""
    with Sql(dsn) as sql:
        check_server(look(sql))
        check_patterns(sql, wish.tables)
        found, watermark, server = look_around(sql, wish.slot, state)
        check_state(watermark, wish.slot, state)
        if found is not None:
            check_slot(found, plugin=wish.plugin, database=server.database)
        gap = gap_found(watermark, server, found) if watermark else None
        if found is None and wish.accept_gap and not wish.create:
            raise ConfigError(
                f"there is no slot {wish.slot}, and --accept-gap alone creates none",
                hint="Start with --create-slot --accept-gap.",
            )
        is_accepted = _decide(gap, accepts=wish.accept_gap, is_behind=_is_behind(watermark, found))
        ready = _ready(sql, found, wish, database=server.database)
        is_new = watermark is None or is_accepted
        if watermark is None or is_accepted:
            watermark = _first(server, ready, watermark, str(gap or _SET_BACK))
        # Also where it is as it was: what cannot be kept is not published first.
        state.save(watermark)
        return ready, Kept(state, watermark, is_new=is_new)


def look_around(sql: Sql, slot: str, state: State) -> tuple[SlotReport | None, Watermark | None, Server]:
    """The slot, the watermark and the server, asked in this order.

    Whoever streams moves the WAL first, then the watermark, then the slot: so none can seem ahead that is not.
    """
    return find(sql, slot), state.load(), look(sql)


def gap_found(watermark: Watermark, server: Server, found: SlotReport | None) -> GapDetected | None:
    """The gap, if there is one. Raises NotPrimary where a standby may only not have what its primary has."""
    gap = gap_between(watermark, _standing(server, found))
    if gap is not None and server.is_standby and server.system_id == watermark.system_id:
        raise NotPrimary(
            f"this server is a standby, and has not what slot {watermark.slot} was acknowledged up to: "
            f"{watermark.end_lsn}",
            hint="Connect to the primary: target_session_attrs=read-write in the DSN finds it among several hosts.",
        )
    return gap


def resume(dsn: str, kept: Kept, *, plugin: str) -> tuple[SlotReport, Kept]:
    """The slot that was being streamed from. Blocks; raises GapDetected when it is gone or was moved meanwhile."""
    slot = kept.watermark.slot
    with Sql(dsn) as sql:
        found, loaded, server = look_around(sql, slot, kept.state)
        # Another host may have streamed meanwhile, and moved a watermark that both of them keep.
        watermark = loaded or kept.watermark
        if found is not None:
            check_slot(found, plugin=plugin, database=server.database)
        _refuse_gap(watermark, server, found)
        kept.state.save(watermark)
        return report(sql, slot), Kept(kept.state, watermark)


def recheck(dsn: str, kept: Kept) -> None:
    """Once more, when the slot is ours and nobody else can move it.

    Blocks; raises GapDetected, SourceError, and StateUnavailable where another host has streamed in between.
    """
    slot = kept.watermark.slot
    with Sql(dsn) as sql:
        found, loaded, server = look_around(sql, slot, kept.state)
    if loaded is not None and loaded.end_lsn != kept.watermark.end_lsn:
        raise overtaken(slot)
    _refuse_gap(kept.watermark, server, found)


def _refuse_gap(watermark: Watermark, server: Server, found: SlotReport | None) -> None:
    gap = gap_found(watermark, server, found)
    if gap is not None:
        raise gap


def _is_behind(watermark: Watermark | None, found: SlotReport | None) -> bool:
    if watermark is None or found is None:
        return False
    return Lsn.parse(found.confirmed_flush_lsn or "0/0") < watermark.end_lsn


def check_temporary(dsn: str, *, plugin: str, publication: str, tables: Sequence[str]) -> None:
    """Raises when a temporary slot of ``plugin`` could not be streamed from."""
    with Sql(dsn) as sql:
        check_server(look(sql))
        check_patterns(sql, tables)
        if plugin == "pgoutput":
            publications.check(sql, publication, tables)


def create_slot(dsn: str, wish: Wish, *, state: State | None = None) -> SlotReport:
    """Create a slot that must not exist yet, nor have a watermark from an earlier life."""
    with Sql(dsn) as sql:
        check_server(look(sql))
        if find(sql, wish.slot) is not None:
            raise ConfigError(
                f"slot {wish.slot} exists already", hint=f"pgevents slot status --slot {wish.slot} shows it."
            )
        watermark = state and state.load()
        if watermark:
            raise GapDetected(
                f"slot {wish.slot} was dropped: {state} holds its watermark, {watermark.end_lsn}",
                hint="A new one would begin behind a gap. Reload what depends on the events and run stream with "
                "--create-slot --accept-gap, which records the decision.",
            )
        check_patterns(sql, wish.tables)
        return _created(sql, wish)


def _created(sql: Sql, wish: Wish) -> SlotReport:
    notes = create(sql, wish.slot, plugin=wish.plugin, publication=wish.publication, tables=wish.tables)
    return replace(report(sql, wish.slot), notes=notes)


def _ready(sql: Sql, found: SlotReport | None, wish: Wish, *, database: str) -> SlotReport:
    """The slot with all that its plug-in needs."""
    if found is None and wish.create:
        ready = _created(sql, wish)
        check_slot(ready, plugin=wish.plugin, database=database)
    else:
        ready = report(sql, wish.slot)
        if wish.plugin == "auto":
            ready = replace(ready, notes=("the slot was created for it",))
    if ready.plugin == "wal2json":
        keep = TableFilter(wish.tables, wish.excluded)
        return replace(ready, inexact_columns=inexact_columns(sql, keep), keyless_tables=keyless_tables(sql, keep))
    if wish.create:
        return replace(ready, notes=(*ready.notes, *publications.ensure(sql, wish.publication, wish.tables)))
    publications.check(sql, wish.publication, wish.tables)
    return ready


def _standing(server: Server, found: SlotReport | None) -> Standing:
    position = None if found is None else Lsn.parse(found.confirmed_flush_lsn or "0/0")
    return Standing(server.system_id, server.timeline, server.lsn, position)


def check_state(watermark: Watermark | None, slot: str, state: State) -> None:
    if watermark is not None and watermark.slot != slot:
        raise ConfigError(
            f"{state} holds the watermark of slot {watermark.slot}, not of {slot}",
            hint="Each slot needs a watermark of its own: give another --state.",
        )


# A commit across the watermark shows that the WAL is another one, and that shows only while it is read.
_SET_BACK = "the watermark was set back to where the slot stands"


def _decide(gap: GapDetected | None, *, accepts: bool, is_behind: bool) -> bool:
    """Whether a gap is accepted; raises it where it is not. A slot behind its watermark may be started from too."""
    if gap is not None and not accepts:
        raise gap
    if accepts and gap is None and not is_behind:
        raise ConfigError(
            "there is no gap to accept",
            hint="Leave --accept-gap out: standing in a script it would accept the next gap unseen.",
        )
    if accepts:
        logger.warning("a gap was accepted", extra={"gap": str(gap or _SET_BACK)})
    return accepts


def _first(server: Server, ready: SlotReport, before: Watermark | None, reason: str) -> Watermark:
    """A watermark where the slot stands, with the gaps accepted so far."""
    end_lsn = Lsn.parse(ready.confirmed_flush_lsn or "0/0")
    gaps = before.gaps if before else ()
    if before:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        gaps = (*gaps, AcceptedGap(now, reason, before.end_lsn, end_lsn))
    return Watermark(server.system_id, server.timeline, server.database, ready.slot, ready.plugin, end_lsn, gaps)
