"""What a RabbitMQ URL says, and that its errors keep the password to themselves."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.errors import ConfigError
from pgevents.sink.amqp import url
from pgevents.sink.amqp.url import BrokerAddress, parse


def test_a_bare_url_means_the_local_broker_and_its_guest() -> None:
    url = parse("amqp://")

    assert url.addresses == (BrokerAddress("localhost", 5672),)
    assert (url.user, url.password, url.vhost) == ("guest", "guest", "/")
    assert (url.exchange, url.mandatory, url.heartbeat_s, url.tls) == ("pgevents", True, None, None)


def test_every_part_is_read() -> None:
    url = parse(
        "amqps://us%40er:p%2Fw@one:1111,[::1]:2222,three/shop%2Feu?exchange=changes&routing_key={schema}.{table}.{op}"
        "&heartbeat=20&connection_timeout=2500&mandatory=false"
        "&cacertfile=/ca.pem&certfile=c.pem&keyfile=k.pem&verify=verify_none&server_name_indication=mq.shop"
    )

    assert [str(address) for address in url.addresses] == ["one:1111", "[::1]:2222", "three:5671"]
    assert (url.user, url.password, url.vhost) == ("us@er", "p/w", "shop/eu")
    assert (url.exchange, url.mandatory, url.heartbeat_s, url.connection_timeout_s) == ("changes", False, 20, 2.5)
    assert url.tls is not None
    assert (url.tls.ca_file, url.tls.cert_file, url.tls.key_file) == ("/ca.pem", "c.pem", "k.pem")
    assert (url.tls.verify, url.tls.server_name) == (False, "mq.shop")


@pytest.mark.parametrize("text", ["amqp://host", "amqp://host/", "amqp://host/%2F", "amqp://host?exchange=x"])
def test_the_virtual_host_is_the_root_unless_named(text: str) -> None:
    assert parse(text).vhost == "/"


def test_tls_is_verified_unless_that_is_declined() -> None:
    tls = parse("amqps://host").tls

    assert tls is not None
    assert tls.verify


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://host", "starts with amqp://"),
        ("amqp://host:0", "port outside"),
        ("amqp://host:99999", "port outside"),
        ("amqp://host:port", "not host or host:port"),
        ("amqp://host/a/b", "more than one part"),
        ("amqp://host?exchange=", "default exchange"),
        ("amqp://host?exchange=" + "x" * 256, "256 bytes"),
        ("amqp://host?exchange=amq.nope", "exchange= in the RabbitMQ URL: 'amq.nope' has the prefix amq."),
        ("amqp://host?exchange=a&exchange=b", "exchange twice"),
        ("amqp://host?heartbeat=soon", "heartbeat=soon"),
        ("amqp://host?connection_timeout=0", "connection_timeout=0"),
        ("amqp://host?mandatory=1", "neither true nor false"),
        ("amqps://host?verify=yes", "neither verify_peer nor verify_none"),
        ("amqp://host?cacertfile=ca.pem", "needs TLS"),
        ("amqp://u:p@w@host", "more than one @"),
    ],
)
def test_what_cannot_be_used_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text)


def test_an_unknown_parameter_names_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="hart_beat") as refused:
        parse("amqp://host?hart_beat=3")

    assert refused.value.hint == "Did you mean heartbeat?"


def test_the_password_is_not_shown() -> None:
    url = parse("amqp://user:hush@host/vhost?exchange=x")

    assert str(url) == "amqp://user:***@host:5672/vhost?exchange=x"
    assert "hush" not in repr(url)


@given(
    st.text(alphabet="S:/?#@%&=[],", min_size=1, max_size=6).map(lambda text: f"QZJ{text}XKV"),
    st.sampled_from(["host", "host:99999", "host/a/b", "host?nonsense=1", "host/x?heartbeat=-"]),
)
def test_no_error_tells_the_password_even_if_it_was_not_encoded(password: str, rest: str) -> None:
    try:
        shown = str(parse(f"amqp://user:{password}@{rest}"))
    except ConfigError as error:
        shown = f"{error} {error.hint}"

    assert not re.search("QZJ|XKV", shown)


def test_the_documentation_lists_every_parameter_and_no_other() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
    (rows,) = re.findall(r"^\| parameter \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)

    names = [name for row in rows.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]

    assert sorted(names) == sorted(url._PARAMETERS)
