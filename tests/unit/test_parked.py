"""Parked events as a person sees them: listed, shown, published again, discarded, while a stream holds their file."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgevents import cli
from pgevents.errors import EXIT_DONE, EXIT_REFUSED, EXIT_USAGE
from pgevents.event import Address, Envelope
from pgevents.interfaces import Reason, Unpublished
from pgevents.park import Parked, ParkFile
from pgevents.parked import deciding, open_events, shown

FILE = "pgevents-parked.ndjson"

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("PGEVENTS_SINK", "RABBITMQ_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def unpublished(name: str, reason: Reason = Reason.NO_ROUTE, *, body: bytes | None = None) -> Unpublished:
    address = Address(f"public.{name}.insert", "insert", "application/json")
    body = b'{"id":"%s"}' % name.encode() if body is None else body
    return Unpublished(Envelope(name, address, 7, body), reason, "")


def park(*events: Unpublished) -> None:
    async def run() -> None:
        file = ParkFile(Path(FILE))
        await file.add(events, sink="memory")
        await file.close()

    asyncio.run(run())


@contextmanager
def streaming() -> Iterator[None]:
    """A stream that has parked an event, and still holds the park file."""
    loop = asyncio.new_event_loop()
    file = ParkFile(Path(FILE))
    loop.run_until_complete(file.add([unpublished("streamed")], sink="memory"))
    try:
        yield
    finally:
        loop.run_until_complete(file.close())
        loop.close()


def pgevents(*arguments: str) -> int:
    return cli.main(["parked", *arguments])


def ids() -> list[str]:
    return [entry.message_id for entry in open_events(Path(FILE))]


def test_what_is_parked_is_listed_in_order(capsys: Captured) -> None:
    park(unpublished("a"), unpublished("b", Reason.TOO_LARGE))

    assert pgevents("list") == EXIT_DONE

    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["a", "b"]
    assert out.splitlines()[1].split()[2:] == ["TOO_LARGE", "10", "public.b.insert"]
    assert err == f"2 events are parked in {FILE}\n"


def test_events_are_listed_by_reason(capsys: Captured) -> None:
    park(unpublished("a"), unpublished("b", Reason.TOO_LARGE))

    pgevents("list", "--reason", "too_large", "--json")

    [listed] = json.loads(capsys.readouterr().out)
    assert (listed["message_id"], listed["reason"], listed["body_bytes"]) == ("b", "TOO_LARGE", 10)


def test_nothing_is_parked_where_there_is_no_file(capsys: Captured) -> None:
    assert pgevents("list") == EXIT_DONE

    assert capsys.readouterr().err == f"There is no park file {FILE}\n"


def test_an_event_that_was_parked_again_is_one(capsys: Captured) -> None:
    park(unpublished("a"), unpublished("b"))
    park(unpublished("a"))

    assert ids() == ["a", "b"]
    assert pgevents("discard", "a", "--yes") == EXIT_DONE
    assert ids() == ["b"]


def test_an_event_that_was_parked_after_a_decision_is_open_again() -> None:
    park(unpublished("a"))
    pgevents("discard", "--all", "--yes")

    park(unpublished("a"))

    assert ids() == ["a"]


def test_a_park_id_names_its_event(capsys: Captured) -> None:
    park(unpublished("a"), unpublished("b"))
    [park_id] = open_events(Path(FILE))[1].park_ids

    assert pgevents("discard", park_id, "--yes") == EXIT_DONE

    assert ids() == ["a"]


def test_an_event_is_shown_with_its_body(capsys: Captured) -> None:
    park(unpublished("a", body=b'{"new":{"amount":1.10,"note":"x, {y}"},"missing":[]}'))

    assert pgevents("show", "a") == EXIT_DONE

    head, _, body = capsys.readouterr().out.partition("\n\n")
    assert "message id    a\n" in head
    assert "routing key   public.a.insert\n" in head
    assert body == '{\n  "new": {\n    "amount": 1.10,\n    "note": "x, {y}"\n  },\n  "missing": []\n}\n'


def test_a_body_that_is_no_text_is_shown_without_control_characters(capsys: Captured) -> None:
    park(unpublished("a", body=b"\xff\x1b[31m"))

    assert pgevents("show", "a") == EXIT_DONE

    out = capsys.readouterr().out
    assert out.endswith("\n\n\\xff\\u001b[31m\n")


def test_an_event_is_shown_with_what_its_route_and_format_gave_it(capsys: Captured) -> None:
    event = unpublished("a")
    address = event.envelope.address._replace(
        exchange="archive", headers=(("tenant", "größer"),), priority=0, expiration="1500", content_encoding="gzip"
    )
    park(event._replace(envelope=event.envelope._replace(address=address, headers=(("ce-id", "7"),))))

    assert pgevents("show", "a") == EXIT_DONE

    shown_lines = capsys.readouterr().out.splitlines()
    assert "exchange      archive" in shown_lines
    assert "headers       tenant=größer ce-id=7" in shown_lines
    assert "priority      0" in shown_lines
    assert "expiration    1500 ms" in shown_lines
    assert "encoding      gzip" in shown_lines


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"[]", "[]"),
        (b"{}", "{}"),
        (b"[[],{}]", "[\n  [],\n  {}\n]"),
        (b'"\\"[,"', '"\\"[,"'),
        (b"12345678901234567890.50", "12345678901234567890.50"),
        (b"[ 1 ,\n2 ]", "[\n  1,\n  2\n]"),
    ],
)
def test_json_is_indented_digit_by_digit(body: bytes, lines: str) -> None:
    envelope = Envelope("1", Address("k", "insert", "application/json"), 0, body)

    assert shown(Parked("p", "now", "NO_ROUTE", "", "memory", envelope, b"")).partition("\n\n")[2] == lines


def test_the_json_of_an_event_is_its_line(capsys: Captured) -> None:
    park(unpublished("a"))

    pgevents("show", "a", "--json")

    assert capsys.readouterr().out == Path(FILE).read_text()


@pytest.mark.parametrize("command", [["show", "z"], ["retry", "z", "--sink", "null:"], ["discard", "z", "--yes"]])
def test_an_id_that_names_nothing_is_refused(command: list[str], capsys: Captured) -> None:
    park(unpublished("a"))

    assert pgevents(*command) == EXIT_USAGE

    assert capsys.readouterr().err.startswith("error: no open parked event is called z\nhint: pgevents parked list")
    assert ids() == ["a"]


@pytest.mark.parametrize("command", [["retry"], ["retry", "a", "--all"], ["discard"], ["discard", "a", "--all"]])
def test_either_ids_or_all_must_be_given(command: list[str]) -> None:
    assert pgevents(*command) == EXIT_USAGE


def test_discarding_must_be_confirmed(capsys: Captured) -> None:
    park(unpublished("a"))

    assert pgevents("discard", "--all") == EXIT_USAGE

    assert "hint: Add --yes." in capsys.readouterr().err
    assert ids() == ["a"]


def test_events_are_retried_in_order_and_once() -> None:
    park(*(unpublished(name) for name in "abc"))
    sink = ("--sink", "file:events.ndjson")

    assert pgevents("retry", "c", "a", *sink) == EXIT_DONE
    assert ids() == ["b"]
    assert pgevents("retry", "--all", *sink) == EXIT_DONE
    assert pgevents("retry", "--all", *sink) == EXIT_DONE

    assert Path("events.ndjson").read_text() == '{"id":"a"}\n{"id":"c"}\n{"id":"b"}\n'
    assert ids() == []


def test_the_messages_of_an_event_are_retried_in_its_place_and_in_their_order() -> None:
    names = [f"7-1-{rest}" for rest in ("B-1", "A-10", "A-9-d", "A-9-c", "A-skip")]
    park(*(unpublished(name) for name in names))

    assert pgevents("retry", "--all", "--sink", "file:events.ndjson") == EXIT_DONE

    published = [json.loads(line)["id"] for line in Path("events.ndjson").read_text().splitlines()]
    assert published == [f"7-1-{rest}" for rest in ("A-skip", "A-9-d", "A-9-c", "A-10", "B-1")]


def test_an_event_stays_parked_where_the_sink_cannot_be_opened() -> None:
    park(unpublished("a"))

    assert pgevents("retry", "--all", "--sink", "file:missing/events") == EXIT_REFUSED

    assert ids() == ["a"]


def test_decisions_are_made_while_a_stream_holds_the_park_file(folder: Path) -> None:
    park(unpublished("a"), unpublished("b"))
    with streaming():
        before = Path(FILE).read_bytes()

        assert pgevents("retry", "a", "--sink", "null:") == EXIT_DONE
        assert pgevents("discard", "b", "--yes") == EXIT_DONE

        assert Path(FILE).read_bytes() == before
        assert ids() == ["streamed"]
    assert (folder / f"{FILE}.resolved").stat().st_mode & 0o777 == 0o600


def test_two_decide_one_after_the_other(capsys: Captured) -> None:
    park(unpublished("a"))

    with deciding(Path(FILE)):
        assert pgevents("retry", "--all", "--sink", "null:") == EXIT_REFUSED

    assert "hint: Wait until the other pgevents parked command has ended." in capsys.readouterr().err
    assert ids() == ["a"]


@pytest.mark.parametrize("suffix", ["", ".resolved"])
def test_a_torn_last_line_counts_for_nothing(suffix: str) -> None:
    park(unpublished("a"), unpublished("b"))
    pgevents("discard", "a", "--yes")
    torn = Path(FILE + suffix)
    torn.write_bytes(torn.read_bytes() + torn.read_bytes()[:30])

    assert ids() == ["b"]


@pytest.mark.parametrize("suffix", ["", ".resolved"])
@pytest.mark.parametrize("foreign", [b"notes\n", b"{}\n", b"\n", b"notes without an end"])
def test_a_line_that_is_not_ours_is_named(suffix: str, foreign: bytes, capsys: Captured) -> None:
    park(unpublished("a"), unpublished("b"))
    pgevents("discard", "a", "--yes")
    path = Path(FILE + suffix)
    path.write_bytes(path.read_bytes() + foreign)
    before = path.read_bytes()

    assert pgevents("list") == EXIT_REFUSED

    number = before.count(b"\n") + (not before.endswith(b"\n"))
    assert f"error: line {number} of {path} is not of ours\n" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_without_a_sink_nothing_is_retried(capsys: Captured) -> None:
    park(unpublished("a"))

    assert pgevents("retry", "--all") == EXIT_USAGE

    assert "no sink is given" in capsys.readouterr().err
    assert ids() == ["a"]
