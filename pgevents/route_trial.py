"""Where a change would go, and which queues would get it. Nothing is published."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pgevents.condition import Unsent
from pgevents.doctor.binding import Bindings
from pgevents.errors import ConfigError, PGEventsError
from pgevents.event import Event, Headers, Transaction
from pgevents.filters import TableFilter, qualified
from pgevents.format import CodecContext, Format, open_codec
from pgevents.given_row import check_row, read_row
from pgevents.image import layout_of, row_event
from pgevents.lsn import Lsn
from pgevents.mask import mask_dsn
from pgevents.postgres import Sql
from pgevents.record import message_event, truncate_event
from pgevents.routing import MESSAGE_SCHEMA, Decide, Route, Router
from pgevents.rule_catalog import tables
from pgevents.session import routing_key
from pgevents.settings import Settings
from pgevents.spelling import nearest
from pgevents.version import VERSION
from pgevents.wal import IDENTITY_DEFAULT, Change, Column, LogicalMessage, Relation, Row

_IMAGES = {"insert": ("new",), "update": ("new", "old"), "delete": ("old",)}
"""What PostgreSQL sends of a row, by operation."""

_ARTICLE = {"insert": "an", "update": "an"}


@dataclass(frozen=True, slots=True)
class Trial:
    """A route that a change takes, where ``when`` is true; empty for the one that it takes otherwise.

    ``format`` is the one that holds; without a word for the operation, which ``is_sayable`` tells, nothing is sent.
    ``own_headers`` are what the format itself puts into each message, over the route's of the same name.
    ``queues`` get the change; None where the sink has no queues, or where they could not be seen, and then ``unseen``
    says why.
    """

    route: Route
    when: str
    format: str
    is_sayable: bool
    exchange: str
    own_headers: tuple[str, ...]
    queues: tuple[str, ...] | None
    unseen: str = ""

    @property
    def is_lost(self) -> bool:
        """Whether it is sent, and no queue is known to get it."""
        return self.is_sayable and (bool(self.unseen) or self.queues == ())

    @property
    def headers(self) -> Headers:
        """Those of the route that the messages carry."""
        return tuple(each for each in self.route.address.headers if each[0] not in self.own_headers)

    def as_dict(self) -> dict[str, Any]:
        address = self.route.address
        return {
            "route": self.route.rule or None,
            "when": self.when or None,
            "exchange": self.exchange or None,
            "routing_key": address.topic,
            "headers": dict(self.headers),
            "headers_of_format": list(self.own_headers),
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
            "headers": " ".join(
                [*(f"{name}={value}" for name, value in self.headers), *(f"{name}=…" for name in self.own_headers)]
            ),
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
    images = {image: _image(image, text, op) for image, text in rows.items()}
    router = Router(
        settings.rules.route, routing_key(settings.sink), lambda name: _codec(settings, name).content_type
    )
    candidates, otherwise = router.candidates(*names, op, has_rows=op in _IMAGES)
    types = _types(settings, table, names, op, are_needed=bool(candidates or rows), say=say)
    for image, row in images.items():
        check_row(image, row, types or {})
    planned = router.plan(*names, op, types)
    if isinstance(planned, Route):
        routes = [(planned, "")]
    elif images:
        routes = [(_decided(planned, op, images), "")]
    else:
        routes = [*((each.route, each.when.text) for each in candidates), (otherwise, "")]
    bindings = Bindings(settings.sink, management=management)
    example = _example(*names, op, types or {})
    return [_trial(settings, bindings, route, when, example) for route, when in routes]


def _trial(settings: Settings, bindings: Bindings, route: Route, when: str, example: Event) -> Trial:
    exchange, queues, unseen = bindings.of(route.address)
    codec = _codec(settings, route.format)
    is_sayable = example.op in codec.operations
    own = _own_headers(codec, example) if is_sayable else ()
    return Trial(route, when, route.format or settings.format, is_sayable, exchange, own, queues, unseen)


def _own_headers(codec: Format, example: Event) -> tuple[str, ...]:
    encoded = codec.encode(example)
    bodies = () if isinstance(encoded, bytes) else encoded
    return tuple(dict.fromkeys(name for body in bodies for name, _ in body.headers))


def _example(schema: str, table: str, op: str, types: Mapping[str, int]) -> Event:
    """An event of such a change; all values of its row are NULL."""
    transaction = Transaction("0/0", 3, "0/0", "2000-01-01T00:00:00.000000Z", 946_684_800, None)
    if op == "message":
        return message_event(LogicalMessage(Lsn(0), transactional=True, prefix=table, content=b""), transaction, 1)
    columns = tuple(Column(name, oid) for name, oid in types.items())
    relation = Relation(schema, table, columns, IDENTITY_DEFAULT, (), ())
    if op == "truncate":
        return truncate_event(relation, transaction, 1)
    new, old = (dict.fromkeys(types) if image in _IMAGES[op] else None for image in ("new", "old"))
    return row_event(Change(op, relation, new, old), layout_of(relation, None), transaction, 1)


def _image(image: str, text: str, op: str) -> Row:
    if image not in _IMAGES.get(op, ()):
        raise ConfigError(f"there is no {image} row in {_ARTICLE.get(op, 'a')} {op}", hint=f"Leave out --{image}.")
    return read_row(image, text)


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
