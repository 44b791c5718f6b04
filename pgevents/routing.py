"""Routing keys: a template filled once per relation and operation."""

import difflib
import re
from string import Formatter

from pgevents.errors import ConfigError

DEFAULT_TEMPLATE = "{schema}.{table}.{op}"
FIELDS = ("schema", "table", "op")

MESSAGE_SCHEMA = "_"
"""Stands for the schema of a logical message, whose table is its prefix."""

_SPECIAL = re.compile(r"[^\w-]")


def escaped(identifier: str) -> str:
    """The identifier with every character that is not a letter, digit, ``_`` or ``-`` as ``%XX`` of its UTF-8.

    A dot would add a word to the routing key, ``*`` and ``#`` read as wildcards where a key is copied into a
    binding.
    """
    return _SPECIAL.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), identifier)


class RoutingKey:
    """A template such as ``{schema}.{table}.{op}``. Raises ConfigError for an unknown field or a bad brace."""

    def __init__(self, template: str = DEFAULT_TEMPLATE) -> None:
        self.template = template
        try:
            fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
        except ValueError as error:
            raise ConfigError(f"the routing key template {template!r} is broken: {error}") from error
        for field in fields:
            _check(field, template)

    def fill(self, schema: str, table: str, op: str) -> str:
        return self.template.format(schema=escaped(schema), table=escaped(table), op=op)


def _check(field: str, template: str) -> None:
    if field not in FIELDS:
        near = difflib.get_close_matches(field, FIELDS, 1, 0.0)[0]
        raise ConfigError(
            f"the routing key template {template!r} has the unknown field {{{field}}}",
            hint=f"Did you mean {{{near}}}? The fields are {', '.join(FIELDS)}.",
        )
