"""Two homeservers for the same tests: the fake one, and a real Synapse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.fake_homeserver import FakeHomeserver
from tests.parts.synapse import Synapse, User
from tests.service import running, settings

World = Synapse | FakeHomeserver
AUTH_TOKEN = "the-callers-own-credential"


@pytest.fixture(scope="session", params=["fake", "synapse"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if request.param == "fake":
        yield FakeHomeserver()
        return
    with Synapse(tmp_path_factory.mktemp("synapse")) as synapse:
        yield synapse


@dataclass(frozen=True)
class Cast:
    """People who are there in every test."""

    admin: User
    moderator: User
    member: User
    visitor: User


@pytest.fixture(scope="session")
def cast(world: World) -> Cast:
    return Cast(
        world.register("admin", admin=True),
        world.register("moderator"),
        world.register("member"),
        world.register("visitor"),
    )


@pytest.fixture(scope="session")
def room(world: World, cast: Cast) -> str:
    """A room with a moderator (who created it) and a member."""
    room_id = world.create_room(cast.moderator, version="10")
    world.add(cast.moderator, room_id, cast.member)
    return room_id


Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serve(world: World, cast: Cast) -> Serve:
    """The service in front of that homeserver, in single-server mode unless a test says otherwise."""

    @asynccontextmanager
    async def serve(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
        defaults = {
            "homeserver_url": world.url,
            "access_token": cast.admin.access_token,
            "openid_verify_server_name": world.server_name,
        }
        transport = world.transport() if isinstance(world, FakeHomeserver) else None
        async with running(settings(**{**defaults, **options}), transport=transport) as client:
            yield client

    return serve


@pytest.fixture
async def service(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    async with serve() as client:
        yield client
