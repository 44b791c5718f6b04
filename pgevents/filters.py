"""Which tables are streamed: globs over ``schema.table``, decided once per relation."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

# To publish where we stand would move us on, for ever.
OWN_TABLES = frozenset({"pgevents.watermark"})


class TableFilter:
    """Includes what matches ``include`` (everything when it is empty) and none of ``exclude``, never our own tables.

    A pattern is a shell glob, case-sensitive: ``public.orders``, ``shop.*``, ``*.audit_*``. Without a dot it
    means the schema ``public``.
    """

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        self.include = tuple(map(qualified, include))
        self.exclude = tuple(map(qualified, exclude))

    def __call__(self, schema: str, table: str) -> bool:
        name = f"{schema}.{table}"
        wanted = not self.include or any(fnmatchcase(name, pattern) for pattern in self.include)
        return wanted and name not in OWN_TABLES and not any(fnmatchcase(name, pattern) for pattern in self.exclude)

    def unmatched(self, names: Iterable[str]) -> list[str]:
        """The include patterns that match none of ``names``, each ``schema.table``."""
        known = list(names)
        return [p for p in self.include if not any(fnmatchcase(name, p) for name in known)]


def qualified(pattern: str) -> str:
    return pattern if "." in pattern else f"public.{pattern}"
