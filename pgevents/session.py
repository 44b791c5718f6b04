"""Opening the two ends of a pipeline: the sink that a URL names, and the slot."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import Any
from urllib.parse import unquote

import pgevents.sink
from pgevents.assembler import Assembler, Foresee
from pgevents.errors import ConfigError, PGEventsError, SourceUnavailable
from pgevents.interfaces import Catalog, Decoder, Sink, SinkOptions, Source, State
from pgevents.lsn import NOWHERE, Lsn
from pgevents.park import ParkFile
from pgevents.park import check as check_park
from pgevents.plugin import decoder_of, has_quoted_numbers, plugin_options, streaming_options, with_known
from pgevents.poison import Parking, Poison, Sieve
from pgevents.routing import DEFAULT_TEMPLATE, RoutingKey, exchanges
from pgevents.settings import Settings
from pgevents.source.acknowledgement import Keep, forget
from pgevents.source.assembled import AssembledSource
from pgevents.source.catalog import SqlCatalog
from pgevents.source.connection import Session, connect_session, start
from pgevents.source.replication import ReplicationSource
from pgevents.spelling import nearest
from pgevents.spool import Spool
from pgevents.state.file import FileState
from pgevents.state.nowhere import NoState
from pgevents.state.postgres import PostgresState
from pgevents.thread import in_thread
from pgevents.window import TABLE, Windows, place_of
from pgevents.window_file import WindowFile
from pgevents.window_table import WindowTable

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

# One scheme of one module: what differs between them is in the URL.
_TLS_SCHEMES = {"amqps": "amqp"}

# What the transactions under way may take before the largest is sent. That much goes out in one piece, and others
# wait for it: with 64 MB, the server's default, half a second, with this, the least there is, a few milliseconds.
_STREAMING_WORK_MEM = "64kB"


def sink_schemes() -> dict[str, str]:
    """Every URL scheme a sink can be opened with, and the module it is found in."""
    own = {module.name: f"pgevents.sink.{module.name}" for module in iter_modules(pgevents.sink.__path__)}
    found = {name: module for name, module in own.items() if not name.startswith("_")}
    found |= {scheme: found[name] for scheme, name in _TLS_SCHEMES.items()}
    return found | {point.name: point.value for point in entry_points(group="pgevents.sink")}


async def open_sink(settings: Settings, poison: Poison, *, on_calm: Callable[[], None] | None = None) -> Sink:
    """Open the sink of ``settings.sink``; known ``poison`` is parked instead. Raises what ``open_url`` does.

    ``on_calm``: it was full a moment ago; called when it no longer is.
    """
    park_file = Path(settings.park_file)
    if any(rule.parks for rule in settings.rules.skip) or "park" in (settings.on_poison, settings.on_unroutable):
        check_park(park_file)
    park = Parking(ParkFile(park_file), poison)
    options = SinkOptions(
        declare=settings.declare,
        exchanges=exchanges(settings.rules),
        on_unroutable=settings.on_unroutable,
        park=park,
        # Before the stall time-out, which would close the sink and send all of it again.
        hold_s=min(SinkOptions().hold_s, settings.stall_timeout_s / 2),
        on_calm=on_calm,
    )
    return Sieve(await open_url(settings.sink, options), park, poison)


async def open_url(url: str, options: SinkOptions) -> Sink:
    """Open the sink that ``url`` names. Raises ConfigError for an unknown scheme, else what the sink raises."""
    if not url:
        raise ConfigError(
            "no sink is given", hint="Name one with --sink or RABBITMQ_URL, such as amqp://guest:guest@localhost/"
        )
    sink: Sink = await import_module(module_of(url)).open(url, options)
    return sink


def module_of(url: str) -> str:
    """The module of the sink that ``url`` names. Raises ConfigError for what can be told without opening it."""
    schemes = sink_schemes()
    scheme = url.partition(":")[0]
    if scheme not in schemes:
        # What is no scheme may be half a password.
        is_scheme = _SCHEME.match(url)
        raise ConfigError(
            f"{scheme!r} is not the scheme of a sink" if is_scheme else "the sink is not a URL",
            hint=nearest(scheme, schemes, likeness=0.6) or f"The schemes are {', '.join(sorted(schemes))}.",
        )
    routing_key(url)  # a template that cannot be filled is refused before anything is opened
    return schemes[scheme]


def open_state(settings: Settings) -> State:
    """Where ``settings.state`` says that the watermark is kept: ``postgres``, a path, or ``none``, as if left out."""
    match settings.state:
        case "postgres":
            return PostgresState(settings.dsn, settings.slot)
        case "none" | "":
            return NoState()
    return FileState(Path(settings.state.removeprefix("file:")))


def open_windows(settings: Settings) -> Windows:
    """Where the windows of ``pgevents skip`` are: in a table where the watermark is in one, else in a file."""
    place = settings.skips or place_of(settings)
    return WindowTable(settings.dsn, settings.slot) if place == TABLE else WindowFile(Path(place))


def routing_key(url: str) -> RoutingKey:
    """The routing key template of a sink URL's ``routing_key`` parameter."""
    # Not urlsplit: it fails on a [ in a password, takes # for the end, and + for a blank.
    pairs = (part.partition("=") for part in url.partition("?")[2].split("&"))
    return RoutingKey({name: unquote(value) for name, _, value in pairs}.get("routing_key") or DEFAULT_TEMPLATE)


@dataclass(frozen=True, slots=True)
class Stream:
    """An open slot: its source, the decoder of its plug-in, and whose LSNs they are.

    ``is_exact``: the plug-in prints every number; wal2json before 2.6 has no NaN and no infinities.
    ``options`` are those that the plug-in was told, and knows.
    """

    source: Source
    decoder: Decoder
    identity: str
    catalog: SqlCatalog
    is_exact: bool
    start_lsn: Lsn
    database: str
    options: Mapping[str, str]

    async def close(self) -> None:
        try:
            await self.source.close()
        finally:
            self.catalog.close()


def base_type(catalog: Catalog, oid: int) -> int:
    """The type that a domain is of in the end; of another type its own oid."""
    while base := catalog.type(oid).base:
        oid = base
    return oid


async def open_stream(
    dsn: str,
    *,
    slot: str,
    plugin: str,
    publication: str,
    start_lsn: Lsn = NOWHERE,
    keep: Keep = forget,
    idle_interval_s: float = 0.0,
    identity: str = "",
    temporary: bool = False,
    read_only: bool = False,
    push_down: Mapping[str, str] | None = None,
    foresee: Foresee | None = None,
) -> Stream:
    """Connect and begin streaming. Raises SourceError.

    ``start_lsn`` is the watermark: what lies before it may be sent again, and is let go of. ``keep`` is called with
    each later LSN before it is acknowledged, with one that no event came with after ``idle_interval_s``.

    ``identity`` is the server's, where it is known: another one is not streamed from.
    ``temporary`` first creates the slot for as long as the connection lasts; ``read_only`` never acknowledges.
    ``push_down`` are options of wal2json besides, which it need not know.
    ``foresee``: large transactions are to be sent before they commit, which pgoutput can; it says what of them is
    not to be kept until then.
    """
    session = await in_thread(connect_session, dsn)
    try:
        _check_identity(session, identity)
        options = plugin_options(plugin, publication, session.server_version)
        options |= push_down or {}
        if foresee is not None:
            options |= streaming_options(plugin, session.server_version)
            await in_thread(session.tell, "SET logical_decoding_work_mem = %s", _STREAMING_WORK_MEM)
        cursor = await in_thread(_start, session, slot, plugin, options, temporary=temporary)
    except PGEventsError:
        session.connection.close()
        raise
    catalog = SqlCatalog(dsn)
    source: Source = ReplicationSource(
        session,
        cursor,
        slot=slot,
        acknowledged=start_lsn,
        keep=keep,
        idle_interval_s=idle_interval_s,
        read_only=read_only,
    )
    if foresee is not None:
        source = AssembledSource(source, Assembler(foresee, Spool, start_lsn))
    quoted_numbers = has_quoted_numbers(options)
    return Stream(
        source,
        decoder_of(plugin, catalog, quoted_numbers=quoted_numbers, encoding=session.encoding),
        session.identity,
        catalog,
        is_exact=quoted_numbers or plugin == "pgoutput",
        start_lsn=start_lsn,
        database=session.connection.info.dbname,
        options=options,
    )


def _check_identity(session: Session, identity: str) -> None:
    if identity and session.identity != identity:
        raise SourceUnavailable(
            "the replication connection reached another server than the one that was asked before",
            hint="Name one host in the DSN, or let target_session_attrs choose the same one each time.",
        )


def _start(session: Session, slot: str, plugin: str, options: dict[str, str], *, temporary: bool) -> Any:
    def begin() -> Any:
        if temporary:  # each time: an error drops a temporary slot
            session.create_temporary_slot(slot, plugin)
        return start(session, slot=slot, plugin=plugin, options=options)

    return with_known(options, begin)
