"""What tests of the cache ask: a homeserver whose truth is a number, and time that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from uvs.cache import Cache, Digests, Loaded, Question, Store
from uvs.cache.memory import MemoryStore
from uvs.cache.redis import Command, Connection, RedisStore

SECONDS = 5.0


class Truth:
    """What is so, and who has asked for it. Nobody is answered while `gate` is closed."""

    def __init__(self) -> None:
        self.value: int | None = 0
        self.asked = 0
        self.ended = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def tell(self) -> Loaded[int | None]:
        """As it was when it was asked. `None` is a no, which is not to be kept."""
        self.asked += 1
        value = self.value
        try:
            await self.gate.wait()
        finally:
            self.ended += 1
        if self.error is not None:
            raise self.error
        return Loaded(value, None if value is None else str(value).encode())


class FakeRedis:
    """Implements `uvs.cache.redis.Connection`: enough of Redis, with a clock of its own that goes with the tests'."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.values: dict[Any, tuple[bytes, float]] = {}
        self.exchanges: list[list[Command]] = []
        self.error: Exception | None = None
        self.refusal: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        self.exchanges.append(list(commands))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [self._reply(*command) for command in commands]

    async def close(self) -> None:
        pass

    def _reply(self, name: Any, *arguments: Any) -> Any:
        if name == "MGET":
            return [self._value(key) for key in arguments]
        if self.refusal is not None:
            return self.refusal
        if name == "EVAL":
            _, _, key, scope, generation, value, milliseconds = arguments
            if (self._value(scope) or b"") != generation:
                return None
        else:
            key, value, _, milliseconds = arguments
        self.values[key] = (value, self.clock() + milliseconds / 1000)
        return b"OK"

    def _value(self, key: Any) -> bytes | None:
        value, until = self.values.get(key, (None, 0.0))
        return value if self.clock() < until else None


SECRET = b"secret of all replicas"


class Replica:
    """One process with its cache. `redis` is shared with others; without it, it has its own memory."""

    def __init__(
        self,
        clock: Callable[[], float],
        redis: Connection | None = None,
        *,
        wall: Callable[[], float] | None = None,
        secret: bytes = SECRET,
        store: Store | None = None,
    ) -> None:
        self.told: list[bool] = []
        self.exchanges: list[bool] = []
        digests = Digests(secret)
        if redis is not None:
            store = RedisStore(redis, digests, clock=clock, wall=wall or clock, tell=self.exchanges.append)
        self.cache = Cache(store or MemoryStore(clock=clock), digests, clock=clock)

    def question(
        self, truth: Truth, key: str = "a", *scopes: str, seconds: float = SECONDS, keyed: bool = True
    ) -> Question[int | None]:
        digests = self.cache.digests
        return Question(
            digests.of(b"key", key.encode()) if keyed else None,
            tuple(digests.of(scope.encode()) for scope in scopes or ("scope",)) if keyed else (),
            seconds,
            truth.tell,
            int,
            self.told.append,
        )

    async def get(self, truth: Truth, key: str = "a", *scopes: str, seconds: float = SECONDS) -> int | None:
        return await self.cache.get(self.question(truth, key, *scopes, seconds=seconds))

    async def drop(self, scope: str = "scope") -> None:
        await self.cache.drop(self.cache.digests.of(scope.encode()))


async def settle(times: int = 30) -> None:
    """Everything that can go on does."""
    for _ in range(times):
        await asyncio.sleep(0)


def waiting(*coroutines: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(coroutine) for coroutine in coroutines]


async def outcomes(tasks: Iterable[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)
