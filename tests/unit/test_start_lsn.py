"""Where a stream begins: nothing below the slot's confirmed flush LSN is acknowledged again."""

import asyncio
import contextlib

from pgevents.app import has_moved
from pgevents.codec.native import NativeCodec
from pgevents.decoder.pgoutput import PgoutputDecoder
from pgevents.filters import TableFilter
from pgevents.gate import Gate
from pgevents.lsn import Lsn
from pgevents.pipeline import Limits, Pipeline, Progress
from pgevents.routing import RoutingKey
from pgevents.shape import Shape
from pgevents.testing import IDENTITY, MemoryCatalog, MemorySink, MemorySource
from pgevents.wal import Keepalive


def test_a_keepalive_from_before_the_slot_is_not_acknowledged() -> None:
    """The server decodes from the restart LSN on and pings meanwhile."""
    source, progress = MemorySource([Keepalive(300), Keepalive(700), Keepalive(1200)], chunk=1), Progress()

    async def scenario() -> None:
        pipeline = Pipeline(
            source=source,
            decoder=PgoutputDecoder(MemoryCatalog()),
            gate=Gate(IDENTITY, Lsn(1000)),
            shape=Shape(TableFilter(), RoutingKey(), NativeCodec()),
            sink=MemorySink(),
            limits=Limits(),
            progress=progress,
        )
        running = asyncio.ensure_future(pipeline.run(asyncio.Event()))
        for _ in range(50):
            await asyncio.sleep(0)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(scenario())

    assert source.acknowledged == [1200]
    assert progress.acknowledged == 1200


def test_only_confirms_and_later_lsns_are_progress() -> None:
    assert not has_moved(Progress(), Progress(acknowledged=Lsn(1000)))
    assert has_moved(Progress(acknowledged=Lsn(1000)), Progress(acknowledged=Lsn(1001)))
    assert has_moved(Progress(), Progress(confirmed=1))
    assert not has_moved(Progress(published=1), Progress(published=9))
