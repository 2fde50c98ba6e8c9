"""Two homeservers and a service in front of each, for all tests here; every test has rooms of its own."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.e2e.federation.desk import Desk
from tests.parts.federation import TwoServers
from tests.parts.synapse import Synapse, User

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoServers]:
    with TwoServers(tmp_path_factory.mktemp("federation")) as running:
        yield running


Person = Callable[..., User]


@pytest.fixture(scope="session")
def person() -> Person:
    """Registers somebody new at that homeserver, whose name begins like this."""
    return lambda home, name: home.register(f"{name}-{next(_numbers)}")


@dataclass(frozen=True, slots=True)
class Admins:
    """The administrators of the two homeservers."""

    one: User
    two: User


@pytest.fixture(scope="session")
def admins(world: TwoServers) -> Admins:
    return Admins(world.one.register("administrator", admin=True), world.two.register("administrator", admin=True))


@pytest.fixture(scope="session")
def at_one(world: TwoServers, admins: Admins, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The service of the operator of `one`."""
    with Desk(world, world.one, admins.one, tmp_path_factory.mktemp("uvs-one")) as desk:
        yield desk


@pytest.fixture(scope="session")
def at_two(world: TwoServers, admins: Admins, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with Desk(world, world.two, admins.two, tmp_path_factory.mktemp("uvs-two")) as desk:
        yield desk


OpenDesk = Callable[..., Desk]


@pytest.fixture(scope="session")
def open_desk(world: TwoServers, admins: Admins, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenDesk]:
    """A service in front of `one` with these options, the same one for the same options."""
    with ExitStack() as opened:

        @functools.cache
        def open_one(**options: str) -> Desk:
            return opened.enter_context(Desk(world, world.one, admins.one, tmp_path_factory.mktemp("uvs"), options))

        yield open_one


@dataclass(frozen=True, slots=True)
class Room:
    """A room that somebody made at their homeserver, with a member and somebody outside from either."""

    room_id: str
    creator: User
    member_of_one: User
    member_of_two: User
    stranger_of_one: User
    stranger_of_two: User


MakeRoom = Callable[..., Room]


@pytest.fixture(scope="session")
def make_room(world: TwoServers, person: Person) -> MakeRoom:
    def make(home: Synapse, *, version: str = "10") -> Room:
        creator = person(home, "creator")
        room_id = home.create_room(creator, version=version)
        of_one, of_two = person(world.one, "member"), person(world.two, "member")
        world.join(creator, room_id, of_one, of_two)
        return Room(room_id, creator, of_one, of_two, person(world.one, "stranger"), person(world.two, "stranger"))

    return make


@pytest.fixture
def room(world: TwoServers, make_room: MakeRoom) -> Room:
    """A room of `one`."""
    return make_room(world.one)


@pytest.fixture(scope="session")
def lasting_room(world: TwoServers, make_room: MakeRoom) -> Room:
    """A room of `one` for tests that change nothing in Matrix."""
    return make_room(world.one)
