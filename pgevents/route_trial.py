"""Where a change would go, and which queues would get it. Nothing is published."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pgevents.condition import Unsent
from pgevents.doctor.binding import Bindings
from pgevents.errors import ConfigError, PGEventsError
from pgevents.filters import TableFilter, qualified
from pgevents.format import CodecContext, Format, open_codec
from pgevents.mask import mask_dsn
from pgevents.postgres import Sql
from pgevents.routing import MESSAGE_SCHEMA, Decide, Route, Router
from pgevents.rule_catalog import tables
from pgevents.session import routing_key
from pgevents.settings import Settings
from pgevents.spelling import nearest
from pgevents.version import VERSION
from pgevents.wal import Row

_IMAGES = {"insert": ("new",), "update": ("new", "old"), "delete": ("old",)}
"""What PostgreSQL sends of a row, by operation."""

_ARTICLE = {"insert": "an", "update": "an"}
_EXAMPLE = "Write it as --{} '{{\"total\": 5}}'."


@dataclass(frozen=True, slots=True)
class Trial:
    """A route that a change takes, where ``when`` is true; empty for the one that it takes otherwise.

    ``format`` is the one that holds; without a word for the operation, which ``is_sayable`` tells, nothing is sent.
    ``queues`` get the change; None where the sink has no queues, or where they could not be seen, and then ``unseen``
    says why.
    """

    route: Route
    when: str
    format: str
    is_sayable: bool
    exchange: str
    queues: tuple[str, ...] | None
    unseen: str = ""

    @property
    def is_lost(self) -> bool:
        """Whether it is sent, and no queue is known to get it."""
        return self.is_sayable and (bool(self.unseen) or self.queues == ())

    def as_dict(self) -> dict[str, Any]:
        address = self.route.address
        return {
            "route": self.route.rule or None,
            "when": self.when or None,
            "exchange": self.exchange or None,
            "routing_key": address.topic,
            "headers": dict(address.headers),
            "priority": address.priority,
            "expiration_ms": int(address.expiration) if address.expiration else None,
            "format": self.format,
            "content_type": address.content_type,
            "compression": self.route.compression or None,
            "published": self.is_sayable,
            "queues": self.queues,
            "unseen": self.unseen or None,
        }

    def lines(self) -> list[str]:
        address = self.route.address
        fields = {
            "route": self.route.rule or "none, as without routes",
            "when": self.when,
            "exchange": self.exchange,
            "routing key": address.topic,
            "headers": " ".join(f"{name}={value}" for name, value in address.headers),
            "priority": "" if address.priority is None else str(address.priority),
            "expiration": address.expiration and f"{address.expiration} ms",
            "format": f"{self.format}, {address.content_type}",
            "compression": self.route.compression,
            "queues": self._bound(),
        }
        return [f"{name:<12} {value}" for name, value in fields.items() if value]

    def _bound(self) -> str:
        if not self.is_sayable:
            return "nothing is published: the format has no word for this operation"
        if self.unseen:
            return f"could not be seen: {self.unseen}"
        return "" if self.queues is None else ", ".join(self.queues) or "none is bound"


def try_route(
    settings: Settings,
    table: str,
    op: str,
    *,
    rows: Mapping[str, str],
    management: str = "",
    say: Callable[[str], None],
) -> list[Trial]:
    """The route of such a change; without ``rows`` every one that it may take, in order.

    ``table`` is a message's prefix where ``op`` is ``message``. ``rows`` are JSON objects, of ``new`` and ``old``.
    Blocks. Raises ConfigError for a table or a column that there is not, and for a row without a value that a
    condition asks for; SourceError where a condition needs the types of columns and they cannot be read.
    """
    names = _names(settings, table, op, say)
    images = {image: _row(image, text, op) for image, text in rows.items()}
    router = Router(
        settings.rules.route, routing_key(settings.sink), lambda name: _codec(settings, name).content_type
    )
    candidates, otherwise = router.candidates(*names, op, has_rows=op in _IMAGES)
    types = _types(settings, table, names, op, are_needed=bool(candidates or rows), say=say)
    _check_columns(images, types)
    planned = router.plan(*names, op, types)
    if isinstance(planned, Route):
        routes = [(planned, "")]
    elif images:
        routes = [(_decided(planned, op, images), "")]
    else:
        routes = [*((each.route, each.when.text) for each in candidates), (otherwise, "")]
    bindings = Bindings(settings.sink, management=management)
    return [_trial(settings, bindings, route, when, op=op) for route, when in routes]


def _trial(settings: Settings, bindings: Bindings, route: Route, when: str, *, op: str) -> Trial:
    exchange, queues, unseen = bindings.of(route.address)
    is_sayable = op in _codec(settings, route.format).operations
    return Trial(route, when, route.format or settings.format, is_sayable, exchange, queues, unseen)


def _names(settings: Settings, table: str, op: str, say: Callable[[str], None]) -> tuple[str, str]:
    if op == "message":
        return MESSAGE_SCHEMA, table.removeprefix(f"{MESSAGE_SCHEMA}.")
    schema, _, name = qualified(table).partition(".")
    if not TableFilter(settings.tables, settings.exclude_tables)(schema, name):
        say(f"{schema}.{name} is not streamed: tables and exclude_tables leave it out")
    return schema, name


def _codec(settings: Settings, name: str) -> Format:
    return open_codec(name or settings.format, CodecContext("", settings.slot, VERSION))


def _types(
    settings: Settings,
    table: str,
    names: tuple[str, str],
    op: str,
    *,
    are_needed: bool,
    say: Callable[[str], None],
) -> Mapping[str, int] | None:
    """The types of the columns; None where there are no rows, or where nobody needs them and they cannot be read.

    Says which table is taken where ``table`` does not.
    """
    if op == "message":
        return None
    wanted = ".".join(names)
    try:
        with Sql(settings.dsn) as sql:
            known = {f"{table.schema}.{table.name}": table.types for table in tables(sql)}
    except PGEventsError as error:
        if are_needed:
            raise
        if table != wanted:
            say(f"{table} is taken as {wanted}")
        say(f"whether there is such a table could not be seen: {mask_dsn(str(error))}")
        return None
    elsewhere = [name for name in known if name != wanted and name.partition(".")[2] == names[1]]
    if wanted not in known:
        hint = f"Did you mean {' or '.join(elsewhere)}?" if elsewhere else nearest(wanted, known)
        raise ConfigError(
            f"there is no table {wanted}", hint=hint or "Write it as SCHEMA.TABLE, as it is spelled in the catalog."
        )
    if table != wanted:
        say(f"{table} is taken as {wanted}" + (f"; there is also {' and '.join(elsewhere)}" if elsewhere else ""))
    return known[wanted] if op in _IMAGES else None


def _row(image: str, text: str, op: str) -> Row:
    """The row as pgoutput prints it. Its values are repeated in no error."""
    if image not in _IMAGES.get(op, ()):
        raise ConfigError(f"there is no {image} row in {_ARTICLE.get(op, 'a')} {op}", hint=f"Leave out --{image}.")
    try:
        # As the text they are no number loses a digit; inside of other values they stay numbers.
        exact, plain = json.loads(text, parse_int=str, parse_float=str, parse_constant=str), json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--{image} is not JSON: {_without_text(error)}", hint=_EXAMPLE.format(image)) from error
    if not isinstance(plain, dict):
        raise ConfigError(f"--{image} is not a JSON object", hint=_EXAMPLE.format(image))
    return {
        name: json.dumps(plain[name], ensure_ascii=False) if isinstance(value, dict | list) else _printed(value)
        for name, value in exact.items()
    }


def _without_text(error: ValueError) -> str:
    return (
        f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else "it cannot be read"
    )


def _printed(value: str | bool | None) -> str | None:  # noqa: FBT001 - a value of JSON
    if isinstance(value, bool):
        return "t" if value else "f"
    return value


def _check_columns(images: Mapping[str, Row], types: Mapping[str, int] | None) -> None:
    for image, row in images.items():
        for name in row:
            if types is not None and name not in types:
                hint = nearest(name, types) or f"The columns are {', '.join(types)}."
                raise ConfigError(f"--{image}: the table has no column {name}", hint=hint)


def _decided(decide: Decide, op: str, images: Mapping[str, Row]) -> Route:
    new, old = (images.get(image, {}) if image in _IMAGES[op] else None for image in ("new", "old"))
    try:
        return decide(new, old)
    except Unsent as error:
        image, _, column = error.column.partition(".")
        raise ConfigError(
            f"a condition asks for {error.column}, which is not given",
            hint=f"Add it: --{image} '{{\"{column}\": …}}'. A stream without it does what on_missing says.",
        ) from error
    except (ValueError, ArithmeticError) as error:
        # Which value it is only the condition knows; PostgreSQL would never have let it into the table.
        raise ConfigError(
            "a value is not of the type of its column", hint='Write it as PostgreSQL prints it, such as "12.50".'
        ) from error
