"""What somebody found who attacked the service on purpose: each of these once worked."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise

import httpx
import pytest
import uvloop

from tests.parts import issued
from tests.parts.dns_server import records, servfail
from tests.service import settings
from tests.unit.strangers import Asked, Behave, Internet, Stranger, listening, says
from uvs.check.jitsi import check_jitsi
from uvs.check.render import for_machines, for_people
from uvs.check.rows import MAX_FOUND, Report, State
from uvs.errors import CannotTell, Overloaded
from uvs.homeserver.federation import RemoteHomeservers
from uvs.homeserver.synapse_admin import STATE_LIMIT
from uvs.matrix.identifiers import ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.net.calls import Call, Failed, Outcome
from uvs.net.destination import MAX_ADDRESSES
from uvs.net.egress import Egress
from uvs.net.http import open_client
from uvs.net.outbound import MAX_HEAD, GuardedTransport
from uvs.net.tls import trust
from uvs.net.well_known import MAX_SILENCE, PATH
from uvs.ways import connect

TOKEN = OpenIDToken("token")


def pours(before: bytes, again: bytes) -> Behave:
    """Sends the one once, and the other for as long as somebody reads it."""

    async def behave(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        await writer.drain()
        while again:
            writer.write(again)
            await writer.drain()
        await asyncio.Event().wait()

    return behave


class TestTimeOfTheProcess:
    """One process serves everybody, so what makes it work for nothing makes all others wait."""

    async def ask(self, net: Internet, behave: Behave) -> UserID | Outcome:
        """Who it is, or how the call ended."""
        server = await net.serve(behave=behave)
        try:
            user = await RemoteHomeservers(net.client, net.discovery).redeem(server.server_name, TOKEN)
        except CannotTell:
            ((call, outcome),) = net.observed
            assert call is Call.USERINFO
            return outcome
        assert isinstance(user, UserID)
        return user

    @pytest.mark.parametrize(
        "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 \r\nLink: x\r\n\r\n", b"HTTP/1.0 199 \n\n"]
    )
    async def test_a_stranger_who_sends_nothing_but_interim_answers_is_not_listened_to(
        self, net: Internet, interim: bytes
    ) -> None:
        assert await self.ask(net, pours(b"", interim * 1000)) is Outcome.BROKEN

    async def test_nor_one_who_begins_with_them_letter_by_letter(self, net: Internet) -> None:
        async def behave(_: Asked, writer: asyncio.StreamWriter) -> None:
            for letter in b"HTTP/1.1 103 ":
                writer.write(bytes([letter]))
                await writer.drain()
                await asyncio.sleep(0.001)
            await asyncio.Event().wait()

        assert await self.ask(net, behave) is Outcome.BROKEN

    @pytest.mark.parametrize("header", [b"a:\r\n", b"a: " + b"b" * 60 + b"\r\n", b" folded\r\n", b"\ta:\n"])
    async def test_a_head_of_many_headers_is_none(self, net: Internet, header: bytes) -> None:
        head = b"HTTP/1.1 200 -\r\nContent-Length: 0\r\nX: y\r\n" + header * (MAX_HEAD // len(header)) + b"\r\n"
        assert await self.ask(net, pours(head, b"")) is Outcome.BROKEN

    async def test_a_body_of_single_bytes_is_none(self, net: Internet) -> None:
        head = b"HTTP/1.1 200 -\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert await self.ask(net, pours(head, b"1\r\n \r\n" * 1000)) is Outcome.BROKEN

    async def test_a_head_of_reasonable_size_is_heard_however_it_is_cut(self, net: Internet) -> None:
        async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
            body = f'{{"sub": "@a:{asked.headers["host"]}"}}'
            for piece in ("HTTP/1.1 2", "00 -\r\nX: ", "x" * (MAX_HEAD - 200), "\r\nConnection: close\r", "\n\r", "\n"):
                writer.write(piece.encode())
                await writer.drain()
                await asyncio.sleep(0.001)
            for letter in body:
                writer.write(letter.encode())
                await writer.drain()
            writer.close()

        assert isinstance(await self.ask(net, behave), UserID)

    def test_no_server_can_ask_for_one_handshake_after_another(self) -> None:
        """As `r` in `openssl s_server` does."""
        assert trust().options & ssl.OP_NO_RENEGOTIATION


class TestRedirectsToNoUrl:
    """Nothing follows them, but the engine takes them apart, and raised errors that nobody expected."""

    WHITHER = ("https://xn--/", "//xn--ls8h%zz", "//XN--A", ":XN--Ahttps://xn--999999b[")

    @pytest.mark.parametrize("location", WHITHER)
    async def test_of_a_homeserver(self, net: Internet, location: str) -> None:
        server = await net.serve(behave=says(302, Location=location))
        with pytest.raises(CannotTell):
            await RemoteHomeservers(net.client, net.discovery).redeem(server.server_name, TOKEN)

    @pytest.mark.parametrize("location", WHITHER)
    async def test_of_a_well_known_document(self, net: Internet, location: str) -> None:
        await net.publish("a.example", "", status=302, Location=location)
        assert await net.well_known.delegate("a.example", lambda _step: None) is None

    @pytest.mark.parametrize("location", WHITHER)
    async def test_of_the_jitsi_domain(self, location: str) -> None:
        report = Report()
        async with listening(Stranger("127.0.0.1", 0, says(302, Location=location)), None) as jitsi:
            await check_jitsi(report.group("Jitsi"), f"http://{jitsi.address}:{jitsi.port}", None)
        assert report.counts()[State.RED] == 1


@pytest.mark.parametrize("guarded", [True, False])
def test_whoever_resets_connections_at_once_is_unreachable(guarded: bool) -> None:
    """One of twenty such connections ended as a defect, on the event loop that serves."""

    def reset(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

    async def ask(url: str) -> set[Outcome]:
        transport = GuardedTransport(Egress(unrestricted=True), tls=trust()) if guarded else None

        async with open_client(timeout=5, transport=transport) as client:

            async def once() -> Outcome:
                with pytest.raises(Failed) as raised:
                    await client.get(url, call=Call.USERINFO, what="Asking", limit=1, expect=object)
                return raised.value.outcome

            return {outcome for _ in range(10) for outcome in await asyncio.gather(*(once() for _ in range(50)))}

    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        resetting = threading.Thread(target=reset, args=(listener,))
        resetting.start()
        outcomes = uvloop.run(ask(f"https://127.0.0.1:{listener.getsockname()[1]}/"))
        listener.shutdown(socket.SHUT_RDWR)
        resetting.join()
    assert outcomes <= {Outcome.UNREACHABLE, Outcome.BROKEN}


class TestMemoryOfTrouble:
    @pytest.mark.parametrize("line_is", ["without DNS", "down"])
    async def test_our_own_outage_keeps_nobody_out_for_long_after_it(self, net: Internet, line_is: str) -> None:
        """However long it was, and however often somebody named the homeserver meanwhile."""
        web = await net.publish("a.example", '{"m.server": "b.example:8448"}')
        if line_is == "down":
            net.dns.on("a.example", "A", records(net.address()))  # where nobody listens
        else:
            net.dns.on("a.example", "A", servfail)
        for _ in range(50):
            assert await net.well_known.delegate("a.example", lambda _step: None) is None
            net.clock.now += 120
        net.dns.on("a.example", "A", records(web.address))
        net.clock.now += MAX_SILENCE
        assert await net.well_known.delegate("a.example", lambda _step: None) == ServerName.parse("b.example:8448")


async def test_what_one_request_can_set_off_is_as_much_as_the_documents_say(net: Internet) -> None:
    """Of each host one address answers, with one more redirect; of the targets of services, only the last exists."""
    hosts = [f"{number}.example" for number in range(6)]
    for host, following in pairwise(hosts):
        live = await net.serve(host, behave=says(302, Location=f"https://{following}{PATH}"), port=net.well_known_port)
        net.dns.add_address(host, *(net.address() for _ in range(MAX_ADDRESSES - 1)), live.address)
    for number in range(16):
        net.dns.add_service(f"_matrix._tcp.{hosts[0]}", f"target{number}.example", 1 + number, priority=number)
    net.dns.add_address("target3.example", *(net.address() for _ in range(8)))
    with pytest.raises(CannotTell):
        await RemoteHomeservers(net.client, net.discovery).redeem(ServerName.parse(hosts[0]), TOKEN)
    calls = Counter(call for call, _ in net.observed)
    assert 4 <= calls[Call.WELL_KNOWN] <= 16  # in which order addresses come is DNS's to say
    assert calls[Call.USERINFO] == 2 <= MAX_ADDRESSES
    assert calls[Call.DNS] == len(net.dns.asked) == 18


class TestTheOperatorsTerminal:
    """`uvs check` shows what others say."""

    @pytest.fixture
    async def report(self) -> Report:
        """Of a Jitsi domain that says, as its content type, what moves the cursor, at length."""
        report = Report()
        async with listening(Stranger("127.0.0.1", 0, self.behave), None) as jitsi:
            await check_jitsi(report.group("Jitsi"), f"http://{jitsi.address}:{jitsi.port}", None)
        return report

    @staticmethod
    async def behave(_: Asked, writer: asyncio.StreamWriter) -> None:
        body = b'{"auth": "openidtoken-jwt"}'
        said = "x/\x9b2J\x85\u202e".encode() + b"y" * 50_000
        writer.write(b"HTTP/1.1 200 -\r\nContent-Length: %d\r\nContent-Type: %b\r\n\r\n%b" % (len(body), said, body))

    @pytest.mark.parametrize("render", [for_machines, partial(for_people, colour=False)])
    def test_nothing_that_others_say_moves_the_cursor(self, report: Report, render: Callable[[Report], str]) -> None:
        text = render(report)
        assert "x/" in text
        assert [each for each in text if not each.isprintable() and each != "\n"] == []

    def test_nothing_that_others_say_fills_the_screen(self, report: Report) -> None:
        assert len(for_people(report, colour=False)) < 4 * MAX_FOUND


class Filling(httpx.AsyncBaseTransport):
    """Homeservers of which the second answers at length, and never to the end."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != "second.example":
            return httpx.Response(200, json=["x" * 100_000])
        return httpx.Response(200, stream=Endless())


class Endless(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"[" + b" " * (STATE_LIMIT - 1)
        await asyncio.Event().wait()


async def test_another_homeserver_of_ones_own_takes_none_of_the_memory_for_the_answers_of_the_default() -> None:
    second = {"server_name": "second.example", "url": "https://second.example", "access_token": issued.secret()}
    transport = Filling()
    async with connect(settings(homeservers=[second]), transport=transport) as ways:

        async def ask(number: int, url: str) -> object:
            return await ways.clients[number].get(url, call=Call.STATE, what="Asking", limit=STATE_LIMIT, expect=object)

        filling = [asyncio.create_task(ask(1, "https://second.example")) for _ in range(10)]
        turned_away, waiting = await asyncio.wait(filling, timeout=1)
        assert {type(task.exception()) for task in turned_away} == {Overloaded}
        assert waiting
        assert await ask(0, "http://fake.invalid")
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
