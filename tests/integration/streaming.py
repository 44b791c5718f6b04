"""What the event tests share: SQL run against a database, then read back as events by the real pipeline."""

import asyncio
import json
from collections.abc import Awaitable, Sequence
from contextlib import closing
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg2
from jsonschema import Draft202012Validator

from pgevents.assembly import foresee_of, pipeline_of
from pgevents.batch import Batch
from pgevents.event import Envelope
from pgevents.pipeline import Progress
from pgevents.plugin import left_out
from pgevents.postgres import Sql
from pgevents.push_down import PushDown
from pgevents.session import open_stream
from pgevents.settings import Settings
from pgevents.skip import Rulebook
from pgevents.start import Wish, create_slot
from pgevents.streaming import resolve_lsn
from tests.integration.role import as_role, install_role, publish_all

BOTH = ("wal2json", "pgoutput")
DEADLINE_S = 30.0

Json = dict[str, Any]


class CollectingSink:
    """Confirms at once and keeps what it was given."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.largest_batch = 0

    def publish(self, batch: Batch) -> Awaitable[None]:
        self.envelopes += batch.envelopes
        self.largest_batch = max(self.largest_batch, len(batch.envelopes))
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        confirmed.set_result(None)
        return confirmed

    async def close(self) -> None:
        """Nothing is held."""

    def __str__(self) -> str:
        return "a list"


class Recording:
    """A database, and one slot a plug-in on it that sees all that is run from here on.

    Statements are run by the superuser of the DSN; slots are made and read as the role of deploy/sql/role.sql.
    """

    def __init__(self, dsn: str, *, plugins: Sequence[str] = BOTH, publication: str = "pgevents") -> None:
        self.dsn = dsn
        self.publication = publication
        self.plugins = plugins
        self.role_dsn = as_role(dsn)
        install_role(dsn)
        if "pgoutput" in plugins:
            publish_all(dsn, publication)
        for plugin in plugins:
            create_slot(self.role_dsn, Wish(self.slot(plugin), plugin, publication))

    def slot(self, plugin: str) -> str:
        """A name of its own: those of a server's slots are shared by its databases."""
        return f"{psycopg2.extensions.parse_dsn(self.dsn)['dbname']}_{plugin}"

    def run(self, *statements: str) -> None:
        run(self.dsn, *statements)

    def ask(self, question: str) -> Any:
        return ask(self.dsn, question)

    def envelopes(self, plugin: str, **settings: Any) -> list[Envelope]:
        """Everything since the slot was made. Nothing is acknowledged, so each call is a redelivery."""
        return self._read(plugin, **settings).envelopes

    def largest_batch(self, plugin: str, **settings: Any) -> int:
        return self._read(plugin, **settings).largest_batch

    def events(self, plugin: str, **settings: Any) -> list[Json]:
        return [event_of(envelope) for envelope in self.envelopes(plugin, **settings)]

    def equal_events(self, **settings: Any) -> list[Json]:
        """The events, after both plug-ins have been seen to give the same bytes under the same routing keys."""
        first, second = (self.envelopes(plugin, **settings) for plugin in BOTH)
        for ours, theirs in zip(first, second, strict=False):
            assert ours == theirs, f"wal2json: {ours}\npgoutput: {theirs}"
        assert len(first) == len(second), f"{len(first)} events by wal2json, {len(second)} by pgoutput"
        return [event_of(envelope) for envelope in first]

    def _read(self, plugin: str, **settings: Any) -> CollectingSink:
        sink = CollectingSink()
        asyncio.run(asyncio.wait_for(self._stream(plugin, sink, **settings), DEADLINE_S))
        for envelope in sink.envelopes:
            check(envelope.body)
            assert event_of(envelope)["id"] == envelope.message_id
        return sink

    def pushed_down(self, plugin: str, **settings: Any) -> PushDown:
        """What a stream with these settings would leave to the plug-in."""
        with Sql(self.role_dsn) as sql:
            return left_out(sql, Settings(**settings), plugin=plugin, has_windows=False)

    async def _stream(self, plugin: str, sink: CollectingSink, **settings: Any) -> None:
        until = resolve_lsn(self.role_dsn, "now")
        made = Settings(**settings)
        book = Rulebook(made.rules.skip)
        opened = await open_stream(
            self.role_dsn,
            slot=self.slot(plugin),
            plugin=plugin,
            publication=self.publication,
            read_only=True,
            push_down=self.pushed_down(plugin, **settings).options,
            foresee=foresee_of(made, book) if made.streaming else None,
        )
        try:
            pipeline = pipeline_of(made, opened, sink, Progress(), until=until, book=book)
            await pipeline.run(asyncio.Event())
        finally:
            await opened.close()


def run(dsn: str, *statements: str) -> None:
    """Each argument in a transaction of its own; an argument may hold several statements."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        for statement in statements:
            connection.cursor().execute(statement)


def ask(dsn: str, question: str) -> Any:
    """The single value, or the single row if it has several columns."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(question)
        (row,) = cursor.fetchall()
        return row[0] if len(row) == 1 else row


def event_of(envelope: Envelope) -> Json:
    event: Json = json.loads(envelope.body)
    return event


@cache
def check(body: bytes) -> None:
    """Raises where a body breaks the published schema. Redelivered bodies are checked once."""
    _validator().validate(json.loads(body))


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads((files("pgevents") / "event.schema.json").read_text()))
