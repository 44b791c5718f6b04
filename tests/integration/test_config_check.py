"""Rules checked against a real catalog: what they name must be there, and what they ask for must be sent."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pgevents.config_command import config_group
from pgevents.errors import ConfigError, SourceError
from pgevents.postgres import Sql
from pgevents.rule_check import check_rules
from pgevents.rules import parse_rules
from pgevents.settings import Settings
from tests.integration.role import as_role
from tests.integration.streaming import run

TABLES = """
create domain amount as numeric(12, 2);
create type mood as enum ('sad', 'ok');
create table orders (id int primary key, status text, total amount, mood mood, document jsonb);
create table orders_full (id int primary key, status text, total amount, mood mood, document jsonb);
alter table orders_full replica identity full;
create table users (id int primary key, email text not null unique, bio varchar(50), age int,
    shout text generated always as (upper(email)) stored);
create table measures (day date, value float8, primary key (day)) partition by range (day);
create table measures_old partition of measures for values from ('2020-01-01') to ('2025-01-01');
create table bare ()
"""


@pytest.fixture
def database(database15: str) -> str:
    run(database15, TABLES)
    return as_role(database15)


def checked(dsn: str, text: str, **settings: Any) -> list[str]:
    with Sql(dsn) as sql:
        return check_rules(sql, Settings(rules=parse_rules(tomllib.loads(text), "shop.toml"), **settings))


def refusal(dsn: str, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        checked(dsn, text)
    return caught.value


def test_rules_that_fit_the_database_give_no_warning(database: str) -> None:
    text = """
    [[skip]]
    rows = 10
    tables = ["orders*"]
    [[filter]]
    tables = ["orders_full"]
    when = "new.status IS DISTINCT FROM old.status AND new.total > 100.5"
    drop_unchanged = true
    ignore = ["document"]
    [[filter]]
    tables = ["orders"]
    when = "new.total > 5 AND old.id = 1"
    [[columns]]
    tables = ["users", "orders"]
    hash = ["id", "email"]
    mask = ["status"]
    truncate = { bio = 10 }
    [[route]]
    tables = ["public.measures*"]
    when = "new.value > 1"
    [[route]]
    tables = ["_.audit"]
    operations = ["message"]
    """

    assert checked(database, text) == []


def test_without_rules_the_database_is_not_asked() -> None:
    assert checked("host=/nowhere", "") == []


def test_a_condition_must_fit_every_table_that_it_is_about(database: str) -> None:
    error = refusal(
        database, '[[filter]]\nname = "paid"\ntables = ["orders*", "users"]\nwhen = "new.status = \'paid\'"'
    )

    assert str(error).startswith("[[filter]] paid: when, of public.users: ")
    assert "status" in str(error)


def test_a_mistyped_column_of_a_condition_names_the_nearest(database: str) -> None:
    error = refusal(database, '[[route]]\ntables = ["orders"]\nwhen = "new.statsu = \'paid\'"')

    assert str(error).startswith("[[route]] route 1: when, of public.orders: ")
    assert "status" in error.hint


def test_a_generated_column_is_in_no_event_and_so_in_no_condition(database: str) -> None:
    error = refusal(database, '[[filter]]\ntables = ["users"]\nwhen = "new.shout = \'A\'"')

    assert "shout" in str(error)


@pytest.mark.parametrize(
    ("rule", "place", "hint"),
    [
        ('[[columns]]\ntables = ["users"]\nmask = ["emial"]', "columns 1: mask: there is no column emial", "email"),
        (
            '[[columns]]\ntables = ["users"]\ninclude = ["id", "nme"]',
            "columns 1: include: there is no column nme",
            "",
        ),
        (
            '[[columns]]\ntables = ["users"]\ntruncate = { boi = 5 }',
            "columns 1: truncate: there is no column boi",
            "bio",
        ),
        (
            '[[filter]]\ntables = ["users"]\ndrop_unchanged = true\nignore = ["aeg"]',
            "filter 1: ignore: there is no column aeg in public.users",
            "age",
        ),
    ],
)
def test_a_column_that_no_table_has_is_refused(database: str, rule: str, place: str, hint: str) -> None:
    error = refusal(database, rule)

    assert place in str(error)
    assert hint in error.hint


def test_a_column_rule_may_name_a_column_that_only_one_of_its_tables_has(database: str) -> None:
    assert checked(database, '[[columns]]\nmask = ["email"]') == []


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('mask = ["id"]', "a columns rule masks id, which is of the key of public.users"),
        ('exclude = ["id"]', "a columns rule leaves out id, which is of the key of public.users"),
        ('include = ["email"]', "a columns rule leaves out id, which is of the key of public.users"),
    ],
)
def test_a_key_column_is_refused_unless_it_is_hashed(database: str, rule: str, said: str) -> None:
    assert str(refusal(database, f'[[columns]]\ntables = ["users"]\n{rule}')) == said


def test_the_key_is_that_of_the_replica_identity(database15: str, database: str) -> None:
    run(database15, "create unique index by_email on users (email)")
    run(database15, "alter table users replica identity using index by_email")

    error = refusal(database, '[[columns]]\ntables = ["users"]\nmask = ["email"]')

    assert str(error) == "a columns rule masks email, which is of the key of public.users"
    assert checked(database, '[[columns]]\ntables = ["users"]\nmask = ["id"]') == []


@pytest.mark.parametrize(("table", "column"), [("users", "age"), ("orders", "document"), ("orders", "mood")])
def test_what_is_not_text_is_not_cut(database: str, table: str, column: str) -> None:
    error = refusal(database, f'[[columns]]\ntables = ["{table}"]\ntruncate = {{ {column} = 3 }}')

    assert str(error) == f"[[columns]] columns 1: truncate: {column} of public.{table} is not text"


def test_a_domain_over_text_is_text(database15: str, database: str) -> None:
    run(database15, "create domain label as varchar(9); create table labels (id int primary key, label label)")

    assert checked(database, '[[columns]]\ntables = ["labels"]\ntruncate = { label = 3 }') == []


def test_old_values_that_are_not_sent_are_refused_with_what_has_them_sent(database: str) -> None:
    rule = '[[filter]]\ntables = ["orders*"]\nwhen = "old.status = \'new\'"'

    error = refusal(database, rule)

    assert str(error) == "[[filter]] filter 1: when: PostgreSQL does not send old.status of public.orders"
    assert error.hint.startswith('ALTER TABLE "public"."orders" REPLICA IDENTITY FULL; or say with on_missing')
    assert checked(database, rule + '\noperations = ["insert"]') == []
    (warning,) = checked(database, rule + '\non_missing = "drop"')
    assert warning == str(error) + ': ALTER TABLE "public"."orders" REPLICA IDENTITY FULL'


def test_the_statement_in_the_hint_mends_it(database15: str, database: str) -> None:
    rule = '[[filter]]\ntables = ["orders*"]\nwhen = "old.status = \'new\'"'

    run(database15, refusal(database, rule).hint.partition(";")[0])

    assert checked(database, rule) == []


def test_a_large_value_that_may_not_be_sent_is_warned_of(database: str) -> None:
    rule = '[[filter]]\ntables = ["orders*"]\nwhen = "new.status = \'paid\'"'

    (warning,) = checked(database, rule)

    assert warning.startswith(
        "[[filter]] filter 1: when: the stream will stop at an update of public.orders that leaves a large status as "
        'it is, which is not sent: ALTER TABLE "public"."orders" REPLICA IDENTITY FULL'
    )
    assert checked(database, rule + '\non_missing = "publish"') == []


def test_unchanged_updates_cannot_be_told_without_whole_old_rows(database: str) -> None:
    (warning,) = checked(database, '[[filter]]\ndrop_unchanged = true\nexclude_tables = ["measures*", "bare"]')

    assert warning == (
        "[[filter]] filter 1: an update that changes nothing is published all the same where the old row is not "
        'sent, as of public.orders, public.users: ALTER TABLE "public"."orders" REPLICA IDENTITY FULL'
    )


@pytest.mark.parametrize(
    ("rule", "warning"),
    [
        (
            '[[route]]\nname = "r"\ntables = ["public.user"]',
            "[[route]] r: the pattern public.user matches no table that is streamed. Did you mean public.users?",
        ),
        (
            '[[skip]]\nrows = 5\ntables = ["zzz.*"]',
            "[[skip]] skip 1: the pattern zzz.* matches no table that is streamed",
        ),
        (
            '[[route]]\ntables = ["users"]\nexclude_tables = ["*"]',
            "[[route]] route 1: it matches no table that is streamed",
        ),
    ],
)
def test_a_rule_about_no_table_is_warned_of(database: str, rule: str, warning: str) -> None:
    if "exclude" in rule:
        rule = rule.replace('"*"', '"public.*"')

    assert checked(database, rule) == [warning]


def test_only_tables_that_are_streamed_count(database: str) -> None:
    rule = '[[filter]]\nwhen = "new.status = \'paid\'"\non_missing = "drop"'

    assert checked(database, rule, tables=("public.orders*",)) == []


def test_an_origin_that_is_not_there_is_warned_of(database15: str, database: str) -> None:
    name = database15.rpartition("test_")[2].split()[0].strip("'")
    run(database15, f"select pg_replication_origin_create('bulk_{name}')")

    warnings = checked(database, f'[[skip]]\norigin = "bulk_{name}"\n[[skip]]\norigin = "bluk_{name}"')

    run(database15, f"select pg_replication_origin_drop('bulk_{name}')")
    assert warnings == [f"[[skip]] skip 2: there is no replication origin bluk_{name}. Did you mean bulk_{name}?"]


class Checking:
    """``pgevents config check`` in a folder of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = folder / "shop.toml"
        self.capsys = capsys

    def __call__(self, text: str, *arguments: str) -> str:
        self.file.write_text(text)
        config_group.main(["check", "--config", str(self.file), *arguments], standalone_mode=False)
        return self.capsys.readouterr().out


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Checking:
    for variable in ("PGHOST", "PGSERVICE", "PGDATABASE"):
        monkeypatch.delenv(variable, raising=False)
    return Checking(tmp_path, capsys)


def test_the_command_says_what_it_checked(check: Checking, database: str) -> None:
    rule = '[[columns]]\ntables = ["users"]\nmask = ["emial"]'

    alone = check(rule)
    with pytest.raises(ConfigError, match="there is no column emial"):
        check(rule, "--dsn", database)

    assert alone.endswith("can be used, but no --dsn is given: it was not checked against a database\n")
    assert check(rule.replace("emial", "email"), "--dsn", database).endswith("can be used, and fits the database\n")


def test_the_former_name_of_a_column_may_be_kept(check: Checking, database: str) -> None:
    rule = '[[columns]]\ntables = ["users"]\nexclude = ["email", "password"]'

    with pytest.raises(ConfigError, match="there is no column password") as refused:
        check(rule, "--dsn", database)

    assert "allow_missing = true" in refused.value.hint
    assert check(f"{rule}\nallow_missing = true", "--dsn", database).endswith("can be used, and fits the database\n")


def test_the_command_prints_warnings(check: Checking, database: str) -> None:
    rule = "[[skip]]\nrows = 5\ntables = ['zzz.*']\n[[skip]]\nrows = 6\ntables = ['zzz.*']"

    lines = check(rule, "--dsn", database).splitlines()
    document = json.loads(check(rule, "--dsn", database, "--json"))

    assert lines[0] == "warning: [[skip]] skip 2: it never decides, because skip 1 does after fewer rows"
    assert lines[1] == "warning: [[skip]] skip 1: the pattern zzz.* matches no table that is streamed"
    assert document == {
        "file": str(check.file),
        "database": True,
        "warnings": [line.removeprefix("warning: ") for line in lines[:-1]],
    }


def test_the_command_says_so_when_the_database_cannot_be_asked(check: Checking) -> None:
    with pytest.raises(SourceError):
        check("[[columns]]\nmask = ['a']", "--dsn", "host=/nowhere")


@pytest.mark.parametrize("key", ["", "hunter2"])
def test_a_hash_wants_a_key_that_no_error_repeats(check: Checking, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(f"hash_key = '{key}'\n[[columns]]\nhash = ['a']")

    assert "hash_key is" in str(caught.value)
    assert "hunter2" not in str(caught.value) + caught.value.hint
