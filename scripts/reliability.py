"""Rewrite the tables of docs/reliability.md from the cases, the marked tests, and what their last run came to.

Run as ``python -m scripts.reliability FILE…``; each file is what ``pytest --reliability`` or ``make chaos`` wrote.
Of a test that is in several, the last one counts.
"""

import ast
import json
import sys
import tomllib
from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
CATALOGUE = ROOT / "docs" / "reliability.toml"
TESTS = ROOT / "tests"
MARK = "fault"

Json = Mapping[str, Any]

CHAOS_COLUMNS = (
    "committed",
    "delivered",
    "lost",
    "duplicated",
    "acknowledged_again",
    "unexpected",
    "reordered",
    "differing",
)


@dataclass(frozen=True, slots=True)
class Case:
    """An invariant or a fault; ``not_run`` is why no test shows it, ``note`` what the tests leave out."""

    id: str
    says: str
    not_run: str
    note: str


@dataclass(frozen=True, slots=True)
class Marked:
    """A test and the cases it shows. ``path`` is below the root."""

    path: str
    name: str
    cases: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{self.path}::{self.name}"


def main() -> None:
    documents: list[Json] = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    page = PAGE.read_text()
    storms = [each for each in documents if "seed" in each]
    if storms:
        page = put(page, "chaos", chaos_table(storms))
    runs = [each for each in documents if "seed" not in each]
    if runs:
        page = put(page, "cases", case_tables(dict(ChainMap(*map(dict, reversed(runs))))))
    PAGE.write_text(page)


def put(page: str, part: str, text: str) -> str:
    """The page with ``text`` between the markers of that part."""
    before, _, after = split(page, part)
    return f"{before}\n\n{text}\n{after}"


def split(page: str, part: str) -> tuple[str, str, str]:
    """The page up to a part, the part, and the rest; the markers are no longer in the middle."""
    begin, end = f"<!-- {part}: written by make reliability -->", f"<!-- {part}: until here -->"
    head, found, rest = page.partition(begin)
    middle, last, tail = rest.partition(end)
    if not (found and last):
        sys.exit(f"{PAGE}: the markers of {part} are gone")
    return head + begin, middle, end + tail


# The cases and the tests that show them.


def cases(section: str) -> list[Case]:
    """Of ``invariants`` or ``faults``."""
    catalogue = tomllib.loads(CATALOGUE.read_text())
    not_run, notes = catalogue["not_run"], catalogue["notes"]
    return [Case(id, says, not_run.get(id, ""), notes.get(id, "")) for id, says in catalogue[section].items()]


def marked_tests() -> list[Marked]:
    return [marked for path in sorted(TESTS.rglob("test_*.py")) for marked in marked_in(path)]


def marked_in(path: Path) -> Iterator[Marked]:
    """The tests of a file that carry the mark, themselves, on a set of their parameters, or by ``pytestmark``."""
    module = ast.parse(path.read_text())
    of_all = [case for node in module.body if _is_pytestmark(node) for case in _cases_named_in(node)]
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            named = [*of_all, *(case for decorator in node.decorator_list for case in _cases_named_in(decorator))]
            if named:
                yield Marked(str(path.relative_to(ROOT)), node.name, tuple(dict.fromkeys(named)))


def _is_pytestmark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets
    )


def _cases_named_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == MARK:
            yield from (ast.literal_eval(argument) for argument in node.args)


def storms_by_case() -> dict[str, list[str]]:
    """The names of the faults that ``make chaos`` draws from, by case."""
    from chaos.faults import CATALOGUE as FAULTS

    names: dict[str, list[str]] = {}
    for fault in FAULTS.faults.values():
        names.setdefault(fault.number, []).append(fault.name)
    return names


# The tables.


def case_tables(results: Json) -> str:
    tests = marked_tests()
    parts = [f"Last run: {datetime.now(UTC):%Y-%m-%d}, {total(results)}." if results else "Not run yet."]
    parts += ["### What always holds", table("invariants", tests, results)]
    parts += ["### What goes wrong", table("faults", tests, results)]
    return "\n\n".join(parts) + "\n"


def table(section: str, tests: Sequence[Marked], results: Json) -> str:
    storms = storms_by_case()
    rows = [
        row(case, [test for test in tests if case.id in test.cases], storms.get(case.id, ()), results)
        for case in cases(section)
    ]
    return "\n".join(["| case | what | shown by | last run |", "|---|---|---|---|", *rows])


def row(case: Case, tests: Sequence[Marked], storms: Sequence[str], results: Json) -> str:
    says = f"{case.says} {case.note and f'*{case.note}*'}".strip()
    if case.not_run:
        return f"| {case.id} | {says} | not run: {case.not_run} | |"
    shown_by = [link(test) for test in tests]
    if storms:
        shown_by.append(f"*make chaos*: {', '.join(storms)}")
    return f"| {case.id} | {says} | {'<br>'.join(shown_by)} | {came_to(tests, results)} |"


def link(test: Marked) -> str:
    return f"[{test.name.removeprefix('test_').replace('_', ' ')}](../{test.path})"


def came_to(tests: Sequence[Marked], results: Json) -> str:
    """Runs, failures and counters, summed."""
    shown = [results[test.id] for test in tests if test.id in results]
    if not shown:
        return ""
    runs, failed = (sum(each[name] for each in shown) for name in ("runs", "failed"))
    counters: Counter[str] = Counter()
    for each in shown:
        counters.update(each["counters"])
    words = [f"{runs - failed} passed" + (f", **{failed} failed**" if failed else "")]
    return "<br>".join([*words, *(f"{name} {number:,}" for name, number in counters.items())])


def total(results: Json) -> str:
    runs, failed = (sum(each[name] for each in results.values()) for name in ("runs", "failed"))
    minutes = sum(each["seconds"] for each in results.values()) / 60
    return f"{len(results)} tests in {runs} runs, {failed} failed, {minutes:.0f} minutes"


def chaos_table(storms: Sequence[Json]) -> str:
    names = ["seed", "plug-in", "seconds", "faults", *(name.replace("_", " ") for name in CHAOS_COLUMNS), "RSS"]
    rows = [names, ["---"] * len(names), *map(chaos_row, storms)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows) + "\n"


def chaos_row(storm: Json) -> list[str]:
    counted = [f"{storm[name]:,}" for name in CHAOS_COLUMNS]
    memory = "flat" if storm["rss_flat"] else "**not flat**"
    faults = f"{sum(storm['faults'].values()):,}"
    plugin = storm["plugin"] + (", streaming" if storm.get("streaming") else "")
    return [str(storm["seed"]), plugin, f"{storm['seconds']:,.0f}", faults, *counted, memory]


if __name__ == "__main__":
    main()
