"""Answers in the memory of this process: bounded, with those nobody asks about going first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import count
from types import TracebackType
from typing import Any, NamedTuple, Self

from uvs.cache import MISSING, Generation, Question

MOST_BYTES = 64 * 1024 * 1024
"""Of all answers, estimated: 60,000 people, or the levels of some hundred very large rooms."""

ENTRY_BYTES = 1024
GROWTH = 20
"""Bytes in memory for each byte of a power levels event with many short names, parsed."""

MOST_DROPPED = 10_000
"""Scopes whose drop is remembered. Beyond, everything is forgotten: to forget a drop would undo it."""


class _Kept(NamedTuple):
    value: Any
    until: float
    generation: int
    size: int


class MemoryStore:
    """Implements `uvs.cache.Store`. Values are kept as they are, so they must not be changed by anybody."""

    local = True

    def __init__(
        self, *, clock: Callable[[], float], most_bytes: int = MOST_BYTES, most_dropped: int = MOST_DROPPED
    ) -> None:
        self._clock = clock
        self._most_bytes = most_bytes
        self._most_dropped = most_dropped
        self._bytes = 0
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._numbers = count()
        self._never_dropped = next(self._numbers)
        self._generations: dict[bytes, int] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def look_up(self, key: bytes, scope: bytes) -> Any:
        kept = self._kept.get(key)
        if kept is None or self._clock() >= kept.until or kept.generation != self._generation(scope):
            return MISSING
        self._kept.move_to_end(key)
        return kept.value

    async def read(self, questions: Sequence[Question[Any]]) -> None:
        for question in questions:
            question.generations = tuple([self._generation(scope) for scope in question.scopes])
            if question.key is not None and (value := self.look_up(question.key, question.scopes[0])) is not MISSING:
                question.answer(value)

    async def write(
        self, question: Question[Any], generation: Generation, value: Any, raw: bytes, asked: float
    ) -> None:
        key, until, now = question.key, asked + question.seconds, self._clock()
        if key is None or generation != self._generation(question.scopes[0]) or now >= until:
            return
        self._remove(key)
        size = ENTRY_BYTES + GROWTH * len(raw)
        assert isinstance(generation, int)  # noqa: S101 - it is one of ours
        self._kept[key] = _Kept(value, until, generation, size)
        self._bytes += size
        # What nobody asks about any more stands in front; two for each that comes, and it does not heap up there.
        for _ in range(2):
            first = next(iter(self._kept))
            if now < self._kept[first].until:
                break
            self._remove(first)
        while self._bytes > self._most_bytes:
            self._remove(next(iter(self._kept)))

    async def drop(self, scope: bytes) -> None:
        if len(self._generations) >= self._most_dropped and scope not in self._generations:
            self._clear()
            self._never_dropped = next(self._numbers)
        self._generations[scope] = next(self._numbers)

    def _generation(self, scope: bytes) -> int:
        return self._generations.get(scope, self._never_dropped)

    def _remove(self, key: bytes) -> None:
        if (kept := self._kept.pop(key, None)) is not None:
            self._bytes -= kept.size

    def _clear(self) -> None:
        self._kept.clear()
        self._generations.clear()
        self._bytes = 0
