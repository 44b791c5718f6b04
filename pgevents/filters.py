"""Which tables are streamed: globs over ``schema.table``, decided once per relation."""

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase, translate

# To publish where we stand would move us on, for ever.
OWN_TABLES = frozenset({"pgevents.watermark", "pgevents.skip_window"})

_GLOB = re.compile(r"[*?[]")


class TableFilter:
    """Includes what matches ``include`` (everything when it is empty) and none of ``exclude``, never our own tables.

    A pattern is a shell glob, case-sensitive: ``public.orders``, ``shop.*``, ``*.audit_*``. Without a dot it
    means the schema ``public``.
    """

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        self.include = tuple(map(qualified, include))
        self.exclude = tuple(map(qualified, exclude))
        self._includes, self._excludes = _matcher(self.include), _matcher(self.exclude)

    def __call__(self, schema: str, table: str) -> bool:
        name = f"{schema}.{table}"
        wanted = not self.include or self._includes(name)
        return wanted and name not in OWN_TABLES and not self._excludes(name)

    def unmatched(self, names: Iterable[str]) -> list[str]:
        """The include patterns that match none of ``names``, each ``schema.table``."""
        known = list(names)
        return [p for p in self.include if not any(fnmatchcase(name, p) for name in known)]


def _matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a name matches one of them. Plain names are looked up: of many rules each table asks all."""
    names = frozenset(pattern for pattern in patterns if not _GLOB.search(pattern))
    globs = [re.compile(translate(pattern)).match for pattern in patterns if pattern not in names]

    def matches(name: str) -> bool:
        return name in names or any(match(name) for match in globs)

    return matches


def qualified(pattern: str) -> str:
    return pattern if "." in pattern else f"public.{pattern}"
