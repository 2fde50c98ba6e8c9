"""The service as a process, in front of a faulty homeserver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.parts.faulty_homeserver import ADMIN_TOKEN, SERVER_NAME, FaultyHomeserver
from tests.parts.service import Service

DEADLINE = 1.0
"""Seconds; UVS_REQUEST_TIMEOUT."""


@dataclass(frozen=True, slots=True)
class Scene:
    homeserver: FaultyHomeserver
    service: Service

    @property
    def port(self) -> int:
        return self.service.port


@asynccontextmanager
async def scene(
    directory: Path,
    homeserver: FaultyHomeserver,
    *,
    server_name: str | None = SERVER_NAME,
    options: Mapping[str, str] | None = None,
) -> AsyncIterator[Scene]:
    async with (
        homeserver,
        serving(directory, homeserver.url, server_name=server_name, options=options) as service,
    ):
        yield Scene(homeserver, service)


@asynccontextmanager
async def serving(
    directory: Path, url: str, *, server_name: str | None = SERVER_NAME, options: Mapping[str, str] | None = None
) -> AsyncIterator[Service]:
    """The service for as long as the context is open. It starts in a thread, since it asks its homeserver at once."""
    service = await asyncio.to_thread(
        Service,
        directory,
        homeserver_url=url,
        access_token=ADMIN_TOKEN,
        server_name=server_name,
        options={"UVS_REQUEST_TIMEOUT": f"{DEADLINE:g}", "UVS_RATE_LIMIT": "0", **(options or {})},
    )
    try:
        yield service
    finally:
        await asyncio.to_thread(service.stop)


async def eventually(happened: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Return once `happened` says so. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not happened():  # noqa: ASYNC110 - another process has no event to wait for
            await asyncio.sleep(0.02)


def peak_memory(service: Service) -> float:
    """The most that the process has ever held, in MB."""
    return _memory(service, "VmHWM")


def memory(service: Service) -> float:
    """What the process holds, in MB."""
    return _memory(service, "VmRSS")


def _memory(service: Service, line: str) -> float:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.partition(f"{line}:")[2].split()[0]) / 1024
