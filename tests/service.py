"""The service inside the test's own process, asked as a client would."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from uvs.app import create_app
from uvs.settings import Settings


def settings(**options: Any) -> Settings:
    """Settings with nothing from the environment but what a test gives."""
    return Settings(**{"homeserver_url": "http://fake.invalid", "access_token": "admin-token", **options})


@asynccontextmanager
async def running(
    settings: Settings, *, transport: httpx.AsyncBaseTransport | None = None, **parts: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running application. `transport` is the way to its homeserver."""
    app = create_app(settings, transport=transport, **parts)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://uvs.invalid") as client,
    ):
        yield client
