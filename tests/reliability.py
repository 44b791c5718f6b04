"""What a marked test shows, and what it counted, written down for docs/reliability.md.

``@pytest.mark.fault("F06", "I14")`` names the cases of docs/reliability.toml that a test shows; ``count`` takes what
it has counted. ``--reliability FILE`` writes the outcome of every marked test there, as JSON.
"""

import json
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

MARK = "fault"

COUNTERS = ("attempted", "committed", "delivered", "lost", "duplicated", "unexpected", "reordered")
"""What a test may count, in the order in which it is shown."""

_counted: Counter[str] = Counter()
"""By the test that is running."""

_RESULTS = pytest.StashKey["Results"]()


def count(**numbers: int) -> None:
    """Note what the running test has counted, once it has asserted that nothing is lost, unexpected or reordered."""
    unknown = set(numbers) - set(COUNTERS)
    assert not unknown, f"no such counters: {unknown}"
    _counted.update(numbers)


@dataclass(slots=True)
class Shown:
    """What the runs of one test came to: one for each set of its parameters."""

    cases: list[str]
    runs: int = 0
    failed: int = 0
    seconds: float = 0.0
    counters: Counter[str] = field(default_factory=Counter)

    def document(self) -> dict[str, Any]:
        return {
            "cases": self.cases,
            "runs": self.runs,
            "failed": self.failed,
            "seconds": round(self.seconds, 2),
            "counters": {name: self.counters[name] for name in COUNTERS if name in self.counters},
        }


@dataclass(slots=True)
class Results:
    """Of all marked tests of a session, by ``path::name``."""

    file: Path
    shown: dict[str, Shown] = field(default_factory=dict)

    def take(self, item: pytest.Item, report: pytest.TestReport) -> None:
        shown = self.shown.setdefault(item.nodeid.partition("[")[0], Shown([]))
        shown.cases = list(dict.fromkeys([*shown.cases, *cases_of(item)]))
        shown.seconds += report.duration
        shown.failed += report.failed
        if report.when == "call":
            shown.runs += 1
            shown.counters.update(_counted)

    def write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        tests = {name: shown.document() for name, shown in sorted(self.shown.items())}
        self.file.write_text(json.dumps(tests, indent=1) + "\n")


def cases_of(item: pytest.Item) -> list[str]:
    return [case for mark in item.iter_markers(MARK) for case in mark.args]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--reliability", type=Path, metavar="FILE", help="write what the marked tests showed to FILE, as JSON"
    )


def pytest_configure(config: pytest.Config) -> None:
    file = config.getoption("--reliability")
    if file:
        config.stash[_RESULTS] = Results(file)


def pytest_runtest_setup() -> None:
    _counted.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    results = item.config.stash.get(_RESULTS, None)
    if results and cases_of(item):
        results.take(item, report)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    results = session.config.stash.get(_RESULTS, None)
    if results:
        results.write()
