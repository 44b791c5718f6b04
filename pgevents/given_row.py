"""A row that a person gives as JSON, read as what PostgreSQL prints of it. Its values are repeated in no error."""

import json
from collections.abc import Mapping

from pgevents.condition import ConditionFailed
from pgevents.condition.kind import JSON, JSONB
from pgevents.condition.type_name import name_of
from pgevents.condition.value import DECODERS, LITERALS, parse
from pgevents.errors import ConfigError
from pgevents.spelling import nearest
from pgevents.wal import Row

_EXAMPLE = "Write it as --{} '{{\"total\": 5}}'."


def read_row(image: str, text: str) -> Row:
    """The row of the option ``--image`` as pgoutput prints it. Raises ConfigError."""
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


def check_row(image: str, row: Row, types: Mapping[str, int]) -> None:
    """Raises ConfigError for a column that there is not, and for a value that PostgreSQL would not print of it."""
    for name, value in row.items():
        if name not in types:
            hint = nearest(name, types) or f"The columns are {', '.join(types)}."
            raise ConfigError(f"--{image}: the table has no column {name}", hint=hint)
        if value is not None and not _is_of(types[name], value):
            raise ConfigError(
                f"--{image}: the value of {name} is no {name_of(types[name])}",
                hint='Write it as PostgreSQL prints it, such as "12.50".',
            )


def _is_of(oid: int, text: str) -> bool:
    """Whether what is read from a column is what the type's input function would make of it."""
    try:
        if oid in (JSON, JSONB):
            json.loads(text)
        elif oid in LITERALS:
            return bool(parse(text, oid) == DECODERS.get(oid, str)(text))
    except (ValueError, ArithmeticError, ConditionFailed):
        return False
    return True
