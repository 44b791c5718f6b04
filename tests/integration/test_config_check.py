"""Rules checked against a real catalog: what they name must be there, and what they ask for must be sent."""

import json
import tomllib
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from pgevents.cli import main
from pgevents.config_command import config_group
from pgevents.errors import EXIT_USAGE, ConfigError, SourceError
from pgevents.postgres import Sql
from pgevents.rule_check import check_file, check_rules
from pgevents.rule_mistake import Mistakes
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

    assert str(error).startswith("[[filter]] paid: when: public.users: the condition ")
    assert "status" in str(error)


def test_a_mistyped_column_of_a_condition_names_the_nearest(database: str) -> None:
    error = refusal(database, '[[route]]\ntables = ["orders"]\nwhen = "new.statsu = \'paid\'"')

    assert str(error).startswith("[[route]] 1: when: public.orders: the condition ")
    assert "status" in error.hint


def test_a_generated_column_is_in_no_event_and_so_in_no_condition(database: str) -> None:
    error = refusal(database, '[[filter]]\ntables = ["users"]\nwhen = "new.shout = \'A\'"')

    assert "shout" in str(error)


@pytest.mark.parametrize(
    ("rule", "place", "hint"),
    [
        (
            '[[columns]]\ntables = ["users"]\nmask = ["emial"]',
            "[[columns]] 1: mask: there is no column emial",
            "email",
        ),
        (
            '[[columns]]\ntables = ["users"]\ninclude = ["id", "nme"]',
            "[[columns]] 1: include: there is no column nme",
            "",
        ),
        (
            '[[columns]]\ntables = ["users"]\ntruncate = { boi = 5 }',
            "[[columns]] 1: truncate: there is no column boi",
            "bio",
        ),
        (
            '[[filter]]\ntables = ["users"]\ndrop_unchanged = true\nignore = ["aeg"]',
            "[[filter]] 1: ignore: there is no column aeg in public.users",
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
        ('mask = ["id"]', "[[columns]] 1: mask: id is of the key of public.users"),
        ('exclude = ["id"]', "[[columns]] 1: exclude: id is of the key of public.users"),
        ('include = ["email"]', "[[columns]] 1: include: id is of the key of public.users"),
    ],
)
def test_a_key_column_is_refused_unless_it_is_hashed(database: str, rule: str, said: str) -> None:
    assert str(refusal(database, f'[[columns]]\ntables = ["users"]\n{rule}')) == said


def test_the_key_is_that_of_the_replica_identity(database15: str, database: str) -> None:
    run(database15, "create unique index by_email on users (email)")
    run(database15, "alter table users replica identity using index by_email")

    error = refusal(database, '[[columns]]\ntables = ["users"]\nmask = ["email"]')

    assert str(error) == "[[columns]] 1: mask: email is of the key of public.users"
    assert checked(database, '[[columns]]\ntables = ["users"]\nmask = ["id"]') == []


@pytest.mark.parametrize(("table", "column"), [("users", "age"), ("orders", "document"), ("orders", "mood")])
def test_what_is_not_text_is_not_cut(database: str, table: str, column: str) -> None:
    error = refusal(database, f'[[columns]]\ntables = ["{table}"]\ntruncate = {{ {column} = 3 }}')

    assert str(error) == f"[[columns]] 1: truncate: {column} of public.{table} is not text"


def test_a_domain_over_text_is_text(database15: str, database: str) -> None:
    run(database15, "create domain label as varchar(9); create table labels (id int primary key, label label)")

    assert checked(database, '[[columns]]\ntables = ["labels"]\ntruncate = { label = 3 }') == []


def test_old_values_that_are_not_sent_are_refused_with_what_has_them_sent(database: str) -> None:
    rule = '[[filter]]\ntables = ["orders*"]\nwhen = "old.status = \'new\'"'

    error = refusal(database, rule)

    assert str(error) == "[[filter]] 1: when: PostgreSQL does not send old.status of public.orders"
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
        "[[filter]] 1: when: the stream will stop at an update of public.orders that leaves a large status as "
        'it is, which is not sent: ALTER TABLE "public"."orders" REPLICA IDENTITY FULL'
    )
    assert checked(database, rule + '\non_missing = "publish"') == []


def test_unchanged_updates_cannot_be_told_without_whole_old_rows(database: str) -> None:
    (warning,) = checked(database, '[[filter]]\ndrop_unchanged = true\nexclude_tables = ["measures*", "bare"]')

    assert warning == (
        "[[filter]] 1: drop_unchanged: an update that changes nothing is published all the same where the old row is "
        'not sent, as of public.orders, public.users: ALTER TABLE "public"."orders" REPLICA IDENTITY FULL'
    )


@pytest.mark.parametrize(
    ("rule", "warning"),
    [
        (
            '[[route]]\nname = "r"\ntables = ["user"]',
            (
                "[[route]] r: tables: the pattern public.user matches no table that is streamed. "
                "Did you mean public.users?"
            ),
        ),
        (
            '[[skip]]\nrows = 5\ntables = ["zzz.*"]',
            "[[skip]] 1: tables: the pattern zzz.* matches no table that is streamed",
        ),
        (
            '[[columns]]\ntables = ["publc.users", "orders"]\nmask = ["status"]',
            (
                "[[columns]] 1: tables: the pattern publc.users matches no table that is streamed. "
                "Did you mean public.users?"
            ),
        ),
        (
            '[[columns]]\ntables = ["publc.measures_*", "orders"]\nmask = ["status"]',
            (
                "[[columns]] 1: tables: the pattern publc.measures_* matches no table that is streamed. "
                "Did you mean public.measures?"
            ),
        ),
        (
            '[[route]]\ntables = ["users"]\nexclude_tables = ["*"]',
            "[[route]] 1: it matches no table that is streamed",
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


def test_a_table_that_is_there_and_left_out_is_not_called_misspelt(database: str) -> None:
    (warning,) = checked(
        database, '[[columns]]\ntables = ["users", "orders"]\nmask = ["status"]', exclude_tables=("users",)
    )

    assert warning == (
        "[[columns]] 1: tables: the pattern public.users matches no table that is streamed. The options tables and "
        "exclude_tables leave it out."
    )


def test_a_label_that_an_enum_lacks_is_refused_as_postgresql_does(database15: str, database: str) -> None:
    error = refusal(database, '[[filter]]\ntables = ["orders"]\nwhen = "new.id = 1 AND new.mood = \'sda\'"')

    assert str(error).startswith("[[filter]] 1: when: public.orders: the condition ")
    assert "the enum mood has no label 'sda' at character 27" in str(error)
    assert error.hint == "Did you mean sad?"
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation, match="invalid input value for enum mood"):
        run(database15, "select from orders where id = 1 and mood = 'sda'")


def test_a_label_of_an_enum_under_a_domain_is_checked_too(database15: str, database: str) -> None:
    run(database15, "create domain feeling as mood; create table felt (id int primary key, feeling feeling)")

    assert checked(database, "[[route]]\ntables = [\"felt\"]\nwhen = \"new.feeling IN ('sad', 'ok')\"") == []
    error = refusal(database, "[[route]]\ntables = [\"felt\"]\nwhen = \"new.feeling IN ('sad', 'fine')\"")
    assert "the enum mood has no label 'fine'" in str(error)


MANY = """
[[filter]]
name = "paid"
tables = ["orders*"]
when = "new.mood = 'sda' AND new.status = 'paid'"
drop_unchanged = true
ignore = ["totl", "seen"]
[[columns]]
mask = ["id"]
hash = ["emial"]
truncate = { age = 3 }
[[route]]
tables = ["orders"]
when = "old.status = 'new' AND new.id > 'x'"
"""


def test_every_mistake_is_found_at_once(database: str) -> None:
    error = refusal(database, MANY)

    assert isinstance(error, Mistakes)
    said = [str(each) for each in error.mistakes]
    assert [each.partition(": the condition")[0] for each in said] == [
        "[[filter]] paid: when: public.orders, public.orders_full",
        "[[filter]] paid: ignore: there is no column seen in any of the 2 tables it matches",
        "[[filter]] paid: ignore: there is no column totl in any of the 2 tables it matches",
        "[[columns]] 1: hash: there is no column emial in any of the 6 tables it matches",
        "[[columns]] 1: truncate: age of public.users is not text",
        "[[columns]] 1: mask: id is of the key of public.orders, public.orders_full, public.users",
        "[[route]] 1: when: public.orders",
        "[[route]] 1: when: PostgreSQL does not send old.status of public.orders",
    ]
    assert str(error) == f"{said[0]} (and 7 more, which pgevents config check lists)"


def test_a_size_that_the_look_ahead_has_no_room_for_is_warned_of(database15: str, database: str) -> None:
    run(database15, f"create table wide ({', '.join(f'c{n} int' for n in range(97))})")
    text = '[[skip]]\nname = "large"\nrows = {}\ntables = ["{}"]'

    (warning,) = checked(database, text.format(101, "wide"), look_ahead_bytes=1_000_000)

    assert warning == (
        "[[skip]] large: rows: a transaction outgrows look_ahead_bytes before the rule decides, and is published: of "
        "rows of 97 columns, as in public.wide, at most 100 are held. Give more look_ahead_bytes, up to 1073741824."
    )
    assert checked(database, text.format(100, "wide"), look_ahead_bytes=1_000_000) == []
    assert checked(database, text.format(101, "orders"), look_ahead_bytes=1_000_000) == []


def test_a_size_that_no_table_can_meet_is_warned_of_without_a_database() -> None:
    (known,) = check_file(Settings(rules=parse_rules({"skip": [{"rows": 300_000}]}, "shop.toml")))
    (most,) = check_file(Settings(rules=parse_rules({"skip": [{"rows": 3_000_000}]}, "shop.toml")))

    assert "of rows of one column, at most 167,772 are held. Give more look_ahead_bytes" in known
    assert most.endswith("With the most look_ahead_bytes there may be, it is 2,684,354.")
    assert check_file(Settings(rules=parse_rules({"skip": [{"rows": 167_772}]}, "shop.toml"))) == []


def test_an_origin_that_is_not_there_is_warned_of(database15: str, database: str) -> None:
    name = database15.rpartition("test_")[2].split()[0].strip("'")
    run(database15, f"select pg_replication_origin_create('bulk_{name}')")

    warnings = checked(database, f'[[skip]]\norigin = "bulk_{name}"\n[[skip]]\norigin = "bluk_{name}"')

    run(database15, f"select pg_replication_origin_drop('bulk_{name}')")
    assert warnings == [f"[[skip]] 2: origin: there is no replication origin bluk_{name}. Did you mean bulk_{name}?"]


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


def test_the_command_lists_every_mistake(check: Checking, database: str, capsys: pytest.CaptureFixture[str]) -> None:
    check.file.write_text(f"sink = 'ampq://localhost/'\n{MANY}")

    code = main(["config", "check", "--config", str(check.file), "--dsn", database, "--hash-key", "x" * 16])

    lines = capsys.readouterr().err.splitlines()
    assert code == EXIT_USAGE
    assert lines[:2] == ["error: 'ampq' is not the scheme of a sink", "hint: Did you mean amqp?"]
    assert len([line for line in lines if line.startswith("error: ")]) == 9


def test_the_command_lists_every_mistake_for_machines(
    check: Checking, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check.file.write_text(MANY)

    code = main(["config", "check", "--json", "--config", str(check.file), "--dsn", database, "--hash-key", "x" * 16])

    document = json.loads(capsys.readouterr().out)
    assert code == EXIT_USAGE
    assert len(document["errors"]) == 8
    assert document["errors"][1] == {
        "error": "[[filter]] paid: ignore: there is no column seen in any of the 2 tables it matches",
        "hint": "",
    }


def test_mistakes_that_are_seen_without_the_database_are_listed_too(
    check: Checking, capsys: pytest.CaptureFixture[str]
) -> None:
    check.file.write_text("[[filter]]\noperations = []\nwhen = 5\n[[route]]\npriority = -1")

    code = main(["config", "check", "--json", "--config", str(check.file)])

    document = json.loads(capsys.readouterr().out)
    assert (code, document["file"]) == (EXIT_USAGE, str(check.file))
    assert [each["error"].partition("]] ")[2] for each in document["errors"]] == [
        "1: operations: the list is empty",
        "1: when: it must be text that is not empty",
        "1: priority: it must be a whole number from 0 to 255",
    ]


@pytest.mark.parametrize(
    ("sink", "said", "hint"),
    [
        ("ampq://localhost/", "'ampq' is not the scheme of a sink", "Did you mean amqp?"),
        ("kafka:x", "'kafka' is not the scheme of a sink", "The schemes are amqp, amqps, file, null, stdout."),
        ("u:hunter2", "'u' is not the scheme of a sink", "The schemes are"),
        ("hunter2@broker", "the sink is not a URL", "The schemes are"),
        ("hunter2", "the sink is not a URL", "The schemes are"),
        ("kafka+ssl://a/", "'kafka+ssl' is not the scheme of a sink", "The schemes are"),
        ("amqp://localhost/?routing_key={tabel}", "has the unknown field {tabel}", "Did you mean {table}?"),
        ("null:?routing_key={", "is broken", ""),
        ("amqp://localhost/?exchnage=x", "exchnage", "exchange"),
        ("amqp://localhost:99999/", "a port outside 1 to 65535", ""),
    ],
)
def test_a_sink_that_a_stream_would_refuse_is_refused(check: Checking, sink: str, said: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(f"sink = '{sink}'")

    assert said in str(caught.value)
    assert hint in caught.value.hint
    assert "hunter2" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("sink", ["", "null:", "stdout:", "file:x", "amqps://u:p@a,b:5672/v?routing_key={op}"])
def test_a_sink_that_can_be_opened_is_not_opened(check: Checking, sink: str) -> None:
    assert "can be used" in check(f"sink = '{sink}'")


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

    assert lines[0] == "warning: [[skip]] 2: it never decides, because skip 1 does after fewer rows"
    assert lines[1] == "warning: [[skip]] 1: tables: the pattern zzz.* matches no table that is streamed"
    assert document == {
        "file": str(check.file),
        "database": True,
        "errors": [],
        "warnings": [line.removeprefix("warning: ") for line in lines[:-1]],
    }


def test_the_command_asks_the_database_without_rules_too(check: Checking, database: str) -> None:
    with pytest.raises(ConfigError, match=r"the table pattern public\.usres matches no table"):
        check("tables = ['public.usres']", "--dsn", database)
    with pytest.raises(SourceError):
        check("", "--dsn", "host=/nowhere")


def test_the_command_says_so_when_the_database_cannot_be_asked(check: Checking) -> None:
    with pytest.raises(SourceError):
        check("[[columns]]\nmask = ['a']", "--dsn", "host=/nowhere")


@pytest.mark.parametrize("key", ["", "hunter2"])
def test_a_hash_wants_a_key_that_no_error_repeats(check: Checking, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(f"hash_key = '{key}'\n[[columns]]\nhash = ['a']")

    assert "hash_key is" in str(caught.value)
    assert "hunter2" not in str(caught.value) + caught.value.hint
