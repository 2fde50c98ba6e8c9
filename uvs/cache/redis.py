"""Answers in Redis or Valkey, for several replicas (docs/caching.md).

Redis is not trusted: a value counts only with a MAC, for the key and the generation that it stands under, and only for
as long after it was asked as it may. Nor is it relied on: where it is down, nothing is kept.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, Protocol, Self

from uvs.cache import MISSING, Digests, Generation, Question, tell_nobody
from uvs.errors import CannotTell

TIMEOUT = 0.25
"""Seconds for one exchange, connecting included: a homeserver nearby answers in less."""

REST = 1.0
"""Seconds for which it is left alone after a failure; then one question tries whether it is back."""

MAX_VALUE = 1024 * 1024
"""Bytes. A larger one is not written, and reading it is a failure."""

MAX_COMMANDS = 512
"""In one exchange; the others wait for the next."""

MAX_WAITING = 2048
"""For the next exchanges. What comes beyond does without Redis: to wait for it would take longer than to ask the
homeserver."""

SKEW = 2.0
"""Seconds by which the clocks of replicas may differ."""

GENERATION_MS = 2 * 3600 * 1000
"""Longer than any answer is kept: where a generation expires, nothing older than it may be left."""

MAC_BYTES, TIME_BYTES = 32, 8

_SET_IF = """\
if (redis.call('GET', KEYS[2]) or '') == ARGV[1] then
  return redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end"""
"""What is outdated would count for nothing, but it would take the place of what is not."""

_log = logging.getLogger("uvs")

Command = tuple[str | bytes | int, ...]


class Connection(Protocol):
    """What is needed of Redis."""

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Their replies, in order; of one that Redis refuses, the exception. Raises anything."""

    async def close(self) -> None:
        """Close what is open. It is opened anew for the next commands."""


class RedisStore:
    """Implements `uvs.cache.Store`. `clock` gives seconds and never goes back, `wall` those since 1970. `tell` hears
    of each exchange whether Redis took part in it."""

    local = False

    def __init__(
        self,
        connection: Connection,
        digests: Digests,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        tell: Callable[[bool], None] = tell_nobody,
    ) -> None:
        self._connection = connection
        self._digests = digests
        self._clock = clock
        self._wall = wall
        self._tell = tell
        self._waiting: deque[tuple[list[Command], asyncio.Future[list[Any] | None]]] = deque()
        self._exchanges: asyncio.Task[None] | None = None
        self._down = False
        self._refusing = False
        self._try_again = 0.0
        self._lost_drops = 0
        self._nothing_before = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._exchanges is not None:
            self._exchanges.cancel()
            await asyncio.wait((self._exchanges,))
        await self._connection.close()

    def look_up(self, key: bytes, scope: bytes) -> Any:
        del key, scope
        return MISSING

    async def read(self, questions: Sequence[Question[Any]]) -> None:
        keys: list[str | bytes | int] = []
        for question in questions:
            keys += [_value_name(question.key or b""), *map(_generation_name, question.scopes)]
        values = await self._read(keys)
        if values is None:
            for question in questions:
                question.generations = (self._generation(None),) * len(question.scopes)
            return
        left = iter(values)
        for question in questions:
            value, *generations = islice(left, 1 + len(question.scopes))
            question.generations = tuple([self._generation(generation or b"") for generation in generations])
            if value is not None and (raw := self._open(question, generations[0] or b"", value)) is not None:
                with suppress(Exception):  # what cannot be read (any more) is not there
                    question.answer(question.decode(raw))

    async def write(
        self, question: Question[Any], generation: Generation, value: Any, raw: bytes, asked: float
    ) -> None:
        del value
        assert isinstance(generation, bytes)  # noqa: S101 - it is one of ours
        age = self._clock() - asked
        # It may arrive that much later; Redis counts from then on.
        left = question.seconds - age - TIMEOUT
        known = self._generation(b"")
        if question.key is None or left <= 0 or len(raw) > MAX_VALUE // 2 or not generation.startswith(known):
            return
        generation = generation.removeprefix(known)
        sealed = self._seal(question.key, generation, self._wall() - age, raw)
        names = _value_name(question.key), _generation_name(question.scopes[0])
        replies = await self._exchange([("EVAL", _SET_IF, 2, *names, generation, sealed, int(left * 1000) or 1)])
        if replies is not None:
            self._note_refusal(replies[0])

    async def drop(self, scope: bytes) -> None:
        command = ("SET", _generation_name(scope), secrets.token_bytes(16), "PX", GENERATION_MS)
        replies = await self._exchange([command], even_if_down=True)
        if replies is None or isinstance(replies[0], Exception):
            # Here, nothing counts that was asked before, whatever it is about. The others have not heard of it.
            self._lost_drops += 1
            self._nothing_before = self._wall() + SKEW
            raise CannotTell("Forgetting what is kept failed: Redis did not answer; see UVS_CACHE_URL, then try again.")

    async def script(self, text: str, key: str, *arguments: int) -> object:
        """The reply to this Lua script; `None` where there is none. Implements `uvs.limits.Scripts`."""
        replies = await self._exchange([("EVAL", text, 1, key, *arguments)])
        return None if replies is None or isinstance(replies[0], Exception) else replies[0]

    # --- what is written ----------------------------------------------------------------------------------------------

    def _generation(self, raw: bytes | None) -> bytes:
        """As it is compared here; `None` where it could not be read. Whatever is compared with one from before a drop
        that Redis did not hear of is another."""
        return self._lost_drops.to_bytes(8, "big") + (b"?" if raw is None else b"=" + raw)

    def _seal(self, key: bytes, generation: bytes, asked: float, raw: bytes) -> bytes:
        """`asked`: when, by the clocks on the wall."""
        time = int(asked * 1000).to_bytes(TIME_BYTES, "big", signed=True)  # clocks may start before 1970
        return self._digests.of(b"value", key, generation, time, raw) + time + raw

    def _open(self, question: Question[Any], generation: bytes, value: bytes) -> bytes | None:
        """What is in it; `None` where it must not count."""
        mac, time, raw = value[:MAC_BYTES], value[MAC_BYTES : MAC_BYTES + TIME_BYTES], value[MAC_BYTES + TIME_BYTES :]
        if not hmac.compare_digest(mac, self._digests.of(b"value", question.key or b"", generation, time, raw)):
            return None
        asked = int.from_bytes(time, "big", signed=True) / 1000
        if asked <= self._nothing_before or not -SKEW <= self._wall() - asked < question.seconds:
            return None
        return raw

    # --- exchanges ----------------------------------------------------------------------------------------------------

    async def _read(self, keys: list[str | bytes | int]) -> list[bytes | None] | None:
        replies = await self._exchange([("MGET", *keys)])
        if replies is None or not isinstance(replies[0], list) or len(replies[0]) != len(keys):
            return None
        return [value if isinstance(value, bytes) else None for value in replies[0]]

    async def _exchange(self, commands: list[Command], *, even_if_down: bool = False) -> list[Any] | None:
        """The replies; `None` where it is down. What is wanted while an exchange is under way goes with the next."""
        if self._down and not even_if_down:
            if self._clock() < self._try_again:
                return None
            self._try_again = self._clock() + REST
        if len(self._waiting) >= MAX_WAITING and not even_if_down:
            return None
        replies: asyncio.Future[list[Any] | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, replies))
        if self._exchanges is None or self._exchanges.done():
            self._exchanges = asyncio.create_task(self._make_exchanges())
        return await replies

    async def _make_exchanges(self) -> None:
        while self._waiting:
            wanted = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_COMMANDS))]
            replies = await self._make_exchange([command for commands, _ in wanted for command in commands])
            if replies is None:
                wanted += self._waiting
                self._waiting.clear()
            left = iter(replies or ())
            for commands, future in wanted:
                if replies is not None:
                    mine = list(islice(left, len(commands)))
                if not future.done():  # nobody waits any more
                    future.set_result(None if replies is None else mine)

    async def _make_exchange(self, commands: Sequence[Command]) -> list[Any] | None:
        try:
            async with asyncio.timeout(TIMEOUT):
                replies = await self._connection.run(commands)
            for command, reply in zip(commands, replies, strict=True):
                if isinstance(reply, Exception) and command[0] == "MGET":
                    raise reply  # noqa: TRY301 - it cannot be worked with, as if it were away
        except Exception as error:  # noqa: BLE001 - whatever happens to it, answers come from the homeserver
            await self._fail(error)
            return None
        self._tell(True)
        if self._down:
            self._down = False
            _log.warning("The cache (UVS_CACHE_URL) is reachable again")
        return replies

    async def _fail(self, error: Exception) -> None:
        self._tell(False)
        self._try_again = self._clock() + REST
        if not self._down:
            self._down = True
            # The kind of error alone: its text is Redis's, and may quote anything.
            _log.warning(
                "The cache (UVS_CACHE_URL) is unreachable (%s); answers come from the homeserver", type(error).__name__
            )
        await self._connection.close()

    def _note_refusal(self, reply: object) -> None:
        """Redis answers, and will not keep anything: it is full, or a copy that may only be read."""
        refusing = isinstance(reply, Exception)
        if refusing and not self._refusing:
            _log.warning("The cache (UVS_CACHE_URL) keeps nothing: Redis answers %s", type(reply).__name__)
        self._refusing = refusing


def _value_name(key: bytes) -> str:
    return "uvs:a:" + key.hex()


def _generation_name(scope: bytes) -> str:
    return "uvs:g:" + scope.hex()
