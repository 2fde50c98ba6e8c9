"""The load: so many connections, each asking again as soon as it is answered. Callbacks and no tasks, since it shares
its core with the stub homeserver and must not be what is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import httptools

from benchmarks.homeserver_answers import room_id, user_id

AUTH_TOKEN = "auth-token-of-the-benchmark"
"""What the service asks of its callers: those without it are limited in number."""

PATIENCE = 120.0  # seconds for what was asked before the end of a round


class LoadFailed(Exception):
    """Something else came than the right answers."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked: about people of one kind of room, whose numbers come from `numbers`."""

    kind: str
    server_name: str
    numbers: Iterator[int]

    def next(self) -> tuple[bytes, bytes]:
        """One verification, as Prosody sends it, and what must be in its answer."""
        number = next(self.numbers)
        room = room_id(self.kind, number, self.server_name)
        body = f'{{"token":"{self.kind}-{number:08}","matrix_server_name":"{self.server_name}","room_id":"{room}"}}'
        return (
            b"POST /verify/user_in_room HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (AUTH_TOKEN.encode(), len(body), body.encode()),
            f'"user_id":"{user_id(self.kind, number, self.server_name)}"'.encode(),
        )


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of load saw. `wrong` is an answer that was not the right one, if there was one."""

    seconds: float
    times: list[float]
    wrong: bytes | None = None

    @property
    def requests_a_second(self) -> float:
        return len(self.times) / self.seconds

    def percentile_ms(self, share: float) -> float:
        return sorted(self.times)[int(len(self.times) * share)] * 1000 if self.times else 0.0


class _Load:
    """All connections of one round. `times` are those of right answers."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.times: list[float] = []
        self.wrong: bytes | None = None
        self.end = 0.0
        self.busy = 0
        self.idle = asyncio.Event()

    def ended(self, wrong: bytes | None = None) -> None:
        self.wrong = self.wrong or wrong
        self.busy -= 1
        if not self.busy:
            self.idle.set()


class _Connection(asyncio.Protocol):
    def __init__(self, load: _Load) -> None:
        self._load = load
        self._asking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def ask(self) -> None:
        question, self._expected = self._load.work.next()
        self._body = b""
        self._asking = True
        self._begun = time.perf_counter()
        self.transport.write(question)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        self._asking = False
        body = self._body
        # By its parts: services may order and space theirs in their own way.
        if self._parser.get_status_code() != 200 or self._expected not in body or b'"room_membership":true' not in body:
            self._load.ended(wrong=body or b"(nothing)")
            return
        self._load.times.append(now - self._begun)
        if now < self._load.end:
            self.ask()
        else:
            self._load.ended()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asking:
            self._load.ended(wrong=b"(the connection was closed)")


async def load(port: int, work: Work, *, connections: int, seconds: float) -> Round:
    """With 0 seconds, each connection asks once, all at the same moment."""
    state = _Load(work)
    loop = asyncio.get_running_loop()
    try:
        opened = [
            (await loop.create_connection(lambda: _Connection(state), "127.0.0.1", port))[1] for _ in range(connections)
        ]
    except OSError as error:
        raise LoadFailed(f"no connection: {error}") from None
    state.busy = connections
    begun = time.perf_counter()
    state.end = begun + seconds
    for connection in opened:
        connection.ask()
    try:
        async with asyncio.timeout(seconds + PATIENCE):
            await state.idle.wait()
    except TimeoutError:
        raise LoadFailed("no answer") from None
    finally:
        took = time.perf_counter() - begun
        for connection in opened:
            connection.transport.close()
    return Round(took, state.times, state.wrong)
