"""The names of exchanges that can be published to. Source: RabbitMQ, which keeps ``amq.`` to itself."""

from pgevents.errors import ConfigError

RESERVED = "amq."
OF_THE_BROKER = ("amq.topic", "amq.direct", "amq.fanout", "amq.headers", "amq.match")
"""Those of ``amq.`` that every virtual host has and that take messages of clients."""


def check_exchange(name: str) -> None:
    """Raises ConfigError for a name that no exchange for messages of ours can have."""
    if name.startswith(RESERVED) and name not in OF_THE_BROKER:
        raise ConfigError(
            f"{name!r} has the prefix {RESERVED}, which is reserved for the broker's own exchanges",
            hint=f"Give it another name. Of the broker's own there are {', '.join(OF_THE_BROKER)}.",
        )
