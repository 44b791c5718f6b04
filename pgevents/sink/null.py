"""Confirms everything at once and keeps nothing: ``null:``, for benchmarks and dry runs."""

import asyncio
from collections.abc import Awaitable

from pgevents.batch import Batch
from pgevents.errors import ConfigError
from pgevents.interfaces import SinkOptions


class NullSink:
    """A sink without another end."""

    def __init__(self) -> None:
        self._confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._confirmed.set_result(None)

    def publish(self, _batch: Batch) -> Awaitable[None]:
        return self._confirmed

    async def close(self) -> None:
        """Nothing is held."""

    def __str__(self) -> str:
        return "null: (nothing is kept)"


async def open(url: str, _options: SinkOptions) -> NullSink:
    """Raises ConfigError for anything behind ``null:``."""
    if url != "null:":
        raise ConfigError("the null sink takes nothing after null:")
    return NullSink()
