"""The watermark: nothing comes twice after a clean restart of either side, and no gap goes unnoticed."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from pgevents import slot
from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually
from pgevents.errors import SourceUnavailable
from pgevents.lsn import Lsn
from pgevents.session import open_stream
from pgevents.start import Wish, create_slot
from tests.conftest import _with_wal2json
from tests.integration.command import Command, Outcome, Shop, ids_of, pgevents, stored
from tests.integration.streaming import ask, run

GAP = 3


class Streamed:
    """A shop whose slot was streamed into a file as far as it goes, and the watermark that this left."""

    def __init__(self, dsn: str, folder: Path, *, plugin: str = "wal2json") -> None:
        self.shop = Shop(dsn, plugin=plugin)
        self.folder = folder
        self.state = folder / "state.json"
        self.shop.add(1, 2)
        assert self.stream().code == 0
        self.kept = self.state.read_bytes()

    def stream(self, *more: str, state: str = "state.json", until: str = "now") -> Outcome:
        return pgevents(self.folder, *self.arguments(*more, state=state), "--until-lsn", until)

    def arguments(self, *more: str, state: str = "state.json") -> tuple[str, ...]:
        return ("stream", *self.shop.options, "--sink", "file:events", "--state", state, *more)

    @property
    def ids(self) -> list[int]:
        return ids_of(stored(self.folder / "events"))

    def has(self, order: int) -> bool:
        return order in self.ids

    def refuses(self, error: str) -> None:
        """Exit code 3 with that sentence, and neither slot nor watermark was touched."""
        before = slot_row(self.shop)

        self.stream().refused(GAP, error=error, hint="--accept-gap")

        assert self.state.read_bytes() == self.kept
        assert slot_row(self.shop) == before


def slot_row(shop: Shop) -> Any:
    return ask(
        shop.dsn,
        "SELECT json_agg(json_build_array(slot_name, plugin, restart_lsn, confirmed_flush_lsn, wal_status))::text"
        f" FROM pg_replication_slots WHERE slot_name = '{shop.slot}'",
    )


@pytest.fixture
def streamed(database15: str, tmp_path: Path) -> Streamed:
    return Streamed(database15, tmp_path)


@pytest.fixture
def private(services: Path, tmp_path: Path) -> Iterator[Postgres]:
    folder = services / f"gap-{tmp_path.name}"
    with Postgres(
        folder, binaries=_with_wal2json(), settings={"max_wal_size": "4MB", "min_wal_size": "2MB"}
    ) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


def test_the_watermark_is_where_the_slot_was_acknowledged(streamed: Streamed) -> None:
    watermark = json.loads(streamed.kept)

    assert watermark["slot"] == streamed.shop.slot
    assert watermark["end_lsn"] == str(streamed.shop.confirmed)
    assert watermark["system_id"] == ask(streamed.shop.dsn, "SELECT system_identifier::text FROM pg_control_system()")


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
@pytest.mark.fault("I9")
def test_a_clean_stop_and_start_repeats_nothing(database15: str, tmp_path: Path, plugin: str) -> None:
    streamed = Streamed(database15, tmp_path, plugin=plugin)

    for each in (3, 4, 5):
        with Command(tmp_path, *streamed.arguments()).ready() as command:
            streamed.shop.add(each)
            assert eventually(partial(streamed.has, each), deadline_s=10)
            assert command.stopped().code == 0

    assert streamed.ids == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.fault("F21", "F24", "I9")
def test_a_restart_of_the_server_repeats_nothing(private: Postgres, tmp_path: Path, plugin: str, mode: Any) -> None:
    """PostgreSQL 15 forgets where the slot stood even in a clean restart."""
    streamed = Streamed(private.dsn(), tmp_path, plugin=plugin)
    with Command(tmp_path, *streamed.arguments("--retry-max", "0.3")).ready() as command:
        for each in range(3, 23):
            streamed.shop.add(each)
        assert eventually(lambda: len(streamed.ids) == 22, deadline_s=10)
        assert eventually(lambda: kept_lsn(streamed) == streamed.shop.confirmed, deadline_s=10)

        private.restart(mode)
        command.says("streaming again")
        streamed.shop.add(23)

        assert eventually(lambda: 23 in streamed.ids, deadline_s=10)
        assert command.stopped().code == 0
        assert "it was not published again" in command.stderr
    assert streamed.ids == list(range(1, 24))


def kept_lsn(streamed: Streamed) -> Lsn:
    return Lsn.parse(json.loads(streamed.state.read_bytes())["end_lsn"])


@pytest.mark.fault("F29", "I12", "I13")
def test_a_slot_that_was_dropped_is_a_gap_even_where_it_may_be_created(streamed: Streamed) -> None:
    slot.drop(streamed.shop.dsn, streamed.shop.slot, terminate=False)

    streamed.refuses("is gone.*dropped")
    streamed.stream("--create-slot").refused(GAP, error="is gone", hint="--create-slot --accept-gap")
    pgevents(
        streamed.folder, "slot", "create", *streamed.shop.options, "--plugin", "wal2json", "--state", "state.json"
    ).refused(GAP, error="was dropped", hint="--accept-gap")

    assert slot_row(streamed.shop) is None
    assert streamed.state.read_bytes() == streamed.kept


@pytest.mark.fault("F30", "I12")
def test_a_slot_that_was_dropped_and_created_again_is_a_gap(streamed: Streamed) -> None:
    slot.drop(streamed.shop.dsn, streamed.shop.slot, terminate=False)
    streamed.shop.add(3)
    create_slot(streamed.shop.dsn, Wish(streamed.shop.slot, "wal2json", "pgevents"))

    streamed.refuses("stands at .* acknowledged only up to")


@pytest.mark.fault("F31", "I12")
def test_a_slot_that_was_advanced_is_a_gap(streamed: Streamed) -> None:
    streamed.shop.add(3)
    run(
        streamed.shop.dsn,
        f"SELECT pg_replication_slot_advance('{streamed.shop.slot}', pg_current_wal_lsn())",
    )

    streamed.refuses("advanced, or read by somebody else")


@pytest.mark.fault("F32", "I12")
def test_a_slot_that_another_program_read_is_a_gap(streamed: Streamed) -> None:
    streamed.shop.add(3)
    run(streamed.shop.dsn, f"SELECT pg_logical_slot_get_changes('{streamed.shop.slot}', NULL, NULL)")

    streamed.refuses("read by somebody else")


@pytest.mark.fault("F32", "I12")
def test_a_slot_stolen_from_a_running_stream_is_a_gap(streamed: Streamed) -> None:
    shop = streamed.shop
    with Command(streamed.folder, *streamed.arguments("--retry-max", "2")).ready() as command:
        assert eventually(
            lambda: (
                ask(
                    shop.dsn,
                    f"SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots"
                    f" WHERE slot_name = '{shop.slot}' AND active",
                )
                == 1
            ),
            deadline_s=10,
        )
        shop.add(3)
        steal(shop)

        command.ended().refused(GAP, error="read by somebody else", hint="--accept-gap")


def steal(shop: Shop) -> None:
    """Read the slot in the moment between the stream's loss and its next try, however often that takes."""

    def stolen() -> bool:
        try:
            return bool(ask(shop.dsn, f"SELECT count(*) FROM pg_logical_slot_get_changes('{shop.slot}', NULL, NULL)"))
        except psycopg2.Error:
            run(
                shop.dsn,
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                f" WHERE slot_name = '{shop.slot}' AND active",
            )
            return False

    assert eventually(stolen, deadline_s=10)


@pytest.mark.fault("F28", "I12", "I13")
def test_a_slot_that_lost_its_wal_is_a_gap(private: Postgres, tmp_path: Path) -> None:
    streamed = Streamed(private.dsn(), tmp_path)
    run(private.dsn(), "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
    for _ in range(6):
        run(
            private.dsn(),
            "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))",
            "SELECT pg_switch_wal()",
        )
        run(private.dsn(), "CHECKPOINT")
    assert eventually(lambda: slot.status(private.dsn(), streamed.shop.slot).wal_status == "lost", deadline_s=20)

    streamed.refuses("is lost")


@pytest.mark.fault("F39", "I12")
def test_a_promoted_standby_is_a_gap(private: Postgres, tmp_path: Path) -> None:
    """A copy of the server's disk, promoted: the same system on another timeline, with the slot that was copied."""
    streamed = Streamed(private.dsn(), tmp_path)
    private.stop()
    data = private.folder / "data"
    (data / "standby.signal").touch()
    shutil.chown(data / "standby.signal", data.owner(), data.group())
    private.start()
    run(private.dsn(), "SELECT pg_promote()")
    assert eventually(lambda: not ask(private.dsn(), "SELECT pg_is_in_recovery()"), deadline_s=20)

    streamed.refuses("is on timeline 2, and slot .* on timeline 1: a standby was promoted")


@pytest.mark.fault("F39", "I12")
def test_a_server_set_back_to_an_earlier_copy_of_its_disk_is_a_gap(private: Postgres, tmp_path: Path) -> None:
    streamed = Streamed(private.dsn(), tmp_path)
    private.stop()
    copy = private.folder / "copy"
    shutil.copytree(private.folder / "data", copy)
    private.start()
    streamed.shop.add(*range(3, 200))
    assert streamed.stream().code == 0
    streamed.kept = streamed.state.read_bytes()
    private.stop()
    owner, group = (private.folder / "data").owner(), (private.folder / "data").group()
    shutil.rmtree(private.folder / "data")
    copy.rename(private.folder / "data")
    for path in [private.folder / "data", *(private.folder / "data").rglob("*")]:
        shutil.chown(path, owner, group)
    private.start()

    streamed.refuses("was set back")


@pytest.mark.fault("F39", "I12")
def test_another_server_is_a_gap(streamed: Streamed, private: Postgres) -> None:
    other = Shop(private.dsn())

    outcome = pgevents(
        streamed.folder,
        "stream",
        *("--dsn", other.dsn, "--slot", streamed.shop.slot, "--sink", "file:events", "--state", "state.json"),
        "--create-slot",
    )

    outcome.refused(GAP, error="this is another server", hint="correct the DSN")
    assert streamed.state.read_bytes() == streamed.kept
    names = "SELECT array_agg(slot_name::text) FROM pg_replication_slots"
    assert ask(other.dsn, names) == [other.slot]


def test_an_accepted_gap_is_recorded_and_streamed_past(streamed: Streamed) -> None:
    slot.drop(streamed.shop.dsn, streamed.shop.slot, terminate=False)
    streamed.shop.add(3)

    outcome = streamed.stream("--create-slot", "--plugin", "wal2json", "--accept-gap")
    streamed.shop.add(4)
    again = streamed.stream()

    assert outcome.code == again.code == 0, outcome.stderr
    assert "a gap was accepted" in outcome.stderr
    assert streamed.ids == [1, 2, 4]
    (gap,) = json.loads(streamed.state.read_bytes())["gaps"]
    assert gap["before"] == json.loads(streamed.kept)["end_lsn"]
    assert "is gone" in gap["reason"]


def test_where_there_is_no_gap_none_can_be_accepted(streamed: Streamed) -> None:
    streamed.stream("--accept-gap").refused(2, error="there is no gap to accept", hint="Leave --accept-gap out")


def test_a_state_file_of_another_slot_is_refused(streamed: Streamed, database15: str) -> None:
    run(database15, "DROP TABLE orders")
    create_slot(streamed.shop.role_dsn, Wish(f"{streamed.shop.slot}_b", "wal2json", "pgevents"))

    pgevents(
        streamed.folder,
        *("stream", "--dsn", streamed.shop.role_dsn, "--slot", f"{streamed.shop.slot}_b"),
        *("--sink", "file:events", "--state", "state.json"),
    ).refused(2, error="holds the watermark of slot", hint="another --state")


@pytest.mark.parametrize("text", ["", "{}", "nonsense", '{"version": 99}'])
def test_a_damaged_state_file_stops_the_stream(streamed: Streamed, text: str) -> None:
    streamed.state.write_text(text)

    streamed.stream().refused(
        4, error="state.json (does not hold a watermark|holds a watermark of version 99)", hint="."
    )


def test_a_state_file_in_no_folder_stops_the_stream(streamed: Streamed) -> None:
    streamed.stream(state="nowhere/state.json").refused(4, error="nowhere/state.json", hint="Create the folder")


@pytest.mark.fault("F13", "I2")
def test_a_disk_that_is_full_stops_the_acknowledging(streamed: Streamed) -> None:
    """/dev/full takes no byte: as the new file beside the state it stands for a full disk."""
    (streamed.folder / ".state.json.new").symlink_to("/dev/full")
    before = streamed.shop.confirmed
    streamed.shop.add(3)

    with Command(streamed.folder, *streamed.arguments("--retry-max", "0.3")) as command:
        command.says("cannot keep the watermark in .*: No space left on device", times=2)
        assert streamed.shop.confirmed == before
        (streamed.folder / ".state.json.new").unlink()

        assert eventually(lambda: streamed.shop.confirmed > before, deadline_s=10), command.stderr
        assert command.stopped().code == 0
    assert set(streamed.ids) == {1, 2, 3}


@pytest.mark.fault("I9", "I12")
def test_in_a_table_the_watermark_serves_every_host(database15: str, tmp_path: Path) -> None:
    first, second = Streamed(database15, tmp_path), tmp_path / "second"
    first.stream(state="postgres")
    first.shop.add(3)
    elsewhere = (*first.shop.options, "--sink", f"file:{tmp_path}/events", "--state", "postgres")

    outcome = pgevents(second, "stream", *elsewhere, "--until-lsn", "now")
    slot.drop(database15, first.shop.slot, terminate=False)
    refused = first.stream(state="postgres")

    assert outcome.code == 0
    assert first.ids == [1, 2, 3]
    refused.refused(GAP, error="is gone", hint="--accept-gap")


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
@pytest.mark.fault("I5")
def test_an_idle_stream_does_not_chase_its_own_watermark(database15: str, tmp_path: Path, plugin: str) -> None:
    """Every write to the table moves the WAL on, which is an LSN to keep: without a pause it would never end."""
    streamed = Streamed(database15, tmp_path, plugin=plugin)
    with Command(tmp_path, *streamed.arguments(state="postgres")).ready() as command:
        streamed.shop.add(3)
        assert eventually(lambda: 3 in streamed.ids, deadline_s=10)
        writes: set[Any] = set()

        def is_chasing() -> bool:
            writes.add(ask(database15, "SELECT saved_at FROM pgevents.watermark"))
            return len(writes) > 4

        assert not eventually(is_chasing, deadline_s=6)
        assert command.stopped().code == 0
    assert streamed.ids == [1, 2, 3]


@pytest.mark.fault("F39", "I12")
def test_a_replication_connection_to_another_server_touches_nothing(streamed: Streamed, private: Postgres) -> None:
    """As behind an address that is switched: queries go to one server, the replication connection to another."""
    other = Shop(private.dsn())
    create_slot(other.dsn, Wish(streamed.shop.slot, "wal2json", "pgevents"))
    other.add(1)
    before = slot_row_of(other.dsn, streamed.shop.slot)
    watermark = json.loads(streamed.kept)

    async def scenario() -> None:
        with pytest.raises(SourceUnavailable, match="reached another server"):
            await open_stream(
                other.dsn,
                slot=streamed.shop.slot,
                plugin="wal2json",
                publication="pgevents",
                start_lsn=Lsn.parse(watermark["end_lsn"]),
                identity=f"{watermark['system_id']}-{watermark['timeline']}",
            )

    asyncio.run(scenario())

    assert slot_row_of(other.dsn, streamed.shop.slot) == before


@pytest.mark.fault("I2", "I12")
def test_the_server_is_told_nothing_before_something_of_this_run_is_kept(streamed: Streamed) -> None:
    """Should the slot be another's after all, the watermark would make it forget what it never sent."""
    ahead = Lsn(streamed.shop.lsn + 1_000_000)

    async def scenario() -> None:
        opened = await open_stream(
            streamed.shop.role_dsn,
            slot=streamed.shop.slot,
            plugin="wal2json",
            publication="pgevents",
            start_lsn=ahead,
        )
        await asyncio.sleep(0)  # its first word to the server
        await opened.close()

    before = streamed.shop.confirmed
    asyncio.run(scenario())

    assert streamed.shop.confirmed == before


@pytest.mark.fault("F39", "I12", "I14")
def test_a_standby_is_not_taken_for_a_gap(private: Postgres, tmp_path: Path) -> None:
    streamed = Streamed(private.dsn(), tmp_path)
    slot.drop(private.dsn(), streamed.shop.slot, terminate=False)
    private.stop()
    signal_file = private.folder / "data" / "standby.signal"
    signal_file.touch()
    shutil.chown(signal_file, signal_file.parent.owner(), signal_file.parent.group())
    private.start()

    pgevents(tmp_path, *streamed.arguments()).refused(4, error="is a standby", hint="target_session_attrs")

    assert streamed.state.read_bytes() == streamed.kept


def test_a_watermark_can_be_set_back_to_a_slot_that_is_behind_it(streamed: Streamed) -> None:
    """The way on where a commit lies across the watermark; what comes again has the ids it had."""
    watermark = json.loads(streamed.kept)
    streamed.shop.add(3)
    watermark["end_lsn"] = str(amid_last_commit(streamed))
    streamed.state.write_text(json.dumps(watermark))

    first = streamed.stream()
    second = streamed.stream()
    accepted = streamed.stream("--accept-gap")

    for outcome in (first, second):
        outcome.refused(GAP, error="lies across the watermark", hint="--accept-gap")
    assert accepted.code == 0, accepted.stderr
    assert streamed.ids == [1, 2, 3]
    assert len(json.loads(streamed.state.read_bytes())["gaps"]) == 1


def amid_last_commit(streamed: Streamed) -> Lsn:
    """An LSN in the midst of the last commit record."""
    data = ask(
        streamed.shop.dsn,
        f"SELECT max(data::json ->> 'lsn') FROM pg_logical_slot_peek_changes('{streamed.shop.slot}', NULL, NULL,"
        " 'format-version', '2', 'include-lsn', 'true') WHERE data::json ->> 'action' = 'C'",
    )
    return Lsn(Lsn.parse(data) + 8)


def slot_row_of(dsn: str, name: str) -> Any:
    return ask(dsn, f"SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = '{name}'")
