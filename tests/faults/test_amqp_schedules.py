"""The real loop and the real AMQP sink under schedules of faults: nothing is lost, whatever the broker does."""

import pytest
from hypothesis import given

from tests.faults import strategy as st
from tests.faults.history import Deed
from tests.faults.schedule import Schedule
from tests.faults.world import Tuning, play


@st.schedules(1_000)
@given(st.DEEDS, st.schedule(st.GOOD_VERDICTS), st.tuning())
@pytest.mark.fault("F50", "I1", "I2", "I4", "I6", "I8")
def test_nothing_is_lost_when_connections_and_processes_die(
    deeds: list[Deed], schedule: Schedule, tuning: Tuning
) -> None:
    play(deeds, schedule, tuning)


@st.schedules(500)
@given(st.DEEDS, st.schedule(st.REFUSALS), st.tuning())
@pytest.mark.fault("F70", "F79", "I1", "I2", "I6")
def test_nothing_is_lost_when_messages_are_refused(deeds: list[Deed], schedule: Schedule, tuning: Tuning) -> None:
    play(deeds, schedule, tuning)


@st.schedules(500)
@given(st.DEEDS, st.schedule(st.RETURNS), st.tuning())
@pytest.mark.fault("F66", "F80", "I1", "I19")
def test_nothing_is_lost_while_no_queue_is_bound(deeds: list[Deed], schedule: Schedule, tuning: Tuning) -> None:
    play(deeds, schedule, tuning)


@st.schedules(500)
@given(st.DEEDS, st.schedule(st.ANY_VERDICTS), st.tuning())
@pytest.mark.fault("I1", "I2", "I3", "I4", "I6", "I8", "I14")
def test_nothing_is_lost_when_all_of_it_happens(deeds: list[Deed], schedule: Schedule, tuning: Tuning) -> None:
    play(deeds, schedule, tuning)


@st.schedules(150)
@given(st.DEEDS, st.schedule(st.ANY_VERDICTS), st.tuning("drop"))
def test_what_is_dropped_was_returned(deeds: list[Deed], schedule: Schedule, tuning: Tuning) -> None:
    play(deeds, schedule, tuning)


@st.schedules(150)
@given(st.DEEDS, st.schedule(st.ANY_VERDICTS), st.tuning("park"))
@pytest.mark.fault("F66", "I18", "I19")
def test_what_is_parked_is_kept_before_it_is_acknowledged(
    deeds: list[Deed], schedule: Schedule, tuning: Tuning
) -> None:
    play(deeds, schedule, tuning)


@st.schedules(50)
@given(st.DEEDS, st.schedule(st.ANY_VERDICTS), st.tuning())
def test_a_schedule_takes_the_same_course_every_time(deeds: list[Deed], schedule: Schedule, tuning: Tuning) -> None:
    once, again = (play(deeds, schedule, tuning) for _ in range(2))

    assert [each.id for each in once.broker.offered] == [each.id for each in again.broker.offered]
    assert [str(failure) for failure in once.failures] == [str(failure) for failure in again.failures]
