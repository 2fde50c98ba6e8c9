"""Connections: the bytes that strangers send to the port."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import httptools
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.server import ServerState

from tests.fuzz.target import joined, parts, target
from tests.fuzz.targets.requests import runner
from uvs.ops.server import MAX_HEAD, MAX_PIPELINED, BoundedProtocol

MOST_PIECES = 40
PIECE = 2048  # bytes
REPETITIONS = 2 * MAX_HEAD // PIECE


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1), "sockname": ("127.0.0.1", 3000)})
        self.written = bytearray()
        self.closed = self.paused = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self.closed:
            self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Connection:
    """A connection to an application that answers some requests at once, and reads the bodies of others."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.wire = Wire()
        self._state = ServerState()
        config = _config()
        self._protocol = BoundedProtocol(config, self._state, {}, _loop=asyncio.get_running_loop())
        self._protocol.app = self._app
        self._protocol.connection_made(self.wire)

    async def feed(self, pieces: Iterator[bytes]) -> None:
        """Give it what arrives, as long as it takes it."""
        for piece in pieces:
            if self.wire.closed or self.wire.paused:
                break
            self._protocol.data_received(piece)
            await self._settle()
            assert self._protocol._collected <= MAX_HEAD + len(piece)
            assert len(self._protocol.pipeline) <= MAX_PIPELINED + 1
            cycle = self._protocol.cycle
            assert cycle is None or len(cycle.body) <= HIGH_WATER_LIMIT + len(piece)
            # Whoever is not done is waited for no longer than a timer runs.
            assert self.wire.closed or self._state.tasks or self._protocol._timer or self._keeps_alive()

    def _keeps_alive(self) -> bool:
        return self._protocol.timeout_keep_alive_task is not None

    async def end(self) -> None:
        """Hang up."""
        self._protocol.connection_lost(None)
        await self._settle()
        await self._settle()
        assert not self._state.tasks
        assert self._protocol._timer is None

    async def _settle(self) -> None:
        quiet = 0
        while quiet < 4:
            before = len(self.seen), len(self.wire.written), len(self._state.tasks)
            await asyncio.sleep(0)
            quiet = quiet + 1 if before == (len(self.seen), len(self.wire.written), len(self._state.tasks)) else 0

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append((scope["method"], scope["path"]))
        if "read" in scope["path"]:
            while (await receive()).get("more_body", False):
                pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@cache
def _config() -> uvicorn.Config:
    config = uvicorn.Config(_nothing, ws="none", lifespan="off", access_log=False, log_config=None, proxy_headers=False)
    config.load()
    return config


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("each connection brings its own application")


def _pieces(data: bytes, sizes: bytes) -> Iterator[bytes]:
    """`data` in pieces, whose sizes follow from `sizes`; the last has what is left after so many."""
    at = turn = 0
    while at < len(data):
        size = 1 + sizes[turn % len(sizes)] if sizes and turn < MOST_PIECES else len(data)
        yield data[at : at + size]
        at, turn = at + size, turn + 1


async def _serve(raw: bytes, sizes: bytes, endless: bytes) -> Connection:
    connection = Connection()
    await connection.feed(_pieces(raw, sizes))
    if endless:
        piece = endless * (1 + PIECE // len(endless))
        await connection.feed(piece for _ in range(REPETITIONS))
    await connection.end()
    return connection


POST = b"POST /read HTTP/1.1\r\nHost: uvs\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"


@target(
    "http-server",
    parser="uvs.ops.server.BoundedProtocol",
    whose="strangers'",
    seeds=[
        joined(b"GET /health HTTP/1.1\r\nHost: uvs\r\n\r\n" * 3, b"", b""),
        joined(POST + b"Content-Length: 2\r\n\r\n{}" + POST + b"Content-Length: 0\r\n\r\n", b"\x05\x20", b""),
        joined(CHUNKED + b"0\r\n\r\nGET / HTTP/1.0\r\n\r\n", b"\x20", b""),
        joined(CHUNKED + b"0\r\na: b\r\n", b"", b"a: b\r\n"),
        joined(POST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n", b"", b"x"),
        joined(b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello", b"\x01", b""),
        joined(b"", b"", b"GET / HTTP/1.1\r\n\r\n"),
        joined(b"GET / HTTP/1.1\r\na: ", b"", b"x"),
        joined(POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", b"\r\n"),
        joined(b"HEAD http://uvs/read HTTP/1.1\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"", b""),
    ],
    words=(
        *(
            "\r\n",
            "\n",
            "\r",
            " ",
            "\t",
            ":",
            "GET ",
            "POST ",
            "HEAD ",
            "PRI * HTTP/2.0\r\n\r\n",
            " HTTP/1.1\r\n",
            " HTTP/1.0",
        ),
        *("Content-Length: ", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "Connection: keep-alive\r\n"),
        *(
            "0\r\n\r\n",
            "2\r\n{}\r\n",
            "ffffffffffffffff\r\n",
            ";a=b",
            "\0",
            "read",
            "/",
            "Upgrade: h2c\r\n",
            "Host: a\r\n",
        ),
    ),
    cost=20,
)
def http_server(data: bytes) -> str:
    """Nothing is raised; what is held in memory stays within the limits, also of what never ends; what is written is
    HTTP; and how the bytes are cut into pieces changes nothing of what is asked of the application, but how much of it
    comes before what is no HTTP."""
    raw, sizes, endless = parts(data, 3)
    connection = runner().run(_serve(raw, sizes, endless))
    statuses = re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", connection.wire.written)
    assert set(statuses) <= {b"100", b"200", b"400"}
    httptools.HttpResponseParser(_Ignore()).feed_data(bytes(connection.wire.written))
    if sizes and not endless and raw.count(b"HTTP/") <= MAX_PIPELINED:
        at_once = runner().run(_serve(raw, b"", b""))
        until = len(at_once.seen) if b" 400 " in at_once.wire.written else None
        assert connection.seen[:until] == at_once.seen
    return f"{b' '.join(statuses[:5])!r} {min(len(connection.seen), 5)} {connection.wire.closed}"


class _Ignore:
    """Takes part in nothing."""
