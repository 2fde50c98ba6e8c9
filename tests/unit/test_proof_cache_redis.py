"""Redis is neither trusted nor relied on."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cached import SECONDS, FakeRedis, Replica, Truth, outcomes, settle, waiting
from tests.unit.strangers import Clock
from uvs.cache.redis import MAX_WAITING, REST, SKEW, TIMEOUT
from uvs.errors import CannotTell


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def redis(clock: Clock) -> FakeRedis:
    return FakeRedis(clock)


@pytest.fixture
def truth() -> Truth:
    return Truth()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "uvs"]


class TestTwoReplicas:
    async def test_what_one_was_told_the_other_knows(self, clock: Clock, redis: FakeRedis, truth: Truth) -> None:
        one, other = Replica(clock, redis), Replica(clock, redis)
        assert [await one.get(truth), await other.get(truth)] == [0, 0]
        assert truth.asked == 1

    async def test_a_drop_at_one_counts_at_the_other(self, clock: Clock, redis: FakeRedis, truth: Truth) -> None:
        one, other = Replica(clock, redis), Replica(clock, redis)
        await one.get(truth)
        truth.gate.clear()
        (early,) = waiting(one.get(truth, "under way"))
        await settle()
        truth.value = 1
        await other.drop()
        late = waiting(one.get(truth, "under way"), other.get(truth, "under way"), one.get(truth))
        await settle()
        truth.gate.set()
        assert (await early, *await outcomes(late)) == (0, 1, 1, 1)
        assert await one.get(truth, "under way") == 1

    async def test_with_another_secret_they_know_nothing_of_each_other(
        self, clock: Clock, redis: FakeRedis, truth: Truth
    ) -> None:
        await Replica(clock, redis).get(truth)
        truth.value = 1
        assert await Replica(clock, redis, secret=b"another").get(truth) == 1


class TestClocks:
    async def test_a_clock_that_is_set_back_makes_nothing_live_longer(
        self, clock: Clock, redis: FakeRedis, truth: Truth
    ) -> None:
        wall = Clock()
        replica = Replica(clock, redis, wall=wall)
        await replica.get(truth)
        truth.value = 1
        wall.now -= 1.0
        clock.now += SECONDS
        assert await replica.get(truth) == 1

    async def test_what_arrives_late_in_redis_is_not_kept_for_longer(
        self, clock: Clock, redis: FakeRedis, truth: Truth
    ) -> None:
        truth.gate.clear()
        (slow,) = waiting(Replica(clock, redis).get(truth))
        await settle()
        clock.now += 2
        truth.gate.set()
        await slow
        ((_, until),) = redis.values.values()
        assert until == pytest.approx(clock.now - 2 + SECONDS - TIMEOUT)

    @pytest.mark.parametrize("apart", [SKEW + 0.1, -SECONDS])
    async def test_replicas_whose_clocks_are_apart_do_not_believe_each_other(
        self, clock: Clock, redis: FakeRedis, truth: Truth, apart: float
    ) -> None:
        wall = Clock()
        wall.now += apart
        await Replica(clock, redis, wall=wall).get(truth)
        truth.value = 1
        assert await Replica(clock, redis).get(truth) == 1

    async def test_a_value_that_does_not_expire_by_itself_counts_no_longer(
        self, clock: Clock, redis: FakeRedis, truth: Truth
    ) -> None:
        replica = Replica(clock, redis)
        await replica.get(truth)
        redis.values = {key: (value, float("inf")) for key, (value, _) in redis.values.items()}
        truth.value = 1
        clock.now += SECONDS
        assert await replica.get(truth) == 1


async def values_of(replica: Replica, redis: FakeRedis, truth: Truth, *keys: str) -> list[Any]:
    """The keys in Redis, after each was asked."""
    for key in keys:
        await replica.get(truth, key)
    return [key for key in redis.values if ":a:" in key]


class TestWhoCanWriteThere:
    @given(st.integers(min_value=0), st.integers(1, 255))
    def test_a_changed_value_counts_for_nothing(self, position: int, change: int) -> None:
        async def change_it() -> None:
            clock, truth = Clock(), Truth()
            redis = FakeRedis(clock)
            replica = Replica(clock, redis)
            truth.value = 1234567
            (key,) = await values_of(replica, redis, truth, "a")
            value, until = redis.values[key]
            at = position % len(value)
            redis.values[key] = (value[:at] + bytes([value[at] ^ change]) + value[at + 1 :], until)
            truth.value = 2
            assert await replica.get(truth) == 2

        asyncio.run(change_it())

    @given(st.binary(max_size=100))
    def test_nor_does_a_value_of_theirs(self, value: bytes) -> None:
        async def forge() -> None:
            clock, truth = Clock(), Truth()
            redis = FakeRedis(clock)
            replica = Replica(clock, redis)
            (key,) = await values_of(replica, redis, truth, "a")
            redis.values[key] = (value, float("inf"))
            truth.value = 1
            assert await replica.get(truth) == 1

        asyncio.run(forge())

    async def test_nor_does_that_of_another_key(self, clock: Clock, redis: FakeRedis, truth: Truth) -> None:
        replica = Replica(clock, redis)
        one, other = await values_of(replica, redis, truth, "a", "b")
        redis.values[one] = redis.values[other]
        truth.value = 1
        assert await replica.get(truth) == 1

    async def test_nor_does_one_from_before_a_drop(self, clock: Clock, redis: FakeRedis, truth: Truth) -> None:
        replica = Replica(clock, redis)
        (key,) = await values_of(replica, redis, truth, "a")
        old = redis.values[key]
        await replica.drop()
        redis.values[key] = old
        truth.value = 1
        assert await replica.get(truth) == 1

    async def test_no_token_person_or_room_stands_in_a_key(self, clock: Clock, redis: FakeRedis, truth: Truth) -> None:
        replica = Replica(clock, redis)
        await replica.get(truth, "@alice:example.org")
        await replica.drop("!room:example.org")
        assert [key for key in redis.values if not key.startswith("uvs:") or "example" in key] == []


class TestWhenItIsDown:
    async def test_answers_come_from_the_homeserver_and_nothing_old_is_used(
        self, clock: Clock, redis: FakeRedis, truth: Truth, caplog: pytest.LogCaptureFixture
    ) -> None:
        replica = Replica(clock, redis)
        await replica.get(truth)
        redis.error = ConnectionError("redis://:password@host")
        truth.value = 1
        for _ in range(20):
            assert await replica.get(truth) == 1
            clock.now += REST / 10
        redis.error = None
        clock.now += REST
        assert [await replica.get(truth) for _ in range(3)] == [0, 0, 0]  # it is not yet over, and there all along
        assert said(caplog) == [
            "The cache (UVS_CACHE_URL) is unreachable (ConnectionError); answers come from the homeserver",
            "The cache (UVS_CACHE_URL) is reachable again",
        ]

    async def test_it_is_left_alone_for_a_second_and_then_one_tries(
        self, clock: Clock, redis: FakeRedis, truth: Truth
    ) -> None:
        replica = Replica(clock, redis)
        redis.error = OSError()
        for expected in (1, 1, 2, 2):
            await outcomes(waiting(*(replica.get(truth) for _ in range(10))))
            assert len(redis.exchanges) == expected
            if expected == 1:
                clock.now += REST / 2
        assert replica.exchanges == [False, False]

    async def test_the_same_question_is_still_asked_once(self, clock: Clock, redis: FakeRedis, truth: Truth) -> None:
        replica = Replica(clock, redis)
        redis.error = OSError()
        truth.gate.clear()
        asking = waiting(*(replica.get(truth) for _ in range(100)))
        await settle()
        truth.gate.set()
        assert set(await outcomes(asking)) == {0}
        assert truth.asked == 1

    async def test_one_that_does_not_answer_takes_a_quarter_of_a_second_once(
        self, clock: Clock, redis: FakeRedis, truth: Truth
    ) -> None:
        replica = Replica(clock, redis)
        redis.gate.clear()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await replica.get(truth) == 0
        assert loop.time() - began >= TIMEOUT
        exchanges = len(redis.exchanges)
        assert await replica.get(truth) == 0
        assert len(redis.exchanges) == exchanges

    async def test_a_drop_it_does_not_hear_of_is_told_and_counts_here(
        self, clock: Clock, redis: FakeRedis, truth: Truth
    ) -> None:
        replica = Replica(clock, redis)
        await replica.get(truth)
        truth.gate.clear()
        (early,) = waiting(replica.get(truth, "under way"))
        await settle()
        redis.error = OSError()
        with pytest.raises(CannotTell, match="try again"):
            await replica.drop()
        redis.error = None
        clock.now += REST
        assert await replica.get(Truth(), "is it back?") == 0
        truth.value = 1
        late = waiting(replica.get(truth, "under way"), replica.get(truth))
        await settle()
        truth.gate.set()
        assert (await early, *await outcomes(late)) == (0, 1, 1)

    async def test_what_was_asked_while_it_was_down_is_not_kept_after_a_drop_elsewhere(
        self, clock: Clock, redis: FakeRedis, truth: Truth
    ) -> None:
        replica = Replica(clock, redis)
        redis.error = OSError()
        truth.gate.clear()
        (early,) = waiting(replica.get(truth))
        await settle()
        redis.error = None
        clock.now += REST
        await Replica(clock, redis).drop()
        truth.value = 1
        truth.gate.set()
        assert await early == 0
        assert await replica.get(truth) == 1

    @pytest.mark.parametrize("replies", [[], [None], [[None]], [b"text"], [[b"a", 1, {}]], [ValueError()]])
    async def test_what_no_redis_would_say_is_nothing(
        self, clock: Clock, redis: FakeRedis, truth: Truth, replies: list[Any]
    ) -> None:
        async def run(_: object) -> list[Any]:
            return replies

        redis.run = run  # type: ignore[method-assign, assignment]
        assert await Replica(clock, redis).get(truth) == 0

    async def test_one_that_keeps_nothing_is_one_line(
        self, clock: Clock, redis: FakeRedis, truth: Truth, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        replica = Replica(clock, redis)
        redis.refusal = MemoryError("full")
        for _ in range(3):
            assert await replica.get(truth) == 0
        assert said(caplog) == ["The cache (UVS_CACHE_URL) keeps nothing: Redis answers MemoryError"]
        with pytest.raises(CannotTell):
            await replica.drop()


class TestExchanges:
    async def test_what_is_wanted_meanwhile_goes_together(self, clock: Clock, redis: FakeRedis) -> None:
        replica = Replica(clock, redis)
        asking = waiting(*(replica.get(Truth(), str(number)) for number in range(100)))
        assert set(await outcomes(asking)) == {0}
        assert len(redis.exchanges) < 10

    async def test_who_gives_up_takes_nothing_from_the_others(self, clock: Clock, redis: FakeRedis) -> None:
        replica = Replica(clock, redis)
        redis.gate.clear()
        asking = waiting(*(replica.get(Truth(), str(number)) for number in range(10)))
        await settle()
        for task in asking[::2]:
            task.cancel()
        await settle()
        redis.gate.set()
        assert [outcome == 0 for outcome in await outcomes(asking)] == [False, True] * 5

    async def test_nothing_goes_on_after_the_end(self, clock: Clock, redis: FakeRedis) -> None:
        replica = Replica(clock, redis)
        async with replica.cache:
            redis.gate.clear()
            asking = waiting(replica.get(Truth()))
            await settle()
            asking[0].cancel()
            await outcomes(asking)
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_those_beyond_what_redis_can_be_asked_ask_the_homeserver(
    clock: Clock, redis: FakeRedis, truth: Truth
) -> None:
    replica = Replica(clock, redis)
    redis.gate.clear()
    asking = waiting(*(replica.get(truth, str(number)) for number in range(MAX_WAITING + 100)))
    await settle()
    assert 50 < truth.asked < MAX_WAITING  # these were not kept waiting
    redis.gate.set()
    assert set(await outcomes(asking)) == {0}
