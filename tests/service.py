"""The service inside the test's own process, asked as a client would."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import SecretStr

from tests.parts import issued
from uvs.app import create_app
from uvs.settings import Settings

KEEPING_NOTHING = {"cache_token_ttl": 0, "cache_membership_ttl": 0, "cache_power_levels_ttl": 0}
"""Tests change the homeserver and look at once whether that counts; those about the cache say otherwise."""


def settings(**options: Any) -> Settings:
    """Settings with nothing from the environment but what a test gives."""
    given = {"homeserver_url": "http://fake.invalid", "access_token": issued.secret(), **KEEPING_NOTHING, **options}
    return Settings(**given)


@asynccontextmanager
async def running(
    settings: Settings, *, transport: httpx.AsyncBaseTransport | None = None, **parts: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running application. `transport` is the way to its homeserver."""
    for name, value in settings:
        if isinstance(value, SecretStr) and name != "cache_url":  # of which only the password is one
            issued.register(value.get_secret_value())
    app = create_app(settings, transport=transport, **parts)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://uvs.invalid",
            event_hooks={"response": [_look_at]},
        ) as client,
    ):
        yield client
    issued.look_at("metrics", app.state.metrics.render("")[0].decode())


async def _look_at(response: httpx.Response) -> None:
    await response.aread()
    issued.look_at(f"answer of {response.request.url.path}", f"{response.headers.raw!r}\n{response.text}")
