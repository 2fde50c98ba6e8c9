"""Every fault at every call of a verification: one answer, in time, of the right kind, and no harm to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import product

import pytest
import pytest_asyncio

from tests.faults.asking import NO, YES, Answer, ask
from tests.faults.faults import EVERY, SIZE, STRANGERS, TOO_LATE, case_of
from tests.faults.scene import DEADLINE, serving
from tests.parts.certificates import Authority
from tests.parts.dns_server import DnsServer
from tests.parts.faulty_homeserver import CHAINS, USERINFO, WELL_KNOWN, FaultyHomeserver
from tests.parts.forward_proxy import Proxy, proxying

pytestmark = pytest.mark.asyncio(loop_scope="module")

ELSEWHERE = "elsewhere.example"
BY_WELL_KNOWN = f"{WELL_KNOWN}.{{fault}}.example"
"""A name for each fault, since what comes of it is remembered."""

HEAVY = {*SIZE, "100-continue-for-ever"}
"""So much work that one way in after the other is to meet it."""
WAITING = [fault for fault, case in EVERY.items() if case.status == TOO_LATE and fault not in HEAVY]
"""So little that several can be met at once. They are fewer than a stranger has places."""
GROUPS = [[fault] for fault in EVERY if fault not in WAITING] + [WAITING[start::2] for start in range(2)]

ERROR = {"errcode", "error", "reference"}
TOLD = {"results", "user_id", "power_levels"}


@dataclass(frozen=True, slots=True)
class Way:
    """A service, and the calls of a verification through it. Of a stranger's homeserver it asks just some."""

    name: str
    homeserver: FaultyHomeserver
    calls: tuple[str, ...]
    port: int
    server_name: str | None = None
    deadline: float = DEADLINE

    async def ask(self, person: str, fault: str) -> Answer:
        name = self.server_name and self.server_name.format(fault=fault)
        return await ask(self.port, person, server_name=name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ways(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Way]]:
    directory, authority = tmp_path_factory.mktemp("uvs"), Authority()
    names = [BY_WELL_KNOWN.format(fault=fault) for fault in EVERY]
    faults = {name: case.fault for name, case in EVERY.items()}
    own, stranger = FaultyHomeserver(faults), FaultyHomeserver(faults, tls=authority.server(ELSEWHERE, *names))
    with DnsServer() as dns:
        dns.add_address(ELSEWHERE, "127.0.0.1")
        for name in names:
            dns.add_address(name, "127.0.0.1")
            dns.add_service(f"_matrix-fed._tcp.{name}", name, stranger.port)
        async with own, stranger, proxying(Proxy(ports={443: stranger.port})) as proxy, AsyncExitStack() as services:
            federation = {
                "UVS_LOG_LEVEL": "debug",  # all that there is to say is looked through for tokens
                "UVS_FEDERATION": "on",
                "UVS_CA_FILE": str(authority.write(directory / "ca.pem")),
                "UVS_ALLOWED_NETWORKS": "127.0.0.0/8",
                "UVS_DNS_SERVERS": "{}:{}".format(*dns.address),
            }
            # Longer: the document has a part of it, and what comes after it needs the rest.
            found = federation | {"UVS_FEDERATION_PROXY": proxy.url, "UVS_REQUEST_TIMEOUT": f"{2 * DEADLINE:g}"}
            options = {access: {"UVS_HOMESERVER_ACCESS": access} | federation for access in CHAINS}
            started = await asyncio.gather(
                *(
                    services.enter_async_context(serving(directory / name, own.url, options=given))
                    for name, given in (options | {WELL_KNOWN: found}).items()
                )
            )
            ports = [service.port for service in started]
            yield [
                *(Way(access, own, calls, port) for (access, calls), port in zip(CHAINS.items(), ports, strict=False)),
                Way(STRANGERS, stranger, (USERINFO,), ports[0], f"{ELSEWHERE}:{stranger.port}"),
                Way(STRANGERS, stranger, (WELL_KNOWN,), ports[-1], BY_WELL_KNOWN, 2 * DEADLINE),
            ]


@pytest.mark.parametrize("faults", GROUPS, ids=", ".join)
async def test_a_fault_is_one_answer_in_time_of_the_right_kind(ways: list[Way], faults: list[str]) -> None:
    if HEAVY.isdisjoint(faults):
        await asyncio.gather(*(meet(way, faults) for way in ways))
    else:
        for way in ways:
            await meet(way, faults)


async def meet(way: Way, faults: list[str]) -> None:
    """At every call of that way in."""
    before = way.homeserver.asked.copy()
    each = list(product(way.calls, faults))
    answers = await asyncio.gather(*(way.ask(f"{call}.{fault}", fault) for call, fault in each))
    for (call, fault), answer in zip(each, answers, strict=True):
        case = case_of(way.name, call, fault)
        where = (way.name, call, fault, answer)
        assert answer.told in case.statuses, where
        assert answer.seconds < way.deadline + 1, where
        assert answer.headers.get("retry-after") == (None if case.retry_after is None else str(case.retry_after)), where
        assert answer.body.keys() == (TOLD if answer.status == 200 else ERROR), where
        assert answer.status != 200 or way.homeserver.asked[call] > before[call], where
    # On the very connections that are left over from that.
    count = len(way.calls)
    after = await asyncio.gather(*(way.ask(person, faults[0]) for person in ["member", "visitor"] * count))
    assert [answer.told for answer in after] == [YES, NO] * count, (way.name, after)
