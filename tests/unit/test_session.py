"""What of a sink's URL is read before any sink is opened."""

import pytest

from pgevents.routing import DEFAULT_TEMPLATE
from pgevents.session import routing_key


@pytest.mark.parametrize("password", ["p[w", "p]w", "a+b#c", "%3Fx%26routing_key=no", "ü", ""])
@pytest.mark.parametrize(
    ("query", "template"),
    [
        ("", DEFAULT_TEMPLATE),
        ("?exchange=e", DEFAULT_TEMPLATE),
        ("?routing_key=", DEFAULT_TEMPLATE),
        ("?exchange=e&routing_key=x.{table}", "x.{table}"),
        ("?routing_key=a+b.%7Btable%7D%23%26#c&exchange=e", "a+b.{table}#&#c"),
    ],
)
def test_the_routing_key_is_read_whatever_the_password_is(password: str, query: str, template: str) -> None:
    assert routing_key(f"amqp://user:{password}@h/v{query}").template == template
