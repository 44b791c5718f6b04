"""What a slot would deliver, looked at and left there."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager
from typing import Any

import psycopg2

from pgevents import slot as slots
from pgevents.errors import SlotInUse
from pgevents.explain.recording import Excerpt, Head
from pgevents.fault import translated
from pgevents.lsn import Lsn
from pgevents.plugin import has_quoted_numbers, plugin_options, with_known
from pgevents.postgres import Sql
from pgevents.server import look
from pgevents.source.catalog import SqlCatalog
from pgevents.source.connection import Session, connect_session
from pgevents.wal import RawMessage

FETCH_ROWS = 500
"""So many messages are held at a time. The server keeps the others, in a temporary file where they are many."""

_DECLARE = """
declare pgevents_peek no scroll cursor for select lsn::text, data
from pg_catalog.pg_logical_slot_peek_binary_changes(%s, null, %s, variadic %s::text[])
"""


@contextmanager
def peek(
    dsn: str, *, slot: str, plugin: str, publication: str, limit: int, push_down: Mapping[str, str] | None = None
) -> Iterator[Excerpt]:
    """What the slot delivers next: ``limit`` messages, and the rest of the transaction in which they end.

    ``plugin`` may be ``auto``. ``push_down`` are options of the plug-in besides, which it need not know. Nothing is
    acknowledged. Blocks; raises SourceError, also as the messages are read, and SlotInUse while a stream reads the
    slot.
    """
    with _in_use_explained(slot):
        database, plugin = _check(dsn, slot, plugin)
        session = connect_session(dsn)
        with closing(session.connection), closing(SqlCatalog(dsn)) as catalog:
            options = {**plugin_options(plugin, publication, session.server_version), **(push_down or {})}
            first = with_known(options, lambda: _declare(session, slot, plugin, limit, options))
            head = Head(plugin, session.identity, database, session.encoding, has_quoted_numbers(options))
            yield Excerpt(head, catalog, _messages(session, slot, plugin, first))


def _check(dsn: str, slot: str, plugin: str) -> tuple[str, str]:
    """The database and the plug-in of the slot."""
    with Sql(dsn) as sql:
        found, database = slots.report(sql, slot), look(sql).database
        slots.check_slot(found, plugin=plugin, database=database)
        return database, found.plugin


@contextmanager
def _in_use_explained(slot: str) -> Iterator[None]:
    try:
        yield
    except SlotInUse as error:
        raise SlotInUse(
            f"slot {slot} is being read by a stream, and PostgreSQL lets nobody else look at it meanwhile",
            hint="Stop the stream for that long, or explain what was recorded before: --file RECORDING.",
        ) from error


def _declare(
    session: Session, slot: str, plugin: str, limit: int, options: Mapping[str, str]
) -> list[tuple[Any, ...]]:
    """Open a cursor on the messages, and return the first of them, with which an unknown option shows."""
    words = [word for pair in options.items() for word in pair]
    with _translated(slot, plugin), session.connection.cursor() as cursor:
        cursor.execute("rollback")
        cursor.execute("begin")
        cursor.execute(_DECLARE, (slot, limit, words))
    return _fetch(session, slot, plugin)


def _fetch(session: Session, slot: str, plugin: str) -> list[tuple[Any, ...]]:
    with _translated(slot, plugin):
        return rows(session.connection, f"fetch forward {FETCH_ROWS} from pgevents_peek")


@contextmanager
def _translated(slot: str, plugin: str) -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        raise translated(error, slot=slot, plugin=plugin) from error


def rows(connection: Any, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query, which Ctrl-C cancels on the server.

    The first ones come when all of the WAL is decoded, and libpq would wait for them whatever signals there are.
    """
    outcome: Future[list[tuple[Any, ...]]] = Future()

    def ask() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                outcome.set_result(cursor.fetchall())
        except psycopg2.Error as error:
            outcome.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return outcome.result()
    except KeyboardInterrupt:
        connection.cancel()
        raise


def _messages(session: Session, slot: str, plugin: str, fetched: list[tuple[Any, ...]]) -> Iterator[RawMessage]:
    while fetched:
        for lsn, payload in fetched:
            yield RawMessage(Lsn.parse(lsn), bytes(payload))
        fetched = _fetch(session, slot, plugin)
