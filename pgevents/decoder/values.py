"""From PostgreSQL's text output to the values of an event. Source: each type's output function.

A converter exists only where the text is not yet the value: everything else stays PostgreSQL's own text.
"""

import re
from typing import Any

import orjson

from pgevents.interfaces import Catalog
from pgevents.wal import Column, Converter

BOOL, BYTEA, INT8, INT2, INT4, OID = 16, 17, 20, 21, 23, 26
JSON, JSONB, FLOAT4, FLOAT8, NUMERIC = 114, 3802, 700, 701, 1700
TIMESTAMP, TIMESTAMPTZ = 1114, 1184

NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})


def boolean(text: str) -> bool:
    return text == "t"


def floating(text: str) -> float | str:
    """A float, or the text itself for NaN and the infinities, which JSON has no number for."""
    return text if text in NOT_FINITE else float(text)


def embedded_json(text: str) -> orjson.Fragment:
    """The document verbatim. Outside strings a line break is white space, inside it cannot occur."""
    if "\n" in text or "\r" in text:
        text = text.replace("\n", " ").replace("\r", " ")
    return orjson.Fragment(text)


def timestamp(text: str) -> str:
    """ISO 8601 with a ``T``. Infinities and years BC have no such form and stay as they are."""
    return text if text.endswith("BC") else text.replace(" ", "T", 1)


def timestamptz(text: str) -> str:
    """ISO 8601 with ``T`` and ``Z``; the session's time zone is pinned to UTC, so the offset is ``+00``."""
    return text.replace(" ", "T", 1)[:-3] + "Z" if text.endswith("+00") else text


TEXT_CONVERTERS: dict[int, Converter] = {
    BOOL: boolean,
    INT2: int,
    INT4: int,
    INT8: int,
    FLOAT4: floating,
    FLOAT8: floating,
    JSON: embedded_json,
    JSONB: embedded_json,
    TIMESTAMP: timestamp,
    TIMESTAMPTZ: timestamptz,
}


def text_converter(oid: int, catalog: Catalog) -> Converter | None:
    """The converter of a type's text output; domains are their base type, arrays become lists."""
    if oid in TEXT_CONVERTERS:
        return TEXT_CONVERTERS[oid]
    shape = catalog.type(oid)
    if shape.base:
        return text_converter(shape.base, catalog)
    if shape.element:
        return array_converter(text_converter(shape.element, catalog), shape.delimiter)
    return None


def array_converter(element: Converter | None, delimiter: str) -> Converter:
    """A converter to nested lists. Arrays with explicit lower bounds, ``[0:1]={…}``, stay text."""
    token = re.compile(rf'[{{}}]|"((?:[^"\\]|\\.)*)"|([^{{}}"{delimiter}]+)', re.DOTALL)

    def convert(text: str) -> Any:
        if not text.startswith("{"):
            return text
        return _nested(text, token, element)

    return convert


def _nested(text: str, token: re.Pattern[str], element: Converter | None) -> list[Any]:
    top: list[Any] = []
    stack = [top]
    for match in token.finditer(text):
        mark = match[0]
        if mark == "{":
            inner: list[Any] = []
            stack[-1].append(inner)
            stack.append(inner)
        elif mark == "}":
            stack.pop()
        else:
            stack[-1].append(_element(match, element))
    nested: list[Any] = top[0]
    return nested


def _element(match: re.Match[str], element: Converter | None) -> Any:
    quoted, bare = match[1], match[2]
    if quoted is None:
        if bare.upper() == "NULL":
            return None
        text = bare
    else:
        text = re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) if "\\" in quoted else quoted
    return text if element is None else element(text)


def converters_of(columns: tuple[Column, ...], catalog: Catalog) -> tuple[tuple[str, Converter], ...]:
    """The converters of a relation whose values all arrive as text."""
    found = ((name, text_converter(oid, catalog)) for name, oid in columns)
    return tuple((name, convert) for name, convert in found if convert is not None)
