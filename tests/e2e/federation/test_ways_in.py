"""People of another homeserver, asked about through each way in to the own one."""

from __future__ import annotations

import pytest

from tests.e2e.federation.conftest import Admins, MakeRoom, OpenDesk, Person, Room
from tests.e2e.federation.desk import Desk, Verdict, member, stranger
from tests.parts.federation import TwoServers, eventually
from uvs.matrix.power_levels import CREATOR_LEVEL


@pytest.fixture(params=["synapse-admin", "msc4502", "synapse-module"])
def access(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def desk(world: TwoServers, admins: Admins, open_desk: OpenDesk, access: str) -> Desk:
    """The service of the operator of `one`."""
    return open_desk(**{f"UVS_{name.upper()}": value for name, value in world.one.way_in(access, admins.one).items()})


@pytest.mark.parametrize("version", ["10", "12"])
def test_members_of_a_remote_room_are_members_whoever_vouches_for_them(
    world: TwoServers, desk: Desk, make_room: MakeRoom, access: str, version: str
) -> None:
    room = make_room(world.two, version=version)
    creator = CREATOR_LEVEL if version == "12" else 100
    for user, level in ((room.creator, creator), (room.member_of_one, 0), (room.member_of_two, 0)):
        known = Verdict(user.user_id, joined=True, level=None) if access == "msc4502" else member(user, level)
        assert desk.verify(user, room.room_id) == known


def test_strangers_are_strangers_whoever_vouches_for_them(desk: Desk, lasting_room: Room) -> None:
    for user in (lasting_room.stranger_of_one, lasting_room.stranger_of_two):
        assert desk.verify(user, lasting_room.room_id) == stranger(user)


def test_a_homeserver_that_has_left_the_room_vouches_for_nobody_in_it(
    world: TwoServers, desk: Desk, make_room: MakeRoom
) -> None:
    """Who joins and leaves from then on, it is not told."""
    room = make_room(world.two)
    world.one.leave(room.member_of_one, room.room_id)
    world.wait_for_membership(room.creator, room.room_id, room.member_of_one, "leave")
    for user in (room.member_of_one, room.member_of_two, room.creator):
        assert desk.verify(user, room.room_id) == stranger(user)


def test_who_was_removed_at_their_own_homeserver_is_not_in_the_room(world: TwoServers, desk: Desk, room: Room) -> None:
    world.two.leave(room.member_of_two, room.room_id)
    world.wait_for_membership(room.creator, room.room_id, room.member_of_two, "leave")
    eventually("it is told", lambda: desk.verify(room.member_of_two, room.room_id) == stranger(room.member_of_two))


@pytest.mark.parametrize("access", ["msc4502", "synapse-module"], indirect=True)
def test_so_does_one_that_left_while_it_was_still_learning_who_is_in_it(
    world: TwoServers, desk: Desk, make_room: MakeRoom, person: Person
) -> None:
    """Synapse then keeps what it learns after that. Only the admin API cannot see that it is nothing to go by."""
    room = make_room(world.two)
    world.one.leave(room.member_of_one, room.room_id)
    for _ in range(3):
        guest = person(world.one, "guest")
        world.two.invite(room.creator, room.room_id, guest)
        world.one.join(guest, room.room_id)
        world.one.leave(guest, room.room_id)
        assert desk.verify(room.member_of_two, room.room_id) == stranger(room.member_of_two)
    world.wait_for_membership(room.creator, room.room_id, guest, "leave")
    assert desk.verify(room.member_of_two, room.room_id) == stranger(room.member_of_two)
