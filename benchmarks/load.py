"""The load: so many connections, each asking again as soon as it is answered."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

from benchmarks.bare import ANSWER
from benchmarks.stub_homeserver import ROOM

AUTH_TOKEN = "auth-token-of-the-benchmark"
"""What the service asks of its callers: those without it are limited in number."""


@dataclass(frozen=True)
class Round:
    """What one round of load saw."""

    requests: int
    requests_a_second: float
    p50_ms: float
    p99_ms: float


def request(token: str) -> bytes:
    """One verification, as Prosody sends it."""
    body = json.dumps({"token": token, "room_id": ROOM}).encode()
    lines = (
        b"POST /verify/user_in_room HTTP/1.1",
        b"Host: bench",
        b"Authorization: Bearer " + AUTH_TOKEN.encode(),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    )
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
    """One exchange; anything but the right answer ends the benchmark."""
    writer.write(request(token))
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    body = await reader.readexactly(int(length.partition(b":")[2]))
    if not head.startswith(b"HTTP/1.1 200 ") or body != ANSWER:
        raise RuntimeError(f"unexpected answer: {head!r} {body!r}")


async def load(port: int, *, connections: int, seconds: float) -> Round:
    """Every request has a token of its own, so that nothing can be answered from memory."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count = 0
        while (begun := time.perf_counter()) < end:
            await ask(reader, writer, f"token-{number}-{count}")
            times.append(time.perf_counter() - begun)
            count += 1
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(connections)))
    took = time.perf_counter() - begun
    times.sort()
    return Round(len(times), len(times) / took, times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000)


async def burst(port: int, *, people: int) -> float:
    """So many people at the same moment; seconds until the last one is answered."""
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(people)]
    begun = time.perf_counter()
    await asyncio.gather(*(ask(*pair, f"burst-{number}") for number, pair in enumerate(pairs)))
    took = time.perf_counter() - begun
    for _, writer in pairs:
        writer.close()
    return took
