"""What is said when a stream begins: lines for the person at the terminal, and warnings of what will be missing."""

import logging
from collections.abc import Iterator

from pgevents.interfaces import Sink
from pgevents.mask import mask_dsn
from pgevents.push_down import PushDown
from pgevents.rule import Rules
from pgevents.session import Stream
from pgevents.settings import Settings
from pgevents.slot import SlotReport
from pgevents.start import Kept
from pgevents.version import VERSION

logger = logging.getLogger(__name__)


def banner(
    settings: Settings, report: SlotReport, kept: Kept, sink: Sink, *, windows: int, dry_run: bool
) -> Iterator[str]:
    """Lines that name both ends, and what lies between them: ``windows`` is how many were added by hand."""
    reason = f" ({'; '.join(report.notes)})" if report.notes else ""
    how = ", streaming" if settings.streaming else ""
    yield f"pgevents {VERSION}"
    yield f"  source   {mask_dsn(settings.dsn) or 'from the PG* environment'}, database {report.database}"
    yield f"  slot     {report.slot} at {report.confirmed_flush_lsn}, plug-in {report.plugin}{how}{reason}"
    yield f"  state    {kept.state}{', a watermark begins' if kept.is_new else ''}"
    yield f"  sink     {sink}{', dry run: the slot does not move' if dry_run else ''}"
    if rules := _counted(settings.rules, windows=windows):
        yield f"  rules    {rules}"
    yield "Ready. Ctrl-C stops once everything read is confirmed."


def _counted(rules: Rules, *, windows: int) -> str:
    """How many rules there are of each kind; empty where there is none."""
    counts = {
        "skip": len(rules.skip),
        "skip window added": windows,
        "filter": len(rules.filter),
        "columns": len(rules.columns),
        "route": len(rules.route),
    }
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def warn_of_losses(opened: Stream, report: SlotReport) -> None:
    """Say what the plug-in would leave out or print otherwise, before any of it is lost in silence."""
    if report.keyless_tables:
        logger.warning(
            "wal2json leaves out updates and deletes of tables without a primary key or replica identity",
            extra={"tables": len(report.keyless_tables), "such_as": _such_as(report.keyless_tables)},
        )
    if report.inexact_columns and not opened.is_exact:
        logger.warning(
            "this wal2json prints NaN and the infinities as null; 2.6 and pgoutput do not",
            extra={"columns": len(report.inexact_columns), "such_as": _such_as(report.inexact_columns)},
        )


def log_pushed(pushed: PushDown) -> None:
    """What of the rules wal2json was told, and what not."""
    for sentence in pushed.pushed.values():
        logger.info("pushed down to wal2json", extra={"rule": sentence})
    for sentence in pushed.kept:
        logger.info("not pushed down", extra={"rule": sentence})


def _such_as(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3])
