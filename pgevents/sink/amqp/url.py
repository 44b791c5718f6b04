"""What an ``amqp(s)://`` URL says: addresses, credentials, virtual host and RabbitMQ's own query parameters."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from urllib.parse import quote, unquote

from pgevents.errors import ConfigError
from pgevents.exchange import check_exchange

DEFAULT_EXCHANGE = "pgevents"
PLAIN_PORT, TLS_PORT = 5672, 5671
SHORT_STRING_BYTES = 255

_TLS_PARAMETERS = ("cacertfile", "certfile", "keyfile", "verify", "server_name_indication")
_PARAMETERS = ("exchange", "routing_key", "heartbeat", "connection_timeout", "mandatory", *_TLS_PARAMETERS)
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_ENCODE = "In a user name or a password write @ : / ? # % as %40 %3A %2F %3F %23 %25."


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """One host and port of a broker; prints as ``host:port``."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tls:
    """How the broker is verified and we are, by files in PEM format; empty where the system's default holds."""

    ca_file: str
    cert_file: str
    key_file: str
    verify: bool
    server_name: str


@dataclass(frozen=True, slots=True)
class AmqpUrl:
    """Where and how to publish. ``heartbeat_s`` is None where the broker's proposal holds, 0 for none."""

    addresses: tuple[BrokerAddress, ...]
    user: str
    password: str = field(repr=False)
    vhost: str
    exchange: str
    mandatory: bool
    heartbeat_s: int | None
    connection_timeout_s: float
    tls: Tls | None

    def __str__(self) -> str:
        """The URL as it may be shown: no password, no file names."""
        scheme = "amqps" if self.tls else "amqp"
        hosts = ",".join(map(str, self.addresses))
        user = quote(self.user, safe="")
        vhost = quote(self.vhost, safe="")
        return f"{scheme}://{user}:***@{hosts}/{vhost}?exchange={quote(self.exchange, safe='')}"


def parse(url: str) -> AmqpUrl:
    """Read ``amqp(s)://user:password@host:port,host:port/vhost?exchange=…``.

    ``connection_timeout`` is in milliseconds and ``heartbeat`` in seconds, as RabbitMQ has them.
    Raises ConfigError, which never quotes the part that may hold the password.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in ("amqp", "amqps"):
        raise ConfigError("a RabbitMQ URL starts with amqp:// or amqps://")
    location, _, query = rest.partition("?")
    authority, _, path = location.partition("/")
    user, password, hosts = _credentials(authority)
    addresses = _addresses(hosts, TLS_PORT if scheme == "amqps" else PLAIN_PORT)
    vhost = _vhost(path)
    parameters = _parameters(query)
    return AmqpUrl(
        addresses=addresses,
        user=user,
        password=password,
        vhost=vhost,
        exchange=_exchange(parameters),
        mandatory=_choice(parameters, "mandatory", {"true": True, "false": False}, default=True),
        heartbeat_s=_heartbeat(parameters),
        connection_timeout_s=_number(parameters, "connection_timeout", 10_000, least=1) / 1000,
        tls=_tls(scheme, parameters),
    )


def _credentials(authority: str) -> tuple[str, str, str]:
    credentials, _, hosts = authority.rpartition("@")
    if "@" in credentials:
        raise ConfigError("the RabbitMQ URL has more than one @ before its host", hint=_ENCODE)
    if not credentials:
        return "guest", "guest", hosts
    user, _, password = credentials.partition(":")
    return unquote(user), unquote(password), hosts


def _addresses(hosts: str, default_port: int) -> tuple[BrokerAddress, ...]:
    if not hosts:
        return (BrokerAddress("localhost", default_port),)
    return tuple(_address(part, default_port) for part in hosts.split(","))


def _address(text: str, default_port: int) -> BrokerAddress:
    # Nothing of the text is quoted: with a "/" or "?" in it, half a password would stand here.
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ConfigError("the RabbitMQ URL has a broker address that is not host or host:port", hint=_ENCODE)
    port = int(match["port"] or default_port)
    if not 0 < port < 1 << 16:
        raise ConfigError("the RabbitMQ URL has a port outside 1 to 65535")
    return BrokerAddress(unquote(match["host"].strip("[]")), port)


def _vhost(path: str) -> str:
    if "@" in path:
        raise ConfigError("the RabbitMQ URL has an @ after its first /", hint=_ENCODE)
    if "/" in path:
        raise ConfigError(
            "the RabbitMQ URL has more than one part after its host",
            hint="The virtual host is one part; a / inside its name is written %2F.",
        )
    return unquote(path) or "/"


def _parameters(query: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name not in _PARAMETERS:
            raise _unknown(name)
        if name in parameters:
            raise ConfigError(f"the RabbitMQ URL gives {name} twice")
        parameters[name] = unquote(value)
    return parameters


def _unknown(name: str) -> ConfigError:
    if "@" in name:
        return ConfigError("the RabbitMQ URL has an @ after its first ?", hint=_ENCODE)
    nearest = get_close_matches(name, _PARAMETERS, n=1, cutoff=0.5)
    hint = f"Did you mean {nearest[0]}?" if nearest else f"Known are {', '.join(_PARAMETERS)}."
    return ConfigError(f"the RabbitMQ URL has an unknown parameter {name!r}", hint=hint)


def _exchange(parameters: Mapping[str, str]) -> str:
    exchange = parameters.get("exchange", DEFAULT_EXCHANGE)
    if not exchange:
        raise ConfigError(
            "the RabbitMQ URL names the default exchange, which routes to queues by name alone",
            hint="Give exchange= the name of a topic exchange; it is declared when it is missing.",
        )
    size = len(exchange.encode())
    if size > SHORT_STRING_BYTES:
        raise ConfigError(f"exchange= is {size} bytes long; AMQP allows {SHORT_STRING_BYTES}")
    try:
        check_exchange(exchange)
    except ConfigError as error:
        raise ConfigError(f"exchange= in the RabbitMQ URL: {error}", hint=error.hint) from error
    return exchange


def _heartbeat(parameters: Mapping[str, str]) -> int | None:
    return _number(parameters, "heartbeat", 0, least=0) if "heartbeat" in parameters else None


def _number(parameters: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = parameters.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
        raise ConfigError(f"{name}={text} in the RabbitMQ URL is not a whole number of at least {least}")
    return int(text)


def _choice(parameters: Mapping[str, str], name: str, choices: Mapping[str, bool], *, default: bool) -> bool:
    if name not in parameters:
        return default
    text = parameters[name]
    if text not in choices:
        raise ConfigError(f"{name}={text} in the RabbitMQ URL is neither {' nor '.join(choices)}")
    return choices[text]


def _tls(scheme: str, parameters: Mapping[str, str]) -> Tls | None:
    if scheme == "amqps":
        return Tls(
            ca_file=parameters.get("cacertfile", ""),
            cert_file=parameters.get("certfile", ""),
            key_file=parameters.get("keyfile", ""),
            verify=_choice(parameters, "verify", {"verify_peer": True, "verify_none": False}, default=True),
            server_name=parameters.get("server_name_indication", ""),
        )
    for name in _TLS_PARAMETERS:
        if name in parameters:
            raise ConfigError(f"{name} in the RabbitMQ URL needs TLS", hint="Write amqps:// instead of amqp://.")
    return None
