"""People and rooms of two homeservers, verified by the services of both operators."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.federation.conftest import MakeRoom, Person, Room
from tests.e2e.federation.desk import NOBODY, Desk, member, stranger
from tests.parts.federation import WELL_KNOWN, TwoServers
from uvs.matrix.power_levels import CREATOR_LEVEL


@pytest.fixture(params=["one", "two"])
def desk(request: pytest.FixtureRequest, at_one: Desk, at_two: Desk) -> Desk:
    """The service of either operator: both have to say the same."""
    return at_one if request.param == "one" else at_two


@pytest.mark.parametrize("version", ["10", "12"])
@pytest.mark.parametrize("home", ["one", "two"])
def test_members_are_verified_wherever_they_and_the_room_are_from(
    world: TwoServers, desk: Desk, make_room: MakeRoom, home: str, version: str
) -> None:
    room = make_room(world.one if home == "one" else world.two, version=version)
    assert desk.verify(room.creator, room.room_id) == member(room.creator, CREATOR_LEVEL if version == "12" else 100)
    assert desk.verify(room.member_of_one, room.room_id) == member(room.member_of_one)
    assert desk.verify(room.member_of_two, room.room_id) == member(room.member_of_two)


def a_stranger(world: TwoServers, room: Room) -> None:
    pass


def invited(world: TwoServers, room: Room) -> None:
    world.home(room.creator).invite(room.creator, room.room_id, room.stranger_of_two)
    world.wait_for_membership(room.member_of_two, room.room_id, room.stranger_of_two, "invite")


def left(world: TwoServers, room: Room) -> None:
    world.join(room.creator, room.room_id, room.stranger_of_two)
    world.two.leave(room.stranger_of_two, room.room_id)
    world.wait_for_membership(room.creator, room.room_id, room.stranger_of_two, "leave")


def kicked(world: TwoServers, room: Room) -> None:
    world.join(room.creator, room.room_id, room.stranger_of_two)
    world.one.kick(room.creator, room.room_id, room.stranger_of_two)
    world.wait_until_out(room.stranger_of_two, room.room_id)


def banned(world: TwoServers, room: Room) -> None:
    world.join(room.creator, room.room_id, room.stranger_of_two)
    world.one.ban(room.creator, room.room_id, room.stranger_of_two)
    world.wait_until_out(room.stranger_of_two, room.room_id)


def unbanned(world: TwoServers, room: Room) -> None:
    banned(world, room)
    world.one.unban(room.creator, room.room_id, room.stranger_of_two)
    world.wait_for_membership(room.member_of_two, room.room_id, room.stranger_of_two, "leave")


def banned_by_somebody_elsewhere(world: TwoServers, room: Room) -> None:
    """By a moderator of the remote homeserver, who is given the level for it first."""
    world.join(room.creator, room.room_id, room.stranger_of_two)
    world.one.set_level(room.creator, room.room_id, room.member_of_two, 50)
    world.wait_for_level(room.member_of_two, room.room_id, room.member_of_two, 50)
    world.two.ban(room.member_of_two, room.room_id, room.stranger_of_two)
    world.wait_for_membership(room.creator, room.room_id, room.stranger_of_two, "ban")


@pytest.mark.parametrize(
    "happens",
    [a_stranger, invited, left, kicked, banned, unbanned, banned_by_somebody_elsewhere],
    ids=lambda happens: happens.__name__,
)
def test_who_is_not_joined_is_not_by_anybodys_word(
    world: TwoServers, at_one: Desk, at_two: Desk, room: Room, happens: Callable[[TwoServers, Room], None]
) -> None:
    happens(world, room)
    for desk in (at_one, at_two):
        assert desk.verify(room.stranger_of_two, room.room_id) == stranger(room.stranger_of_two)


def test_a_level_given_at_one_holds_at_both(world: TwoServers, desk: Desk, room: Room) -> None:
    world.one.set_level(room.creator, room.room_id, room.member_of_two, 50)
    world.wait_for_level(room.member_of_two, room.room_id, room.member_of_two, 50)
    assert desk.verify(room.member_of_two, room.room_id) == member(room.member_of_two, 50)


def test_a_level_given_by_somebody_elsewhere_holds_at_both(world: TwoServers, desk: Desk, room: Room) -> None:
    world.one.set_level(room.creator, room.room_id, room.member_of_two, 100)
    world.wait_for_level(room.member_of_two, room.room_id, room.member_of_two, 100)
    world.two.set_level(room.member_of_two, room.room_id, room.member_of_one, 75)
    world.wait_for_level(room.creator, room.room_id, room.member_of_one, 75)
    assert desk.verify(room.member_of_one, room.room_id) == member(room.member_of_one, 75)


def test_a_token_is_good_only_at_the_homeserver_that_gave_it(desk: Desk, room: Room) -> None:
    assert desk.verify(room.member_of_two, room.room_id, server_name="one.example") == NOBODY
    assert desk.verify(room.member_of_one, room.room_id, server_name="two.example") == NOBODY


def test_an_expired_token_proves_nothing(world: TwoServers, desk: Desk, room: Room) -> None:
    token = world.two.openid_token(room.member_of_two)
    world.two.expire_openid_token(token)
    assert desk.verify(room.member_of_two, room.room_id, token=token) == NOBODY


def test_each_is_found_in_the_way_that_it_has_chosen(
    world: TwoServers, at_one: Desk, at_two: Desk, make_room: MakeRoom, person: Person
) -> None:
    """`two` by a well-known document, where port 443 may be listened on at all; `one` by an SRV record."""
    room = make_room(world.one)
    at_one.verify(room.member_of_two, room.room_id)
    at_two.verify(room.member_of_one, room.room_id)
    assert world.dns.times_asked("_matrix-fed._tcp.one.example", "SRV")
    assert world.dns.times_asked("matrix.one.example", "A")
    if world.well_known is None:
        assert world.dns.times_asked("_matrix-fed._tcp.two.example", "SRV")
    else:
        assert WELL_KNOWN in world.well_known.asked
        assert not world.dns.times_asked("_matrix-fed._tcp.two.example", "SRV")
