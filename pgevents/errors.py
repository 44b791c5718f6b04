"""Every error PGEvents raises: whose fault it is, what to do, and whether to try again."""

from collections.abc import Awaitable

from pgevents.lsn import NOWHERE, Lsn

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_GAP = 3
EXIT_REFUSED = 4


class PGEventsError(Exception):
    """The root. ``hint`` is what an operator can do; ``transient`` lets the supervisor try again.

    ``alert``: a person should look, although it is tried again. What is not transient but alerts ends a start, and is
    tried again in a stream that was running: what it had was taken away, and may be given back.
    """

    transient = False
    alert = False
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


class PiecesUnusable(SourceUnavailable):
    """What was sent of a transaction while it ran cannot be used: it has to be read at its commit.

    ``until`` is where it ends, once that is known.
    """

    def __init__(self, message: str, *, hint: str = "", until: Lsn = NOWHERE) -> None:
        super().__init__(message, hint=hint)
        self.until = until


class SourceDegraded(SourceUnavailable):
    """The server answers, and lacks connections, disk, memory or WAL. Somebody must see to it."""

    alert = True


class SlotInUse(SourceError):
    """Another process reads the slot. The server may take wal_sender_timeout to notice that it died."""

    transient = True


class SourceRefused(SourceError):
    """The server is reachable and will not serve us as things stand: a person must change something."""

    exit_code = EXIT_REFUSED


class AuthenticationFailed(SourceRefused):
    """Wrong password, unknown role, a pg_hba.conf that refuses us, or a certificate that one side does not trust."""

    alert = True


class NotPrimary(SourceRefused):
    """The server is a standby."""

    alert = True


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


class StateError(PGEventsError):
    """The watermark could not be kept or read."""


class StateUnavailable(StateError):
    """The disk cannot take the watermark now."""

    transient = True
    alert = True


class StateRefused(StateError):
    """What should hold the watermark cannot be used as it is: a person must change something."""

    exit_code = EXIT_REFUSED


class DecodeError(PGEventsError):
    """A message of the output plug-in that we cannot read. Never skipped; holds no row values."""

    def __init__(self, reason: str, *, lsn: int, tag: str) -> None:
        super().__init__(
            f"cannot decode the message {tag!r} at LSN {Lsn(lsn)}: {reason}",
            hint="Nothing after the last acknowledged LSN is lost. Keep the slot and report this message.",
        )
        self.lsn = Lsn(lsn)
        self.tag = tag


class RuleFailed(PGEventsError):
    """A rule cannot decide on a change, and may not guess. Names rule, table and column, never values."""

    exit_code = EXIT_REFUSED


class SinkError(PGEventsError):
    """The broker or file, or the way to it."""


class SinkUnavailable(SinkError):
    """The sink cannot be reached now, or ended the connection."""

    transient = True


class SinkDegraded(SinkUnavailable):
    """The broker answers, and lacks connections or something else. Somebody must see to it."""

    alert = True


class SinkStalled(SinkError):
    """The sink confirmed nothing for ``stall_timeout``."""

    transient = True


class SinkRefused(SinkError):
    """The sink is reachable and will not serve us as things stand: a person must change something."""

    exit_code = EXIT_REFUSED


class AccessRefused(SinkRefused):
    """The broker refuses our user, its virtual host or its permissions, or one side the other's certificate."""

    alert = True


class ExchangeMissing(SinkRefused):
    """The exchange is not there, and we may not declare it."""

    alert = True


class Unroutable(SinkError):
    """The broker took events that no queue is bound to, for longer than the sink holds them.

    The sink goes on trying them: ``routed`` resolves when they are routed, or when it can try no more.
    """

    transient = True

    def __init__(self, message: str, *, hint: str = "", routed: Awaitable[None]) -> None:
        super().__init__(message, hint=hint)
        self.routed = routed


class PublishRejected(SinkError):
    """The sink said no to one event; ``transient`` when the same event may be taken later.

    Where it would say no to others as well: it takes no body larger than ``max_bytes``, nothing of ``routing_key``.
    """

    def __init__(
        self,
        message_id: str,
        reason: str,
        *,
        hint: str = "",
        transient: bool = False,
        max_bytes: int | None = None,
        routing_key: str | None = None,
    ) -> None:
        super().__init__(f"event {message_id} was rejected: {reason}", hint=hint)
        self.message_id = message_id
        self.reason = reason
        self.transient = transient
        self.max_bytes = max_bytes
        self.routing_key = routing_key


class ParkRefused(PGEventsError):
    """The file of parked events cannot be read as it is: a person must change something."""

    exit_code = EXIT_REFUSED
