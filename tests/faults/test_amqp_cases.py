"""Single faults, each where it hurts, with what the stream must say and do about it."""

import itertools
from collections.abc import Coroutine

import pytest

from pgevents.batch import Batch
from pgevents.errors import (
    ConfigError,
    PGEventsError,
    PublishRejected,
    SinkError,
    SinkRefused,
    SinkStalled,
    SinkUnavailable,
    Unroutable,
)
from pgevents.event import Address, Envelope
from pgevents.interfaces import SinkOptions
from pgevents.lsn import Lsn
from pgevents.sink import amqp
from tests.faults.broker import HEARTBEAT_S, Broker
from tests.faults.clock import VirtualLoop
from tests.faults.history import Row, Work
from tests.faults.schedule import (
    HOLD,
    Block,
    End,
    Exit,
    Grouping,
    Refusal,
    Schedule,
    Settle,
    Turn,
    Verdict,
    Way,
)
from tests.faults.world import URL, Tuning, World, first_seen, play

# Three transactions of three events, and one more event that ends every history.
DEEDS = [Work((Row(0, 0), Row(1, 0), Row(0, 0, is_update=True)))] * 3
EVENTS = 10


def told(world: World) -> list[type[PGEventsError]]:
    return [type(failure) for failure in world.failures]


def times_offered(world: World) -> int:
    return len(world.broker.offered)


def test_a_healthy_broker_gets_each_event_once() -> None:
    world = play(DEEDS, Schedule())

    assert world.failures == []
    assert times_offered(world) == EVENTS


@pytest.mark.parametrize("refusal", [each for each in Refusal if each is not Refusal.NONE])
@pytest.mark.fault("I1", "I14")
def test_a_connection_that_fails_is_an_error_of_ours_and_loses_nothing(refusal: Refusal) -> None:
    world = play(DEEDS, Schedule((Turn(refusal=refusal),)))

    assert len(world.failures) == 1
    assert isinstance(world.failures[0], SinkError)
    assert times_offered(world) == EVENTS


@pytest.mark.parametrize(
    "refusal", [Refusal.WRONG_PASSWORD, Refusal.NO_VHOST, Refusal.OTHER_EXCHANGE_TYPE, Refusal.NO_PERMISSION]
)
def test_what_a_person_must_change_is_told_with_what_to_do(refusal: Refusal) -> None:
    world = play(DEEDS, Schedule((Turn(refusal=refusal),)))

    [failure] = world.failures
    assert isinstance(failure, SinkRefused)
    assert failure.hint


@pytest.mark.parametrize("end", [each for each in End if each is not End.NEVER])
@pytest.mark.parametrize("end_after", [0, 1, 4, EVENTS - 1])
@pytest.mark.fault("F50", "F62", "I1", "I14")
def test_a_connection_that_ends_under_way_is_an_error_of_ours_and_loses_nothing(end: End, end_after: int) -> None:
    world = play(DEEDS, Schedule((Turn(end=end, end_after=end_after),)))

    assert len(world.failures) == (0 if (end, end_after) == (End.DROP_CONFIRMED, EVENTS - 1) else 1)
    assert all(isinstance(failure, SinkError) for failure in world.failures)


@pytest.mark.fault("F65", "I6")
def test_a_deleted_exchange_is_declared_again_and_the_window_sent_again_in_order() -> None:
    world = play(DEEDS, Schedule((Turn(end=End.EXCHANGE_GONE, end_after=4),)), Tuning(window=4))

    assert told(world) == [SinkUnavailable]
    assert "no exchange" in str(world.failures[0])


@pytest.mark.fault("F68", "I1")
def test_a_permission_revoked_under_way_loses_nothing_once_it_is_granted() -> None:
    world = play(DEEDS, Schedule((Turn(end=End.NO_PERMISSION, end_after=4),)))

    [failure] = world.failures
    assert isinstance(failure, SinkRefused)
    assert "set_permissions" in failure.hint


@pytest.mark.fault("F74", "I18")
def test_an_event_above_the_brokers_limit_stops_the_stream_and_is_named() -> None:
    deeds = [Work((Row(), Row(size=5_000), Row(size=9_000)))]

    world = play(deeds, Schedule((Turn(end=End.TOO_LARGE, end_after=1),)))

    [failure] = world.failures
    assert isinstance(failure, PublishRejected)
    assert failure.message_id == world.history.due[1].id
    assert not failure.transient


@pytest.mark.fault("F75")
def test_a_routing_key_that_amqp_cannot_carry_is_refused_before_anything_is_written() -> None:
    broker = Broker()
    envelope = Envelope("1", Address("k" * 256, "insert", "application/json"), 0, b"{}")

    async def scenario() -> None:
        sink = await amqp.open(URL, SinkOptions())
        with pytest.raises(PublishRejected, match="256 bytes"):
            await sink.publish(Batch([envelope], Lsn(1)))
        await sink.close()

    run(broker, scenario())

    assert broker.offered == []


def test_an_unknown_outcome_for_unroutable_events_is_refused() -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError):
            await amqp.open(URL, SinkOptions(on_unroutable="never"))

    run(Broker(), scenario())


@pytest.mark.fault("F51", "I14")
def test_a_silent_broker_is_left_when_its_heartbeats_are_missing() -> None:
    world = play(DEEDS, Schedule((Turn(end=End.SILENT, end_after=2),)), Tuning(stall_timeout_s=10 * HEARTBEAT_S))

    assert told(world) == [SinkUnavailable]
    assert "heartbeat" in str(world.failures[0])


@pytest.mark.fault("F77", "I14")
def test_withheld_confirms_are_waited_for_no_longer_than_the_stall_timeout() -> None:
    world = play(DEEDS, Schedule((Turn(end=End.WITHHOLD),)), Tuning(stall_timeout_s=45))

    assert told(world) == [SinkStalled]
    # Only the window was in flight, and all of it goes again.
    assert times_offered(world) <= 2 * EVENTS


@pytest.mark.parametrize("end_after", range(3))
@pytest.mark.fault("F77", "I3")
def test_confirms_withheld_after_the_first_are_not_taken_for_all(end_after: int) -> None:
    world = play(DEEDS, Schedule((Turn(end=End.WITHHOLD, end_after=end_after),)), Tuning(batch_events=1))

    assert told(world) == [SinkStalled]


@pytest.mark.fault("F63", "I9")
def test_a_short_alarm_blocks_and_nothing_is_sent_twice() -> None:
    world = play(DEEDS, Schedule((Turn(block=Block(after=1, seconds=5)),)))

    assert world.failures == []
    assert times_offered(world) == EVENTS


@pytest.mark.fault("F63", "I1")
def test_an_alarm_longer_than_the_stall_timeout_ends_the_session_and_loses_nothing() -> None:
    world = play(DEEDS, Schedule((Turn(block=Block(after=1, seconds=600)),) * 3))

    assert told(world) == [SinkStalled] * 3


@pytest.mark.fault("F79", "I6", "I7")
def test_a_nack_in_the_middle_of_a_transaction_sends_all_of_it_again() -> None:
    verdicts = (Verdict.STORE, Verdict.NACK, Verdict.STORE)

    world = play(DEEDS, Schedule((Turn(verdicts=verdicts),)), Tuning(batch_events=1, window=4))

    assert told(world) == [PublishRejected]
    again = [each.id for each in world.broker.offered].index(world.history.due[0].id, 1)
    assert first_seen(world.broker.offered[again:]) == [due.id for due in world.history.due]


@pytest.mark.fault("F70", "I14")
def test_a_queue_that_stays_full_is_tried_again_without_end() -> None:
    world = play(DEEDS, Schedule((Turn(verdicts=(Verdict.NACK,) * 9),) * 5))

    assert told(world) == [PublishRejected] * 5


@pytest.mark.fault("F66", "I16", "I19")
def test_an_unbound_key_holds_the_stream_and_then_lets_go_of_the_slot() -> None:
    world = play(DEEDS, Schedule((Turn(verdicts=(Verdict.RETURN,) * 60),)), Tuning(hold_s=3))

    assert told(world) == [Unroutable]


@pytest.mark.fault("F66", "I14")
def test_a_queue_bound_within_the_hold_needs_no_new_session() -> None:
    world = play(DEEDS, Schedule((Turn(verdicts=(Verdict.RETURN,) * 9),)), Tuning(hold_s=20))

    assert world.failures == []


@pytest.mark.fault("F66", "F80", "I6")
def test_an_update_that_was_routed_before_its_insert_is_sent_again_behind_it() -> None:
    deeds = [Work((Row(0, 0), Row(0, 0, is_update=True)))]

    world = play(deeds, Schedule((Turn(verdicts=(Verdict.RETURN, Verdict.STORE)),)))

    insert, update, last = (due.id for due in world.history.due)
    stored = [each.id for each in world.broker.durable if each.id != last]
    assert stored == [update, insert, insert, update]


@pytest.mark.parametrize("cut", range(0, 1_500, 37))
@pytest.mark.fault("F55", "I1")
def test_a_connection_cut_in_the_middle_of_a_frame_from_us_loses_nothing(cut: int) -> None:
    play(DEEDS, Schedule((Turn(cut_in=cut, send_buffer_bytes=1, frame_max=4096),)))


@pytest.mark.parametrize("cut", range(0, 130, 3))
@pytest.mark.fault("F55", "I1")
def test_a_connection_cut_in_the_middle_of_a_confirm_loses_nothing(cut: int) -> None:
    play(DEEDS, Schedule((Turn(cut_out=cut, piece=5),)), Tuning(batch_events=1))


@pytest.mark.parametrize("moment", range(1, 2 * EVENTS))
@pytest.mark.parametrize("way", Way)
@pytest.mark.fault("F01", "F02", "F04", "I1", "I9")
def test_a_process_that_ends_at_any_moment_loses_nothing(moment: int, way: Way) -> None:
    world = play(DEEDS, Schedule(exits=(Exit(way, moment),)), Tuning(batch_events=2))

    assert world.failures == []
    assert way is Way.KILL or times_offered(world) == EVENTS, "a clean stop repeats nothing"


def run(broker: Broker, scenario: Coroutine[None, None, None]) -> None:
    loop = VirtualLoop(broker)
    try:
        loop.run_until_complete(scenario)
        assert not loop.complaints
    finally:
        loop.close()


SINGLE, MULTIPLE = Grouping.SINGLE, Grouping.MULTIPLE


@pytest.mark.parametrize(
    ("size", "groupings"),
    [
        *((size, each) for size in (1, 2, 3, 4) for each in itertools.product((SINGLE, MULTIPLE), repeat=size)),
        (5, (SINGLE, MULTIPLE) * 3),
        (5, (MULTIPLE, SINGLE) * 3),
        (6, (SINGLE,) * 6),
    ],
)
@pytest.mark.fault("F78", "I2", "I3")
def test_confirms_in_every_order_acknowledge_only_what_is_confirmed(
    size: int, groupings: tuple[Grouping, ...]
) -> None:
    deeds = [Work((Row(),))] * (size - 1)  # and the one that ends every history
    first_all = (HOLD,) * size

    for picks in itertools.product(*(range(size - taken) for taken in range(size))):
        confirms = tuple(Settle(pick, grouping) for pick, grouping in zip(picks, groupings, strict=False))
        world = play(deeds, Schedule((Turn(settles=first_all + confirms),)), Tuning(batch_events=1, window=8))

        assert world.failures == []
        assert times_offered(world) == size
