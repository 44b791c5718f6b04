"""The supervisor: what is tried again, when a person is called, and what ends the stream at once."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from pgevents.app import supervise
from pgevents.errors import (
    AuthenticationFailed,
    PGEventsError,
    SinkDegraded,
    SinkUnavailable,
    SlotLost,
    SourceDegraded,
    SourceError,
    SourceUnavailable,
)
from pgevents.lsn import Lsn
from pgevents.settings import Settings
from pgevents.start import Kept
from pgevents.streaming import Streaming
from pgevents.watermark import Watermark

DEADLINE_S = 10.0
AWAY = SourceUnavailable("the server is away", hint="Start it.")
NO_WAY_IN = AuthenticationFailed("password authentication failed", hint="Check the password.")

Session = Callable[["Scripted"], None]


@dataclass(slots=True)
class Scripted(Streaming):
    """Sessions that end as told, one after another; the last one ends well."""

    script: list[PGEventsError | Session] = field(default_factory=list)
    sessions: int = 0

    async def session(self) -> None:
        self.sessions += 1
        await asyncio.sleep(0)
        step = self.script[self.sessions - 1] if self.sessions <= len(self.script) else None
        if isinstance(step, PGEventsError):
            raise step
        if step is not None:
            step(self)


def streams(scripted: Scripted) -> None:
    """A session that opened both ends, published, kept what was confirmed, and lost the server."""
    scripted.has_streamed = True
    before = scripted.kept_lsn or Lsn(1000)
    scripted.kept = Kept(scripted.state, Watermark("7", 1, "shop", "shop", "wal2json", Lsn(before + 1)))
    raise AWAY


def streams_in_vain(scripted: Scripted) -> None:
    """A session that opened both ends and got nothing confirmed."""
    scripted.has_streamed = True
    raise SinkUnavailable("the broker is away", hint="Start it.")


def run(
    *script: PGEventsError | Session, start_timeout_s: float = DEADLINE_S, alert_after_s: float = 60.0
) -> Scripted:
    settings = Settings(retry_max_s=0.01, start_timeout_s=start_timeout_s, state="none")
    scripted = Scripted(settings, until=None, dry_run=False, say=lambda _line: None, script=list(script))
    try:
        asyncio.run(asyncio.wait_for(supervise(scripted, alert_after_s=alert_after_s), DEADLINE_S))
    except PGEventsError as error:
        scripted.script = [error]
    else:
        scripted.script = []
    return scripted


def retries(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.message == "trying again"]


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in retries(caplog)]


@pytest.mark.fault("I14")
def test_a_fault_that_passes_is_tried_again_with_a_warning_that_says_all(caplog: pytest.LogCaptureFixture) -> None:
    ended = run(AWAY, AWAY)

    assert ended.script == []
    assert ended.sessions == 3
    assert levels(caplog) == ["WARNING", "WARNING"]
    first, second = (vars(record) for record in retries(caplog))
    assert (first["reason"], first["hint"]) == ("the server is away", "Start it.")
    assert [first["attempt"], second["attempt"]] == [1, 2]
    assert 0 <= first["in_s"] <= 0.5


@pytest.mark.parametrize("error", [SourceDegraded("disk full"), SinkDegraded("too many connections")])
def test_what_needs_a_person_is_tried_again_with_an_error(
    error: PGEventsError, caplog: pytest.LogCaptureFixture
) -> None:
    ended = run(error)

    assert ended.script == []
    assert levels(caplog) == ["ERROR"]


def test_a_start_without_a_way_in_ends_at_once(caplog: pytest.LogCaptureFixture) -> None:
    ended = run(NO_WAY_IN)

    assert ended.script == [NO_WAY_IN]
    assert ended.sessions == 1
    assert retries(caplog) == []


@pytest.mark.fault("I14")
def test_a_stream_that_has_run_and_is_locked_out_is_tried_again_with_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = run(streams, NO_WAY_IN, NO_WAY_IN, streams)

    assert ended.script == []
    assert ended.sessions == 5
    assert levels(caplog) == ["WARNING", "ERROR", "ERROR", "WARNING"]


@pytest.mark.parametrize("final", [SourceError("something nobody has ever seen"), SlotLost("slot shop is lost")])
def test_what_is_final_ends_a_stream_that_has_run(final: PGEventsError, caplog: pytest.LogCaptureFixture) -> None:
    ended = run(streams, final)

    assert ended.script == [final]
    assert ended.sessions == 2
    assert len(retries(caplog)) == 1


def test_an_exception_that_nobody_foresaw_ends_the_stream() -> None:
    def breaks(_scripted: Scripted) -> None:
        raise ValueError

    ended = run(streams, breaks)

    assert ended.sessions == 2
    assert "unforeseen ValueError" in str(ended.script[0])


def test_a_start_that_cannot_reach_a_server_is_given_up_in_time() -> None:
    ended = run(*[AWAY] * 1000, start_timeout_s=0.1)

    assert ended.script == [AWAY]
    assert 1 < ended.sessions < 1000


@pytest.mark.fault("I14")
def test_a_stream_that_has_run_is_not_given_up() -> None:
    ended = run(streams, *[AWAY] * 50, start_timeout_s=0)

    assert ended.script == []


def test_what_does_not_pass_in_time_calls_a_person(caplog: pytest.LogCaptureFixture) -> None:
    ended = run(*[AWAY] * 40, alert_after_s=0.05)

    said = levels(caplog)
    assert ended.script == []
    assert said[0] == "WARNING"
    assert said[-1] == "ERROR"
    assert said == sorted(said, reverse=True), "once called, called again each time"


def test_sessions_that_open_and_confirm_nothing_call_a_person_too(caplog: pytest.LogCaptureFixture) -> None:
    run(*[streams_in_vain] * 40, alert_after_s=0.05)

    assert levels(caplog)[-1] == "ERROR"


def test_progress_calls_the_person_off(caplog: pytest.LogCaptureFixture) -> None:
    run(streams, *[AWAY] * 40, streams, AWAY, alert_after_s=0.05)

    assert levels(caplog)[-3:] == ["ERROR", "WARNING", "WARNING"]
    assert [vars(record)["attempt"] for record in retries(caplog)][-3:] == [41, 1, 2]
