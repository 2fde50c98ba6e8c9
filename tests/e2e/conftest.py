"""One Synapse, one service and one Prosody of each version for all tests here; every test has rooms of its own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.scene import Scene
from tests.parts import issued
from tests.parts.jitsi_client import Via
from tests.parts.prosody import Config, Prosody, Version
from tests.parts.service import Service
from tests.parts.synapse import Synapse, User
from tests.parts.widget import Widgets

AUTH_TOKEN = issued.secret()
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def synapse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synapse]:
    with Synapse(tmp_path_factory.mktemp("synapse")) as running:
        yield running


@pytest.fixture(scope="session")
def service(synapse: Synapse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    admin = synapse.register("administrator", admin=True)
    with Service(
        tmp_path_factory.mktemp("uvs"),
        homeserver_url=synapse.url,
        access_token=admin.access_token,
        auth_token=AUTH_TOKEN,
        server_name=synapse.server_name,
    ) as running:
        yield running


@pytest.fixture(scope="session", params=Version)
def version(request: pytest.FixtureRequest) -> Version:
    assert isinstance(request.param, Version)
    return request.param


@pytest.fixture(params=[Via.WEBSOCKET, Via.BOSH])
def via(request: pytest.FixtureRequest) -> Via:
    """Both ways that browsers have."""
    assert isinstance(request.param, Via)
    return request.param


@pytest.fixture(scope="session")
def shared_prosody(version: Version, service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prosody]:
    config = Config(service.url, AUTH_TOKEN, options={"uvs_sync_power_levels": "true"})
    with Prosody(version, tmp_path_factory.mktemp(f"prosody-{version}-"), config) as running:
        yield running


@pytest.fixture
def prosody(shared_prosody: Prosody) -> Iterator[Prosody]:
    """The shared one. Whatever a test does to it, no Lua error may show in its log."""
    before = len(shared_prosody.log_text())
    yield shared_prosody
    assert shared_prosody.lua_errors(before) == []


StartProsody = Callable[[Config], Prosody]


@pytest.fixture
def start_prosody(version: Version, tmp_path: Path) -> Iterator[StartProsody]:
    """Another one, with a configuration of its own, for as long as the test lasts."""
    started: list[Prosody] = []

    def start(config: Config) -> Prosody:
        started.append(Prosody(version, tmp_path / f"prosody-{len(started)}", config))
        return started[-1]

    yield start
    for running in started:
        running.stop()
    assert [running.lua_errors() for running in started] == [[] for _ in started]


@pytest.fixture
async def widgets(synapse: Synapse, service: Service, prosody: Prosody, via: Via) -> AsyncIterator[Widgets]:
    opened = Widgets(synapse, prosody, via)
    yield opened
    await opened.close()
    log = service.log_text()
    assert [token for token in opened.tokens if token in log] == []


@dataclass(frozen=True, slots=True)
class Room:
    """A Matrix room, with two people in it and one who is not."""

    room_id: str
    moderator: User
    member: User
    visitor: User


MakeRoom = Callable[..., Room]


@pytest.fixture(scope="session")
def person(synapse: Synapse) -> Callable[[str], User]:
    """Registers somebody new whose name begins like this."""
    return lambda name: synapse.register(f"{name}-{next(_numbers)}")


@pytest.fixture(scope="session")
def make_room(synapse: Synapse, person: Callable[[str], User]) -> MakeRoom:
    """Makes a Matrix room and its people; the options are those of `Synapse.create_room`."""

    def make(**options: Any) -> Room:
        moderator, member, visitor = person("moderator"), person("member"), person("visitor")
        room_id = synapse.create_room(moderator, **options)
        synapse.add(moderator, room_id, member)
        return Room(room_id, moderator, member, visitor)

    return make


@pytest.fixture
def room(make_room: MakeRoom) -> Room:
    return make_room()


@pytest.fixture
def other_room(make_room: MakeRoom) -> Room:
    """A second one, whose people have nothing to do with the first."""
    return make_room()


@pytest.fixture(scope="session")
def lasting_room(make_room: MakeRoom) -> Room:
    """For tests that change nothing in Matrix: making one takes longer than such a test."""
    return make_room()


@pytest.fixture(scope="session")
def other_lasting_room(make_room: MakeRoom) -> Room:
    return make_room()


@pytest.fixture(params=["member", "moderator"])
def rank(request: pytest.FixtureRequest) -> str:
    """What the intruder is in their own room: being owner of one conference gives no right in another."""
    return str(request.param)


@pytest.fixture
async def scene(widgets: Widgets, lasting_room: Room, other_lasting_room: Room, rank: str) -> Scene:
    intruder = lasting_room.member if rank == "member" else lasting_room.moderator
    return Scene(
        inside=await widgets.enter(other_lasting_room.moderator, other_lasting_room.room_id),
        intruder=await widgets.enter(intruder, lasting_room.room_id),
        home=widgets.conference(lasting_room.room_id),
        target=widgets.conference(other_lasting_room.room_id),
        target_room_id=other_lasting_room.room_id,
        prosody=widgets.prosody,
    )
