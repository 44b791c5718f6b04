"""Waiting for what blocks, on threads that no exit waits for."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], /, *arguments: P.args, **keywords: P.kwargs) -> T:
    """Await a call that blocks. Unlike ``asyncio.to_thread``, a cancelled call does not hold up the exit.

    Otherwise a server that does not answer would keep us for its connect_timeout after a stop, and a disk that
    hangs for as long as it does.
    """
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()

    def call() -> None:
        try:
            outcome.set_result(function(*arguments, **keywords))
        except BaseException as error:  # noqa: BLE001 - it is raised where the call is awaited
            outcome.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return await asyncio.wrap_future(outcome)
