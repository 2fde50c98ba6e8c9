"""The mixture: who asks what, and what must come of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.faults.asking import NO, YES, NotOneAnswerError, exchange, question, request
from tests.faults.faults import BODY, CONNECTION, NO_HTTP, STATUS, TOO_LATE, case_of
from tests.parts import issued
from tests.parts.faulty_homeserver import SERVER_NAME

AUTH_TOKEN = issued.secret()
DEADLINE = 3.0
"""Seconds; UVS_REQUEST_TIMEOUT. A third of it is for connecting, also where the machine has other things to do."""
LATE = 1.0
"""Seconds after the deadline within which an answer is there."""

_FAULTS = [
    name
    for name, case in {**CONNECTION, **NO_HTTP, **BODY, **STATUS}.items()
    if case.status != TOO_LATE  # those have a share of their own
]
_SLOW = [name for name, case in CONNECTION.items() if case.status == TOO_LATE]
_LARGE = ["300-mb", "300-mb-of-gzip", "10000-headers", "300-mb-header"]

_MALFORMED = [
    (request("/verify/user_in_room", {}), 400),
    (request("/verify/user_in_room", {"token": ["x"], "room_id": "!a:b"}), 400),
    (request("/verify/user_in_room", {"token": "x", "room_id": "../../admin"}), 400),
    (request("/verify/user_in_room", {"token": "x" * 5000, "room_id": "!a:b"}), 400),
    (request("/verify/user", [1, 2, 3]), 400),
    (request("/verify/user", "text"), 400),
    (request("/nothing/here"), 404),
    (request("/verify/user"), 404),
]
_HEALTH = [(request("/health"), 200), (request("/.well-known/element/jitsi"), 200)]


class WrongAnswerError(Exception):
    """The service said what it must not say."""


def _authorized(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", f"\r\nAuthorization: Bearer {AUTH_TOKEN}\r\n".encode(), 1)


@dataclass(frozen=True, slots=True)
class Home:
    """Whose people are asked about: `share` of them, and at which of the `calls` for them there may be a fault."""

    name: str
    server_name: str
    way: str
    calls: tuple[str, ...]
    share: int


@dataclass
class Mix:
    """Asks the service on `port`. `counts` says how often what came."""

    port: int
    random: random.Random
    homes: list[Home]
    counts: Counter[str] = field(default_factory=Counter)

    async def one(self) -> None:
        """One request. Raises WrongAnswerError, NotOneAnswerError, TimeoutError, OSError."""
        kinds: list[tuple[Callable[[], Awaitable[str]], int]] = [
            (self._member, 30),
            (self._visitor, 15),
            (self._bad_token, 15),
            (self._malformed, 12),
            (self._stranger, 5),
            (self._fault, 10),
            (self._slow_fault, 1),
            (self._large, 1),
            (self._aborted, 8),
            (self._slow_reader, 3),
        ]
        [kind] = self.random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        self.counts[await kind()] += 1

    async def _ask(self, person: str, *, room: str | None = None, home: Home | None = None) -> int:
        """What was told."""
        began = time.monotonic()
        server_name = None if home is None else home.server_name
        raw = _authorized(request("/verify/user_in_room", question(person, room=room, server_name=server_name)))
        answer = await exchange(self.port, raw)
        if time.monotonic() - began > DEADLINE + LATE:
            raise WrongAnswerError(f"{person}: only after {answer.seconds:.1f} s")
        return answer.told

    async def _expect(self, what: str, home: Home, person: str, *allowed: int, room: str | None = None) -> str:
        told = await self._ask(person, room=room, home=home)
        what = f"{what} of {home.name}"
        # Where all are busy with large answers, whoever comes is told to come again.
        if told not in {*allowed, 503, TOO_LATE}:
            raise WrongAnswerError(f"{what}: {person}: {told}")
        return what if told in allowed else f"{what} (asked to come again)"

    def _home(self) -> Home:
        return self.random.choices(self.homes, [home.share for home in self.homes])[0]

    async def is_well(self) -> bool:
        """Whether a member of each is verified, now that nobody else asks."""
        return all([await self._ask("member", home=home) == YES for home in self.homes])

    async def _member(self) -> str:
        return await self._expect("member", self._home(), f"member-{self.random.randrange(1000)}", YES)

    async def _visitor(self) -> str:
        return await self._expect("visitor", self._home(), f"visitor-{self.random.randrange(1000)}", NO)

    async def _bad_token(self) -> str:
        # Upper case, which no token has here.
        person = f"NOBODY-{self.random.randrange(1000)}"
        return await self._expect("bad token", self._home(), person, NO, room=f"!a:{SERVER_NAME}")

    async def _malformed(self) -> str:
        raw, status = self.random.choice(_MALFORMED + _HEALTH)
        answer = await exchange(self.port, _authorized(raw))
        if answer.status != status:
            raise WrongAnswerError(f"{raw[:80]!r}: {answer.status}")
        return "malformed"

    async def _stranger(self) -> str:
        answer = await exchange(self.port, request("/verify/user_in_room", question("member")))
        if answer.status != 403:
            raise WrongAnswerError(f"stranger: {answer.status}")
        return "stranger"

    async def _fault(self) -> str:
        return await self._meet("fault", _FAULTS)

    async def _slow_fault(self) -> str:
        return await self._meet("slow fault", _SLOW)

    async def _large(self) -> str:
        return await self._meet("large", _LARGE)

    async def _meet(self, what: str, faults: list[str]) -> str:
        home, fault = self._home(), self.random.choice(faults)
        call = self.random.choice(home.calls)
        return await self._expect(what, home, f"{call}.{fault}", *case_of(home.way, call, fault).statuses)

    async def _aborted(self) -> str:
        """Goes before the answer is there, in peace or not."""
        raw = _authorized(request("/verify/user_in_room", question("member")))
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw[: self.random.randrange(1, len(raw) + 1)])
        await asyncio.sleep(self.random.choice([0, 0.001, 0.01]))
        if self.random.random() < 0.5:
            peer: socket.socket = writer.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return "aborted"

    async def _slow_reader(self) -> str:
        """Sends and reads a few bytes at a time."""
        raw = _authorized(request("/verify/user_in_room", question("member")))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for start in range(0, len(raw), 64):
                writer.write(raw[start : start + 64])
                await asyncio.sleep(0.005)
            received = b""
            while piece := await reader.read(40):
                received += piece
                await asyncio.sleep(0.005)
        finally:
            writer.close()
        status = received[9:12]
        if status not in {b"200", b"503", b"504"} or received.count(b"HTTP/1.1") != 1:
            raise NotOneAnswerError(received)
        return "slow reader"
