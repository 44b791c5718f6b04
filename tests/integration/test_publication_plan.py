"""The publication that is planned, on PostgreSQL 15: it takes the SQL, and sends what was meant."""

import json
import tomllib
from pathlib import Path

import pytest

from pgevents.errors import ConfigError, PrivilegeError, SourceError, SourceRefused
from pgevents.postgres import Sql
from pgevents.publication_command import publication
from pgevents.rules import parse_rules
from tests.integration.role import as_role
from tests.integration.streaming import Json, Recording, ask, run

TABLES = """
create table orders (id int primary key, total numeric, email text);
create table full_orders (id int primary key, total numeric, status text);
alter table full_orders replica identity full;
create table measures (day date, value int, primary key (day)) partition by range (day);
create table measures_2026 partition of measures for values from ('2026-01-01') to ('2027-01-01');
create table log (line text)
"""

RULES = """
[[filter]]
name = "big"
tables = ["full_orders"]
when = "new.total > 100.5 AND new.status <> 'it''s off'"
[[filter]]
name = "paid"
tables = ["orders"]
when = "new.total > 5"
[[filter]]
name = "days"
tables = ["measures_*"]
when = "new.day > '2026-06-01'"
[[filter]]
name = "no-truncate"
operations = ["insert", "update", "delete"]
[[columns]]
tables = ["orders"]
exclude = ["email"]
"""


class Publishing:
    """``pgevents publication`` with rules, on a database."""

    def __init__(self, dsn: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.dsn, self._file, self._capsys = dsn, folder / "shop.toml", capsys
        self._file.write_text(RULES)

    def __call__(self, verb: str, *arguments: str, dsn: str = "") -> str:
        given = [verb, "--config", str(self._file), "--dsn", dsn or self.dsn, *arguments]
        publication.main(given, standalone_mode=False)
        return self._capsys.readouterr().out


@pytest.fixture
def publishing(database15: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Publishing:
    run(database15, TABLES)
    return Publishing(database15, tmp_path, capsys)


def names(dsn: str) -> list[str]:
    found = ask(dsn, "select array_agg(tablename::text order by tablename) from pg_publication_tables")
    return [str(name) for name in found or ()]


def test_a_plan_changes_nothing_and_is_a_script_that_does(publishing: Publishing) -> None:
    script = publishing("plan")
    before = names(publishing.dsn)
    run(publishing.dsn, script)

    assert before == []
    assert names(publishing.dsn) == ["full_orders", "log", "measures_2026", "orders"]


def test_the_publication_holds_the_clauses(publishing: Publishing) -> None:
    publishing("apply", "--yes")

    clauses = ask(
        publishing.dsn,
        "select json_object_agg(tablename, json_build_array(attnames, rowfilter)) from pg_publication_tables",
    )
    assert clauses["orders"] == [["id", "total"], None]
    assert clauses["full_orders"][1] == "((total > 100.5) AND (status <> 'it''s off'::text))"
    assert clauses["measures_2026"][1] == "(day > '2026-06-01'::date)"
    assert ask(publishing.dsn, "select pubinsert, pubupdate, pubdelete, pubtruncate from pg_publication") == (
        *(True, True, True),
        False,
    )


def test_applying_it_again_changes_nothing(publishing: Publishing) -> None:
    publishing("apply", "--yes")
    before = names(publishing.dsn)

    shown = publishing("apply", "--yes")

    assert "ALTER PUBLICATION" in shown
    assert "DROP" not in shown
    assert names(publishing.dsn) == before


def test_a_slot_made_before_goes_on_with_the_publication_that_takes_the_place_of_all_tables(
    publishing: Publishing,
) -> None:
    recording = Recording(publishing.dsn, plugins=("pgoutput",))
    recording.run("insert into full_orders values (1, 5, 'x')")

    publishing("apply", "--yes")
    recording.run(
        "insert into full_orders values (2, 5, 'x'), (3, 500, 'x')",
        "update full_orders set total = 200 where id = 1",
        "update full_orders set total = 1 where id = 3",
        "insert into orders values (1, 2.50, 'me@x.com')",
        "truncate full_orders",
        "insert into measures values ('2026-01-01', 1), ('2026-12-01', 2)",
    )

    assert [shown(event) for event in recording.events("pgoutput")] == [
        ("insert", "full_orders", 1),
        ("insert", "full_orders", 3),
        ("insert", "full_orders", 1),
        ("delete", "full_orders", 3),
        ("insert", "orders", 1),
        ("insert", "measures_2026", None),
    ]
    assert "email" not in recording.events("pgoutput")[4]["new"]


def shown(event: Json) -> tuple[str, str, int | None]:
    row = event["new"] or event["old"]
    return event["op"], event["table"], row.get("id")


def test_a_partition_made_later_is_sent(publishing: Publishing) -> None:
    publishing("apply", "--yes")

    recording = Recording(publishing.dsn, plugins=("pgoutput",))
    recording.run(
        "create table measures_2027 partition of measures for values from ('2027-01-01') to ('2028-01-01')",
        "insert into measures values ('2027-01-01', 1), ('2026-01-01', 1)",
    )

    assert [event["table"] for event in recording.events("pgoutput")] == ["measures_2027"]


def test_updates_of_filtered_tables_are_not_refused(publishing: Publishing) -> None:
    publishing("apply", "--yes")

    run(publishing.dsn, "insert into orders values (1, 2, 'x'); update orders set total = 3; delete from orders")

    assert ask(publishing.dsn, "select count(*) from orders") == 0


def test_what_stays_in_the_stream_says_why(publishing: Publishing) -> None:
    document = json.loads(publishing("plan", "--json"))

    [kept] = document["kept"]
    assert kept == (
        "public.orders: the condition of filter paid: total is not in the replica identity, and PostgreSQL would "
        'then refuse updates and deletes: ALTER TABLE "public"."orders" REPLICA IDENTITY FULL'
    )
    assert document["warnings"][-1] == (
        "PostgreSQL refuses updates and deletes of tables without a replica identity: public.log"
    )


def test_a_publication_under_the_names_of_roots_stays_one(publishing: Publishing) -> None:
    run(publishing.dsn, "create publication pgevents for all tables with (publish_via_partition_root = true)")

    publishing("apply", "--yes")

    assert ask(publishing.dsn, "select puballtables, pubviaroot from pg_publication") == (False, True)


def test_a_role_that_may_not_gets_the_statements(publishing: Publishing) -> None:
    Recording(publishing.dsn, plugins=())

    with pytest.raises(PrivilegeError, match="the role may not change publication pgevents") as caught:
        publishing("apply", "--yes", dsn=as_role(publishing.dsn))

    assert "to run: BEGIN; SET LOCAL" in caught.value.hint
    assert names(publishing.dsn) == []


def test_what_postgresql_refuses_all_the_same_is_said_with_its_reason(
    publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed_meanwhile(*_: object, **__: object) -> str:
        run(publishing.dsn, "create type state as enum ('it''s off')")
        run(publishing.dsn, "alter table full_orders drop status, add status state")
        return "pgevents"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.prompt", changed_meanwhile)

    with pytest.raises(SourceRefused) as caught:
        publishing("apply")

    assert str(caught.value) == (
        "PostgreSQL refuses publication pgevents as it is planned: invalid publication WHERE expression "
        "(User-defined types are not allowed.)"
    )
    assert caught.value.hint.startswith("Nothing was changed, and the stream applies every rule by itself.")
    assert names(publishing.dsn) == []


def test_without_a_terminal_it_must_be_confirmed(publishing: Publishing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)

    with pytest.raises(ConfigError, match="must be confirmed") as caught:
        publishing("apply")

    assert caught.value.hint == "Add --yes."
    assert names(publishing.dsn) == []


def test_statements_that_are_run_as_one_are_one_transaction(database15: str) -> None:
    run(database15, "create publication pgevents for all tables")

    with Sql(database15) as sql, pytest.raises(SourceError, match="gone"):
        sql.run("DROP PUBLICATION pgevents; CREATE PUBLICATION pgevents FOR TABLE gone")

    assert ask(database15, "select count(*) from pg_publication") == 1


WORKLOAD = (
    """insert into t values (1, 50, '2026-01-01 00:30+01', 'a'), (2, 500, '2026-01-01 00:30Z', 'b'),
                            (3, null, null, 'c')""",
    "update t set total = 600 where id = 1",
    "update t set total = 10 where id = 2",
    "update t set note = 'same' where id = 1",
    "update t set id = 7 where id = 3",
    "delete from t where id = 1",
    "truncate t",
)

EQUAL = (
    '[[filter]]\nwhen = "new.total > 100"',
    '[[filter]]\nwhen = "new.total > 100"\noperations = ["insert", "update"]',
    '[[filter]]\nwhen = "new.total > 100"\noperations = ["update"]',
    '[[filter]]\nwhen = "new.total > 100"\noperations = ["insert"]',
    """[[filter]]\nwhen = "new.at >= '2026-01-01'"\noperations = ["insert"]""",
    '[[filter]]\nwhen = "new.id <> 2 OR new.id IS NULL"',
    '[[filter]]\nwhen = "new.id <> 2 OR new.id IS NULL"\noperations = ["insert", "update"]',
    '[[filter]]\noperations = ["delete", "truncate"]',
    '[[filter]]\nwhen = "old.total > 100"\non_missing = "publish"',
    '[[filter]]\nwhen = "new.note IS NULL OR new.id > 1"\n[[columns]]\nexclude = ["total"]',
    '[[columns]]\nexclude = ["total", "note"]',
    '[[columns]]\ninclude = ["id", "note"]\nmask = ["note"]',
    '[[filter]]\ntables = ["t"]\nwhen = "new.total > 100"\noperations = ["insert"]',
    """[[filter]]\nwhen = "new.total > 20 OR old.total > 20"\non_missing = "drop"
    [[filter]]\nwhen = "new.id <> 2" """,
    """[[filter]]\nwhen = "new.total <> 50"\n[[filter]]\ndrop_unchanged = true\nignore = ["total"]""",
    """[[filter]]\nwhen = "new.total <> 50"\n[[filter]]\ndrop_unchanged = true\nignore = ["note"]""",
    """[[filter]]\nwhen = "100 / (new.total - 50) > 0"\non_missing = "publish" """,
)


@pytest.mark.parametrize("identity", ["default", "full"])
def test_the_stream_publishes_the_same_as_without_it(database15: str, tmp_path: Path, identity: str) -> None:
    """But for numbers, and for updates that move a row into a row filter, which come as inserts."""
    name = ask(database15, "select current_database()")
    run(database15, "create table t (id int primary key, total numeric, at timestamptz, note text)")
    run(database15, "alter table t alter note set storage plain")
    run(database15, "create table other (like t including all)", f"alter table t replica identity {identity}")
    run(database15, f"alter database {name} set timezone = 'Asia/Tokyo'")
    for at, text in enumerate(EQUAL):
        file = tmp_path / "rules.toml"
        file.write_text(f'publication = "p{at}"\n{text}')
        publication.main(["apply", "--yes", "--config", str(file), "--dsn", database15], standalone_mode=False)
    recording = Recording(database15, plugins=("pgoutput",), publication="everything")
    recording.run(*WORKLOAD)

    for at, text in enumerate(EQUAL):
        rules = parse_rules(tomllib.loads(text), "shop.toml")
        recording.publication = "everything"
        whole = recording.events("pgoutput", rules=rules)
        recording.publication = f"p{at}"
        pushed = recording.events("pgoutput", rules=rules)

        assert [alike(event) for event in pushed] == [alike(event) for event in whole], text


def test_no_update_comes_as_an_insert_without_what_did_not_change(database15: str, tmp_path: Path) -> None:
    run(database15, "create table t (id int primary key, note text)", "alter table t alter note set storage external")
    rules = '[[filter]]\nwhen = "new.id > 0"'
    file = tmp_path / "rules.toml"
    file.write_text(f'publication = "p"\n{rules}')
    publication.main(["apply", "--yes", "--config", str(file), "--dsn", database15], standalone_mode=False)
    recording = Recording(database15, plugins=("pgoutput",), publication="p")
    recording.run("insert into t values (-1, repeat('x', 5000))", "update t set id = 1")

    [event] = recording.events("pgoutput", rules=parse_rules(tomllib.loads(rules), "shop.toml"))

    assert (event["op"], event["missing"]) == ("update", ["note"])


def alike(event: Json) -> Json:
    kept = {name: event[name] for name in ("table", "key", "new")}
    return kept | {"op": "insert" if event["op"] == "update" else event["op"]}
