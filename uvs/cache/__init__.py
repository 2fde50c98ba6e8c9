"""What homeservers say about people and rooms, kept for seconds (docs/caching.md), and asked once for all who wait.

(`uvs/net/cache.py` is another: what is found out about other people's homeservers says itself how long it holds, and is
not shared between replicas.)
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, Protocol, Self, TypeVar, cast

V = TypeVar("V")


class _Missing:
    """No value, and no value that anybody can have said."""


MISSING: Final = _Missing()

Generation = int | bytes
"""Of a scope: changes with each drop. What was asked under one holds under no other."""


class Loaded(NamedTuple, Generic[V]):
    """What came of a question. `raw` is the value in bytes where it may be kept: a *no* never has any. `also` are
    answers to other questions of the same scopes that came along with it."""

    value: V
    raw: bytes | None = None
    also: tuple[tuple[Question[Any], Any, bytes], ...] = ()


Load = Callable[[], Awaitable[Loaded[V]]]


def tell_nobody(_hit: bool) -> None:
    """For who measures nothing."""


Tell = Callable[[str], Callable[[bool], None]]
"""Gives for each cache whom to tell of hits and misses."""


def tell_nobody_of(_cache: str) -> Callable[[bool], None]:
    """For who measures nothing of any."""
    return tell_nobody


class Question(Generic[V]):
    """One question, asked by one caller, and its outcome. `key` is `None` where nothing of it may be kept or shared.
    The answer belongs to the first of `scopes`, and counts only under the generations of all of them."""

    __slots__ = ("_error", "_trace", "_value", "decode", "generations", "key", "load", "scopes", "seconds", "tell")

    def __init__(  # noqa: PLR0913, PLR0917 - what there is to know of a question
        self,
        key: bytes | None,
        scopes: tuple[bytes, ...],
        seconds: float,
        load: Load[V] | None,
        decode: Callable[[bytes], V],
        tell: Callable[[bool], None] = tell_nobody,
    ) -> None:
        """Without `load`, only the store is asked. `decode` reads what `Loaded.raw` is; may raise anything."""
        self.key = key
        self.scopes = scopes
        self.seconds = seconds
        self.load = load
        self.decode = decode
        self.tell = tell
        self.generations: tuple[Generation, ...] = ()
        self._value: V | _Missing = MISSING
        self._error: BaseException | None = None
        self._trace: TracebackType | None = None

    @property
    def answered(self) -> bool:
        return self._value is not MISSING

    def answer(self, value: V) -> None:
        self._value = value

    def fail(self, error: BaseException) -> None:
        self._error, self._trace = error, error.__traceback__

    def result(self) -> V:
        """The answer, once it was asked. Raises what the asking raised."""
        if self._error is not None:
            # Several may wait for it: each gets the trace that it had, and not those of the others as well. What is
            # raised leads to this frame, and so to itself: a circle.
            error, self._error = self._error.with_traceback(self._trace), None
            self._trace = None
            try:
                raise error
            finally:
                del error
        return cast("V", self._value)


class Store(Protocol):
    """Where answers are. An asynchronous context manager. Nothing but `drop` raises, whatever happens to it."""

    local: bool
    """Whether it is the memory of this process, so that `look_up` may find something."""

    def look_up(self, key: bytes, scope: bytes) -> Any:
        """The answer that is kept under `key`, or MISSING, without asking anybody."""

    async def read(self, questions: Sequence[Question[Any]]) -> None:
        """Set the generations of each, and answer those whose answer is kept, under these and no older than their
        seconds."""

    async def write(
        self, question: Question[Any], generation: Generation, value: Any, raw: bytes, asked: float
    ) -> None:
        """Keep it if its scope's generation is still that one. `asked`: when by the clock."""

    async def drop(self, scope: bytes) -> None:
        """Forget what belongs to it. Raises CannotTell where others may not have heard of it."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Digests:
    """Names of what is kept. Nobody without the secret can tell, or make, the one of a token, a person or a room."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, *parts: bytes) -> bytes:
        """Each part stands behind its length, so that no two lists have the same."""
        return hmac.digest(self._secret, joined(*parts), "sha256")


def joined(*parts: bytes) -> bytes:
    """One text for a list of them, and another for each other list."""
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


class _Waiter:
    """Who waits for the answers to `left` questions."""

    __slots__ = ("future", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def one_less(self) -> None:
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(None)


class _Flight:
    """A question under way, and for whom. (`asyncio.wait` and its like would cost as much as the rest of it.)"""

    __slots__ = ("asked", "generations", "task", "waiting")
    task: asyncio.Task[None]

    def __init__(self, asked: float, generations: tuple[Generation, ...]) -> None:
        self.asked = asked
        self.generations = generations
        self.waiting: dict[Question[Any], _Waiter] = {}

    def land(self, value: Any, error: BaseException | None) -> None:
        """Tell all who wait: the value, unless there is an error."""
        for question, waiter in self.waiting.items():
            if error is None:
                question.answer(value)
            else:
                question.fail(error)
            waiter.one_less()
        self.waiting.clear()


class Cache:
    """`clock` gives seconds and never goes back (`time.monotonic`)."""

    def __init__(self, store: Store, digests: Digests, *, clock: Callable[[], float]) -> None:
        self.digests = digests
        self.store = store
        self._clock = clock
        self._flights: dict[bytes, _Flight] = {}

    async def __aenter__(self) -> Self:
        await self.store.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.store.__aexit__(kind, error, trace)

    async def ask(self, *questions: Question[Any]) -> None:
        """Answer all of them, from the store or by asking: at once, each once for all who wait for it. Whoever gives up
        takes nothing from the others; the asking ends with the last of them. Failures are raised by `result`."""
        kept = [question for question in questions if question.key is not None]
        if kept:
            await self.store.read(kept)
            for question in kept:
                question.tell(question.answered)
        open_ones = [question for question in questions if not question.answered and question.load is not None]
        if not open_ones:
            return
        waiter = _Waiter(len(open_ones))
        flights = [self._board(question, waiter) for question in open_ones]
        try:
            await waiter.future
        finally:
            if waiter.left:
                await self._leave(open_ones, flights)

    async def get(self, question: Question[V]) -> V:
        """Ask this one. Raises what asking raises."""
        await self.ask(question)
        return question.result()

    async def drop(self, scope: bytes) -> None:
        """Forget what belongs to it. Who asks from now on gets nothing that was asked before; who waits
        already may. Raises CannotTell where other replicas may not have heard of it."""
        await self.store.drop(scope)

    def _board(self, question: Question[Any], waiter: _Waiter) -> _Flight:
        flight = None if question.key is None else self._flights.get(question.key)
        now = self._clock()
        # An answer may be as old as its question, so one that began too long ago is as good as too old already.
        if flight is None or flight.generations != question.generations or now - flight.asked >= question.seconds:
            flight = _Flight(now, question.generations)
            flight.task = asyncio.create_task(self._fly(question, flight))
            if question.key is not None:
                self._flights[question.key] = flight
        flight.waiting[question] = waiter
        return flight

    async def _fly(self, question: Question[Any], flight: _Flight) -> None:
        value, error = None, None
        try:
            value = await self._load(question, flight)
        except BaseException as what:
            error = what
            if not isinstance(what, Exception):
                raise
        finally:
            # Only now: whoever comes between the answer and its being kept would ask once more.
            self._forget(question, flight)
            flight.land(value, error)
            # What was raised leads to this frame, and this to it: a circle, which would keep the answer in memory.
            del error

    async def _load(self, question: Question[V], flight: _Flight) -> V:
        assert question.load is not None  # noqa: S101 - see `ask`
        value, raw, also = await question.load()
        if question.key is not None:
            if raw is not None:
                also = ((question, value, raw), *also)
            for other, its_value, its_raw in also:
                if other.key is not None:
                    generation = flight.generations[question.scopes.index(other.scopes[0])]
                    await self.store.write(other, generation, its_value, its_raw, flight.asked)
        return value

    def _forget(self, question: Question[Any], flight: _Flight) -> None:
        if question.key is not None and self._flights.get(question.key) is flight:
            del self._flights[question.key]

    async def _leave(self, questions: Sequence[Question[Any]], flights: Sequence[_Flight]) -> None:
        """Without the answers: those who give up. What nobody else waits for ends with them."""
        ending = set()
        for question, flight in zip(questions, flights, strict=True):
            flight.waiting.pop(question, None)
            if not flight.waiting and not flight.task.done():
                self._forget(question, flight)  # nobody may join it any more
                flight.task.cancel()
                ending.add(flight.task)
        if ending:
            await asyncio.wait(ending)
