"""What can be configured: the one table from which flags, variables, file keys and checks are made."""

import re
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, cast, get_origin, get_type_hints

from pgevents.rule import Rules

T = TypeVar("T")

PREFIX = "PGEVENTS_"
LONGEST_S = 86_400.0
MAX_ROWS = 10**9
MOST_LOOK_AHEAD_BYTES = 2**30
YES = frozenset({"1", "true", "yes", "on"})
NO = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What the table says of an option besides its name, type and default.

    Of a secret its passwords are hidden where it is shown; an ``opaque`` one is hidden altogether.
    """

    help: str
    aliases: tuple[str, ...] = ()
    secret: bool = False
    choices: tuple[str, ...] = ()
    lowest: float | None = None
    highest: float | None = None
    pattern: str = ""
    opaque: bool = False
    metavar: str = ""


def _option(default: T, help: str, **limits: Any) -> T:
    """A row of the table; the dataclass makes a field of it."""
    row: Any = field(default=default, metadata={"limits": Limits(help, **limits)})
    return cast("T", row)


def _seconds(default: float, help: str, *, lowest: float = 0.0) -> float:
    return _option(default, help, lowest=lowest, highest=LONGEST_S)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a stream is told. A name ending in ``_s`` is in seconds; its flag and key leave that out."""

    dsn: str = _option("", "Connection string or URL of the database; what it leaves out libpq decides.", secret=True)
    slot: str = _option("pgevents", "Name of the replication slot.", aliases=("PGSLOT",), pattern="[a-z0-9_]{1,63}")
    create_slot: bool = _option(default=False, help="Create the slot when it is missing.")
    plugin: str = _option("auto", "Output plug-in of the slot.", choices=("auto", "wal2json", "pgoutput"))
    publication: str = _option("pgevents", "Publication to read; pgoutput only.", pattern=".{1,63}")
    streaming: bool = _option(default=False, help="Take in large transactions while they run; pgoutput only.")
    state: str = _option("", "Where the watermark of the slot is kept: a file, postgres for a table, or none.")
    tables: tuple[str, ...] = _option(
        (), "Stream only tables that match this pattern, such as shop.*; may be repeated.", aliases=("PGTABLES",)
    )
    exclude_tables: tuple[str, ...] = _option((), "Leave out tables that match this pattern; may be repeated.")
    push_down: bool = _option(
        default=False,
        help="Have wal2json leave out tables and operations that are not streamed; ids of events change with that.",
    )
    sink: str = _option(
        "", "URL of where events go: amqp(s)://…, stdout:, file:PATH or null:", aliases=("RABBITMQ_URL",), secret=True
    )
    format: str = _option("native", "Format of events that no route gives another.", pattern=".+")
    declare: bool = _option(default=True, help="Declare the exchange, durable and of type topic.")
    on_unroutable: str = _option(
        "wait", "What to do with an event that no queue is bound to.", choices=("wait", "park", "drop")
    )
    on_poison: str = _option(
        "halt", "What to do with an event that can never be published.", choices=("halt", "park")
    )
    nack_limit: int = _option(
        20, "Nacks of one event after which --on-poison park parks it.", lowest=1, highest=1_000_000
    )
    park_file: str = _option("pgevents-parked.ndjson", "Where events are parked.", pattern=".+")
    skip_marked: bool = _option(default=False, help="Skip transactions that pgevents.skip() marks.")
    skip_origins: tuple[str, ...] = _option(
        (), "Skip transactions of this replication origin; may be repeated.", metavar="NAME"
    )
    skip_rows: int = _option(
        0, "Skip transactions that change more rows than this; 0: none.", lowest=0, highest=MAX_ROWS
    )
    skip_action: str = _option(
        "drop",
        "What becomes of what --skip-marked, --skip-origin and --skip-rows skip.",
        choices=("drop", "summarise", "park"),
    )
    hash_key: str = _option("", "Key of the hashes in columns rules, at least 16 bytes.", secret=True, opaque=True)
    look_ahead_bytes: int = _option(
        64 * 2**20,
        "Most bytes of a transaction to hold back until rules decide on it.",
        lowest=1,
        highest=MOST_LOOK_AHEAD_BYTES,
    )
    batch_events: int = _option(1000, "Most events in a batch.", lowest=1, highest=1_000_000)
    batch_bytes: int = _option(4 * 2**20, "Most bytes of events in a batch.", lowest=1, highest=2**30)
    window: int = _option(8, "Most batches sent and not yet confirmed.", lowest=1, highest=10_000)
    stall_timeout_s: float = _seconds(60.0, "Seconds without a confirm after which the sink is left.", lowest=0.1)
    drain_timeout_s: float = _seconds(10.0, "Seconds to wait for confirms when told to stop.")
    start_timeout_s: float = _seconds(30.0, "Seconds to keep trying before the first success; 0: try once.")
    retry_max_s: float = _seconds(30.0, "Longest pause between tries, in seconds.", lowest=0.1)
    log_level: str = _option(
        "info", "Least severe log lines to write.", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _option("text", "Form of a log line.", choices=("text", "json"))
    rules: Rules = field(default_factory=Rules)
    """Not an option: the tables of the file, and the skip rules that options ask for."""
    skips: str = ""
    """Not an option: the file of the slot's windows."""

    @property
    def new_plugin(self) -> str:
        """The plug-in of a slot that is made: only one of them sends transactions before they commit."""
        return "pgoutput" if self.streaming and self.plugin == "auto" else self.plugin


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table, and the names it goes by."""

    name: str
    kind: type
    default: Any
    limits: Limits

    @property
    def key(self) -> str:
        """The key in pgevents.toml."""
        return self.name.removesuffix("_s")

    @property
    def flag(self) -> str:
        """The flag; one that may be repeated is named for one value."""
        name = self.key.removesuffix("s") if self.kind is tuple else self.key
        return "--" + name.replace("_", "-")

    @property
    def off_flag(self) -> str:
        return "--no-" + self.flag.removeprefix("--")

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables, the first taking precedence."""
        return (PREFIX + self.key.upper(), *self.limits.aliases)

    @property
    def allowed(self) -> str:
        """What a value may be, in words that end a sentence."""
        limits = self.limits
        if limits.choices:
            return "one of " + ", ".join(limits.choices)
        if limits.lowest is not None:
            noun = "a whole number" if self.kind is int else "a number"
            return f"{noun} from {limits.lowest:.10g} to {limits.highest:.10g}"
        if limits.pattern:
            return f"text of the form ^{limits.pattern}$"
        return _ALLOWED[self.kind]

    def parse(self, text: str) -> Any:
        """The value a flag or variable gives. Raises ValueError, without a message, if it is not allowed."""
        return self.check(_PARSE[self.kind](text))

    def check(self, value: Any) -> Any:
        """The value a file or a flag gives, as its own type. Raises ValueError if it is not allowed."""
        if self.kind is float and type(value) is int:
            value = float(value)
        if self.kind is tuple:
            value = _names(value)
        if type(value) is not self.kind or not self._within(value):
            raise ValueError
        return value

    def _within(self, value: Any) -> bool:
        limits = self.limits
        if limits.choices:
            return value in limits.choices
        if limits.lowest is not None and limits.highest is not None:
            return bool(limits.lowest <= value <= limits.highest)
        return not limits.pattern or re.fullmatch(limits.pattern, value) is not None


def _yes_or_no(text: str) -> bool:
    word = text.strip().lower()
    if word not in YES | NO:
        raise ValueError
    return word in YES


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _names(value: Any) -> tuple[str, ...]:
    """A list of non-empty texts. One text is not a list of its letters."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name for name in value):
        raise ValueError
    return tuple(value)


_ALLOWED: dict[type, str] = {str: "text", bool: "true or false", tuple: "a list of text"}
_PARSE: dict[type, Any] = {str: str, int: int, float: float, bool: _yes_or_no, tuple: _split}


def _read_table() -> tuple[Option, ...]:
    types = get_type_hints(Settings)
    return tuple(
        Option(row.name, get_origin(types[row.name]) or types[row.name], row.default, row.metadata["limits"])
        for row in fields(Settings)
        if row.metadata
    )


OPTIONS = _read_table()
