"""Rules as ``config show`` prints them: in the words of the file, so that they can be read back."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pgevents.config_command import config_group
from pgevents.rule import Rules
from pgevents.rule_view import as_document, lines
from pgevents.rules import parse_rules

TEXT = """
[[skip]]
name = "bulk"
rows = 10_000
tables = ["orders"]
exclude_tables = ["public.audit"]
action = "slow-lane"
exchange = "slow"
[[skip]]
lsn = "16/A..16/B"
reason = "a mistake"
[[skip]]
since = 2026-11-20T18:00:00Z
[[filter]]
operations = ["update", "insert"]
when = "new.total > 100"
drop_unchanged = true
ignore = ["updated_at"]
on_missing = "publish"
[[columns]]
tables = ["users"]
include = ["id", "email", "bio"]
mask = ["email"]
truncate = { bio = 100 }
[[route]]
priority = 0
expiration = 1.5
headers = { team = "shop" }
routing_key = "x.{op}"
format = "debezium"
compression = "gzip"
"""


def parsed(document: dict[str, Any]) -> Rules:
    return parse_rules(document, "shop.toml")


def test_every_rule_is_shown_with_what_it_gives() -> None:
    assert as_document(parsed(tomllib.loads(TEXT))) == {
        "skip": [
            {
                "name": "bulk",
                "tables": ["public.orders"],
                "exclude_tables": ["public.audit"],
                "rows": 10000,
                "action": "slow-lane",
                "exchange": "slow",
            },
            {"name": "skip 2", "lsn": "16/A..16/B", "action": "drop", "reason": "a mistake"},
            {"name": "skip 3", "since": "2026-11-20T18:00:00.000000Z", "action": "drop"},
        ],
        "filter": [
            {
                "name": "filter 1",
                "operations": ["insert", "update"],
                "when": "new.total > 100",
                "on_missing": "publish",
                "drop_unchanged": True,
                "ignore": ["updated_at"],
            }
        ],
        "columns": [
            {
                "name": "columns 1",
                "tables": ["public.users"],
                "include": ["bio", "email", "id"],
                "mask": ["email"],
                "truncate": {"bio": 100},
            }
        ],
        "route": [
            {
                "name": "route 1",
                "routing_key": "x.{op}",
                "headers": {"team": "shop"},
                "priority": 0,
                "expiration": 1.5,
                "format": "debezium",
                "compression": "gzip",
            }
        ],
    }


def test_what_is_shown_is_read_back_as_the_same_rules() -> None:
    shown = as_document(parsed(tomllib.loads(TEXT)))

    assert as_document(parsed(json.loads(json.dumps(shown)))) == shown


def test_a_rule_is_a_line() -> None:
    text = '[[skip]]\nmarked = true\n[[filter]]\nname = "big ones"\nwhen = "new.a > 1"'

    assert lines(parsed(tomllib.loads(text))) == [
        '[[skip]] 1: marked = true, action = "drop"',
        '[[filter]] big ones: when = "new.a > 1"',
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(f'skip_marked = true\nhash_key = "hunter2 hunter2 hunter2"\n{TEXT}')
    return path


def shown(file: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    config_group.main(["show", "--config", str(file), *arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_the_command_shows_the_rules_behind_the_options(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(file, capsys)

    assert text.splitlines()[-7:] == [line for line in text.splitlines() if line.startswith("[[")]
    assert '[[skip]] --skip-marked: marked = true, action = "drop"' in text
    assert "hunter2" not in text


def test_the_command_shows_the_rules_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(file, capsys, "--json")

    assert json.loads(text)["rules"]["route"][0]["format"] == "debezium"
    assert json.loads(text)["options"]["hash_key"] == {"value": "***", "origin": str(file)}
    assert "hunter2" not in text
