"""``pgevents explain`` against real slots: what it says is what a stream would do, and nothing is consumed."""

import asyncio
import json
import os
import signal
import threading
import tomllib
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from pgevents.assembly import pipeline_of
from pgevents.demo.process import eventually
from pgevents.errors import PGEventsError, SlotInUse, SlotMissing
from pgevents.event import Envelope
from pgevents.explain.explanation import Explainer
from pgevents.explain.peek import peek, rows
from pgevents.explain.recording import excerpt_of, lines_of
from pgevents.explain.verdict import TransactionVerdict
from pgevents.explain_command import explain
from pgevents.pipeline import Progress
from pgevents.rules import parse_rules
from pgevents.session import open_stream
from pgevents.settings import Settings
from pgevents.slot import status
from pgevents.source.connection import connect_session
from pgevents.streaming import resolve_lsn
from tests.integration.command import Command, Shop, pgevents
from tests.integration.streaming import BOTH, DEADLINE_S, CollectingSink, Recording, ask, run

SKIP = Path(__file__).parents[2] / "migrations" / "0002_skip.sql"

TABLES = """
create domain amount as numeric(12, 2);
create table orders (id int primary key, total amount, note text);
create type state as enum ('open', 'closed');
create table wide (id bigint primary key, document jsonb, at timestamptz default '2026-11-20 18:00+00',
    state state default 'open');
alter table wide replica identity full
"""

MARKED = """
begin;
select pgevents.skip('backfill');
insert into orders select n, 500, 'x' from generate_series(10, 30) n;
commit
"""

WIDE = """
begin;
insert into wide values (1, '{"a": 1.50}');
update wide set document = '{}';
delete from wide;
commit
"""

CHANGES = (
    "insert into orders values (1, 100.50, 'secret'), (2, 100.51, 'secret')",
    MARKED,
    "insert into orders select n, 500, 'x' from generate_series(100, 200) n",
    WIDE,
    "select pg_logical_emit_message(false, 'ping', 'x')",
    "truncate orders, wide",
)

RULES = """
[[skip]]
name = "migrations"
marked = true
[[skip]]
name = "large"
rows = 50
action = "summarise"
[[filter]]
name = "big-orders"
tables = ["orders"]
operations = ["insert", "truncate"]
when = "new.total > 100.5"
[[filter]]
name = "open"
tables = ["wide"]
when = "new.state = 'open' OR old.state = 'open'"
[[columns]]
tables = ["orders"]
mask = ["note"]
[[route]]
name = "vip"
tables = ["wide"]
operations = ["insert", "update", "delete"]
format = "debezium"
routing_key = "vip.{table}"
"""


@pytest.fixture
def recording(database15: str) -> Recording:
    run(database15, SKIP.read_text(), TABLES)
    made = Recording(database15)
    made.run(*CHANGES)
    return made


def settings() -> Settings:
    return Settings(rules=parse_rules(tomllib.loads(RULES), "shop.toml"))


def verdicts(recording: Recording, plugin: str, *, limit: int = 1000) -> list[TransactionVerdict]:
    slot, name = recording.slot(plugin), recording.publication
    with peek(recording.role_dsn, slot=slot, plugin="auto", publication=name, limit=limit) as excerpt:
        return list(Explainer(settings(), excerpt, limit=limit).transactions())


async def streamed(recording: Recording, plugin: str) -> list[Envelope]:
    sink, slot = CollectingSink(), recording.slot(plugin)
    until = resolve_lsn(recording.role_dsn, "now")
    opened = await open_stream(
        recording.role_dsn, slot=slot, plugin=plugin, publication=recording.publication, read_only=True
    )
    try:
        pipeline = pipeline_of(settings(), opened, sink, Progress(), until=until)
        await asyncio.wait_for(pipeline.run(asyncio.Event()), DEADLINE_S)
    finally:
        await opened.close()
    return sink.envelopes


@pytest.mark.parametrize("plugin", BOTH)
def test_what_is_explained_is_what_is_published(recording: Recording, plugin: str) -> None:
    explained = verdicts(recording, plugin)

    published = asyncio.run(streamed(recording, plugin))
    where = [change.where for each in explained for change in each.changes if change.where]
    assert [(each.routing_key, each.bytes) for each in where] == [
        (each.address.topic, len(each.body)) for each in published
    ]
    assert sum(each.events for each in explained) == len(published)


def test_both_plugins_are_explained_the_same(recording: Recording) -> None:
    first, second = (
        [each.as_dict() for each in verdicts(recording, plugin) if each.rows or each.changes] for plugin in BOTH
    )

    assert first == second


def test_each_transaction_says_what_becomes_of_it(recording: Recording) -> None:
    small, marked, large, wide, ping, truncated = verdicts(recording, "pgoutput")

    assert [str(change).partition(" (")[0] for change in small.changes] == [
        "    1 insert public.orders → filtered by big-orders",
        '    2 insert public.orders {"id":2} → public.orders.insert',
    ]
    assert "→ dropped by rule migrations (marked by postgres" in marked.lines()[0].replace(marked.by, "postgres")
    assert "21 rows of public.orders from change 2 on" in marked.lines()[0]
    assert "→ summarised by rule large" in large.lines()[0]
    assert [change.where.route for change in wide.changes if change.where] == ["vip", "vip", "vip"]
    assert ping.xid is None
    assert [change.op for change in truncated.changes] == ["truncate", "truncate"]
    assert "secret" not in json.dumps([each.as_dict() for each in (small, marked, large)])


def test_looking_twice_sees_the_same_and_moves_nothing(recording: Recording) -> None:
    slot = recording.slot("wal2json")
    before = status(recording.dsn, slot).confirmed_flush_lsn

    first, second = verdicts(recording, "wal2json"), verdicts(recording, "wal2json")

    assert [each.as_dict() for each in first] == [each.as_dict() for each in second]
    assert status(recording.dsn, slot).confirmed_flush_lsn == before


@pytest.mark.parametrize("plugin", BOTH)
def test_a_recording_needs_no_server(recording: Recording, plugin: str) -> None:
    with peek(
        recording.role_dsn, slot=recording.slot(plugin), plugin=plugin, publication="pgevents", limit=1000
    ) as excerpt:
        lines = list(lines_of(excerpt))
    expected = [each.as_dict() for each in verdicts(recording, plugin)]
    recording.run("drop table orders, wide; drop domain amount; drop type state")

    replayed = Explainer(settings(), excerpt_of(lines, name="x"), limit=1000).transactions()

    assert [each.as_dict() for each in replayed] == expected


def test_the_limit_ends_with_a_transaction(recording: Recording) -> None:
    explained = verdicts(recording, "wal2json", limit=2)

    [first] = explained
    assert [change.seq for change in first.changes] == [1, 2]


def test_a_large_transaction_is_not_held(recording: Recording) -> None:
    recording.run("insert into wide select n, '{}' from generate_series(1, 60000) n")

    tracemalloc.start()
    *_, large = verdicts(recording, "pgoutput")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert sum(large.rows.values()) == 60_000
    assert peak < 8 * 2**20


def test_a_slot_that_is_read_cannot_be_looked_at(database15: str, tmp_path: Path) -> None:
    shop = Shop(database15)

    with Command(tmp_path, "stream", *shop.options, "--sink", "null:") as stream:
        stream.ready()
        with pytest.raises(SlotInUse, match=r"is being read by a stream") as caught:
            look(shop)
        stream.stopped()

    assert "--file" in caught.value.hint


def look(shop: Shop, slot: str = "") -> None:
    with peek(shop.role_dsn, slot=slot or shop.slot, plugin="auto", publication="pgevents", limit=1):
        pass


def test_a_slot_that_is_not_there_is_named(database15: str) -> None:
    with pytest.raises(SlotMissing, match="there is no replication slot nowhere"):
        look(Shop(database15), "nowhere")


def test_a_publication_that_is_not_there_is_refused(recording: Recording) -> None:
    with (
        pytest.raises(PGEventsError, match="publication") as caught,
        peek(recording.role_dsn, slot=recording.slot("pgoutput"), plugin="auto", publication="gone", limit=9),
    ):
        pass

    assert caught.value.exit_code == 4


def test_an_interrupt_cancels_what_the_server_does(database15: str) -> None:
    with closing(connect_session(database15).connection) as connection:
        pid, asleep = connection.info.backend_pid, threading.Event()

        def interrupt() -> None:
            eventually(lambda: activity(database15, pid) == "active", deadline_s=DEADLINE_S)
            asleep.set()
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            rows(connection, "select pg_sleep(600)")

        assert asleep.is_set()
        eventually(lambda: activity(database15, pid) != "active", deadline_s=DEADLINE_S)


def activity(dsn: str, pid: int) -> str:
    return str(ask(dsn, f"select state from pg_stat_activity where pid = {pid}"))


class Running:
    """``pgevents explain`` of a shop's slot, in a folder of its own."""

    def __init__(self, shop: Shop, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.shop, self.folder, self._capsys = shop, folder, capsys
        (folder / "shop.toml").write_text("")

    def __call__(self, *arguments: str) -> str:
        explain.main(["--config", str(self.folder / "shop.toml"), *arguments], standalone_mode=False)
        return self._capsys.readouterr().out


@pytest.fixture
def running(database15: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Running:
    return Running(Shop(database15), tmp_path, capsys)


def test_a_recording_is_explained_while_it_is_made_and_again_later(running: Running) -> None:
    running.shop.add(1, 2)
    file = running.folder / "monday.ndjson"

    now = running(*running.shop.options, "--record", str(file))
    later = running("--file", str(file))

    assert now == later
    assert now.count("→ public.orders.insert (native, ") == 2
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_recording_replaces_no_file(running: Running) -> None:
    with pytest.raises(PGEventsError, match=r"cannot write .*shop\.toml: File exists"):
        running(*running.shop.options, "--record", str(running.folder / "shop.toml"))


def test_what_a_stream_confirmed_is_told_apart(running: Running) -> None:
    running.shop.add(1)
    state = str(running.folder / "shop.state.json")
    stream = ("stream", *running.shop.options, "--sink", "null:", "--state", state, "--until-lsn", "now")
    with Command(running.folder, *stream) as command:
        assert command.ended().code == 0
    running.shop.add(2)

    shown = running(*running.shop.options, "--state", state)

    assert '{"id":2} → public.orders.insert' in shown
    assert '{"id":1}' not in shown


@pytest.mark.parametrize("command", [("explain",), ("doctor",), ("skip", "list", "--json")], ids=" ".join)
def test_a_device_that_takes_no_more_is_named_and_a_reader_that_has_ended_is_not(
    database15: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    shop = Shop(database15)
    shop.add(*range(1, 101))
    arguments = (*command, *shop.options)

    full = pgevents(tmp_path, *arguments, prefix=["sh", "-c", '"$@" > /dev/full', "sh"])
    read = pgevents(tmp_path, *arguments, prefix=["bash", "-c", '"$@" | head -n 1; exit ${PIPESTATUS[0]}', "bash"])
    gone = pgevents(tmp_path, *arguments, prefix=["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "bash"])

    full.refused(1, error="^cannot write to standard output: No space left on device$", hint="^Send it to where")
    assert len(read.stdout.splitlines()) == 1
    assert gone.code == 1
    assert "error:" not in read.stderr + gone.stderr
    assert "Traceback" not in read.stderr + gone.stderr


def test_what_the_rules_would_log_is_in_the_verdict_alone(database15: str, tmp_path: Path) -> None:
    shop = Shop(database15)
    run(shop.dsn, "INSERT INTO orders SELECT generate_series(1, 30)")

    outcome = pgevents(tmp_path, "explain", *shop.options, "--skip-rows", "20")

    assert "dropped by rule --skip-rows" in outcome.stdout
    assert outcome.stderr == ""
