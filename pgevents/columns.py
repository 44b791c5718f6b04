"""What becomes of a table's columns before anything else sees them: left out, masked, hashed or cut.

Decided once per relation. Rules that match the same table all hold, in any order, and the strictest wins: a column
that one of them leaves out is out; else exclude before mask before hash before truncate, and the shortest cut.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pgevents.errors import ConfigError, RuleFailed
from pgevents.mask import HIDDEN
from pgevents.rule import ColumnRule
from pgevents.rule_mistake import called
from pgevents.wal import Relation, Row

SHORTEST_KEY = 16
"""Bytes of a hash key: of a shorter one, all can be tried."""

BYTEA, FLOAT4, FLOAT8 = 17, 700, 701
TEXT_TYPES = frozenset({25, 1043, 1042, 19})
"""text, character varying, character and name."""

FIRST_USER_OID = 16_384
"""PostgreSQL's FirstNormalObjectId: smaller OIDs are types of its own, of which we know whether they are text."""

Final = Callable[[Any], Any]
"""From what the plug-in printed, never None, to the value that is published."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all rules together want of one table's columns, each named once."""

    excluded: tuple[str, ...]
    masked: tuple[str, ...]
    hashed: tuple[str, ...]
    truncated: tuple[tuple[str, int], ...]


class Objection(NamedTuple):
    """``rule`` may not do to ``column`` what it says by ``key``, because the column ``reason``."""

    rule: str
    key: str
    column: str
    reason: str
    hint: str


_VERBS = {"exclude": "leaves out", "include": "leaves out", "mask": "masks", "truncate": "cuts"}
OF_KEY = "is of the key"
_KEY_HINT = "Without it no row can be told from another. Hash it: equal values stay equal."
_TEXT_HINT = "Mask, hash or exclude it."


class ColumnPlan:
    """What is done with every row of one relation.

    ``names`` are the columns left, in the table's order. ``raw`` are those of which the plan makes the final value,
    which no converter may touch.
    """

    __slots__ = ("_excluded", "_finals", "names", "raw")

    def __init__(
        self, names: tuple[str, ...], excluded: tuple[str, ...], finals: tuple[tuple[str, Final], ...]
    ) -> None:
        self.names = names
        self.raw = frozenset(name for name, _ in finals)
        self._excluded = excluded
        self._finals = finals

    def apply(self, row: Row) -> None:
        """Change a raw row in place. What PostgreSQL did not send stays absent, and NULL stays NULL."""
        for name in self._excluded:
            row.pop(name, None)
        for name, final in self._finals:
            value = row.get(name)
            if value is not None:
                row[name] = final(value)


def bind_columns(rules: Sequence[ColumnRule], relation: Relation, key: bytes) -> ColumnPlan | None:
    """The plan of a relation, None where its rows stay as they are. ``key`` is that of the hashes.

    A column that the relation lacks is nobody's fault: it may have been dropped. Raises RuleFailed for what must not
    be: a column of the table's key that is left out, masked or cut, a cut through what is not text; ConfigError for a
    hash without a key.
    """
    verdict = verdict_of(rules, relation)
    if verdict is None:
        return None
    for objection in objections(rules, relation):
        raise _stop(objection, relation)
    if verdict.hashed:
        check_key(key, f"the columns rules of {relation} hash")
    out = frozenset(verdict.excluded)
    return ColumnPlan(
        tuple(name for name in relation.names if name not in out),
        verdict.excluded,
        tuple(_finals(verdict, relation, key)),
    )


def _stop(objection: Objection, relation: Relation) -> RuleFailed:
    rule, verb = called("columns", objection.rule), _VERBS[objection.key]
    return RuleFailed(
        f"{rule} {verb} {objection.column} of {relation}, which {objection.reason}",
        hint=f"Nothing is lost: the slot keeps the change. {objection.hint}",
    )


def verdict_of(rules: Sequence[ColumnRule], relation: Relation) -> Verdict | None:
    """What the rules that match the relation want of its columns; None where they want nothing."""
    matching = [rule for rule in rules if rule.tables(relation.schema, relation.name)]
    if not matching:
        return None
    left = [name for name in relation.names if not _is_out(name, matching)]
    masked = [name for name in left if any(name in rule.mask for rule in matching)]
    hashed = [name for name in left if name not in masked and any(name in rule.hash for rule in matching)]
    lengths = [(name, _shortest(name, matching)) for name in left if name not in {*masked, *hashed}]
    verdict = Verdict(
        tuple(name for name in relation.names if name not in left),
        tuple(masked),
        tuple(hashed),
        tuple((name, length) for name, length in lengths if length),
    )
    return verdict if verdict != NOTHING else None


NOTHING = Verdict((), (), (), ())


def _is_out(name: str, rules: Iterable[ColumnRule]) -> bool:
    return any(_leaves_out(name, rule) for rule in rules)


def _shortest(name: str, rules: Iterable[ColumnRule]) -> int:
    return min((rule.truncate[name] for rule in rules if name in rule.truncate), default=0)


def objections(rules: Sequence[ColumnRule], relation: Relation) -> Iterator[Objection]:
    """What the rules together must not do: a key would no longer tell rows apart, and only text can be cut."""
    verdict = verdict_of(rules, relation) or NOTHING
    cut = tuple(name for name, _ in verdict.truncated)
    matching = [rule for rule in rules if rule.tables(relation.schema, relation.name)]
    for wish, names in ((_leaves_out, verdict.excluded), (_masks, verdict.masked), (_cuts, cut)):
        for name in names:
            if name in relation.key:
                yield Objection(*_whose(wish, name, matching), name, OF_KEY, _KEY_HINT)
    converted = {name for name, _ in relation.converters}
    types = dict(relation.columns)
    for name in cut:
        if name in converted or (types[name] < FIRST_USER_OID and types[name] not in TEXT_TYPES):
            yield Objection(*_whose(_cuts, name, matching), name, "is not text", _TEXT_HINT)


Wish = Callable[[str, ColumnRule], str]
"""The key by which a rule wishes it of a column; empty where it does not."""


def _whose(wish: Wish, name: str, rules: Iterable[ColumnRule]) -> tuple[str, str]:
    """The first rule that wishes it, and by which key."""
    return next((rule.name, key) for rule in rules if (key := wish(name, rule)))


def _leaves_out(name: str, rule: ColumnRule) -> str:
    if name in rule.exclude:
        return "exclude"
    return "include" if rule.include and name not in rule.include else ""


def _masks(name: str, rule: ColumnRule) -> str:
    return "mask" if name in rule.mask else ""


def _cuts(name: str, rule: ColumnRule) -> str:
    return "truncate" if name in rule.truncate else ""


def check_key(key: bytes, asked_by: str) -> None:
    """Raises ConfigError, which holds nothing of the key, unless it can be hashed with."""
    if len(key) < SHORTEST_KEY:
        raise ConfigError(
            f"{asked_by}, and hash_key is {'too short' if key else 'not given'}",
            hint=f"Put at least {SHORTEST_KEY} random bytes into a file and name it in PGEVENTS_HASH_KEY_FILE: "
            "openssl rand -hex 32",
        )


def _finals(verdict: Verdict, relation: Relation, key: bytes) -> Iterable[tuple[str, Final]]:
    types = dict(relation.columns)
    yield from ((name, _masked) for name in verdict.masked)
    yield from ((name, _hashing(types[name], key)) for name in verdict.hashed)
    yield from ((name, _cutting(length)) for name, length in verdict.truncated)


def _masked(_: Any) -> str:
    return HIDDEN


def _hashing(type_oid: int, key: bytes) -> Final:
    # Neither table nor column is hashed along, so that equal values can be joined. A keyed HMAC that is copied costs
    # a third of a new one.
    keyed, text = hmac.new(key, digestmod="sha256"), canonical_text(type_oid)

    def hashed(value: Any) -> str:
        mac = keyed.copy()
        mac.update(text(value).encode("utf-8", "surrogatepass"))
        return mac.hexdigest()

    return hashed


def _cutting(length: int) -> Final:
    def cut(value: str) -> str:
        return value[:length]

    return cut


def canonical_text(type_oid: int) -> Callable[[Any], str]:
    """A function to the text that is hashed, the same whichever plug-in printed the value.

    It is PostgreSQL's own text output, but for float4 and float8, of which wal2json's digits are gone once it is
    parsed: those are written as Python writes them, so that 1e+20, 100000000000000000000 and 1E20 are one text.
    """
    if type_oid in (FLOAT4, FLOAT8):
        return _floating
    return _hexadecimal if type_oid == BYTEA else _plain


def _floating(value: Any) -> str:
    return repr(float(value) + 0.0)  # which makes a zero of -0: PostgreSQL holds them equal


def _hexadecimal(value: str) -> str:
    # wal2json prints it without the prefix.
    return value if value.startswith("\\x") else "\\x" + value


def _plain(value: Any) -> str:
    if type(value) is str:
        return value
    if type(value) is bool:
        return "t" if value else "f"
    return str(value)
