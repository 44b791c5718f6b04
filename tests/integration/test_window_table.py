"""Windows in a table of the streamed database: every host sees them, and no stream ends for want of them."""

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually
from pgevents.errors import ConfigError, SourceUnavailable, StateRefused
from pgevents.lsn import Lsn
from pgevents.rule import Action, SkipRule
from pgevents.window_file import WindowFile
from pgevents.window_table import MIGRATION, WindowTable
from tests.conftest import _with_wal2json
from tests.integration.command import Command, Shop, ids_of, pgevents, stored
from tests.integration.role import as_role, install_role
from tests.integration.streaming import ask, run

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "migrations" / MIGRATION).read_text()

SESSIONS = "FROM pg_stat_activity WHERE datname = current_database()"
CUT = f"SELECT count(pg_terminate_backend(pid)) {SESSIONS} AND usename = 'pgevents'"

REFUSED = 4
TAKEN_UP_S = 2.0
WHY = ("--reason", "flood")
IN_TABLE = ("--state", "postgres")

XID = SkipRule("", reason="flood", xid=812)
RANGE = SkipRule("", action=Action.SUMMARISE, reason='"backfill"', first=Lsn(0x10), last=Lsn(0x20))
EVENING = SkipRule("", action=Action.PUBLISH, reason="nightly", since="2026-11-20T18:00:00.000000Z")


def install(dsn: str) -> str:
    """Make the table as its owner; the DSN of the role that streams."""
    run(dsn, TABLE)
    return as_role(dsn)


@pytest.fixture
def dsn(database15: str) -> str:
    return install(database15)


@pytest.fixture
def table(dsn: str) -> Iterator[WindowTable]:
    with closing(WindowTable(dsn, "shop")) as table:
        yield table


def test_the_script_can_be_run_again(database15: str) -> None:
    run(database15, TABLE, TABLE)


@pytest.mark.parametrize("rule", [RANGE, EVENING, XID])
def test_a_window_is_read_as_it_was_added_by_every_host(table: WindowTable, dsn: str, rule: SkipRule) -> None:
    window = table.add(replace(rule, by="ops-bot"))

    with closing(WindowTable(dsn, "shop")) as other:
        assert other.windows() == (window,)
        assert other.load() == (window.rule,)
    assert replace(window.rule, name="", by="", until="") == rule
    assert window.added_by == "ops-bot"


def test_it_is_the_same_as_in_a_file(table: WindowTable, tmp_path: Path) -> None:
    file = WindowFile(tmp_path / "skips.json")
    for rule in (XID, RANGE, EVENING):
        for windows in (file, table):
            windows.add(rule)

    assert [[replace(each, name="", until="") for each in windows.load()] for windows in (file, table)] == [
        [replace(rule, by=table.windows()[0].added_by) for rule in (XID, RANGE, EVENING)]
    ] * 2


def test_an_xid_is_skipped_for_a_day_by_the_clock_of_the_server(table: WindowTable, dsn: str) -> None:
    before = ask(dsn, "SELECT clock_timestamp()")

    window = table.add(XID)

    added_at = datetime.fromisoformat(window.added_at)
    assert before <= added_at <= ask(dsn, "SELECT clock_timestamp()")
    assert datetime.fromisoformat(window.rule.until) - added_at == timedelta(days=1)


def test_each_slot_has_its_own_windows(table: WindowTable, dsn: str) -> None:
    table.add(XID)

    with closing(WindowTable(dsn, "other")) as other:
        assert other.load() == ()
        with pytest.raises(ConfigError, match=r"there is no window \S+ in table pgevents.skip_window"):
            other.remove(table.load()[0].name)


def test_a_window_is_removed_by_its_name_and_the_others_keep_their_order(table: WindowTable) -> None:
    first, second, third = (table.add(rule) for rule in (XID, RANGE, EVENING))

    assert table.remove(second.rule.name) == second

    assert table.windows() == (first, third)


def test_an_unknown_name_is_refused_with_the_nearest(table: WindowTable) -> None:
    name = table.add(XID).rule.name

    with pytest.raises(ConfigError, match="there is no window") as refused:
        table.remove(name[:-1])

    assert refused.value.hint == f"Did you mean {name}?"


def test_what_has_been_over_for_a_week_is_left_out_when_windows_change(table: WindowTable, database15: str) -> None:
    old, kept = table.add(XID), table.add(RANGE)
    run(database15, "UPDATE pgevents.skip_window SET added_at = added_at - interval '9 days'")

    added = table.add(EVENING)

    assert [window.rule.name for window in table.windows()] == [kept.rule.name, added.rule.name]
    assert old.rule.name not in {window.rule.name for window in table.windows()}


def test_people_who_add_windows_at_once_lose_none(table: WindowTable, dsn: str) -> None:
    tables = [WindowTable(dsn, "shop") for _ in range(4)]
    people = [threading.Thread(target=each.add, args=[XID]) for each in tables]
    for person in people:
        person.start()
    for person, each in zip(people, tables, strict=True):
        person.join()
        each.close()

    assert len({rule.name for rule in table.load()}) == 4


def test_where_there_is_no_table_there_are_no_windows(database15: str) -> None:
    run(database15, "DROP TABLE IF EXISTS pgevents.skip_window")

    with closing(WindowTable(as_role(database15), "shop")) as table:
        assert table.load() == table.fresh() == ()
        run(database15, TABLE)
        name = WindowTable(as_role(database15), "shop").add(XID).rule.name
        assert [rule.name for rule in table.fresh()] == [name]


def test_a_role_that_may_makes_the_table(database15: str) -> None:
    run(database15, "DROP SCHEMA pgevents CASCADE")

    with closing(WindowTable(database15, "shop")) as table:
        assert table.load() == ()
        table.add(XID)
        assert len(table.load()) == 1


def test_where_another_role_makes_the_table_the_one_that_streams_may_use_it(database15: str) -> None:
    run(database15, "DROP TABLE IF EXISTS pgevents.skip_window")

    with (
        closing(WindowTable(database15, "shop")) as superuser,
        closing(WindowTable(as_role(database15), "shop")) as role,
    ):
        assert role.fresh() == ()
        window = superuser.add(XID)

        assert role.fresh() == (window.rule,)
        assert role.remove(role.add(RANGE).rule.name)


def test_a_role_that_may_not_is_told_which_script_makes_it(database15: str) -> None:
    run(database15, "DROP TABLE IF EXISTS pgevents.skip_window")

    with closing(WindowTable(as_role(database15), "shop")) as table, pytest.raises(StateRefused) as refused:
        table.add(XID)

    assert str(refused.value).startswith("there is no table pgevents.skip_window, and the role may not create it: ")
    assert f"migrations/{MIGRATION}" in refused.value.hint


@pytest.mark.parametrize(
    ("revoked", "act"),
    [
        ("SELECT ON pgevents.skip_window", WindowTable.load),
        ("INSERT ON pgevents.skip_window", lambda table: table.add(XID)),
        ("DELETE ON pgevents.skip_window", lambda table: table.remove(table.load()[0].name)),
        ("USAGE ON SCHEMA pgevents", WindowTable.load),
    ],
)
def test_a_role_without_a_privilege_is_told_which_it_needs(
    database15: str, dsn: str, revoked: str, act: Callable[[WindowTable], object]
) -> None:
    WindowTable(dsn, "shop").add(XID)
    run(database15, f"REVOKE {revoked} FROM pgevents")

    with closing(WindowTable(dsn, "shop")) as table, pytest.raises(StateRefused) as refused:
        act(table)

    assert str(refused.value).startswith(f"the role may not use the windows in {table}: permission denied")
    assert "SELECT, INSERT and DELETE" in refused.value.hint


def damage(dsn: str, name: str, rule: str) -> None:
    run(dsn, f"UPDATE pgevents.skip_window SET rule = '{rule}' WHERE name = '{name}'")


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ('{"since": "soon"}', "since: it must be a time with its zone"),
        ("[]", "it is no rule"),
        ("null", "it is no rule"),
        ("{}", "rule: it tests nothing"),
        ('{"xid": 1e400}', "its JSON cannot be read"),
        ('{"xid": 1.5}', "xid: it must be a whole number"),
        ('{"marked": true}', "it is not for an xid, for LSNs or for a time"),
        ('{"xid": 5, "action": "park"}', "action: park is none of drop, summarise, publish"),
        ('{"xid": 5, "rows": 7, "action": "forget"}', "xid: the rule tests rows already"),
    ],
)
def test_a_row_that_was_edited_into_nonsense_is_refused_by_name_and_can_be_removed(
    table: WindowTable, database15: str, rule: str, what: str
) -> None:
    kept, name = table.add(XID), table.add(EVENING).rule.name
    damage(database15, name, rule)

    with pytest.raises(StateRefused, match=f"^window {name} in {table} cannot be used: {what}") as refused:
        table.load()
    table.remove(name)

    assert refused.value.hint.startswith(f"Remove it with pgevents skip remove {name}, or ")
    assert table.load() == (kept.rule,)


def test_an_unknown_name_is_answered_with_those_that_are_damaged(table: WindowTable, database15: str) -> None:
    name = table.add(EVENING).rule.name
    damage(database15, name, "[]")

    with pytest.raises(ConfigError, match="there is no window zzz") as far:
        table.remove("zzz")
    with pytest.raises(ConfigError) as near:
        table.remove(name[:-1])

    assert far.value.hint == f"Damaged, and to be removed: {name}."
    assert near.value.hint == f"Did you mean {name}?"


def test_a_name_that_a_shell_would_take_apart_is_quoted_for_it(table: WindowTable, database15: str) -> None:
    table.add(EVENING)
    run(database15, "UPDATE pgevents.skip_window SET name = 'the old one', rule = '[]'")

    with pytest.raises(StateRefused, match=r"^window the old one in") as refused:
        table.load()

    assert "pgevents skip remove 'the old one'," in refused.value.hint


def test_a_table_of_another_shape_is_refused_by_name(table: WindowTable, database15: str) -> None:
    run(database15, "ALTER TABLE pgevents.skip_window RENAME rule TO what")

    with pytest.raises(StateRefused, match=rf"^{table} is not that of migrations/0003_skip_window\.sql: column"):
        table.load()


def test_a_running_stream_keeps_its_windows_where_the_connection_is_lost_and_says_so_once(
    table: WindowTable, database15: str, caplog: pytest.LogCaptureFixture
) -> None:
    rules = (table.add(XID).rule,)
    assert table.fresh() == rules
    run(database15, "REVOKE SELECT ON pgevents.skip_window FROM pgevents")

    with caplog.at_level(logging.WARNING, "pgevents"):
        assert table.fresh() == table.fresh() == rules

    (record,) = caplog.records
    assert record.getMessage() == "kept the windows as they were"
    assert "permission denied" in vars(record)["reason"]


def test_a_poll_on_a_connection_that_was_cut_asks_on_a_new_one(
    table: WindowTable, database15: str, caplog: pytest.LogCaptureFixture
) -> None:
    table.add(XID)
    table.fresh()
    run(database15, "UPDATE pgevents.skip_window SET name = 'window-new'")

    assert ask(database15, CUT) == 1
    taken_up = table.fresh()

    assert [rule.name for rule in taken_up] == ["window-new"]
    assert caplog.records == []


def test_a_server_that_is_lost_is_warned_of_once_and_asked_again_when_it_is_back(
    table: WindowTable, database15: str, caplog: pytest.LogCaptureFixture
) -> None:
    rules = (table.add(XID).rule,)
    table.fresh()
    run(database15, "UPDATE pgevents.skip_window SET name = 'window-new'")
    database, elsewhere = parse_dsn(database15)["dbname"], make_dsn(database15, dbname="postgres")

    run(elsewhere, f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    ask(elsewhere, CUT.replace("current_database()", f"'{database}'"))
    lost = [table.fresh(), table.fresh()]
    run(elsewhere, f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")

    assert lost == [rules, rules]
    assert eventually(lambda: [rule.name for rule in table.fresh()] == ["window-new"], deadline_s=10)
    assert [record.getMessage() for record in caplog.records] == ["kept the windows as they were"]


def test_what_hangs_holds_up_no_poll(table: WindowTable, database15: str) -> None:
    """A stream that stops must not wait, and the next session asks while the question of the last one still hangs."""
    rules = (table.add(XID).rule,)
    assert table.fresh() == rules
    with closing(psycopg2.connect(database15)) as blocker:
        blocker.cursor().execute("LOCK TABLE pgevents.skip_window IN ACCESS EXCLUSIVE MODE")
        hanging = threading.Thread(target=table.fresh)
        hanging.start()
        waits = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        assert eventually(lambda: ask(database15, waits) == 1, deadline_s=10)

        assert table.fresh() == rules
    hanging.join()


def test_a_server_that_is_not_there_is_no_empty_list(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable):
        WindowTable("host=127.0.0.1 port=1 dbname=x", "shop").load()


# The commands


def inserted(folder: Path) -> list[int]:
    return ids_of([event for event in stored(folder / "events.ndjson") if event["table"] == "orders"])


def test_a_window_added_on_one_host_is_taken_up_on_another_and_by_its_successor(
    database15: str, tmp_path: Path
) -> None:
    shop = Shop(database15)
    install(database15)
    here, there, successor = tmp_path / "here", tmp_path / "there", tmp_path / "successor"
    here.mkdir()
    options = (*shop.options, *IN_TABLE)

    with Command(there, "stream", *options, "--sink", "file:events.ndjson").ready() as stream:
        added = pgevents(here, "skip", "add", "--since", "2000-01-01T00:00Z", *WHY, *options)
        assert eventually(lambda: "skip windows taken up" in stream.stderr, deadline_s=TAKEN_UP_S), stream.stderr
        shop.add(1, 2)
        assert stream.stopped().code == 0
    shop.add(3)
    outcome = pgevents(successor, "stream", *options, "--sink", "file:events.ndjson", "--until-lsn", "now")

    assert added.stderr == (
        "Added to table pgevents.skip_window; every stream of slot "
        f"{shop.slot} that keeps its watermark there takes it up within 2 seconds.\n"
    )
    assert outcome.code == 0, outcome.stderr
    assert inserted(there) == inserted(successor) == []
    name = added.stdout.strip()
    assert name in pgevents(there, "skip", "list", *options).stdout
    assert pgevents(successor, "skip", "remove", name, *options).code == 0
    assert pgevents(here, "skip", "list", *options).stderr == "0 windows are in table pgevents.skip_window\n"


def test_a_damaged_window_is_found_and_removed_by_the_commands_alone(database15: str, tmp_path: Path) -> None:
    shop = Shop(database15)
    install(database15)
    options = (*shop.options, *IN_TABLE)
    name = pgevents(tmp_path, "skip", "add", "--xid", "812", *WHY, *options).stdout.strip()
    damage(database15, name, '{"marked": true}')

    listed = pgevents(tmp_path, "skip", "list", *options)
    guessed = pgevents(tmp_path, "skip", "remove", "zzz", *options)
    removed = pgevents(tmp_path, "skip", "remove", name, *options)

    listed.refused(REFUSED, error=f"^window {name} in table", hint=f"pgevents skip remove {name}")
    guessed.refused(2, error="there is no window zzz", hint=name)
    assert removed.code == 0, removed.stderr
    assert pgevents(tmp_path, "skip", "list", *options).code == 0


def test_a_dry_run_and_explain_heed_the_windows_of_the_table(database15: str, tmp_path: Path) -> None:
    shop = Shop(database15)
    install(database15)
    options = (*shop.options, *IN_TABLE)
    shop.add(1)
    name = pgevents(tmp_path, "skip", "add", "--since", "2000-01-01T00:00Z", *WHY, *options).stdout.strip()

    explained = pgevents(tmp_path, "explain", *options, "--table", "orders", "--record", "recorded.ndjson")
    dry = pgevents(
        tmp_path, "stream", *options, "--table", "orders", "--sink", "stdout:", "--dry-run", "--until-lsn", "now"
    )
    offline = pgevents(tmp_path, "explain", *IN_TABLE, "--file", "recorded.ndjson", "--dsn", "host=127.0.0.1 port=1")

    assert f"dropped by rule {name}" in explained.stdout
    assert {event["op"] for event in dry.events} == {"skip"}
    assert offline.code == 0, offline.stderr
    assert "windows in table pgevents.skip_window are left aside" in offline.stderr


def test_a_restart_of_the_server_ends_no_stream_through_the_windows(services: Path, tmp_path: Path) -> None:
    folder = services / f"windows-{tmp_path.name}"
    with Postgres(folder, binaries=_with_wal2json()) as server:
        shop = Shop(server.dsn())
        install_role(server.dsn())
        install(server.dsn())
        options = (*shop.options, *IN_TABLE)
        patient = ("--table", "orders", "--sink", "file:events.ndjson", "--retry-max", "0.3")
        with Command(tmp_path, "stream", *options, *patient).ready() as stream:
            shop.add(1)
            assert eventually(lambda: inserted(tmp_path) == [1], deadline_s=10)

            server.restart()
            stream.says("streaming again")
            pgevents(tmp_path, "skip", "add", "--since", "2000-01-01T00:00Z", *WHY, *options)
            stream.says("skip windows taken up")
            shop.add(2)
            assert eventually(partial(has_record, tmp_path), deadline_s=10)

            assert stream.stopped().code == 0
        # The watermark's own session ends before the stream's, so that what came last may come twice.
        assert set(inserted(tmp_path)) == {1}
    shutil.rmtree(folder, ignore_errors=True)


def has_record(folder: Path) -> bool:
    return any(event["op"] == "skip" for event in stored(folder / "events.ndjson"))


def test_a_stream_whose_role_may_not_read_the_windows_does_not_start(database15: str, tmp_path: Path) -> None:
    shop = Shop(database15)
    run(database15, TABLE, "REVOKE ALL ON pgevents.skip_window FROM pgevents")

    outcome = pgevents(tmp_path, "stream", *shop.options, *IN_TABLE, "--sink", "null:", "--until-lsn", "now")

    outcome.refused(REFUSED, error="the role may not use the windows in table", hint="SELECT, INSERT and DELETE")
