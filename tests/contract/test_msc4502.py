"""What the application service's user may see decides whether levels are told; nothing else of theirs does."""

from __future__ import annotations

import httpx

from tests.contract.conftest import MSC4502, Cast, World, through
from tests.contract.test_wire import ask
from tests.parts.synapse import Version
from uvs.registration import DEFAULT_NAME

WORLD_READABLE = {"history_visibility": "world_readable"}


async def level(service: httpx.AsyncClient, world: World, cast: Cast, room: str) -> int | None:
    """That of the room's moderator, who is in it; None where it cannot be known."""
    body = (await ask(service, world.openid_token(cast.moderator), room)).json()
    assert body["results"] == {"user": True, "room_membership": True}
    return body["power_levels"] and int(body["power_levels"]["user"])


@through(MSC4502)
class TestLevelsAreTold:
    async def test_where_everybody_may_read_the_state(
        self, service: httpx.AsyncClient, world: World, cast: Cast
    ) -> None:
        room = world.create_room(cast.moderator)
        assert await level(service, world, cast, room) is None
        world.send_state(cast.moderator, room, "m.room.history_visibility", WORLD_READABLE)
        assert await level(service, world, cast, room) == 100

    async def test_where_the_services_user_is_a_member(
        self, service: httpx.AsyncClient, world: World, cast: Cast
    ) -> None:
        room = world.create_room(cast.moderator)
        world.invite(cast.moderator, room, world.service_user)
        assert await level(service, world, cast, room) is None
        world.join(world.service_user, room)
        assert await level(service, world, cast, room) == 100

    async def test_and_no_longer_once_that_user_has_left(
        self, service: httpx.AsyncClient, world: World, cast: Cast
    ) -> None:
        """Synapse goes on showing them the levels that held when they left."""
        room = world.create_room(cast.moderator)
        world.add(cast.moderator, room, world.service_user)
        world.leave(world.service_user, room)
        assert await level(service, world, cast, room) is None
        world.send_state(cast.moderator, room, "m.room.history_visibility", WORLD_READABLE)
        assert await level(service, world, cast, room) is None

    async def test_and_no_longer_once_that_user_was_kicked_or_banned(
        self, service: httpx.AsyncClient, world: World, cast: Cast
    ) -> None:
        for remove in (world.kick, world.ban):
            room = world.create_room(cast.moderator)
            world.add(cast.moderator, room, world.service_user)
            remove(cast.moderator, room, world.service_user)
            assert await level(service, world, cast, room) is None


@through(MSC4502, on=[Version.NEWEST])
async def test_the_token_of_the_registration_can_act_as_nobody_else(world: World, access: str, cast: Cast) -> None:
    async with httpx.AsyncClient(base_url=world.url, trust_env=False) as client:
        client.headers["Authorization"] = f"Bearer {world.service_user.access_token}"
        whoami = "/_matrix/client/v3/account/whoami"
        assert (await client.get(whoami)).json()["user_id"] == f"@{DEFAULT_NAME}:{world.server_name}"
        for user in (cast.admin, cast.member):
            answer = await client.get(whoami, params={"user_id": user.user_id})
            assert (answer.status_code, answer.json()["errcode"]) == (403, "M_FORBIDDEN")
        assert (await client.get(f"/_synapse/admin/v2/users/{cast.member.user_id}")).status_code == 403
