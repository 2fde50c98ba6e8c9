"""Whoever waits for a homeserver that does not answer takes nothing away from the people of the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.faults.asking import Answer, ask
from tests.faults.faults import hang
from tests.faults.scene import eventually, serving
from tests.parts.certificates import Authority
from tests.parts.dns_server import DnsServer
from tests.parts.faulty_homeserver import ADMIN_TOKEN, CHAIN, USERINFO, FaultyHomeserver
from tests.parts.processes import free_port

DEADLINE = 20.0
"""Seconds; longer than the others take to be verified, so that those who hang are there all the time."""
CROWD = 1000

Ask = Callable[[str, str], Coroutine[Any, Any, Answer]]
"""A person, and their homeserver's name."""


async def all_are_verified_while_a_crowd_waits(
    ask_about: Ask, slow: FaultyHomeserver, *others: FaultyHomeserver, at_least: int, people: int = 20
) -> None:
    """`at_least` of the crowd hang at `slow` before anybody else is asked about, and until all of them are verified."""
    crowd = [asyncio.create_task(ask_about(f"crowd-{n}", slow.server_name)) for n in range(CROWD)]
    await eventually(lambda: slow.asked[USERINFO] >= at_least)
    # Whoever finds no place is told at once, and not once it is too late for them.
    await eventually(lambda: sum(task.done() for task in crowd) > CROWD / 2, seconds=DEADLINE)
    for other in others:
        answers = await asyncio.gather(*(ask_about(f"member-{n}", other.server_name) for n in range(people)))
        assert [answer.yes for answer in answers] == [True] * people, other.server_name
        assert {answer.body["user_id"] for answer in answers} == {
            f"@member-{n}:{other.server_name}" for n in range(people)
        }
    hanging = sum(not task.done() for task in crowd)
    assert hanging >= at_least
    await slow.close()
    answers = await asyncio.gather(*crowd)
    assert {answer.status for answer in answers} <= {502, 503, 504}
    assert {answer.headers["retry-after"] for answer in answers if answer.status == 503} == {"1"}
    await slow.open()


@asynccontextmanager
async def strangers(directory: Path, **options: str) -> AsyncIterator[tuple[Ask, list[FaultyHomeserver]]]:
    """The own homeserver, one elsewhere that hangs, and another elsewhere."""
    authority = Authority()
    ports = [free_port(), free_port()]
    names = ["slow.example", "swift.example"]
    slow, swift = (
        FaultyHomeserver(server_name=f"{name}:{port}", port=port, tls=authority.server(name))
        for name, port in zip(names, ports, strict=True)
    )
    slow.faults[USERINFO] = hang
    with DnsServer() as dns:
        for name in names:
            dns.add_address(name, "127.0.0.1")
        variables = {
            "UVS_FEDERATION": "on",
            "UVS_CA_FILE": str(authority.write(directory / "ca.pem")),
            "UVS_ALLOWED_NETWORKS": "127.0.0.0/8",
            "UVS_DNS_SERVERS": "{}:{}".format(*dns.address),
            "UVS_REQUEST_TIMEOUT": f"{DEADLINE:g}",
        }
        async with (
            FaultyHomeserver() as own,
            slow,
            swift,
            serving(directory, own.url, options=variables | options) as service,
        ):
            yield lambda person, name: ask(service.port, person, server_name=name), [slow, own, swift]


async def test_one_elsewhere_that_hangs_is_alone_with_it(tmp_path: Path) -> None:
    async with strangers(tmp_path) as (ask_about, homeservers):
        await all_are_verified_while_a_crowd_waits(ask_about, *homeservers, at_least=10)


async def test_however_few_places_there_are_it_does_not_get_all_of_them(tmp_path: Path) -> None:
    async with strangers(tmp_path, UVS_MAX_CONCURRENT_REQUESTS="50") as (ask_about, homeservers):
        await all_are_verified_while_a_crowd_waits(ask_about, *homeservers, at_least=5, people=5)


async def test_one_of_our_own_that_hangs_is_alone_with_it(tmp_path: Path) -> None:
    slow, swift = (FaultyHomeserver(server_name=name) for name in ("slow.example", "swift.example"))
    for call in CHAIN:
        slow.faults[call] = hang
    others = [{"server_name": each.server_name, "url": each.url, "access_token": ADMIN_TOKEN} for each in (slow, swift)]
    variables = {"UVS_HOMESERVERS": json.dumps(others), "UVS_REQUEST_TIMEOUT": f"{DEADLINE:g}"}
    async with FaultyHomeserver() as own, slow, swift, serving(tmp_path, own.url, options=variables) as service:
        await all_are_verified_while_a_crowd_waits(
            lambda person, name: ask(service.port, person, server_name=name), slow, own, swift, at_least=90
        )


async def test_an_outage_elsewhere_is_none_of_our_own(tmp_path: Path) -> None:
    async with strangers(tmp_path, UVS_REQUEST_TIMEOUT="1") as (ask_about, (slow, own, swift)):
        for call in CHAIN:
            own.faults[call] = hang
            at_swift, at_own, at_slow = await asyncio.gather(
                *(ask_about("member", each.server_name) for each in (swift, own, slow))
            )
            # Of a stranger's account nothing is asked here, and their own homeserver redeems their token.
            assert (call, at_swift.yes, at_own.yes) == (call, call in {USERINFO, "account"}, False)
            assert at_slow.status in {502, 504}
            del own.faults[call]
            assert (await ask_about("member", own.server_name)).yes
