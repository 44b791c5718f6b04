"""Skip rules on real servers: what is published, what is counted instead, and what a crash does to either."""

import json
import logging
import os
import re
import shlex
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psycopg2
import pytest

from pgevents.lsn import Lsn
from pgevents.rule import Rules
from pgevents.rule_table import timestamp
from pgevents.rules import parse_rules
from tests.integration.command import KILL, Command, Json, Shop, pgevents, stored
from tests.integration.streaming import BOTH, Recording, ask, check, run

ROOT = Path(__file__).parents[2]
MIGRATION = (ROOT / "migrations" / "0002_skip.sql").read_text()
PAGE = (ROOT / "docs" / "skipping.md").read_text()
TABLES = ("CREATE TABLE orders (id int PRIMARY KEY, note text)", "CREATE TABLE items (id int PRIMARY KEY)")
FILL = "INSERT INTO orders SELECT n, 'note' FROM generate_series({}, {}) n"

MARKED = '[[skip]]\nname = "migrations"\nmarked = true\n'
TAKE_UP_S = 2.0
"""In which a running stream is to know of a window."""


def rules(text: str) -> Rules:
    return parse_rules(tomllib.loads(text), "pgevents.toml")


@pytest.fixture
def recording(database15: str) -> Recording:
    run(database15, MIGRATION, *TABLES)
    return Recording(database15)


def ids(events: Sequence[Json]) -> list[int]:
    return [event["new"]["id"] for event in events if event["new"]]


def counted(events: Sequence[Json]) -> dict[str, dict[str, int]]:
    """The rows in the one record, by table."""
    [record] = [event for event in events if event["op"] == "skip"]
    rows = [dict(row) for row in record["skip"]["rows"]]
    return {row.pop("table"): row for row in rows if row.pop("schema")}


def test_a_marked_transaction_leaves_nothing_but_its_record(recording: Recording) -> None:
    recording.run(
        "BEGIN; SET application_name = 'nightly'; SELECT pgevents.skip('backfill');" + FILL.format(1, 500) + ";"
        "UPDATE orders SET note = 'new' WHERE id <= 100; DELETE FROM orders WHERE id > 400; TRUNCATE items; COMMIT",
        "INSERT INTO orders VALUES (1000, 'an order')",
    )

    record, order = recording.equal_events(rules=rules(MARKED))

    assert order["new"]["id"] == 1000
    assert record["id"].endswith("-skip")
    assert record["skip"] == {
        "rule": "migrations",
        "action": "drop",
        "reason": "backfill",
        "by": "postgres",
        "application": "nightly",
        "from_seq": 2,
        "rows": [
            {"schema": "public", "table": "items", "truncate": 1},
            {"schema": "public", "table": "orders", "insert": 500, "update": 100, "delete": 100},
        ],
        "messages": 0,
    }
    assert [each.address.topic for each in recording.envelopes("pgoutput", rules=rules(MARKED))] == [
        "_.transaction.skipped",
        "public.orders.insert",
    ]


def test_a_mark_that_names_tables_skips_these_alone_and_changes_no_number(recording: Recording) -> None:
    recording.run(
        "BEGIN; SELECT pgevents.skip('backfill', '{orders}'); INSERT INTO items VALUES (1);"
        + FILL.format(1, 20)
        + "; INSERT INTO items VALUES (2); COMMIT"
    )

    plain = recording.equal_events()
    first, last, record = recording.equal_events(rules=rules(MARKED))

    assert [first, last] == [event for event in plain if event["table"] == "items"]
    assert [first["tx"]["seq"], last["tx"]["seq"]] == [2, 23]
    assert record["skip"]["from_seq"] == 3
    assert counted([record]) == {"orders": {"insert": 20}}


def test_the_mark_of_a_savepoint_that_is_rolled_back_does_not_count(recording: Recording) -> None:
    recording.run(
        "BEGIN; SAVEPOINT a; SELECT pgevents.skip('no'); INSERT INTO orders VALUES (1); ROLLBACK TO a;"
        " INSERT INTO orders VALUES (2); COMMIT"
    )

    assert ids(recording.equal_events(rules=rules(MARKED))) == [2]


def test_marks_are_ordinary_messages_until_a_rule_obeys_them(recording: Recording) -> None:
    recording.run("BEGIN; SELECT pgevents.skip('backfill'); INSERT INTO orders VALUES (1); COMMIT")

    message, order = recording.equal_events()

    assert (message["op"], message["message"]["prefix"]) == ("message", "pgevents.skip")
    assert (order["new"]["id"], order["tx"]["seq"]) == (1, 2)


@pytest.mark.parametrize(("before", "is_skipped"), [(1_000, True), (1_001, False)])
def test_a_mark_is_looked_for_in_the_first_thousand_changes(
    recording: Recording, before: int, is_skipped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    recording.run(f"BEGIN; {FILL.format(1, before)}; SELECT pgevents.skip('late'); {FILL.format(5001, 5100)}; COMMIT")

    events = recording.equal_events(rules=rules(MARKED))

    if is_skipped:
        assert counted(events) == {"orders": {"insert": before + 100}}
        assert len(events) == 1
    else:
        assert ids(events) == [*range(1, before + 1), *range(5001, 5101)]
        assert caplog.messages.count("a mark came too late and was not obeyed") == len(BOTH)


@pytest.mark.parametrize("content", ["", "x", "{}", "[]", '{"v": 9, "reason": "x"}', '{"v": 1, "reason": " "}'])
def test_a_malformed_mark_is_reported_and_stops_nothing(
    recording: Recording, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    recording.run(
        f"BEGIN; SELECT pg_logical_emit_message(true, 'pgevents.skip', '{content}');"
        " INSERT INTO orders VALUES (1); COMMIT"
    )

    assert ids(recording.equal_events(rules=rules(MARKED))) == [1]
    assert caplog.messages.count("a malformed mark was not obeyed") == len(BOTH)


def test_a_mark_outside_any_transaction_marks_nothing(recording: Recording) -> None:
    forge = """SELECT pg_logical_emit_message(false, 'pgevents.skip', '{"v": 1, "reason": "forged"}')"""
    recording.run(f"BEGIN; {forge}; INSERT INTO orders VALUES (1); COMMIT")

    assert ids(recording.equal_events(rules=rules(MARKED))) == [1]


def test_a_forged_mark_says_only_what_it_says_itself(recording: Recording) -> None:
    mark = '{"v": 1, "reason": "forged", "by": "nobody"}'
    forge = f"SELECT pg_logical_emit_message(true, 'pgevents.skip', '{mark}')"
    recording.run(f"BEGIN; {forge}; INSERT INTO orders VALUES (1); COMMIT")

    [record] = recording.equal_events(rules=rules(MARKED))

    assert (record["skip"]["by"], record["skip"]["application"]) == ("nobody", None)


@pytest.fixture
def origin(database15: str) -> Iterator[str]:
    name = f"bulk_{ask(database15, 'SELECT current_database()')}"
    run(database15, f"SELECT pg_replication_origin_create('{name}')")
    yield name
    run(database15, f"SELECT pg_replication_origin_drop('{name}')")


def test_an_origin_is_skipped_by_its_name(recording: Recording, origin: str) -> None:
    recording.run(
        f"SELECT pg_replication_origin_session_setup('{origin}'); {FILL.format(1, 30)}",
        "SELECT pg_replication_origin_session_reset(); INSERT INTO orders VALUES (1000, 'an order')",
    )

    record, order = recording.equal_events(rules=rules(f'[[skip]]\nname = "bulk"\norigin = "{origin}"'))

    assert order["new"]["id"] == 1000
    assert (record["skip"]["rule"], record["tx"]["origin"]) == ("bulk", origin)
    assert counted([record]) == {"orders": {"insert": 30}}


LARGE = '[[skip]]\nname = "large"\nrows = 50\naction = "{}"\n'


def large(recording: Recording) -> None:
    """Two transactions: one that a rule lets pass, and one of a row too many."""
    recording.run(FILL.format(1, 50), FILL.format(101, 151))


def test_a_large_transaction_is_dropped_whole(recording: Recording) -> None:
    large(recording)

    events = recording.equal_events(rules=rules(LARGE.format("drop")))

    assert ids(events) == list(range(1, 51))
    assert counted(events) == {"orders": {"insert": 51}}


def test_a_large_transaction_that_is_to_be_published_is(recording: Recording) -> None:
    large(recording)

    assert recording.equal_events(rules=rules(LARGE.format("publish"))) == recording.equal_events()


def test_a_large_transaction_is_summarised_by_table(recording: Recording) -> None:
    recording.run("ALTER TABLE orders REPLICA IDENTITY FULL")
    recording.run(
        FILL.format(1, 60) + "; UPDATE orders SET note = 'new' WHERE id BETWEEN 10 AND 20;"
        "INSERT INTO items VALUES (7)"
    )

    record, items, orders = sorted(
        recording.equal_events(rules=rules(LARGE.format("summarise"))), key=lambda event: event["table"] or ""
    )

    assert counted([record]) == {"orders": {"insert": 60, "update": 11}, "items": {"insert": 1}}
    assert orders["summary"] == {
        "operations": {"insert": 60, "update": 11},
        "first": {"id": 1},
        "last": {"id": 60},
        "columns": ["note"],
    }
    assert items["summary"] == {"operations": {"insert": 1}, "first": {"id": 7}, "last": {"id": 7}, "columns": []}


def test_the_slow_lane_has_every_event_of_the_transaction_under_its_own_key(recording: Recording) -> None:
    large(recording)
    slow = rules(LARGE.format("slow-lane") + 'exchange = "slow"\nrouting_key = "slow.{table}"\n')

    assert recording.equal_events(rules=slow) == recording.equal_events()
    addresses = [(each.address.exchange, each.address.topic) for each in recording.envelopes("wal2json", rules=slow)]
    assert addresses == [("", "public.orders.insert")] * 50 + [("slow", "slow.orders")] * 51


EVERY_ACTION = ["drop", "summarise", "publish"]


@pytest.mark.parametrize("plugin", BOTH)
@pytest.mark.parametrize("action", EVERY_ACTION)
def test_a_redelivery_is_the_same_in_every_byte(recording: Recording, plugin: str, action: str) -> None:
    large(recording)
    recording.run("BEGIN; SELECT pgevents.skip('backfill');" + FILL.format(201, 210) + "; COMMIT")
    both = rules(MARKED + LARGE.format(action))

    assert recording.envelopes(plugin, rules=both) == recording.envelopes(plugin, rules=both, batch_events=7)


def test_where_two_rules_fit_the_one_that_is_known_first_decides(recording: Recording, origin: str) -> None:
    both = f'{LARGE.format("drop")}\n{MARKED}\n[[skip]]\nname = "bulk"\norigin = "{origin}"\n'
    mark = "SELECT pgevents.skip('backfill')"
    setup = f"SELECT pg_replication_origin_session_setup('{origin}')"
    recording.run(
        f"{setup}; BEGIN; {mark}; {FILL.format(1, 60)}; COMMIT; SELECT pg_replication_origin_session_reset()",
        f"BEGIN; {mark}; {FILL.format(101, 160)}; COMMIT",
        FILL.format(201, 260),
    )

    events = recording.equal_events(rules=rules(both))

    assert [event["skip"]["rule"] for event in events] == ["bulk", "migrations", "large"]


def test_a_transaction_too_wide_for_the_look_ahead_is_published_and_reported(
    recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    large(recording)

    events = recording.equal_events(rules=rules(LARGE.format("drop")), look_ahead_bytes=5_000)

    assert len(events) == 101
    assert sum("outgrew the look-ahead" in message for message in caplog.messages) >= len(BOTH)


def test_each_skip_is_a_line_in_the_log(recording: Recording, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    recording.run("BEGIN; SELECT pgevents.skip('backfill');" + FILL.format(1, 10) + "; COMMIT")

    recording.events("pgoutput", rules=rules(MARKED))

    [line] = [each.__dict__ for each in caplog.records if each.message == "transaction skipped"]
    assert (line["rule"], line["reason"], line["by"]) == ("migrations", "backfill", "postgres")
    assert line["rows"] == {"public.orders insert": 10}


FILE = "pgevents-{}.skips.json"


@pytest.fixture(params=BOTH)
def shop(database15: str, request: pytest.FixtureRequest) -> Shop:
    shop = Shop(database15, plugin=request.param)
    run(database15, MIGRATION, TABLES[1])
    return shop


def streamed(folder: Path, shop: Shop, *more: str) -> list[Json]:
    """What a stream up to now adds to the file."""
    sink = folder / "events.ndjson"
    before = len(stored(sink))
    outcome = pgevents(
        folder,
        "stream",
        *shop.options,
        "--publication",
        "pgevents",
        "--sink",
        f"file:{sink}",
        "--until-lsn",
        "now",
        *more,
    )
    assert outcome.code == 0, outcome.stderr
    return stored(sink)[before:]


def transaction(dsn: str, *statements: str) -> int:
    """Run in one transaction; its xid."""
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        for each in statements:
            cursor.execute(each)
        cursor.execute("SELECT pg_current_xact_id()::xid::text")
        row = cursor.fetchone()
        assert row
        return int(row[0])


def window(folder: Path, shop: Shop, *arguments: str) -> str:
    outcome = pgevents(folder, "skip", "add", "--slot", shop.slot, "--reason", "flood", *arguments)
    assert outcome.code == 0, outcome.stderr
    return outcome.stdout.strip()


def test_a_stream_does_not_begin_with_windows_that_it_cannot_read(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / FILE.format(shop.slot)).write_text("x")

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", "null:", "--until-lsn", "now")

    outcome.refused(4, error="does not hold windows", hint="Restore the file")


@pytest.mark.parametrize("action", ["drop", "summarise"])
def test_a_window_by_xid_skips_that_transaction_alone(shop: Shop, tmp_path: Path, action: str) -> None:
    shop.add(1)
    xid = transaction(shop.dsn, FILL.format(10, 40))
    shop.add(2)

    name = window(tmp_path, shop, "--xid", str(xid), "--action", action)
    events = streamed(tmp_path, shop)

    assert ids(events) == [1, 2]
    assert counted(events) == {"orders": {"insert": 31}}
    [record] = [event for event in events if event["op"] == "skip"]
    assert (record["skip"]["rule"], record["skip"]["reason"], record["tx"]["xid"]) == (name, "flood", xid)


def test_a_window_by_commit_lsn_skips_what_was_committed_there(shop: Shop, tmp_path: Path) -> None:
    shop.add(1, 2, 3)
    looked_at = pgevents(tmp_path, "stream", *shop.options, "--sink", "stdout:", "--dry-run", "--until-lsn", "now")

    window(tmp_path, shop, "--lsn", looked_at.events[1]["tx"]["lsn"])
    events = streamed(tmp_path, shop)

    assert ids(events) == [1, 3]
    assert counted(events) == {"orders": {"insert": 1}}


def test_a_window_by_time_skips_what_was_committed_then(shop: Shop, tmp_path: Path) -> None:
    shop.add(1)
    since = datetime.now(UTC).isoformat()
    shop.add(2)
    until = datetime.now(UTC).isoformat()
    shop.add(3)

    window(tmp_path, shop, "--since", since, "--until", until)

    assert ids(streamed(tmp_path, shop)) == [1, 3]


def test_a_window_that_is_removed_skips_no_more(shop: Shop, tmp_path: Path) -> None:
    name = window(tmp_path, shop, "--since", "2026-01-01T00:00Z")
    shop.add(1)
    assert ids(streamed(tmp_path, shop)) == []

    assert pgevents(tmp_path, "skip", "remove", name, "--slot", shop.slot).code == 0
    shop.add(2)

    assert ids(streamed(tmp_path, shop)) == [2]


def test_what_is_parked_stands_in_the_park_file_and_is_published_nowhere(shop: Shop, tmp_path: Path) -> None:
    shop.add(1)
    transaction(shop.dsn, FILL.format(10, 40))
    (tmp_path / "pgevents.toml").write_text(LARGE.replace("50", "20").format("park"))

    events = streamed(tmp_path, shop)

    assert ids(events) == [1]
    assert counted(events) == {"orders": {"insert": 31}}
    parked = stored(tmp_path / "pgevents-parked.ndjson")
    assert [line["detail"] for line in parked] == ["skip rule large"] * 31


def test_the_slot_moves_on_past_a_skipped_transaction(shop: Shop, tmp_path: Path) -> None:
    transaction(shop.dsn, "SELECT pgevents.skip('backfill')", FILL.format(1, 2000))
    written = shop.lsn

    [record] = streamed(tmp_path, shop, "--skip-marked")

    assert shop.confirmed >= written > Lsn.parse(record["tx"]["lsn"])
    assert streamed(tmp_path, shop, "--skip-marked") == []


@contextmanager
def slow(folder: Path, shop: Shop, *more: str) -> Iterator[tuple[Command, IO[bytes]]]:
    """A stream into a pipe, and the end from which it is read: what is not read holds it up."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    small = ("--batch-events", "50", "--window", "2")
    with (
        Command(folder, "stream", *shop.options, "--sink", f"file:{pipe}", *small, *more) as stream,
        pipe.open("rb") as end,
    ):
        yield stream.ready(), end


ROWS = 60_000


@pytest.mark.parametrize("lane", ["", "slow"])
def test_a_window_that_is_added_in_mid_transaction_skips_the_rest_of_it(
    shop: Shop, tmp_path: Path, lane: str
) -> None:
    if lane:
        rule = LARGE.format("slow-lane") + f'routing_key = "{lane}"\n'
        (tmp_path / "pgevents.toml").write_text(rule)
    with slow(tmp_path, shop) as (stream, end):
        xid = transaction(shop.dsn, FILL.format(1, ROWS))
        lines = [end.readline() for _ in range(10)]

        window(tmp_path, shop, "--xid", str(xid))
        added = time.monotonic()
        stream.says("skip windows taken up")
        took_s = time.monotonic() - added
        shop.add(ROWS + 1)
        while b'"op":"skip"' not in lines[-1]:
            lines.append(end.readline())
        lines.append(end.readline())

        assert stream.stopped().code == 0

    *events, record, order = streamed_lines(lines)
    assert ids(events) == list(range(1, len(events) + 1))
    assert record["skip"]["from_seq"] - 1 == len(events) < ROWS
    assert len(events) + counted([record])["orders"]["insert"] == ask(shop.dsn, "SELECT count(*) - 1 FROM orders")
    assert order["new"]["id"] == ROWS + 1
    assert took_s < TAKE_UP_S


def streamed_lines(lines: Sequence[bytes]) -> list[Json]:
    return [json.loads(line) for line in lines]


def test_a_kill_in_the_middle_of_a_skipped_transaction_loses_nothing(shop: Shop, tmp_path: Path) -> None:
    """Of each pair of rows one is skipped and one published, so that the pipe holds the stream up inside of them."""
    pair = "INSERT INTO orders VALUES (n, 'x'); INSERT INTO items VALUES (n);"
    pairs = f"DO $$ BEGIN FOR n IN 1..3000 LOOP {pair} END LOOP; END $$"
    with slow(tmp_path, shop, "--skip-marked") as (stream, end):
        transaction(shop.dsn, "SELECT pgevents.skip('backfill', '{orders}')", pairs)
        shop.add(9001)
        first = [end.readline() for _ in range(10)]
        stream.stopped(KILL)

    again = streamed(tmp_path, shop, "--skip-marked")

    assert ids(again) == [*range(1, 3001), 9001]
    assert again[:10] == streamed_lines(first)
    assert counted(again) == {"orders": {"insert": 3000}}
    assert streamed(tmp_path, shop, "--skip-marked") == []


def test_a_record_that_was_published_and_not_acknowledged_comes_again_with_its_id(shop: Shop, tmp_path: Path) -> None:
    with slow(tmp_path, shop, "--skip-marked", "--state", "none") as (stream, end):
        transaction(shop.dsn, "SELECT pgevents.skip('backfill')", FILL.format(1, 5000))
        [record] = streamed_lines([end.readline()])
        stream.stopped(KILL)

    assert streamed(tmp_path, shop, "--skip-marked", "--state", "none") in ([], [record])


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", blocks("toml"))
def test_every_rule_on_the_page_is_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "pgevents.toml").write_text(text)

    assert rules(text).skip
    assert pgevents(tmp_path, "skip", "list").code == 0


def test_the_commands_on_the_page_run(tmp_path: Path) -> None:
    add, listed, remove = (shlex.split(line)[1:] for line in blocks("sh")[0].splitlines())
    shown = remove.pop()

    name = pgevents(tmp_path, *add).stdout.strip()

    assert re.fullmatch("window-[0-9a-f]{4}", shown)
    assert name in pgevents(tmp_path, *listed).stdout
    assert pgevents(tmp_path, *remove, name).code == 0


def test_an_origin_is_set_up_as_the_page_says(recording: Recording, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: recording.run("SELECT pg_replication_origin_drop('bulk')"))
    plain, pushed = [text for text in blocks("toml") if "origin" in text]

    recording.run(f"{blocks('sql')[1]} {FILL.format(1, 30)}")

    assert counted(recording.equal_events(rules=rules(plain))) == {"orders": {"insert": 30}}
    assert recording.events("wal2json", rules=rules(pushed)) == []


def test_when_an_origin_committed_is_what_its_session_says(recording: Recording, origin: str) -> None:
    began = timestamp(datetime.now(UTC))
    recording.run(
        f"SELECT pg_replication_origin_session_setup('{origin}'); INSERT INTO orders VALUES (1, 'an order')",
        "INSERT INTO orders VALUES (2, 'an order')",
        "SELECT pg_replication_origin_xact_setup('0/0', clock_timestamp());INSERT INTO orders VALUES (3, 'an order')",
    )

    unsaid, stale, said = [event["tx"]["committed_at"] for event in recording.equal_events()]

    assert unsaid == "2000-01-01T00:00:00.000000Z"
    assert began < stale < said < timestamp(datetime.now(UTC))


def test_the_record_on_the_page_is_an_event() -> None:
    [record] = blocks("json")

    check(record.encode())


def test_an_origin_that_is_pushed_down_leaves_nothing_at_all(recording: Recording, origin: str) -> None:
    rule = f'[[skip]]\norigin = "{origin}"\npush_down = true\n'
    recording.run(
        f"SELECT pg_replication_origin_session_setup('{origin}'); {FILL.format(1, 30)}",
        "SELECT pg_replication_origin_session_reset(); INSERT INTO orders VALUES (1000, 'an order')",
    )

    pushed = recording.events("wal2json", rules=rules(rule))

    assert [event["op"] for event in pushed] == ["insert"]
    assert [event["op"] for event in recording.events("pgoutput", rules=rules(rule))] == ["skip", "insert"]
