"""Transactions that ask to be skipped, from Python."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

from pgevents.errors import PGEventsError, PrivilegeError, SourceRefused

_IDLE = 0
"""libpq's PQTRANS_IDLE, as both drivers report it."""

_MARK = "SELECT pgevents.skip(%s::text, %s::text[])"
_HAS_WRITTEN = "SELECT 1 WHERE pg_catalog.txid_current_if_assigned() IS NOT NULL"

_NOT_INSTALLED = ("42883", "3F000")
_NOT_ALLOWED = "42501"


class MutedTooLate(PGEventsError, RuntimeError):
    """The open transaction has written something already: the stream may not obey a mark that follows."""


@contextmanager
def muted(connection: Any, *, reason: str, tables: Sequence[str] | None = None) -> Iterator[None]:
    """Ask for the transaction of the block to be skipped, or of ``tables`` only: patterns such as ``public.orders``.

    ``connection`` is one of psycopg2 or psycopg 3, in autocommit or not, in a pipeline or not, whatever its cursors
    and rows are. Where no transaction is open, the block is one: it is committed at the end, and rolled back after an
    exception. One that is open is marked, and whoever opened it ends it; what it writes behind the block is skipped
    as well. The block must not end its transaction.

    Raises MutedTooLate where the open transaction has written, PrivilegeError and SourceRefused where pgevents.skip
    may not be called or is not installed, TypeError for another kind of connection, else what the driver raises.
    """
    driver = _driver(connection)
    if isinstance(tables, str):
        raise TypeError("tables must be a list of patterns, not one text")
    with ExitStack() as stack:
        _settle(connection, driver)
        if connection.info.transaction_status == _IDLE:
            _begin(connection, driver, stack)
        _refuse_late(connection, driver)
        _mark(connection, driver, reason, None if tables is None else list(tables))
        yield


def _driver(connection: object) -> str:
    for kind in type(connection).__mro__:
        module = kind.__module__.partition(".")[0]
        if (module, kind.__name__) in (("psycopg2", "connection"), ("psycopg", "Connection")):
            if getattr(connection, "async_", False):
                break
            return module
    raise TypeError(
        f"muted takes a connection of psycopg2 or psycopg 3 that is not asynchronous, not {_kind(connection)}: "
        "there, run SELECT pgevents.skip('reason') as the first statement of the transaction"
    )


def _kind(connection: object) -> str:
    kind = type(connection)
    return f"{kind.__module__}.{kind.__qualname__}"


def _settle(connection: Any, driver: str) -> None:
    """In a pipeline: have what was sent answered, without which nobody knows whether a transaction is open."""
    if driver == "psycopg" and connection.info.pipeline_status:
        with connection.pipeline():  # within the one that is open: sends a Sync, and ends no more than itself
            return


def _cursor(connection: Any, driver: str) -> Any:
    """The driver's own. Those of the connection may want parameters written, or make rows, in another way."""
    if driver == "psycopg":
        return import_module("psycopg").Cursor(connection, row_factory=import_module("psycopg.rows").tuple_row)
    return import_module("psycopg2.extensions").cursor(connection)


def _begin(connection: Any, driver: str, stack: ExitStack) -> None:
    if driver == "psycopg":
        stack.enter_context(connection.transaction())
        return
    try:
        stack.enter_context(connection)  # a transaction also in autocommit
    except connection.ProgrammingError:
        # The caller is in a `with connection:` that has not sent its BEGIN yet, and will end it.
        return


def _refuse_late(connection: Any, driver: str) -> None:
    with _cursor(connection, driver) as cursor:
        cursor.execute(_HAS_WRITTEN)
        if cursor.fetchone():
            raise MutedTooLate(
                "the open transaction has written something already, and cannot be muted any more",
                hint="Enter the block before anything is written, or commit first.",
            )


def _mark(connection: Any, driver: str, reason: str, tables: list[str] | None) -> None:
    try:
        with _cursor(connection, driver) as cursor:
            cursor.execute(_MARK, (reason, tables))
            cursor.fetchone()  # a pipeline says only here that it was refused
    except connection.Error as error:
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if state in _NOT_INSTALLED:
            raise SourceRefused(
                "this database has no function pgevents.skip",
                hint="Run migrations/0002_skip.sql in it, which comes with the package.",
            ) from error
        if state == _NOT_ALLOWED:
            raise PrivilegeError(
                "this role may not call pgevents.skip",
                hint="GRANT USAGE ON SCHEMA pgevents, and EXECUTE ON FUNCTION pgevents.skip(text, text[]), to it.",
            ) from error
        raise
