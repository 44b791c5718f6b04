"""Opening the two ends of a pipeline: the sink a URL names, and the slot with its plug-in's decoder."""

import difflib
import re
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any
from urllib.parse import unquote

import pgevents.sink
from pgevents.decoder.pgoutput import PgoutputDecoder
from pgevents.decoder.wal2json import Wal2jsonDecoder
from pgevents.errors import ConfigError, PGEventsError
from pgevents.interfaces import Decoder, Sink, SinkOptions
from pgevents.lsn import NOWHERE, Lsn
from pgevents.routing import DEFAULT_TEMPLATE, RoutingKey
from pgevents.settings import Settings
from pgevents.source.catalog import SqlCatalog
from pgevents.source.replication import ReplicationSource, Session, connect_session, start
from pgevents.thread import in_thread

# One scheme of one module: what differs between them is in the URL.
_TLS_SCHEMES = {"amqps": "amqp"}

_WAL2JSON_OPTIONS = {
    "format-version": "2",
    "include-transaction": "1",
    "include-xids": "1",
    "include-timestamp": "1",
    "include-lsn": "1",
    "include-types": "0",
    "include-type-oids": "1",
    # From here on younger than wal2json 2.0; the server is asked without those it does not know.
    "include-origin": "1",
    "include-pk": "1",
    "numeric-data-types-as-string": "1",
}
_OPTIONAL = ("numeric-data-types-as-string", "include-pk", "include-origin")

_PGOUTPUT_MESSAGES_SINCE = 140_000


def sink_schemes() -> dict[str, str]:
    """Every URL scheme a sink can be opened with, and the module it is found in."""
    own = {module.name: f"pgevents.sink.{module.name}" for module in iter_modules(pgevents.sink.__path__)}
    found = {name: module for name, module in own.items() if not name.startswith("_")}
    found |= {scheme: found[name] for scheme, name in _TLS_SCHEMES.items()}
    return found | {point.name: point.value for point in entry_points(group="pgevents.sink")}


async def open_sink(settings: Settings) -> Sink:
    """Open the sink of ``settings.sink``. Raises ConfigError for an unknown scheme, else what the sink raises."""
    if not settings.sink:
        raise ConfigError(
            "no sink is given", hint="Name one with --sink or RABBITMQ_URL, such as amqp://guest:guest@localhost/"
        )
    schemes = sink_schemes()
    scheme = settings.sink.partition(":")[0]
    if scheme not in schemes:
        near = difflib.get_close_matches(scheme, schemes, 1)
        raise ConfigError(
            f"{scheme!r} is not the scheme of a sink",
            hint=f"Did you mean {near[0]}:?" if near else f"The schemes are {', '.join(sorted(schemes))}.",
        )
    routing_key(settings.sink)  # a template that cannot be filled is refused before anything is opened
    options = SinkOptions(
        declare=settings.declare,
        on_unroutable=settings.on_unroutable,
        park_file=settings.park_file,
        # Before the stall time-out, which would close the sink and send all of it again.
        hold_s=min(SinkOptions().hold_s, settings.stall_timeout_s / 2),
    )
    sink: Sink = await import_module(schemes[scheme]).open(settings.sink, options)
    return sink


def routing_key(url: str) -> RoutingKey:
    """The routing key template of a sink URL's ``routing_key`` parameter."""
    # Not urlsplit: it fails on a [ in a password, takes # for the end, and + for a blank.
    pairs = (part.partition("=") for part in url.partition("?")[2].split("&"))
    return RoutingKey({name: unquote(value) for name, _, value in pairs}.get("routing_key") or DEFAULT_TEMPLATE)


@dataclass(frozen=True, slots=True)
class Stream:
    """An open slot: its source, the decoder of its plug-in, and whose LSNs they are.

    ``is_exact``: the plug-in prints every number; wal2json before 2.6 has no NaN and no infinities.
    """

    source: ReplicationSource
    decoder: Decoder
    identity: str
    catalog: SqlCatalog
    is_exact: bool
    start_lsn: Lsn

    async def close(self) -> None:
        await self.source.close()
        self.catalog.close()


async def open_stream(
    dsn: str,
    *,
    slot: str,
    plugin: str,
    publication: str,
    start_lsn: Lsn = NOWHERE,
    temporary: bool = False,
    read_only: bool = False,
) -> Stream:
    """Connect and begin streaming. Raises SourceError.

    ``start_lsn`` is the slot's confirmed flush LSN: the server may decode from before it, and nothing before it is
    to be acknowledged again.

    ``temporary`` first creates the slot for as long as the connection lasts; ``read_only`` never acknowledges.
    """
    session = await in_thread(connect_session, dsn)
    try:
        options = _plugin_options(session, plugin, publication)
        cursor = await in_thread(_start, session, slot, plugin, options, temporary=temporary)
    except PGEventsError:
        session.connection.close()
        raise
    catalog = SqlCatalog(dsn)
    source = ReplicationSource(session, cursor, slot=slot, acknowledged=start_lsn, read_only=read_only)
    quoted = "numeric-data-types-as-string" in options
    decoder: Decoder = PgoutputDecoder(catalog)
    if plugin == "wal2json":
        decoder = Wal2jsonDecoder(catalog, quoted=quoted, encoding=session.encoding)
    return Stream(
        source, decoder, session.identity, catalog, is_exact=quoted or plugin == "pgoutput", start_lsn=start_lsn
    )


def _start(session: Session, slot: str, plugin: str, options: dict[str, str], *, temporary: bool) -> Any:
    """Start with every option the plug-in knows; one that is an error to it is taken out of ``options``."""
    while True:
        try:
            if temporary:  # inside the loop: an error drops a temporary slot
                session.create_temporary_slot(slot, plugin)
            return start(session, slot=slot, plugin=plugin, options=options)
        except PGEventsError as error:
            unknown = re.search(r'option "([a-z-]+)".* is unknown', str(error))
            if unknown is None or unknown[1] not in _OPTIONAL or unknown[1] not in options:
                raise
            del options[unknown[1]]


def _plugin_options(session: Session, plugin: str, publication: str) -> dict[str, str]:
    if plugin == "wal2json":
        return dict(_WAL2JSON_OPTIONS)
    name = '"' + publication.replace('"', '""') + '"'
    options = {"proto_version": "1", "publication_names": name}
    if session.server_version >= _PGOUTPUT_MESSAGES_SINCE:
        options["messages"] = "true"
    return options
