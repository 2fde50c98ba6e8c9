"""Who gets into the call of a Matrix room, and as what: real Synapse, real service, real Prosody."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.conftest import AUTH_TOKEN, MakeRoom, Room, StartProsody
from tests.e2e.reasons import NOT_A_MEMBER, NOT_VERIFIED
from tests.parts.jitsi_client import Refused, Via
from tests.parts.prosody import Config
from tests.parts.service import Service
from tests.parts.synapse import Synapse, User
from tests.parts.widget import Widgets

NOT_JOINED = Refused("not-allowed", NOT_A_MEMBER, shown=NOT_A_MEMBER)


def knocked(synapse: Synapse, room: Room) -> None:
    synapse.knock(room.visitor, room.room_id)


def invited(synapse: Synapse, room: Room) -> None:
    synapse.invite(room.moderator, room.room_id, room.visitor)


def left(synapse: Synapse, room: Room) -> None:
    synapse.add(room.moderator, room.room_id, room.visitor)
    synapse.leave(room.visitor, room.room_id)


def kicked(synapse: Synapse, room: Room) -> None:
    synapse.add(room.moderator, room.room_id, room.visitor)
    synapse.kick(room.moderator, room.room_id, room.visitor)


def banned(synapse: Synapse, room: Room) -> None:
    synapse.add(room.moderator, room.room_id, room.visitor)
    synapse.ban(room.moderator, room.room_id, room.visitor)


def banned_without_ever_joining(synapse: Synapse, room: Room) -> None:
    synapse.ban(room.moderator, room.room_id, room.visitor)


def unbanned(synapse: Synapse, room: Room) -> None:
    banned(synapse, room)
    synapse.unban(room.moderator, room.room_id, room.visitor)


def a_stranger(synapse: Synapse, room: Room) -> None:
    pass


def moderator_by_level_only(synapse: Synapse, room: Room) -> None:
    """Whom the power levels name need not be there."""
    synapse.set_level(room.moderator, room.room_id, room.visitor, 50)


@pytest.mark.parametrize(
    "happens",
    [
        a_stranger,
        invited,
        knocked,
        left,
        kicked,
        banned,
        banned_without_ever_joining,
        unbanned,
        moderator_by_level_only,
    ],
    ids=lambda happens: happens.__name__,
)
async def test_who_is_not_joined_is_refused_and_told_why(
    widgets: Widgets, synapse: Synapse, make_room: MakeRoom, happens: Callable[[Synapse, Room], None]
) -> None:
    room = make_room(join_rule="knock")
    happens(synapse, room)
    assert await widgets.log_in(room.visitor, room.room_id) == NOT_JOINED


async def test_a_member_gets_in_as_a_member(widgets: Widgets, room: Room) -> None:
    call = await widgets.enter(room.member, room.room_id)
    assert (call.joined.affiliation, call.joined.role) == ("member", "participant")


async def test_a_moderator_gets_in_as_owner(widgets: Widgets, room: Room) -> None:
    call = await widgets.enter(room.moderator, room.room_id)
    assert (call.joined.affiliation, call.joined.role) == ("owner", "moderator")


async def test_members_hear_each_other(widgets: Widgets, room: Room) -> None:
    moderator = await widgets.enter(room.moderator, room.room_id)
    member = await widgets.enter(room.member, room.room_id)
    await member.session.say(widgets.conference(room.room_id), "good morning")
    await moderator.session.expect_message("good morning")


async def test_who_joins_the_room_gets_in_from_then_on(widgets: Widgets, synapse: Synapse, room: Room) -> None:
    assert await widgets.log_in(room.visitor, room.room_id) == NOT_JOINED
    synapse.add(room.moderator, room.room_id, room.visitor)
    await widgets.enter(room.visitor, room.room_id)


async def test_who_leaves_the_room_does_not_get_in_again(widgets: Widgets, synapse: Synapse, room: Room) -> None:
    await widgets.enter(room.member, room.room_id)
    synapse.leave(room.member, room.room_id)
    assert await widgets.log_in(room.member, room.room_id) == NOT_JOINED


async def test_somebody_of_another_room_is_no_member(widgets: Widgets, room: Room, other_room: Room) -> None:
    assert await widgets.log_in(other_room.moderator, room.room_id) == NOT_JOINED


async def test_an_expired_openid_token_proves_nothing(widgets: Widgets, synapse: Synapse, room: Room) -> None:
    jwt = widgets.jwt(room.member, room.room_id)
    synapse.expire_openid_token(widgets.tokens[-1])
    refused = await widgets.log_in_with(jwt, room.room_id)
    assert refused == Refused("not-allowed", NOT_VERIFIED, shown=NOT_VERIFIED)


async def test_a_deactivated_account_is_no_member_any_more(widgets: Widgets, synapse: Synapse, room: Room) -> None:
    jwt = widgets.jwt(room.member, room.room_id)
    synapse.deactivate(room.member)  # leaves the token valid, and the rooms
    synapse.wait_until_gone(room.moderator, room.room_id, room.member)
    assert isinstance(await widgets.log_in_with(jwt, room.room_id), Refused)


@pytest.mark.parametrize("room_version", ["1", "6", "9", "10", "11", "12"])
async def test_the_creator_is_owner_in_every_room_version(
    widgets: Widgets, make_room: MakeRoom, room_version: str
) -> None:
    room = make_room(version=room_version)
    assert (await widgets.enter(room.member, room.room_id)).joined.affiliation == "member"
    assert (await widgets.enter(room.moderator, room.room_id)).joined.affiliation == "owner"


async def test_an_additional_creator_of_a_version_12_room_is_owner(
    widgets: Widgets, synapse: Synapse, person: Callable[[str], User]
) -> None:
    creator, second = person("creator"), person("second")
    room_id = synapse.create_room(creator, version="12", creation_content={"additional_creators": [second.user_id]})
    synapse.add(creator, room_id, second)
    assert (await widgets.enter(second, room_id)).joined.affiliation == "owner"


async def test_moderation_begins_at_the_state_default_of_the_room(
    widgets: Widgets, synapse: Synapse, person: Callable[[str], User]
) -> None:
    creator, above, below = person("creator"), person("above"), person("below")
    levels = {"users": {creator.user_id: 100, above.user_id: 30, below.user_id: 29}, "state_default": 30}
    room_id = synapse.create_room(creator, power_levels=levels)
    synapse.add(creator, room_id, above, below)
    assert (await widgets.enter(above, room_id)).joined.affiliation == "owner"
    assert (await widgets.enter(below, room_id)).joined.affiliation == "member"


async def test_a_number_says_from_which_level_on_somebody_is_owner(
    start_prosody: StartProsody, synapse: Synapse, service: Service, room: Room
) -> None:
    running = start_prosody(Config(service.url, AUTH_TOKEN, options={"uvs_sync_power_levels": "75"}))
    widgets = Widgets(synapse, running, Via.WEBSOCKET)
    try:
        for level, affiliation in ((74, "member"), (75, "owner")):
            synapse.set_level(room.moderator, room.room_id, room.member, level)
            assert (await widgets.enter(room.member, room.room_id)).joined.affiliation == affiliation
    finally:
        await widgets.close()


async def test_without_syncing_nobody_becomes_owner(
    start_prosody: StartProsody, synapse: Synapse, service: Service, room: Room
) -> None:
    widgets = Widgets(synapse, start_prosody(Config(service.url, AUTH_TOKEN)), Via.WEBSOCKET)
    try:
        for user in (room.moderator, room.member):
            assert (await widgets.enter(user, room.room_id)).joined.affiliation != "owner"
    finally:
        await widgets.close()
