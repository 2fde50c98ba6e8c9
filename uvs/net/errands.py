"""Work with the engine that is cancelled once at most, and then has the time that it takes to clean up.

A call's timeout and its request's deadline end at nearly the same moment. Where the second cancels what the first has
cancelled already, it interrupts the engine in giving a connection back, and that one is lost to it for good: after a
hundred of them nobody could be asked any more.
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
        """The outcome of `work`. Raises TimeoutError; then, and where whoever waits is cancelled, it is cancelled, and
        nobody waits for its end."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._over)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            late = task.cancel()  # False where it is over
        if late:
            raise TimeoutError
        return task.result()

    async def close(self) -> None:
        """Wait for the end of what was given up."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # is seen, also where nobody waits for it any more
