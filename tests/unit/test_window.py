"""The file of windows: what is added stays, what is damaged is named, and a running stream sees every change."""

import json
import logging
import os
import re
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgevents.errors import ConfigError, StateRefused
from pgevents.lsn import Lsn
from pgevents.rule import Action, SkipRule
from pgevents.rule_table import timestamp
from pgevents.settings import Settings
from pgevents.skip import Rulebook
from pgevents.wal import Begin
from pgevents.window import place_of
from pgevents.window_file import WindowFile

XID = SkipRule("", reason="flood", xid=812)
RANGE = SkipRule("", action=Action.SUMMARISE, reason="backfill", first=Lsn(0x10), last=Lsn(0x20))
EVENING = SkipRule(
    "",
    action=Action.PUBLISH,
    reason="nightly load",
    since="2026-11-20T18:00:00.000000Z",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pgevents-shop.skips.json"


@pytest.fixture
def file(path: Path) -> WindowFile:
    return WindowFile(path)


def test_where_there_is_no_file_there_are_no_windows(file: WindowFile) -> None:
    assert file.load() == ()
    assert not file.changed()


@pytest.mark.parametrize("rule", [RANGE, EVENING])
def test_a_window_is_read_as_it_was_added(file: WindowFile, path: Path, rule: SkipRule) -> None:
    window = file.add(rule)

    assert WindowFile(path).windows() == (window,)
    assert replace(window.rule, name="", by="") == rule


def test_a_window_says_who_added_it_and_when(file: WindowFile) -> None:
    before = timestamp(datetime.now(UTC))

    window = file.add(XID)

    assert re.fullmatch(r"[^@]+@[^@]+", window.added_by)
    assert before <= window.added_at <= timestamp(datetime.now(UTC))


def test_whoever_is_named_has_added_it_and_the_ruling_says_so(file: WindowFile, path: Path) -> None:
    file.add(replace(XID, by="ops-bot"))
    book = Rulebook()
    book.windows = WindowFile(path).load()

    ruling = book.of_begin(Begin(812, Lsn(100), timestamp(datetime.now(UTC))))

    assert [window.added_by for window in file.windows()] == ["ops-bot"]
    assert ruling is not None
    assert (ruling.by, ruling.reason) == ("ops-bot", "flood")


@pytest.mark.parametrize(
    ("rule", "stays"),
    [
        (replace(EVENING, until="2026-11-20T19:00:00.000000Z"), False),
        (replace(EVENING, since="", until="2026-11-27T19:00:00.000000Z"), True),
        (EVENING, True),
        (RANGE, True),
        (XID, False),
    ],
)
def test_what_has_been_over_for_a_week_is_left_out_when_windows_change(
    file: WindowFile, path: Path, rule: SkipRule, *, stays: bool
) -> None:
    name = file.add(rule).rule.name
    document = json.loads(path.read_text())
    document["windows"][0]["added_at"] = "2026-11-20T18:30:00.000000Z"
    path.write_text(json.dumps(document))

    file.add(replace(XID, xid=900), now=datetime(2026, 11, 29, tzinfo=UTC))

    assert (name in {window.rule.name for window in file.windows()}) is stays


def test_a_window_of_times_long_past_stays_for_a_week_for_a_stream_that_is_behind(file: WindowFile) -> None:
    old = file.add(replace(EVENING, since="", until="2020-01-01T00:00:00.000000Z"))

    file.add(XID)

    assert old in file.windows()


def test_an_xid_is_skipped_for_a_day_because_it_comes_round_again(file: WindowFile) -> None:
    window = file.add(XID)

    lifetime = datetime.fromisoformat(window.rule.until) - datetime.fromisoformat(window.added_at)
    assert lifetime == timedelta(days=1)
    assert (window.rule.xid, window.rule.since) == (812, "")
    assert file.windows() == (window,)


def test_windows_keep_their_order_and_have_names_of_their_own(file: WindowFile) -> None:
    added = [file.add(rule).rule for rule in (XID, RANGE, EVENING)]

    assert list(file.load()) == added
    assert len({rule.name for rule in added}) == 3
    assert all(re.fullmatch(r"window-[0-9a-f]{4}", rule.name) for rule in added)


def test_a_window_is_removed_by_its_name(file: WindowFile) -> None:
    first, second = file.add(XID), file.add(RANGE)

    assert file.remove(first.rule.name) == first

    assert file.load() == (second.rule,)


def test_an_unknown_name_is_refused_with_the_nearest(file: WindowFile) -> None:
    name = file.add(XID).rule.name

    with pytest.raises(ConfigError, match="there is no window Window") as refused:
        file.remove(name.capitalize()[:-1])

    assert refused.value.hint == f"Did you mean {name}?"
    assert len(file.load()) == 1


def test_another_reader_sees_each_change_once(path: Path) -> None:
    stream, person = WindowFile(path), WindowFile(path)
    assert stream.fresh() == ()

    name = person.add(XID).rule.name
    assert stream.changed()
    assert [rule.name for rule in stream.fresh()] == [name]
    assert not stream.changed()
    assert [rule.name for rule in stream.fresh()] == [name]

    person.remove(name)
    assert stream.fresh() == stream.fresh() == ()


def test_a_file_that_is_taken_away_leaves_no_windows(file: WindowFile, path: Path) -> None:
    file.add(XID)
    file.load()

    path.unlink()

    assert file.fresh() == ()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"version": 1, "windows": 3}'])
def test_a_running_stream_keeps_its_windows_where_the_file_is_damaged(
    file: WindowFile, path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file.add(XID)
    rules = file.load()
    path.write_bytes(damage)

    with caplog.at_level(logging.WARNING, "pgevents"):
        assert file.fresh() == file.fresh() == rules

    (record,) = caplog.records
    assert record.getMessage() == "kept the windows as they were"
    assert vars(record)["reason"] == f"{path} does not hold windows"


def test_a_running_stream_takes_a_mended_file_up(file: WindowFile, path: Path) -> None:
    file.add(XID)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert file.fresh() == ()

    path.write_bytes(whole)

    assert [rule.xid for rule in file.fresh()] == [812]


@pytest.mark.parametrize("act", [WindowFile.load, lambda file: file.add(RANGE), lambda file: file.remove("x")])
def test_a_damaged_file_is_refused_and_stays_as_it_is(
    file: WindowFile, path: Path, act: Callable[[WindowFile], object]
) -> None:
    path.write_bytes(b'{"version": 1}')

    with pytest.raises(StateRefused, match="does not hold windows") as refused:
        act(file)

    assert "Restore the file" in refused.value.hint
    assert path.read_bytes() == b'{"version": 1}'


@pytest.mark.parametrize(
    "change",
    [
        {"xid": None},
        {"xid": "812"},
        {"xid": True},
        {"lsn": "0/10..0/20"},
        {"until": "2026-11-20T18:00:00Z"},
        {"action": "forget"},
        {"action": "slow-lane", "routing_key": "slow"},
        {"action": "park"},
        {"name": None},
        {"reason": ""},
        {"reason": 7},
        {"added_by": ["me"]},
        {"added_at": "yesterday"},
        {"added_at": "9999-12-31T23:00:00Z"},
        {"tables": ["orders"]},
    ],
)
def test_a_window_that_was_edited_into_nonsense_is_refused(
    file: WindowFile, path: Path, change: dict[str, object]
) -> None:
    file.add(XID)
    document = json.loads(path.read_text())
    document["windows"][0] |= change
    path.write_text(json.dumps(document))

    with pytest.raises(StateRefused, match=re.escape(str(path))) as refused:
        file.load()

    assert refused.value.hint.startswith("Restore the file")


def test_a_rule_that_is_no_window_is_refused_in_its_file(file: WindowFile, path: Path) -> None:
    row = {"name": "window-3f2a", "marked": True, "added_by": "me@here", "added_at": "2026-11-20T18:00:00Z"}
    path.write_text(json.dumps({"version": 1, "windows": [row]}))

    with pytest.raises(StateRefused, match=r"window-3f2a in .* it is not for an xid, for LSNs or for a time"):
        file.load()


@pytest.mark.parametrize("row", [[], None, 7, {}, {"name": ""}, {"name": ["x"]}, {"xid": 812}])
def test_a_row_without_a_name_is_called_by_its_number(file: WindowFile, path: Path, row: object) -> None:
    file.add(XID)
    document = json.loads(path.read_text())
    document["windows"].append(row)
    path.write_text(json.dumps(document))

    with pytest.raises(
        StateRefused, match=rf"^window (2|\['x'\]) in {path} cannot be used: (name: it|it is no rule)"
    ):
        file.load()


def test_two_windows_of_one_name_are_refused(file: WindowFile, path: Path) -> None:
    name = file.add(XID).rule.name
    document = json.loads(path.read_text())
    document["windows"] *= 2
    path.write_text(json.dumps(document))

    with pytest.raises(StateRefused, match=f"^window {name} in {path} cannot be used: name: another one has it$"):
        file.load()


def test_what_is_wrong_with_a_window_is_said(file: WindowFile, path: Path) -> None:
    name = file.add(EVENING).rule.name
    path.write_text(path.read_text().replace("2026", "the year 2026"))

    with pytest.raises(
        StateRefused, match=rf"^window {name} in {path} cannot be used: since: it must be a time with its zone"
    ):
        file.load()


def test_of_several_things_that_are_wrong_with_a_window_the_first_is_said(file: WindowFile, path: Path) -> None:
    name = file.add(XID).rule.name
    document = json.loads(path.read_text())
    document["windows"][0] |= {"xid": 1, "action": "forget", "colour": "red"}
    path.write_text(json.dumps(document))

    with pytest.raises(
        StateRefused, match=f"^window {name} in {path} cannot be used: 'colour': there is no such key$"
    ):
        file.load()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("name", "action", "reason", "xid", "lsn", "since", "until", "added_by", "added_at", "marked", "rows")


@given(row=st.dictionaries(st.sampled_from(KEYS), JSON) | JSON)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_row_holds_only_a_refusal_is_raised(path: Path, row: object) -> None:
    path.write_text(json.dumps({"version": 1, "windows": [row]}))

    with pytest.raises(StateRefused, match=r"^window .* cannot be used: ."):
        WindowFile(path).load()


@given(st.binary(max_size=200))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_the_file_only_a_refusal_is_raised(path: Path, anything: bytes) -> None:
    path.write_bytes(anything)

    with pytest.raises(StateRefused):
        WindowFile(path).load()


def test_windows_of_a_later_version_are_refused_as_such(file: WindowFile, path: Path) -> None:
    path.write_text('{"version": 2, "windows": {}}')

    with pytest.raises(StateRefused, match="windows of version 2, and this PGEvents reads version 1"):
        file.load()


def test_a_folder_in_the_place_of_the_file_is_refused(file: WindowFile, path: Path) -> None:
    path.mkdir()

    with pytest.raises(StateRefused, match="is no regular file"):
        file.load()


def test_a_missing_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StateRefused, match=r"missing/skips\.json: No such file or directory") as refused:
        WindowFile(tmp_path / "missing" / "skips.json").add(XID)

    assert refused.value.hint == "Create the folder first."


def test_people_who_add_windows_at_once_lose_none(path: Path) -> None:
    people = [threading.Thread(target=WindowFile(path).add, args=[XID]) for _ in range(8)]
    for person in people:
        person.start()
    for person in people:
        person.join()

    assert len({rule.name for rule in WindowFile(path).load()}) == 8


def test_a_crash_before_the_file_is_replaced_leaves_the_old_windows(
    file: WindowFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = file.add(XID)
    monkeypatch.setattr(os, "fsync", lambda _: os.close(-1))

    with pytest.raises(StateRefused, match=r"cannot keep the windows in .*: Bad file descriptor"):
        file.add(RANGE)

    assert WindowFile(path).windows() == (kept,)


def test_what_is_on_the_disk_was_synced_first(file: WindowFile, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(stat.S_ISDIR(os.fstat(fd).st_mode)))

    file.add(XID)

    assert synced == [False, True]


@pytest.mark.parametrize(
    ("state", "config", "expected"),
    [
        ("etc/pgevents-shop.state.json", None, "etc/pgevents-shop.skips.json"),
        ("file:/var/lib/shop.state.json", "etc/pgevents.toml", "/var/lib/shop.skips.json"),
        ("watermark", None, "watermark.skips.json"),
        ("watermark.json", None, "watermark.skips.json"),
        ("postgres", "etc/pgevents.toml", "postgres"),
        ("none", None, "pgevents-shop.skips.json"),
    ],
)
def test_windows_are_beside_the_watermark_else_beside_the_configuration(
    state: str, config: str | None, expected: str
) -> None:
    assert place_of(Settings(slot="shop", state=state), config) == expected
