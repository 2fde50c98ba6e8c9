"""The same tests on homeservers of three kinds (the fake one, the newest and the oldest Synapse), through every way in
that each of them has."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest

from tests.fake_homeserver import FakeHomeserver
from tests.parts.synapse import User, Version
from tests.parts.ways_in import OpenSynapse
from tests.service import running, settings

World = OpenSynapse | FakeHomeserver
AUTH_TOKEN = "the-callers-own-credential"

ADMIN, MSC4502, MODULE = "synapse-admin", "msc4502", "synapse-module"
SYNAPSES = (Version.NEWEST, Version.OLDEST)
WORLDS = {"fake": (ADMIN, MSC4502, MODULE), Version.NEWEST: (ADMIN, MSC4502, MODULE), Version.OLDEST: (ADMIN, MODULE)}
"""The oldest Synapse does not know MSC4502."""


Test = TypeVar("Test", bound=Callable[..., object])


def through(*ways_in: str, on: Collection[str] = WORLDS) -> Callable[[Test], Test]:
    """For tests, or classes of them, that are about these ways in only, or on these homeservers."""

    def mark(test: Test) -> Test:
        test.cases = {(world, access) for world in on for access in ways_in}  # type: ignore[attr-defined]
        return test

    return mark


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that asks for a `world` or the `access` to it runs with all of them; one that asks for `room_version`,
    with those that this homeserver knows; one for `modern_version`, with those whose creators stand above all."""
    names = [name for name in ("world", "access", "room_version", "modern_version") if name in metafunc.fixturenames]
    if "world" not in names:
        return
    chosen = getattr(metafunc.function, "cases", getattr(metafunc.cls, "cases", None))
    cases: list[tuple[str, ...]] = []
    for world, ways_in in WORLDS.items():
        versions = (Version.NEWEST if world == "fake" else Version(world)).room_versions
        choices = {
            "world": (world,),
            "access": [access for access in ways_in if chosen is None or (world, access) in chosen],
            "room_version": versions,
            "modern_version": [version for version in versions if version == "12"],
        }
        cases += itertools.product(*(choices[name] for name in names))
    indirect = [name for name in names if name in {"world", "access"}]
    if len(names) == 1:
        metafunc.parametrize("world", WORLDS, indirect=True, scope="session")
    else:
        metafunc.parametrize(names, cases, indirect=indirect, scope="session")


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if request.param == "fake":
        yield FakeHomeserver()
        return
    with OpenSynapse(tmp_path_factory.mktemp("synapse"), version=request.param) as synapse:
        yield synapse


@pytest.fixture(scope="session")
def access(request: pytest.FixtureRequest) -> str:
    """The way in to it."""
    return str(request.param)


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
def serve(world: World, access: str, cast: Cast) -> Serve:
    """The service in front of that homeserver, in single-server mode unless a test says otherwise."""

    @asynccontextmanager
    async def serve(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
        defaults = {**world.way_in(access, cast.admin), "openid_verify_server_name": world.server_name}
        transport = world.transport() if isinstance(world, FakeHomeserver) else None
        async with running(settings(**{**defaults, **options}), transport=transport) as client:
            yield client

    return serve


@pytest.fixture
async def service(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    async with serve() as client:
        yield client


Show = Callable[[User, str], None]


@pytest.fixture
def show(world: World, access: str) -> Show:
    """Makes a room one whose levels can be known in this way."""

    def show(creator: User, room_id: str) -> None:
        if access == MSC4502:
            visible = {"history_visibility": "world_readable"}
            world.send_state(creator, room_id, "m.room.history_visibility", visible)

    return show
