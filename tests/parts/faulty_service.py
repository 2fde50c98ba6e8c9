"""Something that answers in the service's place as no service should, to see what Prosody makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Request:
    """What Prosody asked."""

    path: str
    headers: Mapping[str, str]
    body: Any


Behaviour = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def joined(user_id: str, *, level: int = 0, state_default: int = 50) -> dict[str, Any]:
    """The service's answer about a member."""
    return {
        "results": {"user": True, "room_membership": True},
        "user_id": user_id,
        "power_levels": {"room": {"state_default": state_default}, "user": level},
    }


def answers(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Text and bytes go out as they are, everything else as JSON."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await respond(writer, body, status=status, headers=headers)

    return behave


def late(seconds: float, then: Behaviour) -> Behaviour:
    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await then(request, writer)

    return behave


async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
    """Takes the request and says nothing, for as long as the other side waits."""
    await writer.wait_closed()


async def dripping(request: Request, writer: asyncio.StreamWriter) -> None:
    """Always about to answer: no single wait is long."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.2)


async def resetting(request: Request, writer: asyncio.StreamWriter) -> None:
    peer: socket.socket = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def closing(request: Request, writer: asyncio.StreamWriter) -> None:
    """Ends the connection without a word."""


async def half(request: Request, writer: asyncio.StreamWriter) -> None:
    """Ends the connection in the middle of what would have been a yes."""
    body = json.dumps(joined("@half:matrix.example")).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body) + 100, body))
    await writer.drain()


async def not_http(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x01 220 ready\r\n\r\n")
    await writer.drain()


async def respond(
    writer: asyncio.StreamWriter, body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> None:
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    raw = text.encode() if isinstance(text, str) else text
    lines = {"Content-Type": "application/json", "Content-Length": str(len(raw)), "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in (lines | dict(headers or {})).items())
    writer.write(f"HTTP/1.1 {status} -\r\n{head}\r\n".encode() + raw)
    await writer.drain()


class FaultyService:
    """Listens while the context is open, and answers every request in the same way."""

    def __init__(self, behave: Behaviour) -> None:
        self.requests: list[Request] = []
        self._behave = behave
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        # Prosody may hang up at any time; that is the point of most of this. Cancelled is how it ends with the context.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            try:
                request = await _read(reader)
                self.requests.append(request)
                await self._behave(request, writer)
            finally:
                writer.close()


async def _read(reader: asyncio.StreamReader) -> Request:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(lines[0].split()[1], headers, json.loads(raw) if raw else None)
