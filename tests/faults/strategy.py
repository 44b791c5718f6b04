"""Hypothesis strategies for histories, schedules and settings; simple ones first, so that failures shrink to them."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.faults.history import Idle, Lone, Row, Work
from tests.faults.schedule import Block, End, Exit, Grouping, Refusal, Schedule, Settle, Turn, Verdict, Way
from tests.faults.world import Tuning

# How many times the usual number of schedules is run.
TIMES = float(os.environ.get("PGEVENTS_SCHEDULES", "1"))


def schedules(count: int) -> settings:
    """Settings for a property that runs ``count`` schedules, times PGEVENTS_SCHEDULES."""
    return settings(
        max_examples=max(1, round(count * TIMES)),
        deadline=None,
        print_blob=True,
        # The park file is emptied for each example, as are broker and database.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


ROWS = st.builds(
    Row,
    table=st.integers(0, 1),
    key=st.integers(0, 2),
    is_update=st.booleans(),
    size=st.sampled_from([1, 1, 1, 300, 5_000]),
)
WORK = st.builds(Work, rows=st.lists(ROWS, max_size=6).map(tuple), keepalive=st.booleans(), note=st.booleans())
DEEDS = st.lists(st.one_of(WORK, WORK, WORK, st.just(Idle()), st.just(Lone())), max_size=6)

# A tag of 0 confirms nothing for us, and the session then stalls: seldom enough not to hide the others.
GROUPINGS = [Grouping.SINGLE] * 5 + [Grouping.MULTIPLE] * 4 + [Grouping.HOLD] * 4 + [Grouping.ALL]

SETTLES = st.lists(st.builds(Settle, pick=st.integers(0, 7), grouping=st.sampled_from(GROUPINGS)), max_size=12).map(
    tuple
)
GOOD_VERDICTS = st.just(())
REFUSALS = st.lists(st.sampled_from([Verdict.STORE, Verdict.NACK, Verdict.STORE_AND_NACK]), max_size=10).map(tuple)
RETURNS = st.lists(st.sampled_from([Verdict.STORE, Verdict.RETURN, Verdict.RETURN_LATE]), max_size=10).map(tuple)
ANY_VERDICTS = st.lists(st.sampled_from(Verdict), max_size=12).map(tuple)


def turns(verdicts: st.SearchStrategy[tuple[Verdict, ...]]) -> st.SearchStrategy[Turn]:
    seldom = st.sampled_from([Refusal.NONE] * 3 * len(Refusal) + list(Refusal))
    cuts = st.one_of(st.none(), st.none(), st.integers(0, 12_000))
    return st.builds(
        Turn,
        refusal=seldom,
        verdicts=verdicts,
        settles=SETTLES,
        end=st.sampled_from([End.NEVER] * 2 * len(End) + list(End)),
        end_after=st.integers(0, 12),
        block=st.one_of(
            st.none(), st.none(), st.builds(Block, after=st.integers(0, 6), seconds=st.sampled_from([1.0, 60.0]))
        ),
        cut_in=cuts,
        cut_out=st.one_of(st.none(), st.none(), st.integers(0, 400)),
        piece=st.sampled_from([1 << 20, 1 << 20, 1, 7, 30]),
        frame_max=st.sampled_from([131_072, 4_096]),
        send_buffer_bytes=st.sampled_from([0, 1]),  # 1 is the smallest the kernel gives, a few kB
    )


EXITS = st.lists(
    st.builds(Exit, way=st.sampled_from(Way), moment=st.integers(1, 25), steps=st.integers(0, 12)), max_size=3
).map(tuple)


def schedule(verdicts: st.SearchStrategy[tuple[Verdict, ...]]) -> st.SearchStrategy[Schedule]:
    return st.builds(Schedule, turns=st.lists(turns(verdicts), max_size=4).map(tuple), exits=EXITS)


def tuning(on_unroutable: str = "wait") -> st.SearchStrategy[Tuning]:
    return st.builds(
        Tuning,
        batch_events=st.integers(1, 6),
        batch_bytes=st.sampled_from([4_000, 100]),
        window=st.integers(1, 4),
        chunk=st.integers(1, 12),
        on_unroutable=st.just(on_unroutable),
        stall_timeout_s=st.sampled_from([8.0, 45.0]),
        hold_s=st.sampled_from([3.0, 20.0]),
        again=st.integers(0, 2),
    )
