"""Other people's homeservers: whose token it is, whatever they and their DNS do to us meanwhile."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.parts.dns_server import DnsServer, records, servfail
from tests.unit.strangers import Asked, Behave, Internet, Stranger, by_path, hang, says
from uvs.errors import CannotTell, Overloaded, Refusal
from uvs.homeserver.federation import AT_ONCE, PLACES, PLACES_OF_ONE, RemoteHomeservers
from uvs.homeserver.userinfo import LIMIT, PATH
from uvs.matrix.identifiers import ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.net.calls import Call, Outcome
from uvs.net.discovery import FEDERATION_PORT

SECRET = "SeCrEtToKeN"
TOKEN = OpenIDToken(SECRET)
NAME = ServerName.parse("a.example")


@pytest.fixture
def remote(net: Internet) -> RemoteHomeservers:
    return RemoteHomeservers(net.client, net.discovery)


def vouches(user: str) -> Behave:
    return by_path(userinfo=says(200, json.dumps({"sub": user})))


async def homeserver(net: Internet, behave: Behave, *, name: str = "a.example") -> Stranger:
    """Found by SRV, as its host has no web server."""
    server = await net.serve(name, behave=behave)
    net.dns.add_service(f"_matrix-fed._tcp.{name}", f"matrix.{name}", server.port)
    net.dns.add_address(f"matrix.{name}", server.address)
    return server


async def cannot_tell(remote: RemoteHomeservers, name: ServerName = NAME) -> str:
    """What the log is told. What the caller is told names the server, and nothing that was met on the way."""
    with pytest.raises(CannotTell) as raised:
        await remote.redeem(name, TOKEN)
    error = raised.value
    assert str(error) == (
        f"The homeserver of {name} cannot be found, or does not give an answer that can be relied on; "
        "the service's log says more."
    )
    assert error.detail
    assert SECRET not in error.detail
    assert error.__suppress_context__
    return error.detail


class TestOverIPv6:
    async def test_an_address_is_called_by_its_name_and_proven_by_its_certificate(self, dns: DnsServer) -> None:
        async with Internet(dns, ipv6=True) as net:
            server = await net.serve(behave=hang, address="::1")
            server.behave = vouches(f"@alice:{server.server_name}")
            outcome = await RemoteHomeservers(net.client, net.discovery).redeem(server.server_name, TOKEN)
        assert outcome == UserID.parse(f"@alice:[::1]:{server.port}")
        assert [(asked.headers["host"], asked.sni) for asked in server.asked] == [(f"[::1]:{server.port}", None)]

    async def test_a_name_with_no_other_address_is_found(self, dns: DnsServer) -> None:
        async with Internet(dns, ipv6=True) as net:
            server = await net.serve("a.example", behave=vouches("@alice:a.example"), address="::1")
            dns.add_service("_matrix-fed._tcp.a.example", "matrix.a.example", server.port)
            dns.add_address("matrix.a.example", server.address)
            outcome = await RemoteHomeservers(net.client, net.discovery).redeem(NAME, TOKEN)
        assert outcome == UserID.parse("@alice:a.example")
        assert [(asked.headers["host"], asked.sni) for asked in server.asked] == [("a.example", "a.example")]


class TestAnswers:
    async def test_a_homeserver_vouches_for_its_user(self, net: Internet, remote: RemoteHomeservers) -> None:
        server = await homeserver(net, vouches("@alice:a.example"))
        assert await remote.redeem(NAME, TOKEN) == UserID.parse("@alice:a.example")
        assert [(asked.target, asked.headers["host"], asked.sni) for asked in server.asked] == [
            (f"{PATH}?access_token={SECRET}", "a.example", "a.example")
        ]

    async def test_the_token_is_sent_as_it_is(self, net: Internet, remote: RemoteHomeservers) -> None:
        server = await homeserver(net, vouches("@alice:a.example"))
        await remote.redeem(NAME, OpenIDToken("a&b=c#d?e/f%2F~"))
        assert server.asked[0].target == f"{PATH}?access_token=a%26b%3Dc%23d%3Fe%2Ff%252F~"

    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_refusal_with_a_matrix_error_is_a_no(
        self, net: Internet, remote: RemoteHomeservers, status: int
    ) -> None:
        await homeserver(net, says(status, '{"errcode": "M_UNKNOWN_TOKEN", "error": "no"}'))
        assert await remote.redeem(NAME, TOKEN) is Refusal.BAD_TOKEN

    @pytest.mark.parametrize(
        "behave",
        [
            says(401), says(403, "<html>"), says(401, '{"errcode": ""}'), says(401, '{"errcode": 1}'), says(403, "[]"),
            says(404, '{"errcode": "M_UNRECOGNIZED"}'), says(400, '{"errcode": "M_UNKNOWN_TOKEN"}'),
            says(500, '{"errcode": "M_UNKNOWN_TOKEN"}'), says(502, "<html>"), says(204),
            says(201, '{"sub": "@a:a.example"}'),
            says(302, Location="/"), says(200), says(200, "<html>"), says(200, "{}"), says(200, '{"sub": null}'),
            says(200, '{"sub": ["@alice:a.example"]}'), says(200, '{"sub": "alice"}'),
            says(200, '{"sub": "@:a.example"}'),
            says(200, json.dumps({"sub": "@alice:a.example", "pad": "x" * LIMIT})),
            says(200, '{"sub": "@alice:a.example"}', Content_Encoding="gzip"), says(200, "[" * 60000),
        ],
    )  # fmt: skip
    async def test_anything_else_is_cannot_tell(self, net: Internet, remote: RemoteHomeservers, behave: Behave) -> None:
        await homeserver(net, behave)
        await cannot_tell(remote)

    @pytest.mark.parametrize("user", ["@alice:b.example", "@alice:A.example", "@alice:a.example:8448",
                                      "@alice:b.example:a.example", "@alice:xa.example"])  # fmt: skip
    async def test_nobody_vouches_for_the_users_of_others(
        self, net: Internet, remote: RemoteHomeservers, user: str
    ) -> None:
        await homeserver(net, vouches(user))
        await cannot_tell(remote)

    async def test_a_redirect_is_not_followed_with_a_token(self, net: Internet, remote: RemoteHomeservers) -> None:
        other = await net.serve("b.example", behave=vouches("@alice:a.example"))
        net.dns.add_address("b.example", other.address)
        await homeserver(net, says(307, Location=f"https://b.example:{other.port}{PATH}"))
        await cannot_tell(remote)
        assert other.connections == 0

    @pytest.mark.parametrize("status", [429, 503])
    async def test_too_much_to_do_there_is_passed_on_with_the_time_to_wait(
        self, net: Internet, remote: RemoteHomeservers, status: int
    ) -> None:
        await homeserver(net, says(status, '{"errcode": "M_LIMIT_EXCEEDED"}', Retry_After="17"))
        with pytest.raises(Overloaded, match=r"a\.example") as raised:
            await remote.redeem(NAME, TOKEN)
        assert raised.value.retry_after == 17

    async def test_a_token_that_was_sent_is_sent_nowhere_else(self, net: Internet, remote: RemoteHomeservers) -> None:
        async def hang_up(_: Asked, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        servers: list[Stranger] = []
        for priority, behave in enumerate((hang_up, vouches("@alice:a.example"))):
            server = await net.serve("a.example", behave=behave)
            target = f"matrix{priority}.a.example"
            net.dns.add_service("_matrix-fed._tcp.a.example", target, server.port, priority=priority)
            net.dns.add_address(target, server.address)
            servers.append(server)
        await cannot_tell(remote)
        assert [len(server.asked) for server in servers] == [1, 0]

    async def test_an_address_that_cannot_be_connected_to_does_not_matter_where_there_is_another(
        self, net: Internet, remote: RemoteHomeservers
    ) -> None:
        server = await homeserver(net, vouches("@alice:a.example"))
        net.dns.on("matrix.a.example", "A", records(net.address(), server.address))
        assert await remote.redeem(NAME, TOKEN) == UserID.parse("@alice:a.example")


CERTIFICATES = {"of another name": ("b.example", False), "expired": ("a.example", True)}


@pytest.mark.parametrize("kind", CERTIFICATES)
async def test_who_cannot_prove_the_name_gets_no_token(net: Internet, remote: RemoteHomeservers, kind: str) -> None:
    name, expired = CERTIFICATES[kind]
    server = await net.serve(name, behave=vouches("@alice:a.example"), expired=expired)
    net.dns.add_service("_matrix-fed._tcp.a.example", "matrix.a.example", server.port)
    net.dns.add_address("matrix.a.example", server.address)
    assert "certificate is not valid" in await cannot_tell(remote)
    assert server.asked == []


async def test_the_target_of_a_service_proves_nothing_with_its_own_name(
    net: Internet, remote: RemoteHomeservers
) -> None:
    server = await net.serve("matrix.a.example", behave=vouches("@alice:a.example"))
    net.dns.add_service("_matrix-fed._tcp.a.example", "matrix.a.example", server.port)
    net.dns.add_address("matrix.a.example", server.address)
    assert "certificate is not valid" in await cannot_tell(remote)


class TestTheOperatorsNetwork:
    """Each test has a canary, which must stay silent."""

    @pytest.mark.parametrize("form", ["{0}:{1}", "[::ffff:{0}]:{1}", "[::{0}]:{1}", "[64:ff9b::{0}]:{1}", "0.0.0.0:{1}",
                                      "[::]:{1}", "[::1]:{1}", "[::ffff:0:{0}]:{1}"])  # fmt: skip
    async def test_no_address_leads_into_it(self, net: Internet, remote: RemoteHomeservers, form: str) -> None:
        canary = await net.forbidden()
        name = ServerName.parse(form.format(canary.address, canary.port))
        assert "nowhere on the internet" in await cannot_tell(remote, name)
        assert (Call.DNS, Outcome.BLOCKED) in net.observed

    async def test_no_number_leads_into_it(self, net: Internet, remote: RemoteHomeservers) -> None:
        canary = await net.forbidden()
        first, *rest = (int(part) for part in canary.address.split("."))
        value = int.from_bytes(bytes((first, *rest)))
        octal = ".".join(f"0{part:o}" for part in (first, *rest))
        for host in (
            str(value),
            f"{value:#x}",
            f"0{value:o}",
            octal,
            f"{first}.{value & 0xFFFFFF}",
            f"0x7f.{rest[0]}.1",
        ):
            assert "neither" in await cannot_tell(remote, ServerName.parse(f"{host}:{canary.port}"))
        assert net.dns.asked == []

    @pytest.mark.parametrize("address", ["{0}", "::ffff:{0}", "64:ff9b::{0}", "0.0.0.0", "::", "::1"])
    async def test_no_name_leads_into_it(self, net: Internet, remote: RemoteHomeservers, address: str) -> None:
        canary = await net.forbidden()
        net.dns.add_address("evil.example", address.format(canary.address))
        name = ServerName.parse(f"evil.example:{canary.port}")
        assert "nowhere on the internet" in await cannot_tell(remote, name)

    async def test_no_name_leads_into_it_on_the_port_of_federation(
        self, net: Internet, remote: RemoteHomeservers
    ) -> None:
        canary = await net.forbidden(FEDERATION_PORT)
        net.dns.add_address("a.example", canary.address)
        assert "nowhere on the internet" in await cannot_tell(remote)

    async def test_no_alias_leads_into_it(self, net: Internet, remote: RemoteHomeservers) -> None:
        canary = await net.forbidden()
        net.dns.add_alias("evil.example", "intranet.example")
        net.dns.add_address("intranet.example", canary.address)
        await cannot_tell(remote, ServerName.parse(f"evil.example:{canary.port}"))

    async def test_no_service_leads_into_it(self, net: Internet, remote: RemoteHomeservers) -> None:
        canary = await net.forbidden()
        net.dns.add_service("_matrix-fed._tcp.a.example", "intranet.example", canary.port)
        net.dns.add_address("intranet.example", canary.address)
        assert "nowhere on the internet" in await cannot_tell(remote)

    @pytest.mark.parametrize(
        "target", ["{0}:{1}", "intranet.example:{1}", "[::ffff:{0}]:{1}", "0.0.0.0:{1}", "localhost:{1}"]
    )
    async def test_no_delegation_leads_into_it(self, net: Internet, remote: RemoteHomeservers, target: str) -> None:
        canary = await net.forbidden()
        for name in ("intranet.example", "localhost"):
            net.dns.add_address(name, canary.address)
        document = {"m.server": target.format(canary.address, canary.port)}
        await net.publish("a.example", json.dumps(document))
        assert "nowhere on the internet" in await cannot_tell(remote)

    async def test_no_change_of_mind_of_dns_leads_into_it(self, net: Internet, remote: RemoteHomeservers) -> None:
        """Rebinding: good at the first look-up, and never again."""
        server = await net.serve("a.example", behave=hang)
        canary = await net.forbidden(server.port)
        server.behave = vouches(f"@alice:a.example:{server.port}")
        name = ServerName.parse(f"a.example:{server.port}")
        net.dns.on("a.example", "A", records(server.address), records(canary.address))
        assert isinstance(await remote.redeem(name, TOKEN), UserID)  # one look-up, and its answer connected to
        assert net.dns.times_asked("a.example", "A") == 1
        for _ in range(5):
            assert "nowhere on the internet" in await cannot_tell(remote, name)

    async def test_no_answer_in_turn_leads_into_it(self, net: Internet, remote: RemoteHomeservers) -> None:
        server = await net.serve("a.example", behave=hang)
        canary = await net.forbidden(server.port)
        server.behave = vouches(f"@alice:a.example:{server.port}")
        replies = [records(address) for address in (server.address, canary.address) * 10]
        net.dns.on("a.example", "A", *replies)
        name = ServerName.parse(f"a.example:{server.port}")
        outcomes = [await asyncio.gather(remote.redeem(name, TOKEN), return_exceptions=True) for _ in range(20)]
        assert {type(outcome) for each in outcomes for outcome in each} == {UserID, CannotTell}

    async def test_of_a_mixed_answer_only_the_good_addresses_are_connected_to(
        self, net: Internet, remote: RemoteHomeservers
    ) -> None:
        server = await net.serve("a.example", behave=hang)
        canary = await net.forbidden(server.port)
        server.behave = vouches(f"@alice:a.example:{server.port}")
        net.dns.add_address("a.example", canary.address, server.address, f"::ffff:{canary.address}")
        name = ServerName.parse(f"a.example:{server.port}")
        for _ in range(5):
            assert isinstance(await remote.redeem(name, TOKEN), UserID)

    async def test_a_mixed_answer_whose_good_address_is_down_is_no_way_in(
        self, net: Internet, remote: RemoteHomeservers
    ) -> None:
        canary = await net.forbidden()
        net.dns.add_address("a.example", net.address(), canary.address)
        assert "Connect" in await cannot_tell(remote, ServerName.parse(f"a.example:{canary.port}"))

    async def test_what_is_remembered_is_judged_again(self, net: Internet, remote: RemoteHomeservers) -> None:
        canary = await net.forbidden()
        net.dns.add_address("a.example", canary.address, ttl=3600)
        for _ in range(3):
            await cannot_tell(remote, ServerName.parse(f"a.example:{canary.port}"))
        assert net.dns.times_asked("a.example", "A") == 1

    async def test_it_cannot_be_explored_by_what_callers_are_told(
        self, net: Internet, remote: RemoteHomeservers
    ) -> None:
        """Forbidden, refused, without TLS, without a name, without DNS: `cannot_tell` holds them all to one text."""
        listening, closed = await net.forbidden(), Stranger(net.address(), 1, hang)
        bad = await net.serve("b.example", behave=hang)
        for stranger in (listening, closed, bad):
            await cannot_tell(remote, stranger.server_name)
        for kind in ("A", "AAAA"):
            net.dns.on("broken.example", kind, servfail)
        for name in ("nothing.example:1", "broken.example:1"):
            await cannot_tell(remote, ServerName.parse(name))


class TestBulkheads:
    async def test_a_slow_server_takes_only_its_own_share(self, net: Internet, remote: RemoteHomeservers) -> None:
        slow = await homeserver(net, hang, name="slow.example")
        await homeserver(net, vouches("@alice:a.example"))
        await net.discovery.find(ServerName.parse("slow.example"))  # so that the calls below only ask
        waiting = [_start(remote, "slow.example") for _ in range(PLACES_OF_ONE + 20)]
        done, _ = await asyncio.wait(waiting, timeout=1)
        assert [type(task.exception()) for task in done] == [Overloaded] * 20
        assert len(slow.asked) == AT_ONCE
        assert await remote.redeem(NAME, TOKEN) == UserID.parse("@alice:a.example")
        await _end(waiting)

    async def test_all_slow_servers_together_have_an_end(self, net: Internet, remote: RemoteHomeservers) -> None:
        names = [f"slow{number}.example" for number in range(PLACES // PLACES_OF_ONE + 1)]
        for name in names:
            await homeserver(net, hang, name=name)
        waiting = [_start(remote, name) for name in names for _ in range(PLACES_OF_ONE)]
        await asyncio.sleep(0.2)
        turned_away = [task for task in waiting if task.done()]
        assert {type(task.exception()) for task in turned_away} == {Overloaded}
        assert len(turned_away) == len(waiting) - PLACES
        await _end(waiting)

    async def test_a_crowd_from_one_server_is_served_in_turn(self, net: Internet, remote: RemoteHomeservers) -> None:
        most = under_way = 0

        async def slowly(asked: Asked, writer: asyncio.StreamWriter) -> None:
            nonlocal most, under_way
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.02)
            under_way -= 1
            await vouches("@alice:a.example")(asked, writer)

        await homeserver(net, slowly)
        answers = await asyncio.gather(*(remote.redeem(NAME, TOKEN) for _ in range(PLACES_OF_ONE)))
        assert answers == [UserID.parse("@alice:a.example")] * PLACES_OF_ONE
        assert most <= AT_ONCE

    async def test_places_come_back_however_a_call_ends(self, net: Internet, remote: RemoteHomeservers) -> None:
        server = await homeserver(net, hang)
        waiting = [_start(remote, "a.example") for _ in range(PLACES_OF_ONE)]
        await asyncio.sleep(0.2)
        await _end(waiting)
        for behave in (says(500), says(429), says(401, '{"errcode": "M_UNKNOWN_TOKEN"}'), vouches("@alice:a.example")):
            server.behave = behave
            await asyncio.gather(*(remote.redeem(NAME, TOKEN) for _ in range(AT_ONCE)), return_exceptions=True)
        assert await remote.redeem(NAME, TOKEN) == UserID.parse("@alice:a.example")
        assert (remote._servers, remote._taken) == ({}, 0)

    async def test_names_that_differ_in_case_share_their_places(self, net: Internet, remote: RemoteHomeservers) -> None:
        await homeserver(net, hang)
        waiting = [_start(remote, name) for name in ("a.example", "A.Example") for _ in range(PLACES_OF_ONE)]
        done, _ = await asyncio.wait(waiting, timeout=0.5)
        assert [type(task.exception()) for task in done] == [Overloaded] * PLACES_OF_ONE
        await _end(waiting)

    async def test_a_deadline_ends_the_call_and_leaves_nothing_behind(
        self, net: Internet, remote: RemoteHomeservers
    ) -> None:
        await homeserver(net, hang)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await remote.redeem(NAME, TOKEN)
        assert time.monotonic() - started < 1.5
        assert remote._servers == {}


def _start(remote: RemoteHomeservers, name: str) -> asyncio.Task[UserID | Refusal]:
    return asyncio.create_task(remote.redeem(ServerName.parse(name), TOKEN))


async def _end(tasks: list[asyncio.Task[UserID | Refusal]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
