"""Somebody of another homeserver opens the call of a room: real Prosody, real service, two real Synapses. (Everything
else about logins is the same wherever people are from: it is tested on one homeserver, with either Prosody.)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.federation.conftest import Room
from tests.e2e.federation.desk import AUTH_TOKEN, Desk
from tests.e2e.reasons import NOT_A_MEMBER, NOT_VERIFIED, UNAVAILABLE
from tests.parts.federation import TwoServers
from tests.parts.jitsi_client import Refused, Via
from tests.parts.prosody import Config, Prosody, Version
from tests.parts.widget import Widgets


@pytest.fixture(scope="module")
def prosody(at_one: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prosody]:
    """Of the operator of `one`."""
    config = Config(at_one.service.url, AUTH_TOKEN, options={"uvs_sync_power_levels": "true"})
    with Prosody(Version.PROSODY_13, tmp_path_factory.mktemp("prosody"), config) as running:
        yield running
        assert running.lua_errors() == []


@pytest.fixture
async def of_one(world: TwoServers, prosody: Prosody) -> AsyncIterator[Widgets]:
    """What people of `one` open."""
    widgets = Widgets(world.one, prosody, Via.WEBSOCKET)
    yield widgets
    await widgets.close()


@pytest.fixture
async def of_two(world: TwoServers, prosody: Prosody) -> AsyncIterator[Widgets]:
    widgets = Widgets(world.two, prosody, Via.WEBSOCKET)
    yield widgets
    await widgets.close()


def refused(reason: str) -> Refused:
    return Refused("not-allowed", reason, shown=reason)


async def test_people_of_both_homeservers_meet(of_one: Widgets, of_two: Widgets, room: Room) -> None:
    host = await of_one.enter(room.creator, room.room_id)
    guest = await of_two.enter(room.member_of_two, room.room_id)
    assert (host.joined.affiliation, guest.joined.affiliation) == ("owner", "member")
    await guest.session.say(of_two.conference(room.room_id), "good morning from afar")
    await host.session.expect_message("good morning from afar")


async def test_a_moderator_of_another_homeserver_is_owner(of_two: Widgets, world: TwoServers, room: Room) -> None:
    world.one.set_level(room.creator, room.room_id, room.member_of_two, 50)
    assert (await of_two.enter(room.member_of_two, room.room_id)).joined.affiliation == "owner"


async def test_who_of_another_homeserver_is_not_in_the_room_is_told_so(of_two: Widgets, lasting_room: Room) -> None:
    assert await of_two.log_in(lasting_room.stranger_of_two, lasting_room.room_id) == refused(NOT_A_MEMBER)


async def test_a_token_of_another_homeserver_that_has_expired_proves_nothing(
    of_two: Widgets, world: TwoServers, lasting_room: Room
) -> None:
    jwt = of_two.jwt(lasting_room.member_of_two, lasting_room.room_id)
    world.two.expire_openid_token(of_two.tokens[-1])
    assert await of_two.log_in_with(jwt, lasting_room.room_id) == refused(NOT_VERIFIED)


async def test_while_the_other_homeserver_is_down_its_people_are_asked_to_try_again(
    of_one: Widgets, of_two: Widgets, world: TwoServers, lasting_room: Room
) -> None:
    jwt = of_two.jwt(lasting_room.member_of_two, lasting_room.room_id)
    with world.two_down():
        assert await of_two.log_in_with(jwt, lasting_room.room_id) == refused(UNAVAILABLE)
        await of_one.enter(lasting_room.member_of_one, lasting_room.room_id)
    await of_two.enter(lasting_room.member_of_two, lasting_room.room_id)
