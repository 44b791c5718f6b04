"""Every case of docs/reliability.toml is shown by a test or has its reason, and the page names tests that exist."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from scripts.reliability import (
    CATALOGUE,
    PAGE,
    ROOT,
    Case,
    Marked,
    case_tables,
    cases,
    chaos_table,
    link,
    marked_in,
    marked_tests,
    put,
    split,
    storms_by_case,
)

CATALOGUED = [*cases("invariants"), *cases("faults")]
MARKED = marked_tests()
PAGE_TEXT = PAGE.read_text()
LINK = re.compile(r"\[([\w ]+)\]\(\.\./(tests/[\w/]+\.py)\)")


def is_shown(case: Case) -> bool:
    return case.id in storms_by_case() or any(case.id in marked.cases for marked in MARKED)


@pytest.mark.parametrize("case", CATALOGUED, ids=lambda case: case.id)
def test_a_case_is_shown_or_says_why_not(case: Case) -> None:
    assert is_shown(case) or case.not_run, f"mark a test with {case.id}, or say under [not_run] why there is none"
    assert not (is_shown(case) and case.not_run), f"{case.id} is shown: take its reason out of [not_run]"


def test_the_catalogue_has_the_cases_that_are_promised() -> None:
    numbers = [*range(1, 16), *range(20, 49), *range(50, 60), *range(60, 84), *range(90, 113)]

    assert [case.id for case in CATALOGUED] == [*(f"I{n}" for n in range(1, 26)), *(f"F{n:02}" for n in numbers)]


def test_reasons_and_notes_are_of_known_cases() -> None:
    known = {case.id for case in CATALOGUED}
    catalogue = tomllib.loads(CATALOGUE.read_text())

    assert {*catalogue["not_run"], *catalogue["notes"]} <= known
    assert not {*catalogue["not_run"]} & {*catalogue["notes"]}


def test_every_mark_names_a_known_case() -> None:
    known = {case.id for case in CATALOGUED}

    assert [(marked.id, case) for marked in MARKED for case in marked.cases if case not in known] == []


def test_marks_are_found_on_a_test_its_parameters_and_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.reliability.ROOT", tmp_path)
    file = tmp_path / "test_some.py"
    file.write_text(
        "pytestmark = pytest.mark.fault('F01')\n"
        "@pytest.mark.fault('F02', 'I1')\n"
        "@pytest.mark.parametrize('n', [pytest.param(1, marks=pytest.mark.fault('F03'))])\n"
        "def test_marked(): ...\n"
        "def test_plain(): ...\n"
        "@pytest.mark.fault('F04')\n"
        "def helper(): ...\n"
    )

    assert list(marked_in(file)) == [
        Marked("test_some.py", "test_marked", ("F01", "F02", "I1", "F03")),
        Marked("test_some.py", "test_plain", ("F01",)),
    ]


def test_every_test_that_the_page_names_exists() -> None:
    named = {(path, "test_" + words.replace(" ", "_")) for words, path in LINK.findall(PAGE_TEXT)}

    assert len(named) > 100
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text())
        assert any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body), f"{path}::{name}"


def test_the_page_has_a_row_for_every_case_in_order() -> None:
    rows = re.findall(r"^\| ([IF]\d+) \| (.+?) \|", split(PAGE_TEXT, "cases")[1], re.MULTILINE)
    expected = [(case.id, f"{case.says} {case.note and f'*{case.note}*'}".strip()) for case in CATALOGUED]

    assert rows == expected, "make reliability writes the page anew"


def test_the_last_run_on_the_page_has_no_failure() -> None:
    assert "failed**" not in PAGE_TEXT


def test_the_tables_say_what_a_run_came_to() -> None:
    (kill,) = (marked for marked in MARKED if marked.name == "test_kill_9_under_load_loses_nothing")
    results = {kill.id: {"runs": 2, "failed": 1, "seconds": 60.0, "counters": {"committed": 12345, "lost": 0}}}

    tables = case_tables(results)

    (row,) = re.findall(r"^\| F01 .*$", tables, re.MULTILINE)
    assert link(kill) in row
    assert row.endswith("| 1 passed, **1 failed**<br>committed 12,345<br>lost 0 |")
    assert "1 tests in 2 runs, 1 failed, 1 minutes" in tables


def test_a_part_of_the_page_is_replaced_and_nothing_else() -> None:
    once = put(PAGE_TEXT, "chaos", "new text\n")

    assert split(once, "chaos")[1].strip() == "new text"
    assert put(once, "chaos", split(PAGE_TEXT, "chaos")[1].strip() + "\n") == PAGE_TEXT


def test_a_long_run_is_one_row() -> None:
    counters = dict.fromkeys(
        [
            "committed",
            "delivered",
            "lost",
            "duplicated",
            "acknowledged_again",
            "unexpected",
            "reordered",
            "differing",
        ],
        1000,
    )
    storm = {"seed": 7, "plugin": "wal2json", "seconds": 1800.4, "rss_flat": True, "faults": {"a": 2, "b": 3}}

    *_, row, streamed = chaos_table([storm | counters, storm | counters | {"streaming": True}]).splitlines()

    assert row == "| 7 | wal2json | 1,800 | 5 |" + " 1,000 |" * 8 + " flat |"
    assert streamed == row.replace("wal2json", "wal2json, streaming")
