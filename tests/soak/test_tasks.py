"""The same mixture of ends, inside this process, where tasks can be counted."""

from __future__ import annotations

import asyncio
import gc
import random
from pathlib import Path
from typing import Any

import httpx

from tests.faults.asking import question
from tests.faults.faults import EVERY, TOO_LATE
from tests.faults.scene import eventually
from tests.parts.faulty_homeserver import ADMIN_TOKEN, CHAIN, SERVER_NAME, FaultyHomeserver
from tests.service import running, settings

REQUESTS = 400
DEADLINE = 0.3  # seconds
CALM = ["member", "visitor", "nobody-of-ours"]
QUICK = [name for name, case in EVERY.items() if case.status != TOO_LATE and "300-mb" not in name]
SLOW = [name for name, case in EVERY.items() if case.status == TOO_LATE]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_request_leaves_a_task_or_a_descriptor_behind() -> None:
    chance = random.Random(1)  # noqa: S311 - to be repeated, not to be secret
    async with FaultyHomeserver({name: case.fault for name, case in EVERY.items()}) as homeserver:
        before, descriptors_before = asyncio.all_tasks(), await asyncio.to_thread(descriptors)
        options = settings(
            homeserver_url=homeserver.url,
            access_token=ADMIN_TOKEN,
            openid_verify_server_name=SERVER_NAME,
            request_timeout=DEADLINE,
            rate_limit=0,
            dns_servers=["127.0.0.1:9"],  # nobody is found: it is not about that
        )

        def left() -> set[asyncio.Task[Any]]:
            """Of the service: all but its own client's connections, which are the homeserver's tasks."""
            return {task for task in asyncio.all_tasks() - before if "FaultyHomeserver" not in repr(task)}

        async with running(options) as client:
            # What is asked at the start is asked again after five seconds where the machine is slow.
            await eventually(lambda: not left(), seconds=30)
            for _ in range(REQUESTS // 20):
                await asyncio.gather(*(one(client, chance) for _ in range(20)), return_exceptions=True)
            await asyncio.sleep(2 * DEADLINE)
            assert not left()
        await eventually(lambda: not homeserver.connections)
        assert asyncio.all_tasks() == before
        gc.collect()
        assert await asyncio.to_thread(descriptors) <= descriptors_before + 1  # the thread's, if it is the first


async def one(client: httpx.AsyncClient, chance: random.Random) -> None:
    person = chance.choice([*CALM, f"{chance.choice(CHAIN)}.{chance.choice(QUICK)}"])
    if chance.random() < 0.05:
        person = f"{chance.choice(CHAIN)}.{chance.choice(SLOW)}"
    asking = asyncio.create_task(client.post("/verify/user_in_room", json=question(person)))
    if chance.random() < 0.2:
        await asyncio.sleep(chance.random() * 0.05)
        asking.cancel()  # as the server does with a request whose client has gone
    await asking
