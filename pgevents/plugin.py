"""What an output plug-in is told, and the decoder of what it sends."""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from pgevents.decoder.pgoutput import PgoutputDecoder
from pgevents.decoder.wal2json import Wal2jsonDecoder
from pgevents.errors import ConfigError, PGEventsError
from pgevents.interfaces import Catalog, Decoder
from pgevents.postgres import Sql, quoted
from pgevents.push_down import PushDown, is_asked_for, push_down
from pgevents.rule_catalog import origins
from pgevents.settings import Settings
from pgevents.table import streamable

T = TypeVar("T")

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
_OPTIONAL = (
    *("numeric-data-types-as-string", "include-pk", "include-origin", "filter-origins"),
    *("add-tables", "filter-tables", "actions"),
)

_PGOUTPUT_MESSAGES_SINCE = 140_000
_STREAMING_SINCE = 140_000


def plugin_options(plugin: str, publication: str, server_version: int) -> dict[str, str]:
    """What the plug-in is told, the same for a stream and for a look at the slot."""
    if plugin == "wal2json":
        return dict(_WAL2JSON_OPTIONS)
    options = {"proto_version": "1", "publication_names": quoted(publication)}
    if server_version >= _PGOUTPUT_MESSAGES_SINCE:
        options["messages"] = "true"
    return options


def left_out(sql: Sql, settings: Settings, *, plugin: str, has_windows: bool) -> PushDown:
    """What a slot of ``plugin`` is to leave out, by the tables and origins there are. Blocks; raises SourceError."""
    if not is_asked_for(settings):
        return PushDown()
    return push_down(settings, streamable(sql), origins(sql), plugin=plugin, has_windows=has_windows)


def streaming_options(plugin: str, server_version: int) -> dict[str, str]:
    """What the plug-in is told to send large transactions while they run. Raises ConfigError where it cannot."""
    if plugin != "pgoutput":
        raise ConfigError(
            f"streaming: the slot's plug-in is {plugin}, which sends transactions at their commit only",
            hint="Leave streaming out, or make another slot: pgevents slot create --plugin pgoutput.",
        )
    if server_version < _STREAMING_SINCE:
        raise ConfigError(
            "streaming: this server is older than PostgreSQL 14, and sends transactions at their commit only",
            hint="Leave streaming out.",
        )
    return {"proto_version": "2", "streaming": "on"}


def with_known(options: dict[str, str], begin: Callable[[], T]) -> T:
    """What ``begin`` returns once the plug-in knows every option; one that is an error to it is taken out."""
    while True:
        try:
            return begin()
        except PGEventsError as error:
            unknown = re.search(r'(?s)option "([a-z-]+)".* is unknown', str(error))
            if unknown is None or unknown[1] not in _OPTIONAL or unknown[1] not in options:
                raise
            del options[unknown[1]]


def has_quoted_numbers(options: Mapping[str, str]) -> bool:
    """Whether wal2json prints numbers as strings, with every digit."""
    return "numeric-data-types-as-string" in options


def decoder_of(plugin: str, catalog: Catalog, *, quoted_numbers: bool, encoding: str) -> Decoder:
    """A decoder of the plug-in's messages; ``encoding`` is the database's."""
    if plugin == "wal2json":
        return Wal2jsonDecoder(catalog, quoted=quoted_numbers, encoding=encoding)
    return PgoutputDecoder(catalog)
