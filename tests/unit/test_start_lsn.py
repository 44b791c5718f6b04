"""Where a stream begins: nothing below the slot's confirmed flush LSN is acknowledged again."""

import asyncio
import contextlib

from pgevents.app import has_moved
from pgevents.lsn import NOWHERE, Lsn
from pgevents.pipeline import Progress
from pgevents.testing import MemorySink, MemorySource, pipeline
from pgevents.wal import Keepalive


def test_a_keepalive_from_before_the_slot_is_not_acknowledged() -> None:
    """The server decodes from the restart LSN on and pings meanwhile."""
    progress = Progress()

    assert acknowledged(progress) == [1200]
    assert progress.acknowledged == 1200


def test_what_an_earlier_run_handed_over_is_acknowledged_again_where_it_was_not_kept() -> None:
    assert acknowledged(Progress(acknowledged=Lsn(1200))) == [1200]


def acknowledged(progress: Progress) -> list[Lsn]:
    """By a run whose watermark is 1000, over keepalives up to 1200."""
    source = MemorySource([Keepalive(300), Keepalive(700), Keepalive(1200)], chunk=1)

    async def scenario() -> None:
        made = pipeline(source, MemorySink(), progress=progress, start_lsn=Lsn(1000))
        running = asyncio.ensure_future(made.run(asyncio.Event()))
        for _ in range(50):
            await asyncio.sleep(0)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(scenario())
    return source.acknowledged


def test_only_a_later_lsn_that_was_kept_is_progress() -> None:
    assert not has_moved(NOWHERE, Lsn(1000))
    assert not has_moved(Lsn(1000), Lsn(1000))
    assert has_moved(Lsn(1000), Lsn(1001))
