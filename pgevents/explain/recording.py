"""A part of what a slot delivers, and a file of it that needs no server any more.

The file is NDJSON: whose changes they are, then every message of the plug-in in order, and before each one what the
catalog said when it was decoded. It holds the rows as they are, before any mask.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from pgevents.errors import ConfigError
from pgevents.interfaces import Catalog
from pgevents.lsn import Lsn
from pgevents.plugin import decoder_of
from pgevents.session import base_type
from pgevents.wal import Change, Column, PgType, RawMessage, Relation, TableFacts, Truncate, WalItem

VERSION = 1


@dataclass(frozen=True, slots=True)
class Head:
    """Whose changes they are, and how they are printed. ``identity`` is ``{system identifier}-{timeline}``."""

    plugin: str
    identity: str
    database: str
    encoding: str = "utf-8"
    quoted_numbers: bool = True


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Messages of a slot, to be read once; ``catalog`` answers what decoding them asks, as it is read."""

    head: Head
    catalog: Catalog
    messages: Iterator[RawMessage]


def lines_of(excerpt: Excerpt) -> Iterator[bytes]:
    """The lines of a recording. Everything is decoded, so that whatever the rules will be, the answers are there."""
    head, catalog = excerpt.head, _Listening(excerpt.catalog)
    decoder = decoder_of(head.plugin, catalog, quoted_numbers=head.quoted_numbers, encoding=head.encoding)
    yield _line({"recording": VERSION, **asdict(head)})
    for message in excerpt.messages:
        for relation in _relations(decoder.decode(message)):
            catalog.learn(relation)
        yield from catalog.told()
        yield _line({"lsn": str(Lsn(message.lsn)), "payload": b64encode(message.payload).decode()})


def _relations(item: WalItem | None) -> tuple[Relation, ...]:
    match item:
        case Change():
            return (item.relation,)
        case Truncate():
            return item.relations
    return ()


def _line(row: dict[str, Any]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


class _Listening:
    """A catalog that remembers each new answer until it is told."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[str, Any] = {}
        self._new: list[bytes] = []
        self._learned: set[Relation] = set()

    def begin(self, xid: int) -> None:
        self._catalog.begin(xid)

    def type(self, oid: int) -> PgType:
        answer = self._catalog.type(oid)
        self._note("type", oid, list(answer))
        return answer

    def table(self, schema: str, name: str) -> TableFacts | None:
        answer = self._catalog.table(schema, name)
        self._note("table", [schema, name], _facts_row(answer))
        return answer

    def origin(self, number: int) -> str | None:
        answer = self._catalog.origin(number)
        self._note("origin", number, answer)
        return answer

    def learn(self, relation: Relation) -> None:
        """Conditions ask for the base types of all columns."""
        if relation not in self._learned:
            self._learned.add(relation)
            for column in relation.columns:
                base_type(self, column.type_oid)

    def told(self) -> list[bytes]:
        told, self._new = self._new, []
        return told

    def _note(self, question: str, of: Any, answer: Any) -> None:
        key = f"{question} {of}"
        if key not in self._known or self._known[key] != answer:
            self._known[key] = answer
            self._new.append(_line({"catalog": question, "of": of, "is": answer}))


def _facts_row(facts: TableFacts | None) -> dict[str, Any] | None:
    if facts is None:
        return None
    return asdict(facts) | {
        "columns": [list(column) for column in facts.columns],
        "generated": sorted(facts.generated),
        "primary_key": list(facts.primary_key),
        "index_key": list(facts.index_key),
        "inline": sorted(facts.inline),
    }


def excerpt_of(lines: Iterable[bytes], *, name: str) -> Excerpt:
    """The excerpt that was recorded in a file of that name. Raises ConfigError, also as it is read."""
    numbered = enumerate(lines, 1)
    head = _head(next(numbered, (1, b""))[1], name)
    catalog = _Recorded()
    return Excerpt(head, catalog, _messages(numbered, catalog, name))


def _head(line: bytes, name: str) -> Head:
    try:
        row = orjson.loads(line)
        if row.pop("recording") != VERSION:
            raise ConfigError(
                f"{name} is a recording of another version than {VERSION}", hint="Use the PGEvents that wrote it."
            )
        return Head(**row)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _broken(name, 1) from error


def _messages(lines: Iterator[tuple[int, bytes]], catalog: "_Recorded", name: str) -> Iterator[RawMessage]:
    for number, line in lines:
        try:
            row = orjson.loads(line)
            if "catalog" in row:
                catalog.learn(**row)
                continue
            message = RawMessage(Lsn.parse(row["lsn"]), b64decode(row["payload"], validate=True))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise _broken(name, number) from error
        yield message


def _broken(name: str, line: int) -> ConfigError:
    return ConfigError(
        f"{name} is not a recording, or was cut off: line {line} cannot be read",
        hint="Make one with: pgevents explain --record FILE",
    )


class _Recorded:
    """What a catalog said up to the message that was read last."""

    def __init__(self) -> None:
        self._types: dict[int, PgType] = {}
        self._tables: dict[tuple[str, str], TableFacts | None] = {}
        self._origins: dict[int, str | None] = {}

    def begin(self, xid: int) -> None:
        """What it knows is always to be seen."""

    def type(self, oid: int) -> PgType:
        return self._types.get(oid, PgType())

    def table(self, schema: str, name: str) -> TableFacts | None:
        return self._tables.get((schema, name))

    def origin(self, number: int) -> str | None:
        return self._origins.get(number)

    def learn(self, **row: Any) -> None:
        """A line of the file: what was asked, of what, and the answer."""
        of, answer = row["of"], row["is"]
        match row["catalog"]:
            case "type":
                self._types[of] = PgType(*answer)
            case "table":
                schema, name = of
                self._tables[schema, name] = None if answer is None else _facts(answer)
            case "origin":
                self._origins[of] = answer
            case _:
                raise ValueError


def _facts(row: dict[str, Any]) -> TableFacts:
    return TableFacts(
        **row
        | {
            "columns": tuple(Column(*column) for column in row["columns"]),
            "generated": frozenset(row["generated"]),
            "primary_key": tuple(row["primary_key"]),
            "index_key": tuple(row["index_key"]),
            "inline": frozenset(row["inline"]),
        }
    )
