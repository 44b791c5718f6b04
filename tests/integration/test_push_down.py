"""Tables and operations that wal2json leaves out: the same is published, and less is sent."""

import glob
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from pgevents.demo.postgres import Postgres
from pgevents.errors import SourceError
from pgevents.explain.peek import peek
from pgevents.plugin import with_known
from pgevents.postgres import quoted
from pgevents.push_down import PushDown
from pgevents.rule import Rules
from pgevents.rules import parse_rules
from tests.integration.command import Command, Shop, pgevents, stored
from tests.integration.streaming import Json, Recording, run
from tests.integration.test_events_values import encoded

WEIRD = (
    ("shop", "orders"),
    ("shop", "old_orders"),
    ("Shop", "Order Lines"),
    ("shop", "a,b"),
    ("shop", 'it\'s "odd"'),
    ("shop", "back\\slash\\"),
    ("shop", "dot.ted"),
    ("shop.dot", "ted"),
    ("shop", " lead and trail "),
    ("shop", "tab\there\nline"),
    ("größe", "tabelle_ü"),
    ("日本", "注文"),
    ("shop", "\\*"),
    ("*", "'"),
)
TWINS = {("shop", "dot.ted"), ("shop.dot", "ted")}
"""Both are shop.dot.ted to a pattern."""

BEGIN_OR_COMMIT = (b'{"action":"B"', b'{"action":"C"')

TWO = """
create schema shop; create schema crm;
create table shop.orders (id int primary key); create table shop.items (id int primary key);
create table crm.orders (id int primary key); create table crm.people (id int primary key)
"""
CHANGES = """
begin;
insert into shop.orders values (1); insert into shop.items values (1);
insert into crm.orders values (1); insert into crm.people values (1);
update shop.orders set id = 2; update crm.people set id = 2;
delete from shop.items; delete from crm.orders;
truncate shop.orders, crm.people;
select pg_logical_emit_message(true, 'app', 'hello');
commit
"""


def parsed(text: str) -> Rules:
    return parse_rules(tomllib.loads(text), "pgevents.toml")


def unnumbered(events: Sequence[Json]) -> Iterator[Json]:
    """Without what the number of a change in its transaction is part of."""
    for event in events:
        event["tx"].pop("seq")
        (event.get("skip") or {}).pop("from_seq", None)
        yield event | {"id": re.sub(r"-\d+$", "", event["id"])}


def sent(recording: Recording, pushed: PushDown) -> int:
    """How many changes and messages wal2json sends when it is told so.

    Not how many transactions: there is one without a row for each that the server makes of its own, as autovacuum.
    """
    slot = recording.slot("wal2json")
    with peek(
        recording.role_dsn, slot=slot, plugin="wal2json", publication="", limit=10_000, push_down=pushed.options
    ) as excerpt:
        return sum(not message.payload.startswith(BEGIN_OR_COMMIT) for message in excerpt.messages)


def published(recording: Recording, **settings: Any) -> tuple[list[Json], int, int]:
    """What is published with and without push-down, which is the same, and how much is sent with and without."""
    plain, pushed = ({**settings, "push_down": wanted} for wanted in (False, True))
    expected = list(unnumbered(recording.events("wal2json", **plain)))

    events = list(unnumbered(recording.events("wal2json", **pushed)))

    assert events == expected
    fewer = sent(recording, recording.pushed_down("wal2json", **pushed))
    return events, fewer, sent(recording, PushDown())


@pytest.fixture
def weird(database15: str) -> Recording:
    for schema in dict(WEIRD):
        run(database15, f"create schema {quoted(schema)}")
    for table in WEIRD:
        run(database15, f"create table {quoted(*table)} (id int primary key)")
    recording = Recording(database15, plugins=("wal2json",))
    recording.run("begin;" + "".join(f"insert into {quoted(*table)} values (1);" for table in WEIRD) + "commit")
    return recording


def test_of_one_table_nothing_else_is_sent_whatever_its_name(weird: Recording) -> None:
    for table in WEIRD:
        pattern = glob.escape(".".join(table))

        events, fewer, _ = published(weird, tables=(pattern,))

        matching = TWINS if table in TWINS else {table}
        assert {(event["schema"], event["table"]) for event in events} == matching
        # A name that is written with a wildcard of its own is left to the stream in part.
        assert fewer == len(matching) or "*" in pattern, table


def test_an_excluded_table_is_not_sent_whatever_its_name(weird: Recording) -> None:
    for table in WEIRD:
        pattern = glob.escape(".".join(table))

        events, fewer, all_of_it = published(weird, exclude_tables=(pattern,))

        matching = TWINS if table in TWINS else {table}
        assert {(event["schema"], event["table"]) for event in events} == set(WEIRD) - matching
        assert fewer == all_of_it - (0 if "*" in pattern else len(matching)), table


def test_a_wildcard_that_reaches_across_a_dot_is_left_to_the_stream(weird: Recording) -> None:
    events, fewer, all_of_it = published(weird, tables=("shop.*",))

    assert ("shop.dot", "ted") in {(event["schema"], event["table"]) for event in events}
    assert fewer == all_of_it


@pytest.mark.parametrize(
    ("encoding", "table"),
    [("LATIN1", ("größe", "Stück 1")), ("EUC_JP", ("日本", "注文")), ("SQL_ASCII", ("größe", "Stück 1"))],
)
def test_names_are_the_same_in_any_encoding(
    postgres15: Postgres, database15: str, encoding: str, table: tuple[str, str]
) -> None:
    with encoded(postgres15, database15, encoding) as database:
        dsn = make_dsn(database, client_encoding="UTF8")
        run(dsn, f"create schema {quoted(table[0])}; create table {quoted(*table)} (id int primary key)", TWO)
        recording = Recording(dsn, plugins=("wal2json",))
        recording.run(CHANGES, f"insert into {quoted(*table)} values (1)")

        events, fewer, _ = published(recording, tables=(".".join(table),), exclude_tables=("crm.*",))

    assert [event["table"] for event in events if event["table"]] == [table[1]]
    assert fewer == 1 + 1


def test_a_schema_of_one_letter_is_that_one_alone(database15: str) -> None:
    run(database15, "create schema a; create schema b; create table a.x (id int); create table b.x (id int)")
    recording = Recording(database15, plugins=("wal2json",))
    recording.run("begin; insert into a.x values (1); insert into b.x values (1); commit")

    (kept, left), (few, fewer) = zip(
        *(published(recording, **{option: ("a.x",)})[:2] for option in ("tables", "exclude_tables")), strict=True
    )

    assert [event["schema"] for event in (*kept, *left)] == ["a", "b"]
    assert few == fewer == 1


@pytest.fixture
def recording(database15: str) -> Recording:
    run(database15, TWO)
    made = Recording(database15)
    made.run(CHANGES)
    return made


@pytest.mark.parametrize(
    ("include", "exclude", "changes"),
    [
        ((), (), 10),
        (("shop.*",), (), 5),
        (("*.orders",), (), 5),
        (("shop.ord*", "crm.people"), (), 8),
        (("shop.*", "crm.*"), ("*.orders",), 5),
        (("shop.orders",), ("shop.*",), 0),
        ((), ("*.*",), 0),
        ((), ("shop.ord*",), 10),
    ],
)
def test_the_same_is_published_of_less_that_is_sent(
    recording: Recording, include: tuple[str, ...], exclude: tuple[str, ...], changes: int
) -> None:
    _, fewer, all_of_it = published(recording, tables=include, exclude_tables=exclude)

    message = 1
    assert fewer == changes + message
    assert all_of_it == 10 + message


def test_operations_that_no_filter_lets_through_are_not_sent(recording: Recording) -> None:
    rules = parsed('[[filter]]\noperations = ["insert", "update", "message"]')

    events, fewer, all_of_it = published(recording, rules=rules)

    assert [event["op"] for event in events] == ["insert"] * 4 + ["update"] * 2 + ["message"]
    assert fewer == all_of_it - 4


def test_what_a_record_counts_is_sent(recording: Recording) -> None:
    rules = parsed('[[skip]]\nrows = 3\n[[filter]]\noperations = ["insert"]')

    events, fewer, _ = published(recording, rules=rules, tables=("crm.*",))

    (record,) = [event["skip"]["rows"] for event in events if event["op"] == "skip"]
    assert {each["table"]: sum(n for n in each.values() if isinstance(n, int)) for each in record} == {
        "orders": 2,
        "people": 3,
    }
    assert fewer == 5 + 1


def test_only_the_numbers_of_changes_are_different(recording: Recording) -> None:
    settings = {"tables": ("crm.people",)}

    plain = recording.events("wal2json", **settings)
    pushed = recording.events("wal2json", **settings, push_down=True)

    assert [event["tx"]["seq"] for event in plain] == [4, 6, 10, 11]
    assert [event["tx"]["seq"] for event in pushed] == [1, 2, 3, 4]


def test_pgoutput_is_told_nothing(recording: Recording) -> None:
    settings = {"tables": ("crm.people",)}

    plain = recording.events("pgoutput", **settings)

    assert recording.events("pgoutput", **settings, push_down=True) == plain


def test_a_wal2json_that_knows_no_such_option_goes_without() -> None:
    """As versions before 2.0 would refuse it."""
    options = {"add-tables": "shop.*", "actions": "insert", "format-version": "2"}

    def begin() -> str:
        if "actions" in options:
            raise SourceError('option "actions" = "in\nsert" is unknown')
        return "begun"

    assert with_known(options, begin) == "begun"
    assert options == {"add-tables": "shop.*", "format-version": "2"}


# On the command line


CONFIG = """
tables = ["orders"]
exclude_tables = ["*.log_*"]
push_down = true
[[filter]]
operations = ["insert", "update"]
"""
LEFT_OUT = "without pgevents.skip_window, pgevents.watermark"
PUSHED = ["only public.orders", LEFT_OUT, "only insert, update of all tables"]
KEPT = "that *.log_* is left out: it has a wildcard inside of a name"


@pytest.fixture
def shop(database15: str, tmp_path: Path) -> Shop:
    made = Shop(database15)
    run(database15, "create table items (id int primary key)")
    (tmp_path / "pgevents.toml").write_text(CONFIG)
    return made


def test_a_stream_says_what_it_pushes_down_and_stores_the_same(shop: Shop, tmp_path: Path) -> None:
    run(shop.dsn, "begin; insert into items values (1); insert into orders values (1); delete from items; commit")

    with Command(tmp_path, "stream", *shop.options, "--sink", "file:events.ndjson", "--until-lsn", "now") as stream:
        outcome = stream.ended()

    assert re.findall('pushed down to wal2json .*rule="(.*)"$', outcome.stderr, re.MULTILINE) == PUSHED
    assert re.findall('not pushed down .*rule="(.*)"$', outcome.stderr, re.MULTILINE) == [KEPT]
    (event,) = stored(tmp_path / "events.ndjson")
    assert (event["op"], event["table"], event["tx"]["seq"]) == ("insert", "orders", 1)


def test_explain_looks_at_what_a_stream_would_get(shop: Shop, tmp_path: Path) -> None:
    run(shop.dsn, "begin; insert into items values (1); insert into orders values (1); delete from items; commit")

    outcome = pgevents(tmp_path, "explain", *shop.options, "--json")

    said = [line for line in outcome.stderr.splitlines() if line.startswith("in ")]
    assert said == [*(f"in wal2json: {each}" for each in PUSHED), f"in the stream: {KEPT}"]
    (transaction,) = outcome.events if outcome.stdout.count("\n") == 1 else [json.loads(outcome.stdout)]
    assert len(transaction["changes"]) == 1


def test_config_check_says_the_same(shop: Shop, tmp_path: Path) -> None:
    text = pgevents(tmp_path, "config", "check", "--dsn", shop.role_dsn).stdout
    document = json.loads(pgevents(tmp_path, "config", "check", "--dsn", shop.role_dsn, "--json").stdout)

    assert [line for line in text.splitlines() if line.startswith("in wal2json: ")] == [
        f"in wal2json: {each}" for each in PUSHED
    ]
    assert document["push_down"] == {
        "options": {
            "add-tables": "public.orders",
            "filter-tables": "pgevents.skip_window,pgevents.watermark",
            "actions": "insert,update",
        },
        "pushed": PUSHED,
        "kept": [KEPT],
    }


def test_an_origin_that_is_pushed_down_is_left_out_of_the_explanation_too(shop: Shop, tmp_path: Path) -> None:
    origin = str(parse_dsn(shop.dsn)["dbname"])  # origins are the server's, and not the database's
    (tmp_path / "pgevents.toml").write_text(f'[[skip]]\nname = "bulk"\norigin = "{origin}"\npush_down = true\n')
    run(shop.dsn, f"SELECT pg_replication_origin_create('{origin}')")
    run(shop.dsn, f"SELECT pg_replication_origin_session_setup('{origin}'); INSERT INTO orders VALUES (1)")
    run(shop.dsn, "INSERT INTO orders VALUES (2)")

    explained = pgevents(tmp_path, "explain", *shop.options, "--json")
    said = pgevents(tmp_path, "config", "check", "--dsn", shop.role_dsn).stdout
    streamed = pgevents(tmp_path, "stream", *shop.options, "--sink", "file:events.ndjson", "--until-lsn", "now")

    line = f"in wal2json: without the transactions of origin {origin}"
    assert line in said.splitlines()
    assert line in explained.stderr.splitlines()
    assert [row["rule"] for row in explained.events] == [None]
    assert f'rule="without the transactions of origin {origin}"' in streamed.stderr
    assert [(event["op"], event["new"]["id"]) for event in stored(tmp_path / "events.ndjson")] == [("insert", 2)]
    run(shop.dsn, f"SELECT pg_replication_origin_drop('{origin}')")
