"""``pgevents skip`` as a person meets it: windows added, listed and removed, and what it says to nonsense."""

import asyncio
import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pgevents.app import supervise
from pgevents.demo.process import eventually
from pgevents.errors import PGEventsError
from pgevents.lsn import Lsn
from pgevents.rule import SkipRule
from pgevents.settings import Settings
from pgevents.streaming import Streaming
from pgevents.window_file import WindowFile
from tests.integration.command import Command, Outcome, Shop, ids_of, pgevents, stored

USAGE, REFUSED = 2, 4
TAKEN_UP_S = 2.0
FILE = "pgevents-pgevents.skips.json"
WHY = ("--reason", "flood")


def add(folder: Path, *arguments: str) -> str:
    """Add a window; its name."""
    outcome = pgevents(folder, "skip", "add", *arguments)
    assert outcome.code == 0, outcome.stderr
    return outcome.stdout.strip()


def listed(folder: Path, *arguments: str) -> Outcome:
    outcome = pgevents(folder, "skip", "list", *arguments)
    assert outcome.code == 0, outcome.stderr
    return outcome


def test_a_window_is_added_listed_and_removed(tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "skip", "add", "--xid", "812", "--reason", "prices,\n50 million rows")

    name = outcome.stdout.strip()
    assert re.fullmatch(r"window-[0-9a-f]{4}", name)
    assert outcome.stderr.startswith(f"Added to {FILE};")
    shown = listed(tmp_path)
    assert re.match(rf"{name}  drop  xid 812 until \S+Z  added \S+Z by \S+@\S+  prices,\\n50 ", shown.stdout)
    assert shown.stderr == f"1 window is in {FILE}\n"

    removed = pgevents(tmp_path, "skip", "remove", name)
    assert removed.stderr == f"Removed {name} from {FILE}\n"
    assert listed(tmp_path).stdout == ""


def test_the_list_is_also_json(tmp_path: Path) -> None:
    name = add(tmp_path, "--xid", "812", *WHY)

    (window,) = json.loads(listed(tmp_path, "--json").stdout)

    person, since, until = (window.pop(key) for key in ("added_by", "added_at", "until"))
    assert window == {"name": name, "action": "drop", "reason": "flood", "xid": 812}
    assert "@" in person
    assert datetime.fromisoformat(until) - datetime.fromisoformat(since) == timedelta(days=1)


def test_a_list_without_a_file_is_empty(tmp_path: Path) -> None:
    assert listed(tmp_path).stderr == f"0 windows are in {FILE}\n"
    assert listed(tmp_path, "--json").stdout == "[]\n"


@pytest.mark.parametrize(
    ("given", "first", "last"),
    [("16/B374D848", "16/B374D848", "16/B374D848"), ("0/10..1/0", "0/10", "1/0")],
)
def test_lsns_are_one_or_a_range(tmp_path: Path, given: str, first: str, last: str) -> None:
    add(tmp_path, "--lsn", given, *WHY)

    (rule,) = WindowFile(tmp_path / FILE).load()
    assert (rule.first, rule.last) == (Lsn.parse(first), Lsn.parse(last))


def test_times_are_kept_in_utc(tmp_path: Path) -> None:
    add(tmp_path, "--since", "2026-11-20T18:00+02:00", "--until", "2026-11-20T17:00:00.5Z", *WHY)
    add(tmp_path, "--since", "2026-11-20T18:00Z", *WHY)
    add(tmp_path, "--until", "20261120T180000Z", *WHY)

    assert [(rule.since, rule.until) for rule in WindowFile(tmp_path / FILE).load()] == [
        ("2026-11-20T16:00:00.000000Z", "2026-11-20T17:00:00.500000Z"),
        ("2026-11-20T18:00:00.000000Z", ""),
        ("", "2026-11-20T18:00:00.000000Z"),
    ]


def test_each_slot_has_a_file_beside_its_watermark(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "pgevents.toml").write_text('slot = "shop"\n')

    add(tmp_path, "--xid", "812", *WHY, "--config", "etc/pgevents.toml")
    add(tmp_path, "--xid", "813", *WHY, "--config", "etc/pgevents.toml", "--state", "none")
    add(tmp_path, "--xid", "814", *WHY, "--config", "etc/pgevents.toml", "--state", "file:etc/other.state.json")
    add(tmp_path, "--xid", "815", *WHY, "--slot", "other")

    assert [rule.xid for rule in WindowFile(tmp_path / "etc" / "pgevents-shop.skips.json").load()] == [812, 813]
    assert [rule.xid for rule in WindowFile(tmp_path / "etc" / "other.skips.json").load()] == [814]
    assert [rule.xid for rule in WindowFile(tmp_path / "pgevents-other.skips.json").load()] == [815]


def test_a_window_where_no_stream_keeps_its_watermark_is_asked_about(tmp_path: Path) -> None:
    asked = "Does the stream run with this --config, --slot and --state?"

    alone = pgevents(tmp_path, "skip", "add", "--xid", "812", *WHY)
    nowhere = pgevents(tmp_path, "skip", "add", "--xid", "812", *WHY, "--state", "none")
    (tmp_path / "pgevents-pgevents.state.json").touch()
    beside = pgevents(tmp_path, "skip", "add", "--xid", "812", *WHY)

    assert [asked in outcome.stderr for outcome in (alone, nowhere, beside)] == [True, False, False]


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ([], "for an xid, for LSNs or for a time", "Give one of --xid, --lsn"),
        (["--xid", "812", "--lsn", "0/10"], "for an xid, for LSNs or for a time", "Give one of"),
        (["--xid", "812", "--until", "2026-11-20T18:00Z"], "for an xid, for LSNs or for a time", "Give one of"),
        (["--xid", "many"], "--xid 'many' is not a number", "tx.xid"),
        (["--xid", "-812"], "--xid '-812' is not a number", "tx.xid"),
        (["--xid", "2"], "--xid 2 is no transaction", "from 3 to 4294967295"),
        (["--xid", "4294968108"], "--xid 4294968108 does not fit into 32 bits", "Without them it is 812"),
        (["--lsn", "812"], "neither an LSN nor a range", "16/B374D848"),
        (["--lsn", "0/10..0/20..0/30"], "neither an LSN nor a range", "16/B374D848"),
        (["--lsn", "0/10.."], "neither an LSN nor a range", "16/B374D848"),
        (["--lsn", "0/20..0/10"], "holds no commit", "the lower LSN first"),
        (["--lsn", "0/0..0/10"], "--lsn 0/0..0/10 begins where no WAL is", "Begin at 0/1"),
        (["--lsn", "0/0"], "--lsn 0/0 begins where no WAL is", "an LSN such as 16/B374D848"),
        (["--xid", "812", "--by", "a\nb"], "--by must be printable text of 1 to 100 characters", "the account"),
        (["--xid", "812", "--by", ""], "--by must be printable text", "the account"),
        (["--since", "yesterday"], "--since 'yesterday' is not a time", "Write 2026"),
        (["--until", ""], "--until '' is not a time", "Write 2026"),
        (["--since", "2026-02-30T18:00Z"], "is not a time", "Write 2026"),
        (["--since", "0001-01-01T00:00+14:00"], "is not a time", "Write 2026"),
        (["--since", "2026-11-20T18:00"], "does not say in which time zone", "Add Z"),
        (["--until", "2026-11-20"], "does not say in which time zone", "Add Z"),
        (
            ["--since", "2026-11-20T18:00Z", "--until", "2026-11-20T18:00+01:00"],
            "2026-11-20T18:00:00.000000Z is not before --until 2026-11-20T17:00:00.000000Z",
            "Exchange them",
        ),
        (["--xid", "812", "--reason", " "], "--reason is empty or too long", "1 to 1000"),
        (["--xid", "812", "--reason", "x" * 1001], "--reason is empty or too long", "1 to 1000"),
    ],
)
def test_nonsense_is_refused_and_nothing_added(tmp_path: Path, arguments: list[str], error: str, hint: str) -> None:
    outcome = pgevents(tmp_path, "skip", "add", *WHY, *arguments)

    outcome.refused(USAGE, error=re.escape(error), hint=re.escape(hint))
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("arguments", [["--xid", "812"], ["--xid", "812", *WHY, "--action", "slow-lane"]])
def test_a_missing_reason_and_an_unknown_action_are_wrong_usage(tmp_path: Path, arguments: list[str]) -> None:
    outcome = pgevents(tmp_path, "skip", "add", *arguments)

    assert outcome.code == USAGE
    assert re.search("Error: (Missing option '--reason'|Invalid value for '--action')", outcome.stderr)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    name = add(tmp_path, "--xid", "812", *WHY)

    outcome = pgevents(tmp_path, "skip", "remove", name[:-1])

    outcome.refused(USAGE, error=f"there is no window {name[:-1]} in {FILE}", hint=rf"Did you mean {name}\?")


def test_an_xid_in_the_place_of_a_name_is_answered_with_the_name(tmp_path: Path) -> None:
    name = add(tmp_path, "--xid", "812", *WHY)

    outcome = pgevents(tmp_path, "skip", "remove", "812")

    outcome.refused(USAGE, error=f"there is no window 812 in {FILE}", hint=f"xid 812 is skipped by {name}")


def test_where_there_are_no_windows_a_name_is_answered_with_that(tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "skip", "remove", "window-3f2a")

    outcome.refused(USAGE, error=f"there is no window window-3f2a in {FILE}", hint="There are none")


@pytest.mark.parametrize(
    ("test", "is_for"),
    [
        (("--xid", "812"), "xid 812"),
        (("--lsn", "0/10..0/20"), "lsn 0/10..0/20"),
        (("--since", "2026-11-20T18:00Z"), "since 2026-11-20T18:00:00.000000Z"),
    ],
)
def test_a_second_window_of_the_same_is_added_and_said_to_be(
    tmp_path: Path, test: tuple[str, ...], is_for: str
) -> None:
    name = add(tmp_path, *test, *WHY)

    outcome = pgevents(tmp_path, "skip", "add", *test, *WHY, "--action", "publish")
    other = pgevents(tmp_path, "skip", "add", "--xid", "4711", *WHY)

    assert outcome.code == 0
    assert f"note: {name} (drop) is for {is_for} already, and decides: of several windows the first" in outcome.stderr
    assert "note:" not in other.stderr


def test_a_window_that_is_over_is_added_and_said_to_be(tmp_path: Path) -> None:
    over = pgevents(tmp_path, "skip", "add", "--until", "2020-01-01T00:00Z", *WHY)
    coming = pgevents(tmp_path, "skip", "add", "--until", "2999-01-01T00:00Z", *WHY)

    assert over.code == 0
    assert (
        "note: it is over already, and matches only what was committed before and is still to be read" in over.stderr
    )
    assert "note:" not in coming.stderr
    assert [line.count("over since then") for line in listed(tmp_path).stdout.splitlines()] == [1, 0]
    assert [window.get("over") for window in json.loads(listed(tmp_path, "--json").stdout)] == [True, None]


def test_who_adds_a_window_may_be_named(tmp_path: Path) -> None:
    add(tmp_path, "--xid", "812", *WHY, "--by", "ops-bot")

    assert "by ops-bot  flood" in listed(tmp_path).stdout


def test_a_reason_that_is_no_text_is_refused(tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "skip", "add", "--xid", "812", "--reason", "\udcff")

    outcome.refused(USAGE, error="--reason is not text in UTF-8", hint="locale")


@pytest.mark.parametrize("command", [["list"], ["add", "--xid", "812", *WHY], ["remove", "window-3f2a"]])
def test_a_damaged_file_is_refused_and_stays_as_it_is(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / FILE).write_text('{"version": 1, "windows": [{"name": "window-3f2a"}]}')

    outcome = pgevents(tmp_path, "skip", *command)

    outcome.refused(REFUSED, error=f"window window-3f2a in {FILE} cannot be used: ", hint="Restore the file")
    assert (tmp_path / FILE).read_text() == '{"version": 1, "windows": [{"name": "window-3f2a"}]}'


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "skip", "add", "--xid", "812", *WHY, "--state", "missing/shop.state.json")

    outcome.refused(
        REFUSED, error="cannot keep the windows in missing/shop.skips.json", hint="Create the folder first"
    )


def test_a_wrong_word_is_answered_with_the_nearest_command(tmp_path: Path) -> None:
    outcome = pgevents(tmp_path, "skip", "delete")

    assert outcome.code == USAGE
    assert "No such command 'delete'" in outcome.stderr


def inserted(folder: Path) -> list[int]:
    return ids_of([event for event in stored(folder / "events.ndjson") if event["op"] == "insert"])


@pytest.mark.parametrize("state", [(), ("--state", "none")], ids=["file", "none"])
def test_a_running_stream_takes_windows_up_and_leaves_them(
    database15: str, tmp_path: Path, state: tuple[str, ...]
) -> None:
    shop = Shop(database15)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "pgevents.toml").write_text(f'slot = "{shop.slot}"\n')
    options = ("--config", "etc/pgevents.toml", *state)

    with Command(
        tmp_path, "stream", "--dsn", shop.role_dsn, *options, "--sink", "file:events.ndjson"
    ).ready() as stream:
        name = add(tmp_path, "--since", "2000-01-01T00:00Z", *WHY, *options)
        assert eventually(lambda: "skip windows taken up" in stream.stderr, deadline_s=TAKEN_UP_S), stream.stderr
        shop.add(1, 2)
        assert pgevents(tmp_path, "skip", "remove", name, *options).code == 0
        stream.says("skip windows taken up", times=2)
        shop.add(3)
        assert eventually(lambda: inserted(tmp_path) == [3], deadline_s=20), stream.stderr


def test_a_stream_heeds_a_window_from_its_first_transaction_on(database15: str, tmp_path: Path) -> None:
    shop = Shop(database15)
    shop.add(1, 2)
    add(tmp_path, "--lsn", f"0/1..{shop.lsn}", *WHY, "--slot", shop.slot)
    shop.add(3)

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", "file:events.ndjson", "--until-lsn", "now")

    assert outcome.code == 0, outcome.stderr
    assert inserted(tmp_path) == [3]
    [record] = [event["skip"] for event in stored(tmp_path / "events.ndjson") if event["op"] == "skip"][:1]
    assert re.fullmatch(r"[^@]+@[^@]+", record["by"])


def test_a_stream_does_not_start_with_windows_that_it_cannot_read(database15: str, tmp_path: Path) -> None:
    shop = Shop(database15)
    (tmp_path / f"pgevents-{shop.slot}.skips.json").write_text("{")

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", "file:events.ndjson", "--until-lsn", "now")

    outcome.refused(REFUSED, error="does not hold windows", hint="Restore the file")


class Broken(WindowFile):
    """What nobody foresaw, from the second look on."""

    looks = 0

    def fresh(self) -> tuple[SkipRule, ...]:
        self.looks += 1
        if self.looks > 1:
            raise KeyError("nobody foresaw it")
        return super().fresh()


def test_a_stream_that_can_no_longer_take_windows_up_ends_once_all_is_confirmed(
    database15: str, tmp_path: Path
) -> None:
    shop = Shop(database15)
    shop.add(1, 2)
    settings = Settings(dsn=shop.role_dsn, slot=shop.slot, state="none", sink=f"file:{tmp_path}/events.ndjson")
    streaming = Streaming(settings, until=None, dry_run=False, say=lambda _line: None)
    streaming.windows = Broken(tmp_path / "windows.json")

    with pytest.raises(PGEventsError, match="unforeseen KeyError"):
        asyncio.run(asyncio.wait_for(supervise(streaming), 30))

    assert inserted(tmp_path) == [1, 2]
    assert streaming.progress.confirmed == streaming.progress.published == 2
