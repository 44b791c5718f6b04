"""Frames marshalled by hand, compared with what pika reads out of them."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from pgevents.errors import PublishRejected
from pgevents.event import Address, Envelope
from pgevents.sink.amqp import frame as frames
from pgevents.sink.amqp.frame import Framer

FRAME_MAX = 4096
BODY_MAX = FRAME_MAX - 8
ORDERS = Address("public.orders.insert", "insert", "application/json")


@dataclass(frozen=True)
class Published:
    method: spec.Basic.Publish
    properties: spec.BasicProperties
    body: bytes
    body_frames: int


def decode(octets: bytes, channel: int) -> list[Published]:
    """What pika, and so a broker, makes of ``octets``."""
    frames = []
    while octets:
        used, each = frame.decode_frame(octets)
        assert each is not None, "a frame is cut short"
        assert each.channel_number == channel
        assert used <= FRAME_MAX
        frames.append(each)
        octets = octets[used:]
    return messages(frames)


def messages(frames: list[frame.Frame]) -> list[Published]:
    published = []
    while frames:
        method, header, *rest = frames
        size, parts = 0, []
        while size < header.body_size:
            parts.append(rest.pop(0).fragment)
            size += len(parts[-1])
        published.append(Published(method.method, header.properties, b"".join(parts), len(parts)))
        frames = rest
    return published


short = st.text(max_size=60)
headers = st.lists(st.tuples(st.text(min_size=1, max_size=20), st.text(max_size=200)), max_size=4).map(tuple)
addresses = st.builds(
    Address,
    short,
    short,
    short,
    exchange=short,
    headers=headers,
    priority=st.none() | st.integers(0, 255),
    expiration=st.just("") | st.integers(0, 2**32 - 1).map(str),
    content_encoding=short,
)
envelopes = st.builds(
    Envelope,
    st.text(min_size=1, max_size=60),
    addresses,
    st.integers(min_value=0, max_value=2**40),
    st.integers(min_value=0, max_value=3 * BODY_MAX).map(lambda size: b"x" * size) | st.binary(max_size=50),
    headers=st.just(()) | headers,
)


@given(st.lists(envelopes, min_size=1, max_size=8), st.integers(min_value=1, max_value=2047), short, st.booleans())
def test_pika_reads_what_was_published(batch: list[Envelope], channel: int, exchange: str, mandatory: bool) -> None:
    framer = Framer(channel, exchange, frame_max=FRAME_MAX, mandatory=mandatory)

    once, again = framer.frames(batch), framer.frames(batch)

    assert once == again
    published = decode(once, channel)
    assert len(published) == len(batch)
    for envelope, got in zip(batch, published, strict=True):
        address = envelope.address
        assert got.method.exchange == (address.exchange or exchange)
        assert got.method.routing_key == envelope.address.topic
        assert (got.method.mandatory, got.method.immediate) == (mandatory, False)
        assert got.properties.content_type == envelope.address.content_type
        assert got.properties.type == envelope.address.kind
        assert got.properties.message_id == envelope.message_id
        assert got.properties.timestamp == (envelope.timestamp or None)
        assert (got.properties.delivery_mode, got.properties.app_id) == (2, "pgevents")
        assert got.properties.priority == address.priority
        assert got.properties.expiration == (address.expiration or None)
        assert got.properties.content_encoding == (address.content_encoding or None)
        assert got.properties.headers == (dict(address.headers + envelope.headers) or None)
        assert got.body == envelope.body


@pytest.mark.parametrize(
    ("size", "frames"), [(0, 0), (1, 1), (BODY_MAX, 1), (BODY_MAX + 1, 2), (2 * BODY_MAX, 2), (5 * BODY_MAX + 3, 6)]
)
def test_a_body_is_split_at_frame_max(size: int, frames: int) -> None:
    framer = Framer(1, "pgevents", frame_max=FRAME_MAX, mandatory=True)

    [published] = decode(framer.frames([Envelope("1", ORDERS, 1, b"x" * size)]), 1)

    assert published.body_frames == frames


@pytest.mark.parametrize(
    ("envelope", "message"),
    [
        (Envelope("id-7", Address("ä" * 128, "insert", "application/json"), 0, b""), "routing key is 256 bytes"),
        (Envelope("id-7" + "x" * 252, ORDERS, 0, b""), "message id is 256 bytes"),
        (Envelope("id-7", Address("a", "k" * 256, "application/json"), 0, b""), "type is 256 bytes"),
        (Envelope("id-7", ORDERS._replace(exchange="x" * 256), 0, b""), "exchange name is 256 bytes"),
        (Envelope("id-7", ORDERS._replace(content_encoding="x" * 256), 0, b""), "content encoding is 256 bytes"),
        (Envelope("id-7", ORDERS._replace(headers=(("ä" * 128, ""),)), 0, b""), "header name is 256 bytes"),
        (Envelope("id-7", ORDERS, 0, b"", (("h" * 256, ""),)), "header name is 256 bytes"),
        (Envelope("id-7", ORDERS, 0, b"", (("h", "v" * FRAME_MAX),)), "its properties are .* the broker takes 4088"),
    ],
)
@pytest.mark.fault("F75")
def test_what_amqp_cannot_carry_is_rejected_for_good(envelope: Envelope, message: str) -> None:
    framer = Framer(1, "pgevents", frame_max=FRAME_MAX, mandatory=True)

    with pytest.raises(PublishRejected, match=message) as rejected:
        framer.frames([Envelope("fine", ORDERS, 0, b"{}"), envelope])

    assert rejected.value.message_id == envelope.message_id
    assert not rejected.value.transient
    assert rejected.value.hint


def test_properties_that_just_fit_into_a_frame_are_published() -> None:
    framer = Framer(1, "pgevents", frame_max=FRAME_MAX, mandatory=True)

    def publish(size: int) -> Published:
        [published] = decode(framer.frames([Envelope("7", ORDERS, 0, b"{}", (("h", "v" * size),))]), 1)
        return published

    with pytest.raises(PublishRejected, match=f"{BODY_MAX + 1} bytes long"):
        publish(most := next(size for size in range(FRAME_MAX) if not fits(framer, size)))

    assert publish(most - 1).properties.headers == {"h": "v" * (most - 1)}


def fits(framer: Framer, size: int) -> bool:
    try:
        framer.frames([Envelope("7", ORDERS, 0, b"{}", (("h", "v" * size),))])
    except PublishRejected:
        return False
    return True


def test_a_header_of_a_message_hides_that_of_its_address() -> None:
    framer = Framer(1, "pgevents", frame_max=FRAME_MAX, mandatory=True)
    address = ORDERS._replace(headers=(("a", "1"), ("b", "2")))

    own, without = decode(
        framer.frames([Envelope("1", address, 0, b"{}", (("b", "3"), ("c", "4"))), Envelope("2", address, 0, b"{}")]),
        1,
    )

    assert own.properties.headers == {"a": "1", "b": "3", "c": "4"}
    assert without.properties.headers == {"a": "1", "b": "2"}


def test_an_address_that_takes_the_place_of_another_in_memory_is_not_taken_for_it() -> None:
    framer = Framer(1, "pgevents", frame_max=FRAME_MAX, mandatory=True)

    topics = [f"t{at}" for at in range(200)]
    published = [
        decode(framer.frames([Envelope("1", Address(topic, "insert", "application/json"), 0, b"{}")]), 1)[0]
        for topic in topics
    ]

    assert [each.method.routing_key for each in published] == topics


def test_more_addresses_than_are_remembered_are_published_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_MAX_ADDRESSES", 3)
    framer = Framer(1, "pgevents", frame_max=FRAME_MAX, mandatory=True)
    batch = [Envelope(str(at), Address(f"t{at % 7}", "insert", "application/json"), 0, b"{}") for at in range(50)]

    published = decode(framer.frames(batch), 1)

    assert [each.method.routing_key for each in published] == [each.address.topic for each in batch]
