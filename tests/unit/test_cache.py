"""The cache: bounded, as old as its values allow, and one question for all who wait."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.unit.strangers import Clock
from uvs.errors import CannotTell
from uvs.net.cache import Cache


class Source:
    """Counts how often it is asked, and answers when it is told to."""

    def __init__(self, *, seconds: float = 60.0, open_at_once: bool = True) -> None:
        self.asked: list[str] = []
        self.previous: list[str | None] = []
        self.ended = 0
        self.seconds = seconds
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        if open_at_once:
            self.gate.set()

    async def load(self, key: str, previous: str | None) -> tuple[str, float]:
        self.asked.append(key)
        self.previous.append(previous)
        try:
            await self.gate.wait()
        finally:
            self.ended += 1
        if self.error is not None:
            raise self.error
        return f"{key}{len(self.asked)}", self.seconds


class World:
    def __init__(self, source: Source, *, most: int = 10) -> None:
        self.clock = Clock()
        self.told: list[bool] = []
        self.cache: Cache[str, str] = Cache(most=most, clock=self.clock, tell=self.told.append)
        self.source = source

    async def get(self, key: str) -> str:
        return await self.cache.get(key, lambda previous: self.source.load(key, previous))


async def test_a_value_is_kept_for_as_long_as_it_says() -> None:
    world = World(Source(seconds=60))
    assert await world.get("a") == "a1"
    world.clock.now += 59.9
    assert await world.get("a") == "a1"
    world.clock.now += 0.2
    assert await world.get("a") == "a2"
    assert world.source.previous == [None, "a1"]
    assert world.told == [False, True, False]


async def test_a_value_that_must_not_be_kept_is_not() -> None:
    world = World(Source(seconds=0))
    assert [await world.get("a"), await world.get("a")] == ["a1", "a2"]


async def test_what_was_not_asked_for_longest_is_forgotten_first() -> None:
    world = World(Source(), most=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        await world.get(key)
    assert world.source.asked == ["a", "b", "c", "b"]


async def test_an_error_is_raised_and_not_kept() -> None:
    world = World(Source())
    world.source.error = CannotTell("no")
    with pytest.raises(CannotTell):
        await world.get("a")
    world.source.error = None
    assert await world.get("a") == "a2"


async def test_a_thousand_who_ask_at_once_make_one_question() -> None:
    world = World(Source(open_at_once=False))
    waiting = [asyncio.create_task(world.get("a")) for _ in range(1000)]
    await asyncio.sleep(0)
    world.source.gate.set()
    assert set(await asyncio.gather(*waiting)) == {"a1"}
    assert world.source.asked == ["a"]


async def test_an_error_is_told_to_all_who_wait() -> None:
    world = World(Source(open_at_once=False))
    world.source.error = CannotTell("no")
    waiting = [asyncio.create_task(world.get("a")) for _ in range(10)]
    await asyncio.sleep(0)
    world.source.gate.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [CannotTell] * 10


@pytest.mark.parametrize("leaving", [[0], [1, 2], [0, 2]])
async def test_who_gives_up_does_not_end_the_question_of_the_others(leaving: list[int]) -> None:
    world = World(Source(open_at_once=False))
    waiting = [asyncio.create_task(world.get("a")) for _ in range(3)]
    await asyncio.sleep(0.01)
    for index in leaving:
        waiting[index].cancel()
    await asyncio.sleep(0.01)
    world.source.gate.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    for index, outcome in enumerate(outcomes):
        assert isinstance(outcome, asyncio.CancelledError) if index in leaving else outcome == "a1"
    assert world.source.asked == ["a"]


async def test_the_question_ends_with_the_last_who_waits_and_leaves_no_task() -> None:
    world = World(Source(open_at_once=False))
    waiting = [asyncio.create_task(world.get("a")) for _ in range(3)]
    await asyncio.sleep(0.01)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert world.source.ended == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    world.source.gate.set()
    assert await world.get("a") == "a2"


async def test_who_comes_while_a_question_is_being_given_up_starts_one_of_their_own() -> None:
    world = World(Source(open_at_once=False))
    first = asyncio.create_task(world.get("a"))
    await asyncio.sleep(0.01)
    first.cancel()
    second = asyncio.create_task(world.get("a"))
    await asyncio.sleep(0.01)
    world.source.gate.set()
    assert await second == "a2"
    with contextlib.suppress(asyncio.CancelledError):
        await first
    assert first.cancelled()


async def test_a_deadline_of_one_who_waits_is_theirs_alone() -> None:
    world = World(Source(open_at_once=False))
    patient = asyncio.create_task(world.get("a"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await world.get("a")
    world.source.gate.set()
    assert await patient == "a1"
