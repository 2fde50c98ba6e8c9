"""The way out, on real sockets: only judged addresses are connected to, each time for one request and one name."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from ipaddress import ip_address
from typing import Any

import httpcore
import pytest

from tests.parts.dns_server import DnsServer
from tests.parts.forward_proxy import Proxy, proxying
from tests.unit.strangers import Asked, Internet, Stranger, hang, listening, says
from uvs.net.answers import Answer
from uvs.net.calls import Call, Failed, Outcome
from uvs.net.destination import MAX_ADDRESSES, Destination, get
from uvs.net.egress import Egress
from uvs.net.http import HttpClient
from uvs.net.outbound import GuardedBackend

OK = says(200, "{}")


def at(*strangers: Stranger, name: str = "a.example") -> Destination:
    return Destination(tuple((ip_address(each.address), each.port) for each in strangers), name, name)


async def ask(client: HttpClient, destination: Destination) -> Answer[Any]:
    return await get(
        client, destination, "/x", call=Call.USERINFO, what="The question", limit=1000, expect=dict[str, Any]
    )


async def failure(client: HttpClient, destination: Destination) -> Outcome:
    with pytest.raises(Failed) as raised:
        await ask(client, destination)
    return raised.value.outcome


class TestTheGuardAtTheMomentOfConnecting:
    @pytest.mark.parametrize(
        "host",
        ["localhost", "a.example", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "fe80::1%lo", "::1%1", "",
         "::ffff", "127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"],
    )  # fmt: skip
    async def test_nothing_but_a_permitted_address_is_connected_to(self, host: str) -> None:
        with pytest.raises(httpcore.ConnectError, match="blocked"):
            await GuardedBackend(Egress()).connect_tcp(host, 80)

    @pytest.mark.parametrize("host", ["localhost", "127.1", "::1%lo", ""])
    async def test_names_are_refused_even_where_all_addresses_are_open(self, host: str) -> None:
        with pytest.raises(httpcore.ConnectError, match="blocked"):
            await GuardedBackend(Egress(unrestricted=True)).connect_tcp(host, 80)

    async def test_a_unix_socket_is_refused(self) -> None:
        with pytest.raises(httpcore.ConnectError, match="blocked"):
            await GuardedBackend(Egress(unrestricted=True)).connect_unix_socket("/run/x")

    async def test_an_address_that_was_never_judged_is_refused_here(self, net: Internet) -> None:
        canary = await net.forbidden()
        assert await failure(net.client, at(canary)) is Outcome.UNREACHABLE

    async def test_the_operator_can_open_all(self, net: Internet, dns: DnsServer) -> None:
        async with Internet(dns) as elsewhere:
            stranger = await elsewhere.serve("a.example", behave=OK)
            client = await elsewhere.open_client(Egress(unrestricted=True))
            assert (await ask(client, at(stranger))).status == 200
            assert await failure(net.client, at(stranger)) is Outcome.UNREACHABLE

    async def test_proxies_of_the_environment_are_not_used(
        self, net: Internet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        canary = await net.forbidden()
        for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(variable, f"http://{canary.address}:{canary.port}")
        stranger = await net.serve("a.example", behave=OK)
        client = await net.open_client(net.egress)
        assert (await ask(client, at(stranger))).status == 200


class TestCertificates:
    async def test_the_name_is_asked_for_and_the_certificate_has_to_be_for_it(self, net: Internet) -> None:
        stranger = await net.serve("a.example", behave=OK)
        assert (await ask(net.client, at(stranger))).status == 200
        assert [(asked.sni, asked.headers["host"]) for asked in stranger.asked] == [("a.example", "a.example")]

    async def test_an_address_needs_a_certificate_for_the_address(self, net: Internet) -> None:
        stranger = await net.serve(behave=OK)
        assert (await ask(net.client, at(stranger, name=stranger.address))).status == 200
        assert stranger.asked[0].sni is None  # RFC 6066: no address

    async def test_a_certificate_for_another_name_is_refused(self, net: Internet) -> None:
        stranger = await net.serve("b.example", behave=OK)
        assert await failure(net.client, at(stranger)) is Outcome.TLS
        assert await failure(net.client, at(stranger, name=stranger.address)) is Outcome.TLS
        assert stranger.asked == []

    async def test_a_certificate_for_the_name_is_none_for_the_address(self, net: Internet) -> None:
        stranger = await net.serve("a.example", behave=OK)
        assert await failure(net.client, at(stranger, name=stranger.address)) is Outcome.TLS

    async def test_an_expired_certificate_is_refused(self, net: Internet) -> None:
        stranger = await net.serve("a.example", behave=OK, expired=True)
        assert await failure(net.client, at(stranger)) is Outcome.TLS
        assert stranger.asked == []

    async def test_a_certificate_of_somebody_elses_authority_is_refused(self, net: Internet, dns: DnsServer) -> None:
        async with Internet(dns) as elsewhere:
            stranger = await elsewhere.serve("a.example", behave=OK)
            client = await net.open_client(elsewhere.egress)
            assert await failure(client, at(stranger)) is Outcome.TLS

    async def test_what_speaks_no_tls_is_not_asked(self, net: Internet) -> None:
        stranger = Stranger(net.address(), 0, OK)
        async with listening(stranger, None):
            assert await failure(net.client, at(stranger)) is Outcome.UNREACHABLE
        assert stranger.asked == []


class TestConnections:
    async def test_a_connection_verified_for_one_name_never_carries_a_request_for_another(self, net: Internet) -> None:
        stranger = await net.serve("a.example", behave=says(200, "{}", Connection="keep-alive"))
        assert (await ask(net.client, at(stranger))).status == 200
        assert await failure(net.client, at(stranger, name="b.example")) is Outcome.TLS
        assert [asked.sni for asked in stranger.asked] == ["a.example"]

    async def test_every_request_has_a_connection_of_its_own(self, net: Internet) -> None:
        stranger = await net.serve("a.example", "b.example", behave=says(200, "{}", Connection="keep-alive"))
        destinations = [at(stranger, name=name) for name in ("a.example", "b.example") * 10]
        await asyncio.gather(*(ask(net.client, destination) for destination in destinations))
        assert sorted(asked.connection for asked in stranger.asked) == list(range(1, 21))
        assert all(asked.sni == asked.headers["host"] for asked in stranger.asked)
        assert {asked.headers["connection"] for asked in stranger.asked} == {"close"}

    async def test_who_stalls_in_the_handshake_leaves_no_connection_open_here(self, net: Internet) -> None:
        closed = asyncio.Event()

        async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                await reader.read()
            closed.set()
            writer.close()

        server = await asyncio.start_server(stall, net.address(), 0)
        address, port = server.sockets[0].getsockname()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ask(net.client, Destination(((ip_address(address), port),), "a.example", "a.example"))
        await asyncio.wait_for(closed.wait(), 5)
        server.close()


class TestSeveralAddresses:
    async def test_the_next_is_tried_where_one_refuses(self, net: Internet) -> None:
        stranger = await net.serve("a.example", behave=OK)
        nobody = Stranger(net.address(), stranger.port, hang)
        assert (await ask(net.client, at(nobody, stranger))).status == 200

    async def test_the_next_is_tried_where_one_has_a_bad_certificate(self, net: Internet) -> None:
        wrong = await net.serve("b.example", behave=OK)
        stranger = await net.serve("a.example", behave=OK)
        assert (await ask(net.client, at(wrong, stranger))).status == 200

    async def test_the_next_is_tried_where_one_stalls_in_the_handshake(self, net: Internet) -> None:
        slow = await net.forbidden()  # it accepts, and says nothing
        stranger = await net.serve("a.example", behave=OK)
        client = await net.open_client(Egress(unrestricted=True), timeout=0.9)
        assert (await ask(client, at(slow, stranger))).status == 200
        slow.connections = 0

    async def test_a_request_that_was_sent_is_not_repeated_at_the_next(self, net: Internet) -> None:
        async def hang_up(_: Asked, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        first = await net.serve("a.example", behave=hang_up)
        second = await net.serve("a.example", behave=OK)
        assert await failure(net.client, at(first, second)) is Outcome.BROKEN
        assert (len(first.asked), len(second.asked)) == (1, 0)

    async def test_no_more_than_a_few_are_tried(self, net: Internet) -> None:
        stranger = await net.serve("a.example", behave=OK)
        nobodies = [Stranger(net.address(), stranger.port, hang) for _ in range(MAX_ADDRESSES)]
        assert await failure(net.client, at(*nobodies, stranger)) is Outcome.UNREACHABLE
        assert (await ask(net.client, at(*nobodies[1:], stranger))).status == 200


class TestTheOperatorsProxy:
    async def test_it_is_asked_for_the_judged_address_and_the_certificate_is_verified_behind_it(
        self, dns: DnsServer
    ) -> None:
        async with proxying(Proxy()) as proxy, Internet(dns, proxy=proxy.url) as net:
            good = await net.serve("a.example", behave=OK)
            assert (await ask(net.client, at(good))).status == 200
            assert proxy.heads[0].startswith(f"CONNECT {good.address}:{good.port} HTTP/1.1\r\n")
            assert "a.example" not in proxy.heads[0]
            assert good.asked[0].sni == "a.example"
            assert await failure(net.client, at(good, name="b.example")) is Outcome.TLS

    async def test_it_is_not_asked_for_what_is_forbidden(self, dns: DnsServer) -> None:
        async with proxying(Proxy()) as proxy, Internet(dns, proxy=proxy.url) as net:
            assert await failure(net.client, at(await net.forbidden())) is Outcome.UNREACHABLE
            assert proxy.heads == []

    @pytest.mark.parametrize("status", [403, 407, 502, 503])
    async def test_what_it_does_not_connect_to_cannot_be_reached(self, dns: DnsServer, status: int) -> None:
        async with proxying(Proxy(status)) as proxy, Internet(dns, proxy=proxy.url) as net:
            good = await net.serve("a.example", behave=OK)
            assert await failure(net.client, at(good)) is Outcome.UNREACHABLE

    async def test_its_silence_ends_in_time(self, dns: DnsServer) -> None:
        async with proxying(Proxy(0)) as proxy, Internet(dns, proxy=proxy.url) as net:
            client = await net.open_client(net.egress, timeout=0.6)
            assert await failure(client, at(await net.serve("a.example", behave=OK))) is Outcome.UNREACHABLE

    async def test_one_that_is_not_there_is_not_gone_around(self, dns: DnsServer) -> None:
        async with proxying(Proxy()) as proxy:
            pass
        async with Internet(dns, proxy=proxy.url) as net:
            good = await net.serve("a.example", behave=OK)
            assert await failure(net.client, at(good)) is Outcome.UNREACHABLE
            assert good.connections == 0


def test_a_context_of_ours_verifies() -> None:
    context = Internet(None).authority.client()  # type: ignore[arg-type]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
