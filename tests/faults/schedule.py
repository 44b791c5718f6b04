"""What goes wrong, as values that print: the life of each connection, and what ends our process."""

from dataclasses import dataclass
from enum import Enum, auto


class Printed(Enum):
    """An enum whose repr can be pasted into a test."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class Verdict(Printed):
    """What becomes of one published message. RETURN: no queue is bound for it."""

    STORE = auto()
    NACK = auto()
    STORE_AND_NACK = auto()  # one of two bound queues rejected it
    RETURN = auto()
    RETURN_LATE = auto()  # the return comes after acks of earlier ones, right before its own or a later one's


class Grouping(Printed):
    """Which unconfirmed messages are confirmed together. HOLD: none yet."""

    SINGLE = auto()
    MULTIPLE = auto()
    ALL = auto()  # multiple, with delivery tag 0
    HOLD = auto()


@dataclass(frozen=True, slots=True)
class Settle:
    """One confirm: of the ``pick``-th unconfirmed message, counted round."""

    pick: int = 0
    grouping: Grouping = Grouping.SINGLE


HOLD = Settle(0, Grouping.HOLD)


class Refusal(Printed):
    """How a connection fails before anything can be published."""

    NONE = auto()
    REFUSED = auto()
    UNREACHABLE = auto()
    DROP_AT_HEADER = auto()
    OTHER_PROTOCOL = auto()
    WRONG_PASSWORD = auto()
    NO_VHOST = auto()
    SILENT_AT_OPEN = auto()
    DROP_AT_OPEN = auto()
    CONNECTION_LIMIT = auto()
    SILENT_AT_CHANNEL = auto()
    CHANNEL_LIMIT = auto()
    DROP_AT_DECLARE = auto()
    NO_EXCHANGE = auto()
    OTHER_EXCHANGE_TYPE = auto()
    NO_PERMISSION = auto()
    DROP_AT_CONFIRM = auto()


class End(Printed):
    """How a connection ends when its ``end_after``-th message arrives."""

    NEVER = auto()
    DROP_UNSTORED = auto()
    DROP_UNCONFIRMED = auto()
    DROP_CONFIRMED = auto()
    EXCHANGE_GONE = auto()
    TOO_LARGE = auto()
    PRECONDITION = auto()
    NO_PERMISSION = auto()
    NO_CONSUMERS = auto()
    SHUTDOWN = auto()
    INTERNAL_ERROR = auto()
    SILENT = auto()  # half open: nothing is read, nothing comes, no heartbeat either
    WITHHOLD = auto()  # everything is stored, and never confirmed


@dataclass(frozen=True, slots=True)
class Block:
    """Reading stops after the ``after``-th message, for so long, with connection.blocked before."""

    after: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Turn:
    """The life of one connection. Where a sequence ends, all is well: stored, and confirmed in order.

    ``cut_in`` and ``cut_out``: the connection is cut after so many bytes from and to the client, counted from the
    first message published; None never. ``piece``: the broker writes so many bytes at a time.
    """

    refusal: Refusal = Refusal.NONE
    verdicts: tuple[Verdict, ...] = ()
    settles: tuple[Settle, ...] = ()
    end: End = End.NEVER
    end_after: int = 0
    block: Block | None = None
    cut_in: int | None = None
    cut_out: int | None = None
    piece: int = 1 << 20
    frame_max: int = 131_072
    send_buffer_bytes: int = 0

    @property
    def is_healthy(self) -> bool:
        return self == Turn(piece=self.piece, frame_max=self.frame_max, send_buffer_bytes=self.send_buffer_bytes)


HEALTHY = Turn()


class Way(Printed):
    """How our process ends: killed where it stands, or told to stop."""

    KILL = auto()
    STOP = auto()


@dataclass(frozen=True, slots=True)
class Exit:
    """Our process ends ``steps`` turns of the event loop after the ``moment``-th thing that happened in it."""

    way: Way
    moment: int
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run: the connections in the order they are made, and the ends of one process after another."""

    turns: tuple[Turn, ...] = ()
    exits: tuple[Exit, ...] = ()
