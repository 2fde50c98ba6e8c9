"""A cache in memory: bounded in number, each value kept for as long as it says, and loaded once for all who wait."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from uvs.cache import tell_nobody

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Load = Callable[[V | None], Awaitable[tuple[V, float]]]
"""Gives the value, and for how many seconds to keep it. It is told the value that was kept before, if one still is."""


@dataclass(frozen=True, slots=True)
class _Kept(Generic[V]):
    value: V
    until: float


class _Flight(Generic[V]):
    """A question under way, and for how many."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[V]) -> None:
        self.task = task
        self.waiting = 0


class Cache(Generic[K, V]):
    """`clock` gives seconds and never goes back (`time.monotonic`). `tell` hears of each question whether it could be
    answered from memory."""

    def __init__(self, *, most: int, clock: Callable[[], float], tell: Callable[[bool], None] = tell_nobody) -> None:
        self._most = most
        self._clock = clock
        self._tell = tell
        self._kept: OrderedDict[K, _Kept[V]] = OrderedDict()
        self._flights: dict[K, _Flight[V]] = {}

    async def get(self, key: K, load: Load[V]) -> V:
        """The value of `key`. Whoever asks while it is being loaded waits for that; loading ends with the last of
        them. What it raises, all of them get, and it is not kept."""
        kept = self._kept.get(key)
        if kept is not None and self._clock() < kept.until:
            self._kept.move_to_end(key)
            self._tell(True)
            return kept.value
        self._tell(False)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(self._load(key, load)))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                # Nobody may join it any more, also where it is only now told to end.
                if self._flights.get(key) is flight:
                    del self._flights[key]
                if flight.task.cancel():
                    await asyncio.wait((flight.task,))

    async def _load(self, key: K, load: Load[V]) -> V:
        kept = self._kept.get(key)
        value, seconds = await load(kept.value if kept is not None else None)
        self._kept[key] = _Kept(value, self._clock() + seconds)
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return value
