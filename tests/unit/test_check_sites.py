"""The Jitsi domain's file for Element, and the two ways to Prosody, as they are and as they go wrong. On real sockets;
tests/e2e/test_check.py has the real servers."""

from __future__ import annotations

import asyncio
import hashlib
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.parts.certificates import Authority
from tests.unit.checked import assert_only, row, states
from tests.unit.strangers import Asked, Behave, Stranger, hang, listening, says
from uvs.check import web
from uvs.check.jitsi import ORIGIN, check_jitsi
from uvs.check.prosody import BOSH, WEBSOCKET, check_prosody
from uvs.check.rows import Group, State

GOOD = '{"auth": "openidtoken-jwt"}'
JSON = {"Content_Type": "application/json"}
ANYBODY = {"Access_Control_Allow_Origin": "*"}
FILE, TYPE, READABLE = "well-known file", "content type", "readable from Element (CORS)"


class Site:
    """Web servers on this machine, with certificates that are trusted."""

    def __init__(self, opened: AsyncExitStack, directory: Path) -> None:
        self._opened = opened
        self._authority = Authority()
        self.ca_file = self._authority.write(directory / "ca.pem")
        self.group = Group("site")
        self.asked: list[Asked] = []

    async def serve(self, behave: Behave, *, tls: bool = True) -> str:
        """The URL of a server that behaves like this."""
        stranger = Stranger("127.0.0.1", 0, behave, asked=self.asked)
        context = self._authority.server("localhost") if tls else None
        await self._opened.enter_async_context(listening(stranger, context))
        return f"{'https' if tls else 'http'}://localhost:{stranger.port}"

    async def jitsi(self, behave: Behave, *, tls: bool = True) -> Group:
        await check_jitsi(self.group, await self.serve(behave, tls=tls), self.ca_file)
        return self.group

    async def prosody(self, behave: Behave, path: str = "") -> Group:
        await check_prosody(self.group, await self.serve(behave) + path, self.ca_file)
        return self.group


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as opened:
        yield Site(opened, tmp_path)


class TestJitsi:
    async def test_the_file_is_there(self, site: Site) -> None:
        group = await site.jitsi(says(200, GOOD, **JSON, **ANYBODY))
        assert {state for _, state in states(group)} == {State.GREEN}
        (asked,) = site.asked
        assert (asked.target, asked.headers["origin"]) == ("/.well-known/element/jitsi", ORIGIN)

    @pytest.mark.parametrize(
        ("behave", "found"),
        [
            (says(404, "<html>"), "HTTP status 404"),
            (says(403, "<html>"), "HTTP status 403"),
            (says(502, "<html>"), "HTTP status 502"),
            (says(200, "<!doctype html><title>Jitsi Meet</title>", **ANYBODY), "a page of the site"),
            (says(200, "\n <html>", **ANYBODY), "a page of the site"),
            (says(200, "", **ANYBODY), "no JSON"),
            (says(200, b"\xff\xfe{}", **ANYBODY), "no JSON"),
            (says(200, "[" * 100_000, **ANYBODY), "no JSON"),
            (says(200, "{}", **JSON, **ANYBODY), "does not tell Element"),
            (says(200, '["openidtoken-jwt"]', **JSON, **ANYBODY), "does not tell Element"),
            (says(200, '{"auth": "none"}', **JSON, **ANYBODY), "does not tell Element"),
            (says(200, " " * web.MAX_BYTES + GOOD, **JSON, **ANYBODY), "no JSON"),
        ],
    )
    async def test_there_is_something_else(self, site: Site, behave: Behave, found: str) -> None:
        group = await site.jitsi(behave)
        red = assert_only(group, FILE, State.RED)
        assert found in red.found
        assert "docs/well-known.md" in red.mend
        assert states(group)[-2:] == [(TYPE, State.SKIPPED), (READABLE, State.SKIPPED)]

    async def test_other_sites_may_not_read_it(self, site: Site) -> None:
        red = assert_only(await site.jitsi(says(200, GOOD, **JSON)), READABLE, State.RED)
        assert "is missing" in red.found
        assert "Access-Control-Allow-Origin: *" in red.mend

    @pytest.mark.parametrize("values", [["*", "*"], ["*, *"], ["*", ORIGIN]])
    async def test_the_header_is_there_twice(self, site: Site, values: list[str]) -> None:
        lines = "".join(f"Access-Control-Allow-Origin: {value}\r\n" for value in values)

        async def twice(_: Asked, writer: asyncio.StreamWriter) -> None:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{lines}Content-Length: {len(GOOD)}\r\n\r\n"
            writer.write((head + GOOD).encode())

        assert "is there 2 times" in assert_only(await site.jitsi(twice), READABLE, State.RED).found

    async def test_only_one_other_site_may_read_it(self, site: Site) -> None:
        behave = says(200, GOOD, **JSON, Access_Control_Allow_Origin="https://element.example")
        assert "https://element.example" in assert_only(await site.jitsi(behave), READABLE, State.YELLOW).found

    @pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", ""])
    async def test_its_type_is_another(self, site: Site, kind: str) -> None:
        headers = {"Content_Type": kind} if kind else {}
        assert_only(await site.jitsi(says(200, GOOD, **headers, **ANYBODY)), TYPE, State.YELLOW)

    async def test_a_redirect_is_yellow_where_a_browser_follows_it(self, site: Site) -> None:
        elsewhere = await site.serve(says(200, GOOD, **JSON, **ANYBODY))
        group = await site.jitsi(says(302, "", Location=f"{elsewhere}/there", **ANYBODY))
        assert_only(group, FILE, State.YELLOW)
        assert site.asked[-1].target == "/there"

    async def test_a_redirect_that_other_sites_may_not_read_is_red(self, site: Site) -> None:
        elsewhere = await site.serve(says(200, GOOD, **JSON, **ANYBODY))
        group = await site.jitsi(says(301, "", Location=elsewhere))
        assert row(group, READABLE).state is State.RED
        assert "in the redirect" in row(group, READABLE).found

    async def test_a_redirect_to_plain_http_is_red(self, site: Site) -> None:
        plain = await site.serve(says(200, GOOD, **JSON, **ANYBODY), tls=False)
        group = await site.jitsi(says(302, "", Location=plain, **ANYBODY))
        assert "plain HTTP" in assert_only(group, FILE, State.RED).mend

    async def test_redirects_end(self, site: Site) -> None:
        group = await site.jitsi(says(302, "", Location="/again", **ANYBODY))
        assert "more than 3 times" in assert_only(group, FILE, State.RED).mend
        assert len(site.asked) == 4

    @pytest.mark.parametrize("location", ["http://[::1", "https://", "ftp://x.invalid/", "//\udcff"])
    async def test_a_redirect_to_nowhere_is_red_and_no_defect(self, site: Site, location: str) -> None:
        async def nowhere(_: Asked, writer: asyncio.StreamWriter) -> None:
            head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            writer.write(head.encode("utf-8", "surrogateescape"))

        assert_only(await site.jitsi(nowhere), FILE, State.RED)

    async def test_element_asks_no_plain_http(self, site: Site) -> None:
        group = await site.jitsi(says(200, GOOD, **JSON, **ANYBODY), tls=False)
        assert_only(group, "https", State.YELLOW)

    async def test_a_domain_that_is_not_there(self, site: Site) -> None:
        await check_jitsi(site.group, "https://127.0.0.1:1", None)
        assert states(site.group)[2:] == [(name, State.SKIPPED) for name in ("TLS", FILE, TYPE, READABLE)]

    async def test_garbage_is_red_and_no_defect(self, site: Site) -> None:
        async def garbage(_: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(b"\x00\x01\x02 hello\r\n\r\n")
            writer.close()

        assert "breaks off" in assert_only(await site.jitsi(garbage), FILE, State.RED).mend

    async def test_an_endless_answer_is_cut(self, site: Site) -> None:
        async def endless(_: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"{" * 65536)
                await writer.drain()

        assert_only(await site.jitsi(endless), FILE, State.RED)

    async def test_silence_ends_in_time(self, site: Site) -> None:
        started = time.monotonic()
        group = await site.jitsi(hang)
        assert time.monotonic() - started < web.ANSWER_SECONDS + 2
        assert "No whole answer" in assert_only(group, FILE, State.RED).mend


BOSH_ANSWER = '<body type="terminate" condition="improper-addressing" xmlns="http://jabber.org/protocol/httpbind"/>'


async def upgrade(asked: Asked, writer: asyncio.StreamWriter, *, protocol: str = "xmpp", accept: str = "") -> None:
    digest = hashlib.sha1((asked.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode())  # noqa: S324
    accept = accept or b64encode(digest.digest()).decode()
    writer.write(
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n".encode()
    )


async def jitsi_web(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """The site as it should be."""
    if asked.path.endswith("/http-bind"):
        await says(200, BOSH_ANSWER)(asked, writer)
        await asyncio.sleep(0)
        writer.close()  # this server reads no bodies
    elif asked.path.endswith("/xmpp-websocket"):
        await upgrade(asked, writer)
    else:
        await says(404)(asked, writer)


class TestProsody:
    async def test_both_ways_answer(self, site: Site) -> None:
        group = await site.prosody(jitsi_web)
        assert states(group)[-2:] == [(BOSH, State.GREEN), (WEBSOCKET, State.GREEN)]
        bosh, websocket = site.asked
        assert (bosh.target, websocket.target) == ("/http-bind", "/xmpp-websocket")
        assert (websocket.headers["upgrade"], websocket.headers["sec-websocket-protocol"]) == ("websocket", "xmpp")

    @pytest.mark.parametrize(("path", "only"), [("/http-bind", BOSH), ("/xmpp-websocket", WEBSOCKET)])
    async def test_one_of_them_by_its_own_url(self, site: Site, path: str, only: str) -> None:
        group = await site.prosody(jitsi_web, path)
        assert states(group)[3:] == [(only, State.GREEN)]

    async def test_a_websocket_url_is_one(self, site: Site) -> None:
        url = (await site.serve(jitsi_web)).replace("https", "wss") + "/xmpp-websocket"
        await check_prosody(site.group, url, site.ca_file)
        assert states(site.group)[-1] == (WEBSOCKET, State.GREEN)

    async def test_a_folder_before_both(self, site: Site) -> None:
        await site.prosody(jitsi_web, "/tenant")
        assert [asked.target for asked in site.asked] == ["/tenant/http-bind", "/tenant/xmpp-websocket"]

    async def test_one_of_them_does_not_answer(self, site: Site) -> None:
        async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
            await (says(502) if "websocket" in asked.path else jitsi_web)(asked, writer)

        yellow = assert_only(await site.prosody(behave), WEBSOCKET, State.YELLOW)
        assert "502" in yellow.mend
        assert "config.js" in yellow.mend

    @pytest.mark.parametrize(
        "behave", [says(502, "<html>"), says(404), says(200, "<html>Jitsi Meet</html>"), says(301)]
    )
    async def test_neither_answers(self, site: Site, behave: Behave) -> None:
        group = await site.prosody(behave)
        assert states(group)[-2:] == [(BOSH, State.RED), (WEBSOCKET, State.RED)]
        assert "whether Prosody runs" in row(group, BOSH).mend

    async def test_a_proxy_that_does_not_pass_on_the_upgrade(self, site: Site) -> None:
        group = await site.prosody(says(200, "It works!"), "/xmpp-websocket")
        assert "passes on Upgrade" in assert_only(group, WEBSOCKET, State.RED).mend

    @pytest.mark.parametrize("wrong", [{"protocol": "chat"}, {"accept": "AAAA"}])
    async def test_a_websocket_of_something_else(self, site: Site, wrong: dict[str, str]) -> None:
        async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
            await upgrade(asked, writer, **wrong)

        group = await site.prosody(behave, "/xmpp-websocket")
        assert "not one for XMPP" in assert_only(group, WEBSOCKET, State.RED).mend

    async def test_a_server_that_is_not_there(self, site: Site) -> None:
        await check_prosody(site.group, "https://127.0.0.1:1", None)
        assert states(site.group)[3:] == [(BOSH, State.SKIPPED), (WEBSOCKET, State.SKIPPED)]
