"""What the rules make of transactions: the same as the stream makes of them, and said with every reason."""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.codec.native import NativeCodec
from pgevents.decoder.pgoutput import PgoutputDecoder
from pgevents.errors import ConfigError
from pgevents.event import Envelope
from pgevents.explain.change import Outcome
from pgevents.explain.explanation import Explainer
from pgevents.explain.recording import Excerpt, Head, excerpt_of, lines_of
from pgevents.explain.verdict import TransactionVerdict
from pgevents.explain_command import explain
from pgevents.filters import TableFilter
from pgevents.gate import Gate
from pgevents.lsn import NOWHERE, Lsn
from pgevents.mark import PREFIX
from pgevents.routing import RoutingKey
from pgevents.rule import Action, SkipRule
from pgevents.rules import parse_rules
from pgevents.settings import Settings
from pgevents.shape import Shape
from pgevents.sift import Sift
from pgevents.skip import Rulebook
from pgevents.tally import Counts
from pgevents.testing import (
    INT4_OID,
    TEXT_OID,
    MemoryCatalog,
    begin,
    commit,
    delete,
    insert,
    logical_message,
    relation,
    truncate,
    update,
)
from pgevents.wal import Column, PgType, RawMessage, TableFacts

HEAD = Head("pgoutput", "7-1", "shop")
ORDERS, AUDIT, DOMAIN_OID = 1, 2, 99_999
TABLES = (
    relation(ORDERS, "orders", [("id", INT4_OID, True), ("total", INT4_OID, False), ("note", TEXT_OID, False)]),
    relation(AUDIT, "audit", [("id", INT4_OID, True)]),
)
MARKED = SkipRule("migrations", marked=True)


def order(number: int, total: int = 5) -> bytes:
    return insert(ORDERS, [str(number), str(total), "secret"])


def entry(number: int) -> bytes:
    return insert(AUDIT, [str(number)])


def mark(reason: str = "backfill") -> bytes:
    content = {"v": 1, "reason": reason, "tables": None, "by": "deploy", "application": "psql"}
    return logical_message(9, PREFIX, json.dumps(content).encode())


def transaction(*changes: bytes, xid: int = 812, lsn: int = 100) -> list[bytes]:
    return [begin(lsn, xid=xid), *TABLES, *changes, commit(lsn, lsn + 10)]


def excerpt(*payloads: bytes, catalog: MemoryCatalog | None = None) -> Excerpt:
    return Excerpt(HEAD, catalog or MemoryCatalog(), (RawMessage(1, payload) for payload in payloads))


def settings(toml: str = "", *, skip: Sequence[SkipRule] = (), **values: Any) -> Settings:
    rules = parse_rules(tomllib.loads(toml), "shop.toml")
    return Settings(rules=type(rules)((*rules.skip, *skip), rules.filter, rules.columns, rules.route), **values)


def explained(
    payloads: Sequence[bytes], given: Settings | None = None, *, limit: int = 1000, **options: Any
) -> list[TransactionVerdict]:
    return list(Explainer(given or Settings(), excerpt(*payloads), limit=limit, **options).transactions())


def test_a_published_change_has_its_number_key_route_and_bytes() -> None:
    [verdict] = explained(transaction(order(42)), exchange="shop")

    [change] = verdict.changes
    assert str(change).startswith('    1 insert public.orders {"id":42} → shop/public.orders.insert (native, ')
    assert change.where is not None
    assert verdict.bytes == change.where.bytes > 100
    assert verdict.lines()[0] == (
        f"xid 812  commit 0/64  2000-01-01T00:00:00.000000Z  → published: 1 event, {verdict.bytes} bytes"
    )


def test_a_route_and_its_format_are_named() -> None:
    toml = '[[route]]\nname = "vip"\nwhen = "new.total > 100"\nexchange = "fast"\nformat = "debezium"'

    [verdict] = explained(transaction(order(1, 500), order(2, 5)), settings(toml))

    first, second = (change.where for change in verdict.changes)
    assert first is not None
    assert second is not None
    assert (first.route, first.exchange, first.format) == ("vip", "fast", "debezium")
    assert (second.route, second.exchange, second.format) == ("", "", "native")


def test_a_filtered_change_names_the_first_filter_that_takes_it_out() -> None:
    toml = """
    [[filter]]
    name = "no-deletes"
    operations = ["insert", "update", "truncate", "message"]
    [[filter]]
    name = "big-orders"
    tables = ["orders"]
    when = "new.total > 100"
    """

    [verdict] = explained(transaction(order(1), delete(ORDERS, key=["1", None, None]), order(2, 500)), settings(toml))

    assert [(change.outcome, change.rule) for change in verdict.changes] == [
        (Outcome.FILTERED, "big-orders"),
        (Outcome.FILTERED, "no-deletes"),
        (Outcome.PUBLISHED, ""),
    ]
    assert "  1 filtered by big-orders, 1 filtered by no-deletes" in verdict.lines()
    assert str(verdict.changes[0]) == "    1 insert public.orders → filtered by big-orders"


def test_a_filtered_message_names_its_filter() -> None:
    toml = '[[filter]]\nname = "rows"\ntables = ["_.*"]\noperations = ["insert"]'

    [verdict] = explained(transaction(logical_message(9, "audit", b"x")), settings(toml))

    assert str(verdict.changes[0]) == "    1 message audit → filtered by rows"


def test_a_masked_key_is_shown_hashed() -> None:
    toml = '[[columns]]\ntables = ["orders"]\nhash = ["id"]\nexclude = ["note"]'

    [verdict] = explained(transaction(order(42)), settings(toml, hash_key="0123456789abcdef"))

    key = verdict.changes[0].key
    assert key is not None
    assert len(key["id"]) == 64
    assert '"id":42' not in orjson.dumps(verdict.as_dict()).decode()
    assert "secret" not in orjson.dumps(verdict.as_dict()).decode()


def test_tables_that_are_not_streamed_are_counted_with_and_without_skip_rules() -> None:
    payloads = transaction(entry(1), order(1), entry(2))

    for rules in ((), (MARKED,)):
        [verdict] = explained(payloads, settings(skip=rules, tables=("orders",)))

        assert verdict.not_streamed == {"public.audit": 2}
        assert "  not streamed: 2 of public.audit" in verdict.lines()
        assert [change.seq for change in verdict.changes] == [2]


def test_a_marked_transaction_says_who_marked_it_and_how_many_rows_are_gone() -> None:
    [verdict] = explained(transaction(mark(), *map(order, range(1500)), entry(1)), settings(skip=[MARKED]))

    head, record = verdict.lines()
    assert (
        '→ dropped by rule migrations (marked by deploy with psql: "backfill"): 1,500 rows of public.orders, ' in head
    )
    assert "1 row of public.audit from change 2 on; published: 1 event, " in head
    assert record.startswith("    - skip transaction → _.transaction.skipped (native, ")


def test_every_rule_that_matches_is_shown_with_the_one_that_decides() -> None:
    exempt = SkipRule("exempt", Action.PUBLISH, xid=812)
    window = SkipRule("window-3f2a", reason="flood", xid=812)
    rules = [SkipRule("large", rows=2), MARKED, exempt]

    [verdict] = explained(transaction(mark(), *map(order, range(9))), settings(skip=rules), windows=(window,))

    assert verdict.rule == "window-3f2a"
    assert [match.rule for match in verdict.matches] == ["window-3f2a", "exempt", "large", "migrations"]
    assert verdict.lines()[1] == (
        "  would match as well: exempt (publish, window), large (drop, more than 2 rows), "
        "migrations (drop, backfill); window-3f2a was known first"
    )


def test_a_mark_that_comes_too_late_is_said_to_decide_nothing() -> None:
    [verdict] = explained(transaction(*map(order, range(1001)), mark()), settings(skip=[MARKED]), lists_changes=False)

    assert verdict.rule == ""
    assert verdict.lines()[1:] == [
        "  matches too late, and decides nothing: migrations (drop, backfill)",
        "  1 mark came too late, and not obeyed",
        "  1,001 changes not listed",
    ]


def test_a_malformed_mark_is_told() -> None:
    [verdict] = explained(transaction(logical_message(9, PREFIX, b"{}"), order(1)), settings(skip=[MARKED]))

    assert "  1 malformed mark, not obeyed" in verdict.lines()


def test_an_origin_is_shown() -> None:
    origin = b"O" + bytes(8) + b"bulk\0"

    [verdict] = explained([begin(100, xid=5), origin, *TABLES, order(1), commit(100, 110)])

    assert (verdict.origin, verdict.xid) == ("bulk", 5)
    assert "  origin bulk  → " in verdict.lines()[0]


def test_a_slow_lane_and_a_park_are_told() -> None:
    slow = SkipRule("large", Action.SLOW_LANE, rows=1, exchange="slow")
    park = SkipRule("large", Action.PARK, rows=1)

    [lane], [parked] = (explained(transaction(order(1), order(2)), settings(skip=[rule])) for rule in (slow, park))

    assert "→ sent to the slow lane by rule large" in lane.lines()[0]
    assert "→ slow/public.orders.insert" in lane.lines()[1]
    assert [change.outcome for change in parked.changes[:2]] == [Outcome.PARKED, Outcome.PARKED]
    assert "→ parked by large, else " in parked.lines()[1]
    assert parked.events == 1


def test_a_summary_is_an_event_of_each_table() -> None:
    rule = SkipRule("large", Action.SUMMARISE, rows=1)

    [verdict] = explained(transaction(*map(order, range(9)), truncate(AUDIT)), settings(skip=[rule]))

    assert [(change.op, change.table) for change in verdict.changes] == [
        ("skip", "transaction"),
        ("summary", "public.orders"),
        ("summary", "public.audit"),
    ]


def test_a_format_without_a_word_for_it_publishes_nothing() -> None:
    toml = '[[route]]\nformat = "maxwell"\noperations = ["truncate"]'

    [verdict] = explained(transaction(truncate(ORDERS)), settings(toml))

    assert str(verdict.changes[0]).endswith("→ nothing: the format maxwell has no word for it")
    assert "→ nothing is published" in verdict.lines()[0]


UNDECIDED = '[[filter]]\nname = "paid"\ntables = ["orders"]\nwhen = "old.total > 1"'


def unsure(number: int) -> bytes:
    """An update whose old row PostgreSQL did not send."""
    return update(ORDERS, [str(number), "2", "x"], key=[str(number), None, None])


def test_where_a_rule_cannot_decide_the_stream_stops_and_nothing_behind_it_is_explained() -> None:
    changes = [entry(1), order(1), unsure(2), unsure(3), entry(4)]

    *before, verdict = explained(
        [*transaction(entry(7), xid=811), *transaction(*changes, lsn=200), *transaction(entry(8), lsn=300)],
        settings(UNDECIDED),
    )

    assert [each.xid for each in before] == [811]
    head, filtered, _, _, stop, hint = verdict.lines()
    assert head.startswith("xid 812  commit 0/C8  ")
    assert head.endswith(f"→ the stream stops at change 3; published before it: 1 event, {verdict.bytes} bytes")
    assert filtered == "  1 filtered by paid"
    assert re.match("    3 update public.orders → the stream stops here: filter .*paid.* cannot decide", stop)
    assert "xid" not in stop + hint
    assert hint.startswith("          hint: Nothing is lost")
    assert verdict.as_dict()["stops"] is True


def test_a_change_that_stops_the_stream_is_listed_however_few_are() -> None:
    for options in ({"limit": 2}, {"lists_changes": False}):
        [verdict] = explained(
            transaction(entry(1), entry(2), entry(3), unsure(4), entry(5)),
            settings(UNDECIDED),
            **{"limit": 99, **options},
        )

        assert verdict.changes[-1].outcome is Outcome.STOPS
        assert verdict.changes[-1].seq == 4
        assert verdict.lines()[-2].startswith("    4 update public.orders → the stream stops here: ")


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ('[[columns]]\nname = "safe"\ntables = ["orders"]\nmask = ["id"]', "masks? id"),
        ('[[route]]\nname = "vip"\ntables = ["orders"]\nwhen = "old.total > 1"', "vip"),
    ],
)
def test_whichever_rule_stops_the_stream_the_transaction_and_the_change_are_named(toml: str, problem: str) -> None:
    [verdict] = explained(transaction(entry(1), unsure(2), entry(3)), settings(toml))

    assert "the stream stops at change 2" in verdict.lines()[0]
    assert verdict.changes[-1].outcome is Outcome.STOPS
    assert re.search(problem, verdict.changes[-1].problem)


def test_a_message_that_cannot_be_read_is_where_the_stream_stops() -> None:
    payloads = transaction(entry(1), b"?nonsense", entry(2))

    [verdict] = explained(payloads)

    assert "→ the stream stops; published before it: 1 event" in verdict.lines()[0]
    assert verdict.lines()[2].startswith(
        "    - unreadable message → the stream stops here: cannot decode the message '?'"
    )


def test_a_message_that_cannot_be_read_between_transactions_is_of_none() -> None:
    first, last = explained([*transaction(entry(1)), b"?nonsense"])

    assert (first.stops, first.xid) == (0, 812)
    assert last.lines()[0] == "outside any transaction  0/1  → the stream stops; nothing is published before it"


def test_a_window_says_who_added_it() -> None:
    window = SkipRule("window-3f2a", reason="flood", xid=812, by="ops@shop")

    [verdict] = explained(transaction(order(1)), windows=(window,))

    assert '→ dropped by rule window-3f2a (added by ops@shop: "flood"): 1 row' in verdict.lines()[0]


def test_what_was_confirmed_before_is_not_published_again() -> None:
    first, second = explained([*transaction(order(1)), *transaction(order(2), lsn=200)], watermark=Lsn(110))

    assert first.lines()[0].endswith("→ confirmed before, and not published again")
    assert first.events == 0
    assert second.events == 1


def test_a_message_outside_any_transaction_stands_alone() -> None:
    payloads = [logical_message(50, "ping", b"x", transactional=False), *transaction(order(1))]

    alone, other = explained(payloads)

    assert alone.lines()[0].startswith("message outside any transaction  0/32  → published: 1 event, ")
    assert other.xid == 812


def test_transactions_without_anything_are_left_out() -> None:
    assert explained(transaction()) == []


def test_the_limit_lists_so_many_changes_and_ends_with_a_transaction() -> None:
    payloads = [*transaction(*map(order, range(9))), *transaction(order(1), lsn=200)]
    explainer = Explainer(Settings(), excerpt(*payloads), limit=5)

    [verdict] = explainer.transactions()

    assert explainer.is_cut
    assert (len(verdict.changes), verdict.unlisted, verdict.events) == (5, 4, 9)
    assert verdict.lines()[-1] == "  4 changes not listed"


def test_a_line_break_in_a_name_makes_no_second_line() -> None:
    table = relation(3, "a\nb", [("id", INT4_OID, True)])

    [verdict] = explained([begin(100), table, insert(3, ["1"]), commit(100, 110)])

    assert all("\n" not in line for line in verdict.lines())


# Recordings


def recorded(*payloads: bytes, catalog: MemoryCatalog | None = None) -> bytes:
    return b"".join(lines_of(excerpt(*payloads, catalog=catalog)))


def test_a_recording_is_explained_as_what_was_recorded() -> None:
    payloads = transaction(mark(), order(1), update(ORDERS, ["1", "2", "x"]), entry(1))
    rules = settings('[[filter]]\ntables = ["orders"]\nwhen = "new.total > 3"', skip=[SkipRule("large", rows=9)])
    file = recorded(*payloads)

    replayed = Explainer(rules, excerpt_of(file.splitlines(), name="x"), limit=100).transactions()

    assert [verdict.as_dict() for verdict in replayed] == [each.as_dict() for each in explained(payloads, rules)]


def test_a_recording_holds_what_the_catalog_said() -> None:
    catalog = MemoryCatalog(
        {DOMAIN_OID: PgType(base=INT4_OID)},
        {("public", "t"): TableFacts((Column("id", DOMAIN_OID),), frozenset(), "f", ("id",), ())},
    )
    table = relation(3, "t", [("id", DOMAIN_OID, True)], identity="f")
    payloads = [begin(100), table, insert(3, ["7"]), commit(100, 110)]
    rules = settings('[[filter]]\nwhen = "new.id > 5"')

    again = excerpt_of(recorded(*payloads, catalog=catalog).splitlines(), name="x")
    [verdict] = Explainer(rules, again, limit=9).transactions()

    assert verdict.changes[0].key == {"id": 7}
    assert again.catalog.table("public", "t") == catalog.table("public", "t")


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (b"", 1),
        (b"hello", 1),
        (b"[]", 1),
        (b'{"recording":1}', 1),
        (recorded(*transaction(order(1)))[:-20], 8),
        (recorded() + b'{"catalog":"weather","of":1,"is":2}', 2),
        (recorded() + b'{"lsn":"0/1","payload":"*"}', 2),
    ],
)
def test_a_damaged_recording_is_named_with_its_line(file: bytes, line: int) -> None:
    with pytest.raises(ConfigError, match=f"rec is not a recording, or was cut off: line {line} cannot be read"):
        list(Explainer(Settings(), excerpt_of(file.splitlines(), name="rec"), limit=9).transactions())


def test_a_recording_of_another_version_says_so() -> None:
    with pytest.raises(ConfigError, match="another version than 1"):
        excerpt_of([b'{"recording":2}'], name="rec")


# The command


class Running:
    """``pgevents explain`` of a recording, in a folder of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config, self.file, self._capsys = folder / "shop.toml", folder / "recorded.ndjson", capsys
        self.file.write_bytes(recorded(*transaction(order(1), order(2))))

    def __call__(self, *arguments: str, toml: str = "", file: Path | None = None) -> tuple[int, str]:
        self.config.write_text(toml)
        given = ["--config", str(self.config), "--file", str(file or self.file), *arguments]
        code = explain.main(given, standalone_mode=False)
        return code, self._capsys.readouterr().out


@pytest.fixture
def running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Running:
    return Running(tmp_path, capsys)


def test_the_command_prints_a_block_for_each_transaction(running: Running) -> None:
    code, shown = running("--sink", "amqp://guest:guest@localhost/?exchange=shop")

    assert code == 0
    assert [line.partition(" (")[0] for line in shown.splitlines()[1:]] == [
        '    1 insert public.orders {"id":1} → shop/public.orders.insert',
        '    2 insert public.orders {"id":2} → shop/public.orders.insert',
    ]


def test_the_command_prints_an_object_for_each_transaction(running: Running) -> None:
    _, shown = running("--json", "--no-changes")

    [document] = map(json.loads, shown.splitlines())
    assert (document["xid"], document["events"], document["changes"], document["unlisted"]) == (812, 2, [], 2)


def test_the_command_obeys_the_windows_of_the_slot(running: Running, tmp_path: Path) -> None:
    from pgevents.window_file import WindowFile

    WindowFile(tmp_path / "pgevents-pgevents.skips.json").add(
        SkipRule("", reason="flood", first=Lsn(1), last=Lsn(100))
    )

    _, shown = running()

    assert "→ dropped by rule window-" in shown


def test_the_command_ends_with_1_where_the_stream_would_stop(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = running(toml='[[filter]]\nwhen = "new.missing > 1"')

    assert code == 1
    assert shown.count("→ the stream stops here") == 1


def test_in_json_a_stop_is_said_with_its_hint(running: Running) -> None:
    code, shown = running("--json", "--no-changes", toml='[[filter]]\nwhen = "new.missing > 1"')

    [document] = map(json.loads, shown.splitlines())
    [change] = document["changes"]
    assert code == 1
    assert document["stops"] is True
    assert (change["seq"], change["verdict"]) == (1, "stops")
    assert change["hint"].startswith("Nothing is lost")


def test_windows_in_a_table_are_left_aside_for_a_recording(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--file", str(running.file), "--state", "postgres", "--dsn", "host=127.0.0.1 port=1"]

    assert explain.main(arguments, standalone_mode=False) == 0

    assert "The windows in table pgevents.skip_window are left aside" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_a_usage_error(running: Running, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere: No such file"):
        running(file=tmp_path / "nowhere")


def test_a_recording_is_not_recorded_again(running: Running) -> None:
    with pytest.raises(click.UsageError, match="is a recording already"):
        running("--record", "again.ndjson")


# The same as the stream

CHANGE = st.sampled_from(["order", "big", "entry", "mark", "truncate", "message"])


@given(st.lists(st.lists(CHANGE, max_size=8), max_size=4), st.integers(1, 5), st.integers(0, 400))
def test_what_is_explained_is_what_is_published(plans: list[list[str]], rows: int, watermark: int) -> None:
    made = {
        "order": order(1),
        "big": order(2, 500),
        "entry": entry(1),
        "mark": mark(),
        "truncate": truncate(ORDERS, AUDIT),
        "message": logical_message(9, "ping", b"x"),
    }
    payloads = [
        payload
        for at, plan in enumerate(plans)
        for payload in transaction(*(made[name] for name in plan), lsn=100 * (at + 1))
    ]
    start = Lsn(watermark // 100 * 100 + 10) if watermark >= 100 else NOWHERE
    rules = settings(
        '[[filter]]\ntables = ["orders"]\nwhen = "new.total > 100"', skip=[MARKED, SkipRule("large", rows=rows)]
    )

    verdicts = explained(payloads, rules, watermark=start)

    stream = published(payloads, rules, start)
    assert sum(verdict.events for verdict in verdicts) == len(stream)
    assert sum(verdict.bytes for verdict in verdicts) == sum(len(each.body) for each in stream)


def published(payloads: Sequence[bytes], given: Settings, start: Lsn) -> list[Envelope]:
    """As Pipeline does it, without a sink."""
    sift = Sift(Rulebook(given.rules.skip), keep=TableFilter(), counts=Counts())
    gate, decoder = Gate("7-1", start, sift=sift), PgoutputDecoder(MemoryCatalog())
    shape = Shape(TableFilter(), RoutingKey(), NativeCodec(), rules=given.rules)
    found: list[Envelope] = []
    for payload in payloads:
        message = RawMessage(1, payload)
        if gate.skims and (outline := decoder.skim(message)) and gate.passes_over(outline):
            continue
        if item := decoder.decode(message):
            found += [each for numbered in gate.admit(item) for each in shape(numbered)]
    return found
