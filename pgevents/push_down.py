"""What wal2json is told to leave out: tables, operations and origins of which nothing is published anyway. Pure.

What a plug-in leaves out is never seen here: it has no number, and no record or rule can count it. So nothing is left
to it that one of them may ask for, and the stream goes on sifting what it does send.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pgevents.filters import OWN_TABLES, TableFilter
from pgevents.rule import OPERATIONS, FilterRule, Rules
from pgevents.settings import Settings

_EVERYTHING = "*.*"
_WILDCARD = re.compile(r"[*?[]")

# wal2json's parser asks isspace() of each byte, which says yes to these two on some systems: bytes of many letters.
_NO_SPACE_EVERYWHERE = frozenset(b"\x85\xa0")

# A backslash takes its meaning from whatever stands behind it.
_SPECIAL = re.compile(r"[^\w]", re.ASCII)


@dataclass(frozen=True, slots=True)
class PushDown:
    """``options`` are wal2json's, and ``pushed`` says in words what each does.

    ``kept`` is what the stream does itself of what could be asked of a plug-in, and why.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    pushed: Mapping[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()

    def taken(self, names: Collection[str]) -> "PushDown":
        """What is left of it where the plug-in knows the options ``names`` alone."""
        unknown = tuple(
            f"{each}: this wal2json does not know the option" for each in self.options if each not in names
        )
        return replace(
            self,
            options={name: value for name, value in self.options.items() if name in names},
            pushed={name: words for name, words in self.pushed.items() if name in names},
            kept=(*self.kept, *unknown),
        )

    def as_dict(self) -> dict[str, Any]:
        return {"options": dict(self.options), "pushed": list(self.pushed.values()), "kept": list(self.kept)}

    def lines(self) -> list[str]:
        """A line for each sentence, in the words of ``pgevents publication plan``."""
        return [
            *(f"in wal2json: {sentence}" for sentence in self.pushed.values()),
            *(f"in the stream: {sentence}" for sentence in self.kept),
        ]


def is_asked_for(settings: Settings) -> bool:
    return settings.push_down or bool(settings.rules.pushed_origins)


def push_down(
    settings: Settings,
    tables: Iterable[tuple[str, str]],
    origins: Mapping[str, int],
    *,
    plugin: str = "wal2json",
    has_windows: bool = False,
) -> PushDown:
    """What of the settings a slot of ``plugin`` can do; nothing where they do not ask for it.

    ``tables`` are those of the database, as (schema, name), and ``origins`` the numbers of those that there are, by
    name. ``has_windows``: skip rules were added from outside.
    """
    if not is_asked_for(settings):
        return PushDown()
    if plugin == "pgoutput":
        return PushDown(kept=("all of it: what pgoutput sends the publication says, see pgevents publication plan",))
    made = _Made()
    _filter_origins(settings.rules.pushed_origins, origins, made)
    if not settings.push_down:
        return PushDown(made.options, made.pushed, tuple(made.kept))
    keep = TableFilter(settings.tables, settings.exclude_tables)
    _add_tables(keep, tables, made)
    _filter_tables(keep, made)
    _actions(settings.rules, keep, made, counts_all=has_windows or bool(settings.rules.skip))
    return PushDown(made.options, made.pushed, (*made.kept, *_rest(settings.rules)))


@dataclass(slots=True)
class _Made:
    options: dict[str, str] = field(default_factory=dict)
    pushed: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)

    def push(self, option: str, values: Iterable[object], words: str) -> None:
        self.options[option] = ",".join(map(str, values))
        self.pushed[option] = words


class Selector(NamedTuple):
    """A pattern as wal2json has them: each part is a name, or None for any."""

    schema: str | None
    table: str | None

    def __str__(self) -> str:
        # Some versions of wal2json take whatever has a dot as its second letter for any schema.
        dodge = "\\" if self.schema and re.fullmatch(r"\w", self.schema, re.ASCII) else ""
        return f"{dodge}{_escaped(self.schema)}.{_escaped(self.table)}"

    @property
    def readable(self) -> str:
        """Without the backslashes."""
        return ".".join("*" if part is None else part for part in self)

    def __call__(self, schema: str, table: str) -> bool:
        return self.schema in (None, schema) and self.table in (None, table)


def _escaped(name: str | None) -> str:
    return "*" if name is None else _SPECIAL.sub(_behind_backslash, name)


def _behind_backslash(found: re.Match[str]) -> str:
    # One backslash is for one byte, and of a longer character no byte is special.
    return f"\\{found[0]}" if found[0].isascii() else found[0]


def _filter_origins(wanted: Iterable[str], known: Mapping[str, int], made: _Made) -> None:
    """wal2json takes numbers, and an origin has one once it was made."""
    numbers = {name: known[name] for name in wanted if name in known}
    if numbers:
        made.push("filter-origins", numbers.values(), f"without the transactions of origin {', '.join(numbers)}")
    made.kept += [f"origin {name}: there is none of that name yet" for name in wanted if name not in known]


def _add_tables(keep: TableFilter, tables: Iterable[tuple[str, str]], made: _Made) -> None:
    """Every table that is streamed must be among what is asked for; more of them may be."""
    selectors = {pattern: list(_wide(pattern)) for pattern in keep.include}
    if not selectors:
        return
    for pattern, wide in selectors.items():
        if Selector(None, None) in wide:
            made.kept.append(f"which tables: {pattern} has a wildcard inside of both names")
            return
    wanted = list(dict.fromkeys(each for wide in selectors.values() for each in wide))
    for schema, table in tables:
        if keep(schema, table) and not any(selector(schema, table) for selector in wanted):
            made.kept.append(f"which tables: a wildcard of wal2json's does not match {schema}.{table} as ours does")
            return
    made.push("add-tables", wanted, "only " + ", ".join(each.readable for each in wanted))


def _filter_tables(keep: TableFilter, made: _Made) -> None:
    """No table that is streamed may be among what is left out; fewer of the others may be."""
    selectors = {pattern: list(_exact(pattern)) for pattern in (*keep.exclude, *sorted(OWN_TABLES))}
    made.kept += [
        f"that {each} is left out: it has a wildcard inside of a name" for each, of in selectors.items() if not of
    ]
    unwanted = list(dict.fromkeys(selector for exact in selectors.values() for selector in exact))
    made.push("filter-tables", unwanted, "without " + ", ".join(each.readable for each in unwanted))


def _wide(pattern: str) -> Iterator[Selector]:
    """What together matches all that a pattern of ours does, and maybe more.

    A dot may be the one between the names, or in one of them. What only a wildcard of ours reaches across it is left
    to the check against the tables that there are.
    """
    if "[" in pattern.partition(".")[0] or ("[" in pattern and pattern.count(".") > 1):
        yield Selector(None, None)
        return
    for schema, table in _splits(pattern):
        yield Selector(_schema(schema), _name(table))


def _exact(pattern: str) -> Iterator[Selector]:
    """What matches nothing that a pattern of ours does not."""
    for schema, table in _splits(pattern):
        selector = Selector(_schema(schema), _name(table))
        if all(part is not None or _is_any(glob) for part, glob in zip(selector, (schema, table), strict=True)):
            yield selector


def _splits(pattern: str) -> Iterator[tuple[str, str]]:
    return ((pattern[: dot.start()], pattern[dot.end() :]) for dot in re.finditer(r"\.", pattern))


def _is_any(glob: str) -> bool:
    return set(glob) == {"*"}


def _schema(glob: str) -> str | None:
    # Behind its backslash the dot would be the second letter, see Selector.
    return None if glob.startswith(".") else _name(glob)


def _name(glob: str) -> str | None:
    """The name that a part of a pattern is, None where it is none, or none that wal2json would read everywhere."""
    is_name = not _WILDCARD.search(glob) and _NO_SPACE_EVERYWHERE.isdisjoint(glob.encode(errors="replace"))
    return glob if is_name else None


def _actions(rules: Rules, keep: TableFilter, made: _Made, *, counts_all: bool) -> None:
    """wal2json has one list for all tables."""
    patterns = keep.include or (_EVERYTHING,)
    of_rows = [op for op in OPERATIONS if op != "message"]
    wanted = [op for op in of_rows if not all(_is_left_out(op, each, rules, keep) for each in patterns)]
    unwanted = [op for op in of_rows if op not in wanted]
    if partly := [op for op in wanted if any(op not in rule.operations for rule in rules.filter)]:
        made.kept.append(
            f"that {', '.join(partly)} of some tables is left out: wal2json has one list for all of them"
        )
    if unwanted and counts_all:
        made.kept.append(
            f"that {', '.join(unwanted)} is left out: skip rules and their records count every operation"
        )
    elif unwanted and wanted:
        made.push("actions", wanted, f"only {', '.join(wanted)} of all tables")


def _is_left_out(op: str, pattern: str, rules: Rules, keep: TableFilter) -> bool:
    return any(op not in rule.operations and _covers(rule, pattern, keep) for rule in rules.filter)


def _covers(rule: FilterRule, pattern: str, keep: TableFilter) -> bool:
    """Whether the rule is about every table that the pattern streams, those created later included."""
    include, exclude = set(rule.tables.include), set(rule.tables.exclude)
    return (not include or not include.isdisjoint({pattern, _EVERYTHING})) and exclude <= {*keep.exclude, *OWN_TABLES}


def _rest(rules: Rules) -> Iterator[str]:
    """What wal2json cannot do at all."""
    if any(rule.when or rule.unchanged for rule in rules.filter):
        yield "the conditions of filters: wal2json does not look at rows"
    if rules.columns:
        yield "which columns: wal2json sends all of them"
