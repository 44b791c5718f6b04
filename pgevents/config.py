"""Settings resolved from flags, environment and file; each value remembers where it came from."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from pgevents import libpq
from pgevents.errors import ConfigError
from pgevents.mask import HIDDEN, mask_value
from pgevents.rule import Rules
from pgevents.rules import KINDS, parse_rules
from pgevents.settings import OPTIONS, PREFIX, Option, Settings
from pgevents.skip_option import with_options
from pgevents.spelling import nearest
from pgevents.window import place_of

DEFAULT_FILE = "pgevents.toml"
FILE_VARIABLE = PREFIX + "CONFIG"
EXCHANGE_VARIABLE = "RABBITMQ_EXCHANGE"
PASSWORD_VARIABLE = "PGPASSWORD"  # noqa: S105 - the name of a variable
NOT_OPTIONS = (PREFIX + "PG_BIN", PREFIX + "PYTHON")
"""Variables of ours that the demo, the tests and the Makefile read."""

# Kubernetes tells every container where the Services of its namespace are: of one that is named pgevents, or
# pgevents-something, in variables that look like ours. Of PORT alone the value tells: tcp://10.0.0.1:5432.
_SERVICE_LINK = re.compile(
    PREFIX + r"(?:\w+_)?(?:SERVICE_(?:HOST|PORT(?:_\w+)?)=|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?=|PORT=\w+://)"
)

Environment = Mapping[str, str]


class Found(NamedTuple):
    """A value as it was given, and where. Text is still to be parsed; what a file or a switch gives is typed."""

    value: Any
    origin: str
    is_text: bool


@dataclass(frozen=True, slots=True)
class Resolution:
    """Settings, the origin of each by field name, the file read, if one was, and libpq's variables that are set."""

    settings: Settings
    origins: Mapping[str, str]
    file: str | None
    libpq: Mapping[str, str]

    def shown(self) -> dict[str, dict[str, Any]]:
        """Every key with its value, secrets masked, and its origin."""
        values = {option: getattr(self.settings, option.name) for option in OPTIONS}
        return {
            option.key: {
                "value": _masked(option, value),
                "origin": self.origins[option.name],
            }
            for option, value in values.items()
        }


def resolve(flags: Mapping[str, Any], environment: Environment, *, file: str | None = None) -> Resolution:
    """Settle every option: flag, then ``PGEVENTS_*``, then aliases, then file, then default.

    ``flags`` holds what the command line gave, by field name: text, bool or a tuple; None and () are "not
    given". An empty variable counts as not set. ``file`` is the flag ``--config``. Raises ConfigError.
    """
    _refuse_unknown_variables(environment)
    path, in_file, rules = _read_file(file, environment)
    found = {option.name: _find(option, flags, environment, in_file) for option in OPTIONS}
    values = {option.name: _value(option, found[option.name]) for option in OPTIONS}
    origins = {name: place.origin for name, place in found.items()}
    if not values["state"]:
        # Beside the configuration, and named after the slot: each slot needs one of its own.
        values["state"] = str(Path(path or "").parent / f"pgevents-{values['slot']}.state.json")
    _add_exchange(values, origins, environment)
    _add_password(values, origins, environment)
    _check_format(values["format"], origins["format"])
    _check_streaming(values, origins)
    settings = Settings(**values)
    settings = replace(settings, rules=with_options(rules, settings), skips=place_of(settings, path))
    _check_origins(settings)
    return Resolution(settings, origins, path, libpq.variables_set(environment))


def _check_format(name: str, origin: str) -> None:
    if origin == "default":
        return
    # Looks through what is installed: too slow for every command's --help.
    from pgevents.format import codec_names

    if name not in codec_names():
        hint = nearest(name, codec_names()) or f"The formats are {', '.join(codec_names())}."
        raise ConfigError(f"format = {_shown(name)} ({origin}) is not allowed", hint=hint)


def _check_streaming(values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    if values["streaming"] and values["plugin"] == "wal2json":
        raise ConfigError(
            f"streaming ({origins['streaming']}) and plugin = 'wal2json' ({origins['plugin']}) exclude each other: "
            "it sends transactions at their commit only",
            hint="Leave one of them out; pgoutput can.",
        )


def _check_origins(settings: Settings) -> None:
    if settings.streaming and (origin := next((rule.origin for rule in settings.rules.skip if rule.origin), None)):
        raise ConfigError(
            f"streaming and a skip rule by origin, {_shown(origin)}, exclude each other: pgoutput does not tell the "
            "origin of a commit that it sends in pieces",
            hint="Leave one of them out.",
        )


def _masked(option: Option, value: Any) -> Any:
    """The value of an option as it is shown: without passwords, and of a key only that there is one."""
    if option.limits.opaque:
        return HIDDEN if value else value
    return mask_value(value) if option.limits.secret else value


def _find(option: Option, flags: Mapping[str, Any], environment: Environment, in_file: Mapping[str, Found]) -> Found:
    given = flags.get(option.name)
    if given is not None and given != ():
        flag = option.off_flag if given is False else option.flag
        return Found(given, f"flag {flag}", isinstance(given, str))
    for variable in option.variables:
        text, name = _from_environment(variable, environment, secret=option.limits.secret)
        if text:
            return Found(text, f"environment {name}", is_text=True)
    return in_file.get(option.name, Found(option.default, "default", is_text=False))


def _value(option: Option, found: Found) -> Any:
    try:
        return option.parse(found.value) if found.is_text else option.check(found.value)
    except ValueError as error:
        given = HIDDEN if option.limits.secret else _shown(found.value)
        raise ConfigError(
            f"{option.key} = {given} ({found.origin}) is not allowed", hint=f"It must be {option.allowed}."
        ) from error


def _shown(value: Any) -> str:
    """A value as an error repeats it: a URL may stand where it does not belong."""
    return repr(mask_value(value) if isinstance(value, str) else value)


def _from_environment(variable: str, environment: Environment, *, secret: bool) -> tuple[str, str]:
    """A variable's text and the name it was found under; a secret may stand in the file ``*_FILE`` names."""
    text, path = environment.get(variable, ""), environment.get(f"{variable}_FILE", "") if secret else ""
    if not path:
        return text, variable
    if text:
        raise ConfigError(
            f"{variable} and {variable}_FILE are both set", hint="Unset one: it is not clear which is meant."
        )
    return _read_secret(f"{variable}_FILE", path), f"{variable}_FILE"


def _read_secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file {path} that {variable} names cannot be read: {_reason(error)}") from error


def _reason(error: OSError | UnicodeDecodeError) -> str:
    # The text of a UnicodeDecodeError quotes the bytes, which may be a secret.
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8"


def _known_variables() -> Iterator[str]:
    yield FILE_VARIABLE
    yield from NOT_OPTIONS
    for option in OPTIONS:
        yield option.variables[0]
        if option.limits.secret:
            yield option.variables[0] + "_FILE"


def _refuse_unknown_variables(environment: Environment) -> None:
    known = set(_known_variables())
    for name, value in sorted(environment.items()):
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.match(f"{name}={value}"):
            raise ConfigError(f"unknown environment variable {name}", hint=nearest(name, known))


def _read_file(flag: str | None, environment: Environment) -> tuple[str | None, dict[str, Found], Rules]:
    """The path of the file read, None if there is none, its values by field name, and its rules."""
    named = flag or environment.get(FILE_VARIABLE)
    if not named and not Path(DEFAULT_FILE).exists():
        return None, {}, Rules()
    path = named or DEFAULT_FILE
    names = {option.key: option.name for option in OPTIONS}
    table = _parse_toml(path)
    for key in table:
        if key not in names and key not in KINDS:
            raise ConfigError(f"unknown key {_shown(key)} in {path}", hint=nearest(key, (*names, *KINDS)))
    found = {names[key]: Found(value, path, is_text=False) for key, value in table.items() if key in names}
    return path, found, parse_rules(table, path)


def _parse_toml(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path} cannot be read: its values are nested too deep") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {_reason(error)}") from error


def _add_exchange(values: dict[str, Any], origins: dict[str, str], environment: Environment) -> None:
    """Give an AMQP sink that names no exchange the one of RABBITMQ_EXCHANGE."""
    exchange, url = environment.get(EXCHANGE_VARIABLE, ""), values["sink"]
    if not exchange or not url.lower().startswith(("amqp:", "amqps:")) or _names_exchange(url):
        return
    values["sink"] = f"{url}{'&' if '?' in url else '?'}exchange={quote(exchange, safe='')}"
    origins["sink"] += f", exchange from environment {EXCHANGE_VARIABLE}"


def _names_exchange(url: str) -> bool:
    return any(part.partition("=")[0] == "exchange" for part in url.partition("?")[2].split("&"))


def _add_password(values: dict[str, Any], origins: dict[str, str], environment: Environment) -> None:
    """Check the DSN, and give one without a password that of the file PGPASSWORD_FILE names."""
    password, name = _from_environment(PASSWORD_VARIABLE, environment, secret=True)
    keywords = libpq.parse_dsn(values["dsn"], origins["dsn"]) if values["dsn"] else {}
    if name != PASSWORD_VARIABLE and "password" not in keywords:
        values["dsn"] = libpq.with_password(values["dsn"], password)
        origins["dsn"] += f", password from environment {name}"
