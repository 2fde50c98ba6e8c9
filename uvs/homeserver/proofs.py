"""What a way in to a homeserver keeps of its answers, and for how long (docs/caching.md): never a *no*, nor a failure.

A question is made here, and asked with `ask` or `get`; the way in only says how it is asked at the homeserver.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from uvs.cache import MISSING, Cache, Digests, Load, Loaded, Question, Tell, joined, tell_nobody_of
from uvs.cache.memory import MemoryStore
from uvs.errors import Refusal
from uvs.homeserver.events import read_content, read_levels
from uvs.matrix.identifiers import RoomID, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.power_levels import PowerLevels, RoomCreation

V = TypeVar("V")


class Kind(StrEnum):
    """What is kept. The values are labels of metrics, so the set is closed."""

    TOKEN = "token"  # noqa: S105 - the kind of it
    ACCOUNT = "account"
    MEMBERSHIP = "membership"
    POWER_LEVELS = "power_levels"
    CREATION = "creation"


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds for which answers are kept; 0: not at all."""

    token: float = 0.0
    membership: float = 0.0
    power_levels: float = 0.0

    @property
    def standing(self) -> float:
        """Where membership and levels come in one answer."""
        return min(self.membership, self.power_levels)


_OF_A_MEMBER = (Kind.TOKEN, Kind.ACCOUNT, Kind.MEMBERSHIP, Kind.POWER_LEVELS)

_YES = b"yes"


class Proofs:
    """Those of one homeserver, or of all of other people's."""

    def __init__(
        self,
        cache: Cache,
        times: Times,
        *whose: str,
        tell: Tell = tell_nobody_of,
    ) -> None:
        """`whose` tells them from those of every other homeserver, way in and setting. `tell` gives for each kind whom
        to tell of hits and misses."""
        self.times = times
        self._cache = cache
        self._in_memory = bool(cache.store.local and times.token and times.standing)
        self._whose = joined(*map(str.encode, whose))
        self._tell = {kind: tell(kind) for kind in Kind}
        # Most questions are about few rooms, and people ask several times. Those of tokens are made anew each time, so
        # that no token is kept here.
        self._remembered = functools.lru_cache(maxsize=4096)(self._digest)

    async def ask(self, *questions: Question[Any]) -> None:
        await self._cache.ask(*questions)

    async def get(self, question: Question[V]) -> V:
        return await self._cache.get(question)

    async def forget_token(self, token: OpenIDToken, server_name: str = "") -> None:
        """Whose it is counts no more from now on. Raises CannotTell where other replicas may not have heard of it."""
        await self._cache.drop(self._token(token, server_name))

    async def forget_room(self, room_id: RoomID) -> None:
        """Who is in it, and which levels apply, counts no more from now on. Raises as `forget_token`."""
        await self._cache.drop(self._room(room_id))

    def member(self, token: OpenIDToken, room_id: RoomID) -> tuple[UserID, PowerLevels, RoomCreation | None] | None:
        """The answers to `token`, `account`, `joined`, `power_levels` and (where it matters) `creation`, where all of
        them are in this process's memory. A shortcut: to make four questions takes three times as long."""
        if not self._in_memory:
            return None
        look_up = self._cache.store.look_up
        its_token = self._token(token)
        if (user := look_up(its_token, its_token)) is MISSING:
            return None
        room, account = self._room(room_id), self._account(user)
        joined = self._remembered(b"joined", room, user.value.encode())
        levels = look_up(b"levels" + room, room)
        if levels is MISSING or look_up(joined, room) is MISSING or look_up(account, account) is MISSING:
            return None
        creation = None
        if levels.needs_creation(user, room_id) and (creation := look_up(b"creation" + room, room)) is MISSING:
            return None
        for kind in _OF_A_MEMBER if creation is None else (*_OF_A_MEMBER, Kind.CREATION):
            self._tell[kind](True)
        return user, levels, creation

    def token(
        self,
        token: OpenIDToken,
        ask: Callable[[], Awaitable[UserID | Refusal]] | None,
        server_name: str = "",
    ) -> Question[UserID | Refusal]:
        """Whose token is it? Without `ask`, only whether it is known. The state of the account is no part of it."""

        async def load() -> Loaded[UserID | Refusal]:
            assert ask is not None  # noqa: S101
            user = await ask()
            return Loaded(user, None if isinstance(user, Refusal) else user.value.encode())

        key = self._token(token, server_name) if self.times.token else None
        return self._question(Kind.TOKEN, key, key, seconds=self.times.token, load=ask and load, decode=_read_user)

    def account(self, user: UserID, ask: Callable[[UserID], Awaitable[Refusal | None]]) -> Question[Refusal | None]:
        """Why the account may not be used, if so."""

        async def load() -> Loaded[Refusal | None]:
            closed = await ask(user)
            return Loaded(closed, _YES if closed is None else None)

        key = self._account(user) if self.times.membership else None
        return self._question(Kind.ACCOUNT, key, key, seconds=self.times.membership, load=load, decode=_read_nothing)

    def joined(self, room_id: RoomID, who: str, ask: Callable[[], Awaitable[bool]]) -> Question[bool]:
        """Is somebody in the room? `who` is a user, or in words anything else that is true of the room or not."""

        async def load() -> Loaded[bool]:
            answer = await ask()
            return Loaded(answer, _YES if answer else None)

        key, room = self._in_room(room_id, b"joined", self.times.membership, who)
        return self._question(Kind.MEMBERSHIP, key, room, seconds=self.times.membership, load=load, decode=_read_true)

    def power_levels(
        self, room_id: RoomID, ask: Callable[[RoomID], Awaitable[msgspec.Raw | None]]
    ) -> Question[PowerLevels]:
        """Which levels apply? `ask` gives the content of the event, or `None` where the room has none."""

        async def load() -> Loaded[PowerLevels]:
            content = await ask(room_id)
            raw = b"" if content is None else bytes(content)
            return Loaded(_read_levels(raw), raw)

        key, room = self._in_room(room_id, b"levels", self.times.power_levels)
        return self._question(
            Kind.POWER_LEVELS, key, room, seconds=self.times.power_levels, load=load, decode=_read_levels
        )

    def creation(
        self, room_id: RoomID, ask: Callable[[RoomID], Awaitable[tuple[str, msgspec.Raw]]]
    ) -> Question[RoomCreation]:
        """Who created the room? `ask` gives the sender of the event, and its content."""

        async def load() -> Loaded[RoomCreation]:
            raw = msgspec.json.encode(await ask(room_id))
            return Loaded(_read_creation(raw), raw)

        key, room = self._in_room(room_id, b"creation", self.times.power_levels)
        return self._question(
            Kind.CREATION, key, room, seconds=self.times.power_levels, load=load, decode=_read_creation
        )

    def standing(
        self, user: UserID, room_id: RoomID, what: str, load: Load[V] | None, decode: Callable[[bytes], V]
    ) -> Question[V]:
        """Where the homeserver answers everything at once. `what` tells such questions from each other."""
        key, room = self._in_room(room_id, what.encode(), self.times.standing, user.value)
        return self._question(Kind.MEMBERSHIP, key, room, seconds=self.times.standing, load=load, decode=decode)

    def first(self, token: OpenIDToken, room_id: RoomID | None, load: Load[V]) -> Question[V]:
        """Where everything that is asked for the first time is one question. It is asked once for all who wait; what is
        kept of its answer is `Loaded.also`."""
        seconds = min(self.times.token, self.times.membership if room_id is None else self.times.standing)
        if not seconds:
            return Question(None, (), 0, load, _read_none)
        its_token = self._token(token)
        scopes = (its_token,) if room_id is None else (its_token, self._room(room_id))
        return Question(b"first" + b"".join(scopes), scopes, seconds, load, _read_none)

    def _question(  # noqa: PLR0913
        self,
        kind: Kind,
        key: bytes | None,
        scope: bytes | None,
        *,
        seconds: float,
        load: Load[V] | None,
        decode: Callable[[bytes], V],
    ) -> Question[V]:
        return Question(key, () if scope is None else (scope,), seconds, load, decode, self._tell[kind])

    def _in_room(
        self, room_id: RoomID, what: bytes, seconds: float, who: str = ""
    ) -> tuple[bytes, bytes] | tuple[None, None]:
        """Key and scope."""
        if not seconds:
            return None, None
        room = self._room(room_id)
        # A digest of its own where a person is part of it; otherwise that of the room tells everything apart.
        return (self._remembered(what, room, who.encode()) if who else what + room), room

    def _token(self, token: OpenIDToken, server_name: str = "") -> bytes:
        return self._digest(b"token", server_name.encode(), token.secret.encode("utf-8", "surrogatepass"))

    def _account(self, user: UserID) -> bytes:
        return self._remembered(b"account", user.value.encode())

    def _room(self, room_id: RoomID) -> bytes:
        return self._remembered(b"room", room_id.value.encode())

    def _digest(self, *parts: bytes) -> bytes:
        return self._cache.digests.of(b"key", self._whose, *parts)


def keeping_nothing() -> Proofs:
    """Every question is asked."""
    return Proofs(Cache(MemoryStore(clock=time.monotonic), Digests(b""), clock=time.monotonic), Times())


def _read_levels(raw: bytes) -> PowerLevels:
    return read_levels(raw or None)  # an empty text is no event; an empty object is `{}`


_creation = msgspec.json.Decoder(tuple[str, msgspec.Raw])


def _read_creation(raw: bytes) -> RoomCreation:
    sender, content = _creation.decode(raw)
    return RoomCreation.read(sender, read_content(content))


def _read_user(raw: bytes) -> UserID:
    return UserID.parse(raw.decode())


def _read_true(raw: bytes) -> bool:
    return _known(raw == _YES)


def _read_nothing(raw: bytes) -> None:
    _known(raw == _YES)


def _read_none(raw: bytes) -> Any:
    raise ValueError  # nothing is kept of it


def _known(good: bool) -> bool:
    if not good:
        raise ValueError
    return good
