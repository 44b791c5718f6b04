"""Every format, from what PostgreSQL and either plug-in really send."""

import asyncio
import json
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from cloudevents.core.bindings.amqp import AMQPMessage, from_amqp
from cloudevents.core.formats.json import JSONFormat

from pgevents.event import Event
from pgevents.filters import TableFilter
from pgevents.format import CodecContext, Format, codec_names, open_codec
from pgevents.gate import Gate
from pgevents.pipeline import Limits, Pipeline, Progress
from pgevents.routing import RoutingKey
from pgevents.session import open_stream
from pgevents.shape import Shape
from pgevents.streaming import resolve_lsn
from tests.golden.case import bodies
from tests.integration.streaming import BOTH, DEADLINE_S, CollectingSink, Recording, run

TABLES = (
    """create table t (id int primary key, big bigint, n numeric(10, 2), f float8, ok bool, note text, doc jsonb,
                       docs jsonb[], at timestamptz, local timestamp, day date, u uuid, raw bytea, long text)""",
    "create table w (code text primary key, ok bool, doc json, note text, day date)",
    "create table x (id int primary key, doc jsonb, note text); alter table x replica identity full",
    "alter table t alter long set storage external",
)
CHANGES = (
    """insert into t values (1, 9223372036854775807, 12.50, 'NaN', true, E'"a"\\n', '{"a": 1.10}', '{"{\\"b\\": 2}"}',
                             '2018-03-27 11:58:28.98Z', 'infinity', '2026-11-20', gen_random_uuid(), '\\xdead',
                             repeat('long ', 2000))""",
    "update t set note = null",
    "update t set id = 2",
    "delete from t",
    """insert into w values ('a', true, '{"a": 1.10}', 'ä', '2026-11-20')""",
    "update w set note = null",
    "update w set code = 'b'",
    "delete from w",
    """insert into x values (1, '{"a": 1}', 'long')""",
    """update x set note = 'short'; update x set id = 3; delete from x""",
    "truncate w, x",
    "select pg_logical_emit_message(true, 'mail', 'welcome 42'), pg_logical_emit_message(false, 'lone', 'ä')",
)


class Witness:
    """A codec that keeps every event, and has a word for none."""

    content_type = ""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def encode(self, event: Event) -> tuple[()]:
        self.events.append(event)
        return ()


def real_events(recording: Recording, plugin: str) -> list[Event]:
    """What the shape hands to a codec for all that was recorded."""
    witness = Witness()
    asyncio.run(asyncio.wait_for(_stream(recording, plugin, witness), DEADLINE_S))
    return witness.events


async def _stream(recording: Recording, plugin: str, witness: Witness) -> None:
    until = resolve_lsn(recording.role_dsn, "now")
    opened = await open_stream(
        recording.role_dsn,
        slot=recording.slot(plugin),
        plugin=plugin,
        publication=recording.publication,
        read_only=True,
    )
    try:
        pipeline = Pipeline(
            source=opened.source,
            decoder=opened.decoder,
            gate=Gate(opened.identity, opened.start_lsn),
            shape=Shape(TableFilter(), RoutingKey(), witness),
            sink=CollectingSink(),
            limits=Limits(until=until),
            progress=Progress(),
        )
        await pipeline.run(asyncio.Event())
    finally:
        await opened.close()


def recorded(dsn: str) -> Recording:
    run(dsn, *TABLES)
    recording = Recording(dsn)
    recording.run(*CHANGES)
    return recording


def opened(name: str) -> Format:
    return open_codec(name, CodecContext("shop", "stream", "1"))


def finite(event: Event) -> Event:
    """Without the one value that wal2json before 2.6 prints as null."""
    new, old = ({**row, "f": None} if row and "f" in row else row for row in (event.new, event.old))
    return event._replace(new=new, old=old)


def test_every_format_has_the_same_bytes_from_both_plug_ins(database15: str) -> None:
    recording = recorded(database15)
    first, second = (list(map(finite, real_events(recording, plugin))) for plugin in BOTH)

    assert len(first) > 15
    for name in codec_names():
        codec = opened(name)
        assert [bodies(codec, event) for event in first] == [bodies(codec, event) for event in second], name
        for event in first:
            for body in bodies(codec, event):
                assert json.loads(body.data), name


@pytest.mark.parametrize("plugin", BOTH)
def test_a_real_transaction_is_read_in_debeziums_words(database15: str, plugin: str) -> None:
    codec, recording = opened("debezium"), recorded(database15)

    made = [json.loads(body.data) for event in real_events(recording, plugin) for body in bodies(codec, event)]

    ops = [(envelope["source"]["table"], envelope["op"]) for envelope in made if envelope["op"] != "m"]
    assert ops == [*((table, op) for table in "twx" for op in "cudcd"), ("w", "t"), ("x", "t")]
    assert [
        envelope["after"]["long"] for envelope in made if envelope["source"]["table"] == "t" and envelope["after"]
    ][1:] == ["__debezium_unavailable_value"] * 2
    assert sorted(envelope["message"]["prefix"] for envelope in made if envelope["op"] == "m") == ["lone", "mail"]
    assert made[0]["after"]["doc"] == '{"a": 1.10}'


@pytest.mark.parametrize("plugin", BOTH)
def test_real_events_are_read_by_the_package_cloudevents(database15: str, plugin: str) -> None:
    events = real_events(recorded(database15), plugin)

    for name in ("cloudevents", "cloudevents-binary"):
        codec = opened(name)
        for event in events:
            (body,) = bodies(codec, event)
            message = AMQPMessage({"content-type": codec.content_type}, dict(body.headers), body.data)
            assert from_amqp(message, JSONFormat()).get_id() == event.id


@pytest.mark.parametrize("plugin", BOTH)
def test_the_format_wal2json_is_what_wal2json_prints(database15: str, plugin: str) -> None:
    codec, recording = opened("wal2json"), recorded(database15)
    printed = plugin_output(recording)

    made = [json.loads(body.data) for event in real_events(recording, plugin) for body in bodies(codec, event)]

    assert [without_lsn(each) for each in made if each.get("table") != "t"] == [
        without_lsn(each) for each in printed if each.get("table") != "t"
    ]
    assert [shape_of(each) for each in made] == [shape_of(each) for each in printed]


def plugin_output(recording: Recording) -> list[dict[str, Any]]:
    """What the plug-in itself prints with the options that the format is like, but for B and C."""
    with closing(psycopg2.connect(recording.dsn, options="-c timezone=UTC")) as connection:
        cursor = connection.cursor()
        cursor.execute(
            """select data from pg_logical_slot_peek_changes(%s, null, null, 'format-version', '2', 'include-xids',
                      '1', 'include-timestamp', '1', 'include-lsn', '1', 'include-types', '0')""",
            [recording.slot("wal2json")],
        )
        printed = [json.loads(data) for (data,) in cursor.fetchall()]
    return [each for each in printed if each["action"] not in "BC"]


def without_lsn(printed: dict[str, Any]) -> dict[str, Any]:
    """Without the position, which is that of the change there and of the commit here."""
    return {name: value for name, value in printed.items() if name != "lsn"}


def shape_of(printed: dict[str, Any]) -> dict[str, Any]:
    """The names of everything, and values of what holds no converted one."""
    names: dict[str, Any] = {
        part: [column["name"] for column in printed[part]] for part in ("columns", "identity") if part in printed
    }
    return {**printed, **names, "lsn": None}
