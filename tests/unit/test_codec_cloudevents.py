"""CloudEvents, read by the package of their own makers."""

import json
from datetime import datetime

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.amqp import AMQPMessage, from_amqp
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings

from pgevents.codec.native import NativeCodec
from pgevents.event import Event
from pgevents.format import CodecContext, open_codec
from tests.golden.case import CASES, CONTEXT, bodies
from tests.golden.strategy import events

MODES = ["cloudevents", "cloudevents-binary"]
CODECS = {name: open_codec(name, CONTEXT) for name in MODES}


def received(name: str, event: Event) -> BaseCloudEvent:
    """The event as a consumer of RabbitMQ reads it."""
    codec = CODECS[name]
    (body,) = bodies(codec, event)
    return from_amqp(AMQPMessage({"content-type": codec.content_type}, dict(body.headers), body.data), JSONFormat())


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("case", CASES)
def test_both_modes_are_read_by_the_package_cloudevents(name: str, case: str) -> None:
    event = CASES[case]

    read = received(name, event)

    assert isinstance(read, CloudEvent)
    assert read.get_id() == event.id
    assert read.get_type() == f"pgevents.{event.op}"
    assert read.get_source() == "/pgevents/orders-stream/shop"
    assert read.get_datacontenttype() == "application/json"
    assert read.get_data() == json.loads(NativeCodec().encode(event))


@settings(deadline=None)
@given(event=events())
def test_both_modes_say_the_same_of_any_event(event: Event) -> None:
    structured, binary = (received(name, event) for name in MODES)

    assert structured.get_data() == binary.get_data()
    if event.transaction.committed_at is not None:  # else the package puts its own time
        assert structured.get_attributes() == binary.get_attributes()


@pytest.mark.parametrize("name", MODES)
def test_the_time_is_that_of_the_commit(name: str) -> None:
    assert received(name, CASES["insert"]).get_time() == datetime.fromisoformat("2026-11-20T18:02:48.632795Z")


@pytest.mark.parametrize(
    ("case", "subject"),
    [
        ("insert", "public.orders"),
        ("identifiers", "Sales%20%22EU%22.order%2Eitems%0A"),
        ("message-text", "mail"),
    ],
)
@pytest.mark.parametrize("name", MODES)
def test_the_subject_is_the_table_or_the_prefix(name: str, case: str, subject: str) -> None:
    assert received(name, CASES[case]).get_subject() == subject


def test_what_is_not_known_is_left_out() -> None:
    nameless = CASES["message-alone"]._replace(
        message={"prefix": "", "content": "", "encoding": "text", "transactional": False}
    )

    (body,) = bodies(open_codec("cloudevents", CONTEXT), nameless)

    assert list(json.loads(body.data)) == ["specversion", "id", "source", "type", "datacontenttype", "data"]


def test_a_source_is_a_uri_whatever_the_database_is_called() -> None:
    (body,) = bodies(open_codec("cloudevents", CodecContext("größe/1 x", "a?b", "1")), CASES["insert"])

    assert json.loads(body.data)["source"] == "/pgevents/a%3Fb/gr%C3%B6%C3%9Fe%2F1%20x"
