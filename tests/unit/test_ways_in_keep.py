"""What the ways in keep: how often the homeserver is asked, and that nobody is let in for longer than that."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.fake_homeserver import FakeHomeserver, answering
from tests.parts.synapse import User
from tests.service import running, settings
from tests.unit.strangers import Clock

WAYS = ("synapse-admin", "msc4502", "synapse-module")
TIMES = {"cache_token_ttl": 300, "cache_membership_ttl": 5, "cache_power_levels_ttl": 5}


@dataclass
class Here:
    homeserver: FakeHomeserver
    clock: Clock
    client: httpx.AsyncClient
    creator: User
    room: str

    async def ask(self, token: str, room: str | None = None) -> dict[str, Any]:
        body = {"token": token, "room_id": room or self.room}
        answer = await self.client.post("/verify/user_in_room", json=body)
        assert answer.status_code == 200, answer.text
        results: dict[str, Any] = answer.json()
        return results

    async def joined(self, token: str) -> bool:
        answer = (await self.ask(token))["results"]
        return bool(answer["user"] and answer["room_membership"])

    async def person(self, token: str) -> bool:
        answer = await self.client.post("/verify/user", json={"token": token})
        assert answer.status_code == 200, answer.text
        return bool(answer.json()["results"]["user"])

    def member(self, name: str) -> tuple[User, str]:
        user = self.homeserver.register(name)
        self.homeserver.add(self.creator, self.room, user)
        return user, self.homeserver.openid_token(user)

    def calls(self) -> Counter[str]:
        """Since the last time."""
        said = Counter(what for what, _ in self.homeserver.calls)
        self.homeserver.calls.clear()
        return said


@asynccontextmanager
async def here(access: str, *, version: str = "10", **options: Any) -> AsyncIterator[Here]:
    homeserver, clock = FakeHomeserver(), Clock()
    admin = homeserver.register("admin", admin=True)
    room = homeserver.create_room(admin, version=version)
    homeserver.send_state(admin, room, "m.room.history_visibility", {"history_visibility": "world_readable"})
    given = {**homeserver.way_in(access, admin), "openid_verify_server_name": homeserver.server_name, **TIMES}
    async with running(settings(**{**given, **options}), transport=homeserver.transport(), clock=clock) as client:
        await asyncio.sleep(0.1)  # the check at the start is over
        homeserver.calls.clear()
        yield Here(homeserver, clock, client, admin, room)


FIRST = {
    "synapse-admin": {"userinfo": 1, "account": 1, "joined_rooms": 1, "state": 1},
    "msc4502": {"userinfo": 1, "is_joined": 2, "state": 2},
    "synapse-module": {"module": 1},
}
AFTER_SECONDS = {
    "synapse-admin": {"account": 1, "joined_rooms": 1, "state": 1},
    "msc4502": {"is_joined": 2, "state": 2},
    "synapse-module": {"module": 1},
}
"""With the token known, everything else is asked at once."""
NEXT_PERSON = {
    "synapse-admin": {"userinfo": 1, "account": 1, "joined_rooms": 1},
    "msc4502": {"userinfo": 1, "is_joined": 1},
    "synapse-module": {"module": 1},
}
every_way = pytest.mark.parametrize("access", WAYS)


@every_way
async def test_what_was_just_said_is_not_asked_again(access: str) -> None:
    async with here(access) as world:
        _, token = world.member("alice")
        assert await world.joined(token)
        assert world.calls() == FIRST[access]
        assert await world.joined(token)
        assert world.calls() == {}
        world.clock.now += 5
        assert await world.joined(token)
        assert world.calls() == AFTER_SECONDS[access]
        world.clock.now += 300
        assert await world.joined(token)
        assert world.calls() == FIRST[access]


@every_way
async def test_five_hundred_identical_requests_are_one_of_each_call(access: str) -> None:
    async with here(access) as world:
        _, token = world.member("alice")
        assert set(await asyncio.gather(*(world.joined(token) for _ in range(500)))) == {True}
        assert world.calls() == FIRST[access]


@every_way
async def test_of_a_crowd_in_one_room_the_levels_are_asked_once(access: str) -> None:
    async with here(access) as world:
        tokens = [world.member(f"user{number}")[1] for number in range(100)]
        assert set(await asyncio.gather(*map(world.joined, tokens))) == {True}
        calls = world.calls()
        expected = Counter(FIRST[access])
        for _ in tokens[1:]:
            expected += Counter(NEXT_PERSON[access])
        assert calls == expected


@every_way
async def test_the_answers_are_the_same_from_the_cache(access: str) -> None:
    for version in ("10", "12"):
        async with here(access, version=version) as world:
            _, token = world.member("alice")
            creator = world.homeserver.openid_token(world.creator)
            for each in (token, creator):
                first = await world.ask(each)
                assert await world.ask(each) == first
                world.clock.now += 5
                assert await world.ask(each) == first


@every_way
async def test_who_was_removed_comes_in_for_five_seconds_more(access: str) -> None:
    async with here(access) as world:
        user, token = world.member("alice")
        assert await world.joined(token)
        world.homeserver.kick(world.creator, world.room, user)
        world.clock.now += 4.9
        assert await world.joined(token)
        world.clock.now += 0.1
        assert not await world.joined(token)


@every_way
async def test_who_has_just_joined_comes_in_at_once(access: str) -> None:
    async with here(access) as world:
        user = world.homeserver.register("alice")
        token = world.homeserver.openid_token(user)
        assert not await world.joined(token)
        world.homeserver.add(world.creator, world.room, user)
        assert await world.joined(token)


@pytest.mark.parametrize("access", ["synapse-admin", "synapse-module"])
@pytest.mark.parametrize("asked", [Here.joined, Here.person])
async def test_a_locked_account_is_refused_after_five_seconds_although_its_token_is_known(
    access: str, asked: Callable[[Here, str], Any]
) -> None:
    async with here(access) as world:
        user, token = world.member("alice")
        assert await asked(world, token)
        assert await asked(world, token)
        world.clock.now += 5
        world.homeserver.lock(world.creator, user)
        assert not await asked(world, token)
        assert not await asked(world, token)


@every_way
async def test_a_bad_token_is_asked_about_each_time(access: str) -> None:
    async with here(access) as world:
        for _ in range(2):
            assert not await world.person("bad")
        assert sum(world.calls().values()) == 2


@pytest.mark.parametrize(("access", "what"), [(access, what) for access in WAYS for what in FIRST[access]])
async def test_a_failure_is_asked_again(access: str, what: str) -> None:
    async with here(access) as world:
        _, token = world.member("alice")
        world.homeserver.faults[what] = answering(500)
        for _ in range(2):
            answer = await world.client.post("/verify/user_in_room", json={"token": token, "room_id": world.room})
            assert answer.status_code == 502
        world.homeserver.faults.clear()
        assert await world.joined(token)


@pytest.mark.parametrize(
    ("access", "off", "asked"),
    [
        ("synapse-admin", "cache_token_ttl", {"userinfo": 1}),
        ("synapse-admin", "cache_membership_ttl", {"account": 1, "joined_rooms": 1}),
        ("synapse-admin", "cache_power_levels_ttl", {"state": 1}),
        ("msc4502", "cache_token_ttl", {"userinfo": 1}),
        ("msc4502", "cache_membership_ttl", {"is_joined": 2, "state": 1}),
        ("msc4502", "cache_power_levels_ttl", {"state": 1}),
        *(("synapse-module", off, {"module": 1}) for off in TIMES),
    ],
)
async def test_zero_switches_each_off(access: str, off: str, asked: dict[str, int]) -> None:
    options: dict[str, Any] = {off: 0}
    async with here(access, **options) as world:
        _, token = world.member("alice")
        assert await world.joined(token)
        assert world.calls() == FIRST[access]
        assert await world.joined(token)
        assert world.calls() == asked


async def test_the_own_checks_always_ask() -> None:
    for access in WAYS:
        async with here(access) as world:
            _, token = world.member("alice")
            await world.joined(token)
            world.calls()
            for _ in range(2):
                assert (await world.client.get("/ready")).status_code == 200
                assert sum(world.calls().values()) == 1
                world.clock.now += 5
