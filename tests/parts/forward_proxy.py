"""A forward proxy, as an operator has it for the way out (`CONNECT`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.parts.connections import accepting


@dataclass
class Proxy:
    """`status` is what it answers to `CONNECT`, where it does not connect; 0 is nothing. `ports` lead to others: so
    somebody may be asked at a port on which a test may not listen."""

    status: int | None = None
    ports: Mapping[int, int] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    url: str = ""


@asynccontextmanager
async def proxying(proxy: Proxy) -> AsyncIterator[Proxy]:
    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        proxy.heads.append(head)
        if proxy.status == 0:
            await asyncio.Event().wait()
        if proxy.status is not None:
            writer.write(f"HTTP/1.1 {proxy.status} -\r\nContent-Length: 0\r\n\r\n".encode())
            return
        host, _, port = head.split(" ")[1].rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), proxy.ports.get(int(port), int(port)))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer))
        finally:
            far_writer.close()

    async with accepting(connect) as port:
        proxy.url = f"http://127.0.0.1:{port}"
        yield proxy
