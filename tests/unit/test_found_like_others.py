"""One's own homeserver whose listener has no `openid` resource: it is found as others find it, and stays one's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fake_homeserver import USERINFO, WHOAMI, FakeHomeserver, answering
from tests.parts.dns_server import DnsServer
from tests.service import settings
from tests.unit.strangers import Behave, Internet, Stranger, hang, says
from uvs.errors import CannotTell, Refusal
from uvs.homeserver import Homeserver
from uvs.homeserver.credential import CredentialRefused
from uvs.homeserver.federation import PLACES, FoundHomeservers
from uvs.matrix.openid import OpenIDToken
from uvs.net.calls import Call
from uvs.net.destination import Destination, get
from uvs.net.hosts import parse_host
from uvs.net.http import open_client
from uvs.ways import connect, connect_homeserver

NAME = "matrix.example"
TOKEN = OpenIDToken("somebodys-token")


@pytest.fixture
def fake() -> FakeHomeserver:
    homeserver = FakeHomeserver()
    homeserver.faults[USERINFO] = answering(404, {"errcode": "M_UNRECOGNIZED"})
    return homeserver


@asynccontextmanager
async def found(
    net: Internet, fake: FakeHomeserver, behave: Behave, *, name: str | None = NAME
) -> AsyncIterator[Homeserver]:
    """Where others find it, it behaves like this."""
    server = await net.serve(NAME, behave=behave)
    net.dns.add_service(f"_matrix-fed._tcp.{NAME}", f"there.{NAME}", server.port)
    net.dns.add_address(f"there.{NAME}", server.address)
    admin = fake.register("admin", admin=True)
    options = settings(access_token=admin.access_token, openid_verify_server_name=name)
    async with open_client(timeout=5, transport=fake.transport()) as client:
        yield connect_homeserver(options.own_homeservers[0], client, FoundHomeservers(net.client, net.discovery))


async def test_its_people_are_verified_there(dns: DnsServer, fake: FakeHomeserver) -> None:
    user = fake.register("alice")
    async with Internet(dns) as net, found(net, fake, says(200, json.dumps({"sub": user.user_id}))) as own:
        assert str(await own.redeem(TOKEN)) == user.user_id


@pytest.mark.parametrize("status", [401, 403])
async def test_no_is_what_it_would_be_at_its_url(dns: DnsServer, fake: FakeHomeserver, status: int) -> None:
    async with Internet(dns) as net, found(net, fake, says(status, '{"errcode": "M_FORBIDDEN"}')) as own:
        if status == 401:
            assert await own.redeem(TOKEN) is Refusal.BAD_TOKEN
        else:
            with pytest.raises(CannotTell, match="UVS_FEDERATION_URL"):
                await own.redeem(TOKEN)


async def test_an_outage_there_is_no_mistake_that_lasts(dns: DnsServer, fake: FakeHomeserver) -> None:
    async with Internet(dns) as net, found(net, fake, says(502)) as own:
        with pytest.raises(CannotTell) as raised:
            await own.redeem(TOKEN)
        assert not raised.value.lasting
        assert "HTTP status 502" in (raised.value.detail or "")
        findings = await own.check()
    assert [finding.certain for finding in findings if not finding.good] == [False]


async def test_that_ones_own_token_is_refused_is_said_so(dns: DnsServer, fake: FakeHomeserver) -> None:
    fake.faults[WHOAMI] = answering(401, {"errcode": "M_UNKNOWN_TOKEN"})
    async with Internet(dns) as net, found(net, fake, hang, name=None) as own:
        with pytest.raises(CredentialRefused):
            await own.redeem(TOKEN)


async def test_strangers_leave_a_place_for_looking_for_it(dns: DnsServer, tmp_path: Path) -> None:
    async with Internet(dns) as net:
        options = settings(
            access_token="an-administrators",
            allowed_networks=[str(net.network)],
            ca_file=str(net.authority.write(tmp_path / "ca.pem")),
        )
        slow, swift = await net.serve("slow.example", behave=hang), await net.serve(NAME, behave=says(200, "{}"))
        async with connect(options) as ways:
            *_, outbound = ways.clients

            def ask(stranger: Stranger, name: str) -> asyncio.Task[object]:
                address = parse_host(stranger.address)
                assert not isinstance(address, str | None)
                there = Destination(((address, stranger.port),), name, name)
                asking = get(
                    outbound, there, "/", call=Call.WELL_KNOWN, what="Asking", limit=100, expect=dict[str, int]
                )
                return asyncio.create_task(asking)

            crowd = [ask(slow, "slow.example") for _ in range(PLACES)]
            async with asyncio.timeout(20):
                while slow.connections < PLACES:  # noqa: ASYNC110 - the stranger has no event for it
                    await asyncio.sleep(0.02)
            await ask(swift, NAME)
            assert not any(task.done() for task in crowd)
            for task in crowd:
                task.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
