"""The application service's way in, where the homeserver answers as none should. What it answers when all is well, the
contract tests hold against a real Synapse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.fake_homeserver import IS_JOINED, STATE, USERINFO, WHOAMI, FakeHomeserver, Fault, answering
from tests.parts.synapse import User
from tests.service import running, settings
from tests.unit.test_faults import USELESS, World
from uvs.errors import Refusal
from uvs.matrix.identifiers import RoomID, UserID
from uvs.net.http import open_client
from uvs.ways import connect_homeserver

VISIBLE = {"history_visibility": "world_readable"}


@asynccontextmanager
async def world(*, visible: bool = False, version: str = "10") -> AsyncIterator[World]:
    homeserver = FakeHomeserver()
    admin, member, visitor = (homeserver.register(name) for name in ("admin", "member", "visitor"))
    room = homeserver.create_room(admin, version=version)
    homeserver.add(admin, room, member)
    if visible:
        homeserver.send_state(admin, room, "m.room.history_visibility", VISIBLE)
    options = {**homeserver.way_in("msc4502", admin), "openid_verify_server_name": homeserver.server_name}
    async with running(settings(**options), transport=homeserver.transport()) as client:
        yield World(homeserver, admin, member, visitor, room, client)


async def calls_for(here: World, user: User) -> list[str]:
    """What is asked for one verification, once everything that is asked but once is known."""
    await here.ask(user)
    before = len(here.homeserver.calls)
    await here.ask(user)
    return sorted(what for what, _ in here.homeserver.calls[before:])


@pytest.mark.parametrize("visible", [False, True])
@pytest.mark.parametrize("fault", USELESS)
@pytest.mark.parametrize("call", [USERINFO, IS_JOINED, STATE])
async def test_an_answer_nobody_can_rely_on_is_cannot_tell(call: str, fault: str, visible: bool) -> None:
    async with world(visible=visible) as here:
        here.homeserver.faults[call] = USELESS[fault]
        answer = await here.ask(here.member)
        if (call, fault) == (STATE, "forbidden"):
            assert answer.json()["results"] == {"user": True, "room_membership": True}
            assert answer.json()["power_levels"] is None
        else:
            assert answer.status_code == 502


@pytest.mark.parametrize("fault", USELESS)
async def test_that_somebody_is_not_in_the_room_is_told_whatever_its_state_is_like(fault: str) -> None:
    async with world() as here:
        here.homeserver.faults[STATE] = USELESS[fault]
        assert (await here.ask(here.visitor)).json()["results"] == {"user": True, "room_membership": False}


@pytest.mark.parametrize("body", [{"joined": "true"}, {"joined": 1}, {"joined": None}, [True], True])
async def test_only_true_is_a_yes(body: object) -> None:
    async with world() as here:
        here.homeserver.faults[IS_JOINED] = answering(200, body)
        assert (await here.ask(here.member)).status_code == 502


async def test_a_homeserver_that_is_no_longer_in_the_room_vouches_for_nobody_there() -> None:
    """What it remembers of the room is the state of the day on which it left."""
    async with world(visible=True) as here:
        here.homeserver.leave(here.admin, here.room)
        here.homeserver.leave(here.member, here.room)
        remote = User("@remote:elsewhere.example", "")
        here.homeserver.add(here.admin, here.room, remote)
        options = settings(**here.homeserver.way_in("msc4502", here.admin))
        async with open_client(timeout=5, transport=here.homeserver.transport()) as client:
            asked = connect_homeserver(options.own_homeservers[0], client)
            standing = await asked.standing(UserID.parse(remote.user_id), RoomID.parse(here.room))
        assert standing is Refusal.ROOM_UNKNOWN


@pytest.mark.parametrize(
    ("visible", "version", "asked"),
    [
        (False, "10", [IS_JOINED, IS_JOINED, STATE, USERINFO]),
        (True, "10", [IS_JOINED, IS_JOINED, STATE, STATE, USERINFO]),
        (True, "12", [IS_JOINED, IS_JOINED, STATE, STATE, STATE, USERINFO]),
    ],
)
async def test_no_more_is_asked_than_is_needed(visible: bool, version: str, asked: list[str]) -> None:
    async with world(visible=visible, version=version) as here:
        assert await calls_for(here, here.member) == asked


async def test_a_room_without_levels_has_its_creator_above_everybody() -> None:
    async with world(visible=True) as here:
        here.homeserver.remove_state(here.room, "m.room.power_levels")
        levels = [(await here.ask(user)).json()["power_levels"]["user"] for user in (here.admin, here.member)]
    assert levels == [100, 0]


async def test_without_knowing_itself_it_does_not_look_at_any_state() -> None:
    """Whether what it is shown is up to date hangs on what it is in the room."""
    async with world(visible=True) as here:
        fault: Fault = answering(200, {"user_id": "nobody"})
        here.homeserver.faults[WHOAMI] = fault
        options = {**here.homeserver.way_in("msc4502", here.admin), "openid_verify_server_name": "matrix.example"}
        async with running(settings(**options), transport=here.homeserver.transport()) as client:
            body = {"token": here.homeserver.openid_token(here.member), "room_id": here.room}
            answer = await client.post("/verify/user_in_room", json=body)
        assert answer.status_code == 502
