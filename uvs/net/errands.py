"""Work with the engine that a cancellation cannot break off where it gives a connection back.

Such a connection would be lost to it for good: after a hundred of them, nobody could be asked any more. It happens
where a second cancellation (a call's timeout and its request's deadline end at nearly the same moment) finds the engine
cleaning up after the first, and where the first one finds it at the end of an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Errands:
    """What is under way, given up and not yet cleaned up included."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T], *, seconds: float) -> T:
        """The outcome of `work`. Raises TimeoutError; then, and where whoever waits is cancelled, it is cancelled once,
        and nobody waits for its end."""
        task = self._begin(work)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            late = task.cancel()  # False where it is over
        if late:
            raise TimeoutError
        try:
            return task.result()
        finally:
            # What it raised leads to this frame, and so to it: a circle, which would keep the answer in memory.
            del task

    async def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for `work`, which goes on to its end where whoever waits is cancelled."""
        await asyncio.shield(self._begin(work))

    async def close(self) -> None:
        """Wait for the end of what was given up."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # is seen, also where nobody waits for it any more
