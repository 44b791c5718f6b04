"""What holds for every format and any event."""

import json

import orjson
import pytest
from hypothesis import given, settings

from pgevents.codec._row import is_same
from pgevents.event import Event, Transaction
from pgevents.format import CodecContext, Format, codec_names, open_codec
from tests.golden.case import bodies
from tests.golden.strategy import document, events


def opened() -> dict[str, Format]:
    return {name: open_codec(name, CodecContext("shop", "stream", "1")) for name in codec_names()}


CODECS, OTHERS = opened(), opened()

# A busy machine is no fault of a codec.
in_any_time = settings(deadline=None)


@pytest.mark.parametrize("name", codec_names())
@in_any_time
@given(event=events())
def test_any_event_becomes_json_with_headers_of_text(name: str, event: Event) -> None:
    codec = CODECS[name]

    made = bodies(codec, event)

    for body in made:
        assert isinstance(json.loads(body.data), dict)
        assert all(isinstance(part, str) for header in body.headers for part in header)
    assert bool(made) == (event.op in codec.operations)
    assert len({body.suffix for body in made}) == len(made)


@pytest.mark.parametrize("name", codec_names())
@in_any_time
@given(event=events())
def test_the_same_event_gives_the_same_bytes_whoever_encodes_it(name: str, event: Event) -> None:
    again = event._replace(transaction=Transaction(*event.transaction))

    assert CODECS[name].encode(event) == OTHERS[name].encode(again)


@pytest.mark.parametrize("name", codec_names())
@in_any_time
@given(event=events())
def test_encoding_leaves_the_event_as_it_was(name: str, event: Event) -> None:
    before = orjson.dumps(event._asdict(), default=str)

    CODECS[name].encode(event)

    assert orjson.dumps(event._asdict(), default=str) == before


@in_any_time
@given(document)
def test_embedded_documents_are_the_same_when_their_text_is(value: object) -> None:
    printed = json.dumps(value)

    assert is_same(orjson.Fragment(printed), orjson.Fragment(printed))
    assert not is_same(orjson.Fragment(printed), orjson.Fragment(f"[{printed}]"))
    assert is_same([orjson.Fragment(printed)], [orjson.Fragment(printed)])
