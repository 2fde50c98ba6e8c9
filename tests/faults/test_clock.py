"""The wall clock jumps under the running service: nothing but the stamps of its log goes with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.asking import ask, exchange, get, question, request
from tests.faults.faults import hang
from tests.faults.scene import DEADLINE, Scene, eventually, scene
from tests.parts import PARTS, PartMissingError
from tests.parts.faulty_homeserver import FaultyHomeserver

YEAR = 365 * 24 * 3600
JUMPS = {"an hour on": 3600, "ten years on": 10 * YEAR, "an hour back": -3600, "twenty years back": -20 * YEAR}
PER_MINUTE = 300


@dataclass(frozen=True, slots=True)
class Jumping:
    """The service, and the way to move its clock."""

    scene: Scene
    _offset: Path

    def jump(self, seconds: int) -> None:
        """From the true time; 0 is back to it."""
        self._offset.write_text(f"{seconds:+d}\n")

    def years_logged(self) -> set[str]:
        return {line[:4] for line in self.scene.service.log_text().splitlines()}


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Jumping]:
    library = next((PARTS / "tools/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        raise PartMissingError(PARTS / "tools/usr/lib/*/faketime")
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    options = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # as with a real clock that is set
        "FAKETIME_DONT_RESET": "1",
        "UVS_AUTH_TOKEN": "x",
        "UVS_RATE_LIMIT": str(PER_MINUTE),
    }
    async with scene(tmp_path, FaultyHomeserver(), options=options) as opened:
        yield Jumping(opened, offset)


async def member_is_verified(port: int) -> bool:
    return (await exchange(port, request("/verify/user_in_room", question("member"), Authorization="Bearer x"))).yes


@pytest.mark.parametrize("jump", JUMPS)
async def test_people_are_verified_before_during_and_after_a_jump(here: Jumping, jump: str) -> None:
    port, homeserver = here.scene.port, here.scene.homeserver
    assert await member_is_verified(port)
    homeserver.delay = 0.1
    under_way = [asyncio.create_task(member_is_verified(port)) for _ in range(5)]
    await eventually(lambda: homeserver.asked["userinfo"] >= 6)
    here.jump(JUMPS[jump])
    assert await asyncio.gather(*under_way) == [True] * 5
    connections = homeserver.accepted
    assert await member_is_verified(port)
    assert homeserver.accepted == connections  # those that are idle are as old as before
    assert (await get(port, "/ready")).status == 200
    here.jump(0)
    assert await member_is_verified(port)
    if abs(JUMPS[jump]) > YEAR:
        assert len(here.years_logged()) == 2


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_deadline_is_as_long_as_ever(here: Jumping, jump: str) -> None:
    port, homeserver = here.scene.port, here.scene.homeserver
    homeserver.faults["userinfo"] = hang
    asking = asyncio.create_task(
        exchange(port, request("/verify/user_in_room", question("member"), Authorization="Bearer x"))
    )
    await eventually(lambda: homeserver.asked["userinfo"] >= 1)
    here.jump(JUMPS[jump])
    answer = await asking
    assert answer.status == 504
    assert DEADLINE <= answer.seconds < DEADLINE + 1


@pytest.mark.parametrize("jump", JUMPS)
async def test_who_asked_too_often_waits_neither_shorter_nor_for_years(here: Jumping, jump: str) -> None:
    port = here.scene.port
    while (limited := await ask(port, "member")).status == 403:
        pass
    assert limited.status == 429
    here.jump(JUMPS[jump])
    answers = [await ask(port, "member") for _ in range(5)]
    # A place for another comes free every fifth of a second.
    assert {answer.status for answer in answers} <= {429, 403}
    assert 429 in {answer.status for answer in answers}
    assert {answer.headers.get("retry-after", "1") for answer in answers} == {"1"}
