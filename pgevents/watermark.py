"""The watermark: up to where a slot was acknowledged, and whether the slot and its server still agree with it. Pure.

PostgreSQL may forget what was acknowledged (in a crash; up to 16 also in a clean restart) and sends it again, which
is harmless. What it never does is move a slot on by itself: a slot ahead of its watermark, or none at all, means that
changes were lost to us.
"""

from dataclasses import dataclass, replace

from pgevents.errors import GapDetected, StateUnavailable
from pgevents.lsn import Lsn


@dataclass(frozen=True, slots=True)
class AcceptedGap:
    """A person's decision to go on behind a gap: when, ISO 8601; why; from which LSN to which."""

    accepted_at: str
    reason: str
    before: Lsn
    after: Lsn


@dataclass(frozen=True, slots=True)
class Watermark:
    """Everything before ``end_lsn`` of this server's WAL is confirmed by the sink. Kept before it is acknowledged."""

    system_id: str
    timeline: int
    database: str
    slot: str
    plugin: str
    end_lsn: Lsn
    gaps: tuple[AcceptedGap, ...] = ()

    @property
    def identity(self) -> str:
        """``{system identifier}-{timeline}``: LSNs mean the same only where this is the same."""
        return f"{self.system_id}-{self.timeline}"

    def moved_to(self, end_lsn: Lsn) -> "Watermark":
        return replace(self, end_lsn=end_lsn)

    def follows(self, kept: "Watermark") -> bool:
        """Whether it may take the place of ``kept``: only a person's decision leads to a smaller LSN."""
        return (len(self.gaps), self.end_lsn) >= (len(kept.gaps), kept.end_lsn)


def overtaken(slot: str) -> StateUnavailable:
    """What a stream is told that stood still while another one read its slot, and wants to keep what it reached."""
    return StateUnavailable(
        f"another stream has read slot {slot} meanwhile, and its watermark is further on",
        hint="It is tried again from there. Of several streams of one slot only one reads at a time.",
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a server and a slot are found: ``lsn`` is where the server writes.

    ``confirmed_flush_lsn`` is the slot's, None where there is no such slot.
    """

    system_id: str
    timeline: int
    lsn: Lsn
    confirmed_flush_lsn: Lsn | None


_RELOAD = (
    "Changes may be gone. Reload what depends on the events, then go on from where the slot stands with "
    "--accept-gap, which records the decision; "
)


def gap_between(watermark: Watermark, standing: Standing) -> GapDetected | None:
    """What has come between the watermark and what is found, or None. A slot behind its watermark is no gap."""
    slot, end_lsn = watermark.slot, watermark.end_lsn
    if standing.system_id != watermark.system_id:
        return GapDetected(
            f"this is another server: slot {slot} was acknowledged up to {end_lsn} on system {watermark.system_id}, "
            f"and this is system {standing.system_id}",
            hint="If that is a mistake, correct the DSN, or --state. If the database was moved here: "
            + _RELOAD
            + "or choose a new --slot, which begins a watermark of its own.",
        )
    if standing.timeline != watermark.timeline:
        return GapDetected(
            f"the server is on timeline {standing.timeline}, and slot {slot} was acknowledged up to {end_lsn} on "
            f"timeline {watermark.timeline}: a standby was promoted, or a backup was restored",
            hint=_RELOAD + "or connect to the server that holds the old timeline.",
        )
    if standing.confirmed_flush_lsn is None:
        return GapDetected(
            f"slot {slot} is gone: it was acknowledged up to {end_lsn}, and since then it was dropped",
            hint="What was committed since is in no slot. Reload what depends on the events and start with "
            "--create-slot --accept-gap, which records the decision; or correct --slot, the DSN or --state.",
        )
    if standing.confirmed_flush_lsn > end_lsn:
        return GapDetected(
            f"slot {slot} stands at {standing.confirmed_flush_lsn}, and was acknowledged only up to {end_lsn}: it "
            "was dropped and created again, advanced, or read by somebody else",
            hint=_RELOAD + "or take the changes in between from whoever read them.",
        )
    if standing.lsn < end_lsn:
        return GapDetected(
            f"the server writes at {standing.lsn}, and slot {slot} was acknowledged up to {end_lsn}: the database "
            "was set back, as by restoring a copy of its disk",
            hint="What was delivered since then is not in this database. " + _RELOAD + "or restore a later copy.",
        )
    return None
