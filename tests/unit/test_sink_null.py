"""The null sink confirms everything and keeps nothing."""

import asyncio
from typing import cast

import pytest

from pgevents.batch import Batch
from pgevents.errors import ConfigError
from pgevents.event import Address, Envelope
from pgevents.interfaces import SinkOptions
from pgevents.lsn import Lsn
from pgevents.sink import null


def test_a_batch_is_confirmed_before_anybody_waits() -> None:
    async def publish() -> bool:
        sink = await null.open("null:", SinkOptions())
        batch = Batch([Envelope("1", Address("a", "insert", "application/json"), 0, b"{}")], Lsn(1))
        confirmation = cast("asyncio.Future[None]", sink.publish(batch))
        await sink.close()
        return confirmation.done()

    assert asyncio.run(publish())


def test_null_takes_no_more_words() -> None:
    with pytest.raises(ConfigError):
        asyncio.run(null.open("null:somewhere", SinkOptions()))
