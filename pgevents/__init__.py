"""PGEvents: committed PostgreSQL row changes as events, confirmed before they are acknowledged."""

from pgevents.errors import DecodeError, GapDetected, PGEventsError, SinkError, SourceError
from pgevents.event import Envelope, Event
from pgevents.lsn import Lsn
from pgevents.muted import MutedTooLate, muted
from pgevents.version import VERSION as __version__  # noqa: N811

__all__ = [
    "DecodeError",
    "Envelope",
    "Event",
    "GapDetected",
    "Lsn",
    "MutedTooLate",
    "PGEventsError",
    "SinkError",
    "SourceError",
    "__version__",
    "muted",
]
