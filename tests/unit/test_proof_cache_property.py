"""Whatever the order of joins, kicks, changes of levels, drops, requests, slow answers and steps of the clock: no
answer is older than it may be, and none is from before a drop that came before the question."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.cached import FakeRedis, Replica, settle
from tests.unit.strangers import Clock
from uvs.cache import Loaded, Question
from uvs.cache.memory import MemoryStore
from uvs.errors import CannotTell

TIMES = {"token": 300.0, "membership": 5.0, "levels": 5.0}
"""Kinds, and for how many seconds an answer holds. The scope of a token is itself, that of the others the room."""

kinds = st.sampled_from(["membership", "membership", "membership", "token", "levels"])
rooms, replicas = st.sampled_from("aaaab"), st.sampled_from([0, 0, 0, 1])  # most things happen to the same one


@dataclass
class Fact:
    """What has been so, and since when. 0 is a no."""

    history: list[tuple[float, int]] = field(default_factory=lambda: [(float("-inf"), 1)])

    def now(self) -> int:
        return self.history[-1][1]

    def since(self, moment: float) -> set[int]:
        """Everything that was so at that moment or later."""
        before = [value for time, value in self.history if time <= moment][-1:]
        return {*before, *(value for time, value in self.history if time > moment)}


@dataclass
class Asked:
    kind: str
    room: str
    at: float
    dropped: float
    task: asyncio.Task[int]


class Order(RuleBasedStateMachine):
    """Against memory; each replica has its own, so a drop is told to both."""

    shared = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.redis = FakeRedis(self.clock) if self.shared else None
        self.walls = [Clock(), Clock()]
        self.facts = {(kind, room): Fact() for kind in TIMES for room in "ab"}
        self.dropped = dict.fromkeys(self.facts, float("-inf"))
        self.slow: list[asyncio.Event] = []
        self.asked: list[Asked] = []
        self.value = 1
        self.replicas = [self.replica(number) for number in range(2)]

    def replica(self, number: int) -> Replica:
        if self.redis is not None:
            return Replica(self.clock, self.redis, wall=lambda: self.clock.now + self.walls[number].now)
        return Replica(self.clock, store=MemoryStore(clock=self.clock, most_bytes=4000, most_dropped=3))

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def tick(self) -> None:
        """Two things never happen at the same moment."""
        self.clock.now += 0.001

    def question(self, replica: Replica, kind: str, room: str, slow: bool) -> Question[int]:
        digests = replica.cache.digests
        scope = digests.of(kind.encode() if kind == "token" else b"room", room.encode())
        gate = asyncio.Event()
        if slow:
            self.slow.append(gate)
        else:
            gate.set()

        async def load() -> Loaded[int]:
            value = self.facts[kind, room].now()
            await gate.wait()
            if value < 0:
                raise CannotTell("no")
            return Loaded(value, str(value).encode() if value else None)

        return Question(digests.of(kind.encode(), b"key", room.encode()), (scope,), TIMES[kind], load, int)

    @rule(kind=kinds, room=rooms, how=st.sampled_from(["yes", "yes", "yes", "no", "failing"]))
    def change(self, kind: str, room: str, how: str) -> None:
        self.tick()
        self.value += 1
        value = {"yes": self.value, "no": 0, "failing": -1}[how]
        self.facts[kind, room].history.append((self.clock.now, value))

    @rule(kind=kinds, room=rooms, number=replicas, slow=st.booleans())
    def ask(self, kind: str, room: str, number: int, slow: bool) -> None:
        self.tick()
        replica = self.replicas[number]

        async def ask() -> None:
            task = asyncio.create_task(replica.cache.get(self.question(replica, kind, room, slow)))
            self.asked.append(Asked(kind, room, self.clock.now, self.dropped[kind, room], task))
            await settle()

        self.run(ask())

    @rule(kind=kinds, room=rooms, number=replicas)
    def drop(self, kind: str, room: str, number: int) -> None:
        self.tick()
        told = self.replicas if self.redis is None else [self.replicas[number]]
        for replica in told:
            scope = replica.cache.digests.of(kind.encode() if kind == "token" else b"room", room.encode())
            self.run(replica.cache.drop(scope))
        for each in ["token"] if kind == "token" else ["membership", "levels"]:
            self.dropped[each, room] = self.clock.now

    @rule(which=st.integers(0, 5))
    def answer(self, which: int) -> None:
        if which < len(self.slow):
            self.slow.pop(which).set()
            self.run(settle())

    @rule(which=st.integers(0, 5))
    def give_up(self, which: int) -> None:
        if which < len(self.asked):
            self.asked[which].task.cancel()
            self.run(settle())

    @rule(seconds=st.sampled_from([0.5, 2.4, 4.9, 5.0, 60.0, 299.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def nothing_is_older_than_it_may_be(self) -> None:
        for asked in [asked for asked in self.asked if asked.task.done()]:
            self.asked.remove(asked)
            if asked.task.cancelled():
                continue
            oldest = max(asked.at - TIMES[asked.kind], asked.dropped)
            values = self.facts[asked.kind, asked.room].since(oldest)
            error = asked.task.exception()
            assert (-1 if isinstance(error, CannotTell) else asked.task.result()) in values

    def teardown(self) -> None:
        async def give_up() -> None:
            await asyncio.gather(*(asked.task for asked in self.asked), return_exceptions=True)
            await settle()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        for asked in self.asked:
            asked.task.cancel()
        try:
            self.run(give_up())
        finally:
            self.loop.close()
        assert [replica.cache._flights for replica in self.replicas] == [{}, {}]


class SharedOrder(Order):
    """Against Redis, which goes away and comes back, and replicas whose clocks are set."""

    shared = True

    @rule(number=replicas, seconds=st.sampled_from([-4000.0, -3.0, -1.0, 0.0, 1.0, 3.0, 4000.0]))
    def set_the_clock(self, number: int, seconds: float) -> None:
        self.walls[number].now = 1000.0 + seconds

    @rule()
    def redis_goes_away(self) -> None:
        assert self.redis is not None
        self.redis.error = OSError()

    @rule()
    def redis_comes_back(self) -> None:
        assert self.redis is not None
        self.redis.error = None

    @rule(kind=kinds, room=rooms, number=replicas)
    def drop(self, kind: str, room: str, number: int) -> None:
        try:
            super().drop(kind, room, number)
        except CannotTell:
            assert self.redis is not None
            assert self.redis.error is not None  # tried again, as its caller would, once it is back
            self.redis.error = None
            super().drop(kind, room, number)


_SETTINGS = settings(max_examples=200, stateful_step_count=50, deadline=None)


class TestInMemory(Order.TestCase):  # type: ignore[misc, valid-type]
    settings = _SETTINGS


class TestInRedis(SharedOrder.TestCase):  # type: ignore[misc, valid-type]
    settings = _SETTINGS
