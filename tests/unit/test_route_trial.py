"""What a message of a route will carry is asked of its format, whichever that is."""

import pytest

from pgevents.condition import kind
from pgevents.format import CodecContext, codec_names, open_codec
from pgevents.route_trial import _example, _own_headers

TYPES = {"id": kind.INT4, "name": kind.TEXT, "at": kind.TIMESTAMPTZ, "doc": kind.JSONB}


@pytest.mark.parametrize("name", codec_names())
def test_every_format_makes_a_message_of_the_example_of_each_operation(name: str) -> None:
    codec = open_codec(name, CodecContext("shop", "orders", "1"))

    for operation in ("insert", "update", "delete", "truncate", "message"):
        example = _example("public", "orders", operation, TYPES)

        assert (example.op, bool(codec.encode(example))) == (operation, operation in codec.operations)
        assert bool(_own_headers(codec, example)) == (name == "cloudevents-binary")
