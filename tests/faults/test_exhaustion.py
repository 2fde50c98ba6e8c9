"""A homeserver that hangs, thousands of times: each call that is given up gives its connection back."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.faults.asking import ask
from tests.faults.faults import EVERY, TOO_LATE
from tests.faults.scene import eventually, scene
from tests.parts.faulty_homeserver import CHAIN, FaultyHomeserver

SLOW = {name: case.fault for name, case in EVERY.items() if case.status == TOO_LATE}
ROUNDS, AT_ONCE = 20, 100


@pytest.mark.parametrize("faults", [[*SLOW], ["hanging-in-chunk"]], ids=["each", "one"])
async def test_thousands_of_timeouts_use_nothing_up(tmp_path: Path, faults: list[str]) -> None:
    chance = random.Random(1)  # noqa: S311 - to be repeated, not to be secret
    async with scene(tmp_path, FaultyHomeserver(SLOW), options={"UVS_REQUEST_TIMEOUT": "0.3"}) as here:
        for _ in range(ROUNDS):
            people = [f"{chance.choice(CHAIN)}.{chance.choice(faults)}" for _ in range(AT_ONCE)]
            answers = await asyncio.gather(*(ask(here.port, person) for person in people))
            assert {answer.status for answer in answers} <= {502, 504}
        for _ in range(10):
            assert (await ask(here.port, "member")).yes
        # Those that are left are idle: they can be used, and there are no more of them than calls were under way.
        opened = here.homeserver.accepted
        await eventually(lambda: here.homeserver.connections <= AT_ONCE)
        for _ in range(10):
            assert (await ask(here.port, "member")).yes
        assert here.homeserver.accepted - opened <= 3
