"""Every error PGEvents raises: whose fault it is, what to do, and whether to try again."""

from collections.abc import Awaitable

from pgevents.lsn import Lsn

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_GAP = 3
EXIT_REFUSED = 4


class PGEventsError(Exception):
    """The root. ``hint`` is what an operator can do; ``transient`` lets the supervisor try again."""

    transient = False
    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(PGEventsError):
    """An option, a key or a value that cannot be used; the message names it."""

    exit_code = EXIT_USAGE


class SourceError(PGEventsError):
    """PostgreSQL, or the way to it."""


class SourceUnavailable(SourceError):
    """The server cannot be reached now, or ended the connection."""

    transient = True


class SlotInUse(SourceError):
    """Another process reads the slot. The server may take wal_sender_timeout to notice that it died."""

    transient = True


class SourceRefused(SourceError):
    """The server is reachable and will not serve us as things stand: a person must change something."""

    exit_code = EXIT_REFUSED


class AuthenticationFailed(SourceRefused):
    """Wrong password, unknown role, or a pg_hba.conf that refuses us."""


class SlotMissing(SourceRefused):
    """There is no such slot in this database."""


class SlotMismatch(SourceRefused):
    """The slot exists, but for another plug-in or database, or it is physical."""


class PluginRefused(SourceRefused):
    """The output plug-in is not installed, or the server does not allow it."""


class PrivilegeError(SourceRefused):
    """The role lacks a privilege."""


class GapDetected(SourceError):
    """Changes were lost for good; a restart would hide it."""

    exit_code = EXIT_GAP


class SlotLost(GapDetected):
    """The server removed WAL that the slot needed, or invalidated the slot."""


class DecodeError(PGEventsError):
    """A message of the output plug-in that we cannot read. Never skipped; holds no row values."""

    def __init__(self, reason: str, *, lsn: int, tag: str) -> None:
        super().__init__(
            f"cannot decode the message {tag!r} at LSN {Lsn(lsn)}: {reason}",
            hint="Nothing after the last acknowledged LSN is lost. Keep the slot and report this message.",
        )
        self.lsn = Lsn(lsn)
        self.tag = tag


class SinkError(PGEventsError):
    """The broker or file, or the way to it."""


class SinkUnavailable(SinkError):
    """The sink cannot be reached now, or ended the connection."""

    transient = True


class SinkStalled(SinkError):
    """The sink confirmed nothing for ``stall_timeout``."""

    transient = True


class SinkRefused(SinkError):
    """The sink is reachable and will not serve us as things stand: a person must change something."""

    exit_code = EXIT_REFUSED


class Unroutable(SinkError):
    """The broker took events that no queue is bound to, for longer than the sink holds them.

    The sink goes on trying them: ``routed`` resolves when they are routed, or when it can try no more.
    """

    transient = True

    def __init__(self, message: str, *, hint: str = "", routed: Awaitable[None]) -> None:
        super().__init__(message, hint=hint)
        self.routed = routed


class PublishRejected(SinkError):
    """The sink said no to one event; ``transient`` when the same event may be taken later."""

    def __init__(self, message_id: str, reason: str, *, hint: str = "", transient: bool = False) -> None:
        super().__init__(f"event {message_id} was rejected: {reason}", hint=hint)
        self.message_id = message_id
        self.transient = transient
