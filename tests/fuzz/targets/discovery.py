"""Other people's homeservers: what web servers and homeservers say that a stranger named."""

from __future__ import annotations

import atexit
import ipaddress
import json
import re
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any

import httpcore
import httpx

from tests.fuzz.target import Messages, in_pieces, joined, parts, plain_json, target, text
from tests.fuzz.targets.answers import ask_for_a_refusal
from tests.fuzz.targets.requests import runner
from uvs.errors import CannotTell, Overloaded, Refusal
from uvs.homeserver.federation import RemoteHomeservers
from uvs.homeserver.userinfo import Userinfo, read_userinfo
from uvs.matrix.identifiers import InvalidIdentifier, ServerName
from uvs.net import answers
from uvs.net.answers import Answer
from uvs.net.destination import MAX_ADDRESSES, Addresses, Step
from uvs.net.discovery import Discovery
from uvs.net.egress import Egress
from uvs.net.engine import Response
from uvs.net.hosts import IPAddress, parse_host
from uvs.net.http import HttpClient, open_client
from uvs.net.outbound import GuardedBackend, GuardedTransport
from uvs.net.resolver import MAX_RECORDS, Service
from uvs.net.well_known import MAX_REDIRECTS, MAX_SECONDS, MIN_SECONDS, WellKnown, lifetime

EVERYBODY = "whoever a stranger named"

_messages = Messages(200)


@target(
    "cache-headers",
    parser="uvs.net.well_known.lifetime",
    whose=EVERYBODY,
    seeds=[
        joined("max-age=600, public", "", "", "30"),
        joined("", "Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 06:28:00 GMT", ""),
        joined('no-cache="x", max-age="5"', "0", "", "-1"),
        joined("private, no-store", "", "", ""),
    ],
    words=("max-age", "=", ",", '"', "no-store", "no-cache", "GMT", "+9999", "-0000", "Feb 30", "99999", "1e9", "²"),
)
def cache_headers(data: bytes) -> str:
    """Nothing, or between five minutes and two days, whatever the headers say; and what must not be kept is not."""
    cache_control, expires, date, age = parts(data, 4)
    given = ((b"cache-control", cache_control), (b"expires", expires), (b"date", date), (b"age", age))
    seconds = lifetime(httpx.Headers([(name, value) for name, value in given if value]))
    assert seconds == 0 or MIN_SECONDS <= seconds <= MAX_SECONDS
    if re.fullmatch(rb"(.*,)?\s*no-store\s*(,.*)?", cache_control, re.DOTALL):
        assert seconds == 0
    if match := re.fullmatch(rb"max-age=([0-9]{1,6})", cache_control):
        assert age or seconds == max(MIN_SECONDS, min(MAX_SECONDS, float(match[1])))
    return f"{seconds in {0, MIN_SECONDS, MAX_SECONDS} and seconds} {bool(expires)}"


class Fixed:
    """A resolver that knows what it was told."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = known

    async def addresses(self, host: str) -> list[IPAddress]:
        assert parse_host(host) == host, "DNS is asked for what is no name"
        given = self._known.get(host, self._known.get("*"))
        found = []
        for each in given if isinstance(given, list) else []:
            try:
                found.append(ipaddress.ip_address(each))
            except ValueError:
                raise CannotTell("DNS gives no answer") from None
        return found

    async def services(self, name: str) -> list[Service]:
        given = self._known.get(name)
        return [
            Service(str(each[0]), int(each[1]) % 65536, int(each[2]) % 65536, int(each[3]) % 65536)
            for each in (given if isinstance(given, list) else [])[:MAX_RECORDS]
            if isinstance(each, list) and len(each) == 4 and all(type(number) is int for number in each[1:])
        ]


class Web(HttpClient):
    """Gives one answer after the other, and looks at what is asked."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers
        self.asked: list[httpx.URL] = []

    async def get(self, url: str, *, what: str, expect: type[Any], **bounds: Any) -> Answer[Any]:
        parsed = httpx.URL(url)
        self.asked.append(parsed)
        assert parsed.scheme == "https"
        assert Egress().objection(ipaddress.ip_address(parsed.host)) is None, "an address that is refused is asked"
        assert not parsed.userinfo
        assert parsed.fragment == ""
        headers, tls_name = bounds["headers"], bounds["extensions"]["sni_hostname"]
        assert headers["Host"].isascii()
        assert not set(headers["Host"]) & set("\r\n \t/@#?\\")
        assert parse_host(tls_name if ":" not in tls_name else f"[{tls_name}]") is not None
        head, _, body = (self._answers.pop(0) if self._answers else b"").partition(b"\n")
        status, _, location = head.partition(b" ")
        code = int(status) if re.fullmatch(rb"[1-5][0-9]{2}", status) else 404
        headers = {"location": location.decode("latin-1")} if location else {}
        return answers.read_answer(Response(code, headers, bytearray(body)), what, expect)


GOOD = '{"*":["8.8.8.8","2606:4700::1111"]}'
DOCUMENT = '200\n{"m.server":"b.example:443"}'


@target(
    "well-known",
    parser="uvs.net.well_known.WellKnown",
    whose=EVERYBODY,
    seeds=[
        joined(DOCUMENT),
        joined("302 https://c.example/x", "301 /y?z", "307 //d.example:99", DOCUMENT),
        joined("302 https://127.0.0.1/", DOCUMENT),
        joined("302 https://[::ffff:10.0.0.1]:443/", DOCUMENT),
        joined("302 http://c.example/", DOCUMENT),
        joined("302 https://u:p@c.example/#f", DOCUMENT),
        joined("200\n<html>"),
        joined("503\n"),
    ],
    words=(
        "https://",
        "//",
        "/",
        "?",
        "#",
        "@",
        ":443",
        "302 ",
        "200\n",
        "m.server",
        "b.example",
        "%00",
        "\\",
        "[::1]",
        "xn--",
        "ü",
    ),
    cost=10,
)
def well_known(data: bytes) -> str:
    """A server name, or nobody; no more than three redirects are followed, each over TLS to an address that was judged;
    nothing is raised."""
    web = Web(parts(data, 6))
    steps: list[Step] = []
    addresses = Addresses(Fixed(json.loads(GOOD)), Egress())
    found = runner().run(WellKnown(web, addresses, clock=lambda: 0.0).delegate("a.example", steps.append))
    assert len(web.asked) <= MAX_REDIRECTS + 1
    assert found is None or ServerName.parse(found.value) == found
    assert len(steps[-1].outcome) < 400, "too much is remembered"
    return f"{len(web.asked)} {'nobody' if found is None else 'found'} {steps[-1].outcome[:18]}"


@target(
    "discovery",
    parser="uvs.net.discovery.Discovery",
    whose=EVERYBODY,
    seeds=[
        joined("a.example", GOOD, DOCUMENT),
        joined("a.example:8449", GOOD, ""),
        joined("8.8.8.8", GOOD, ""),
        joined("[2606:4700::1111]:1", GOOD, ""),
        joined(
            "a.example",
            '{"*":["8.8.8.8","127.0.0.1"],"_matrix-fed._tcp.a.example":[["c.example",1,0,5],[".",0,0,0]]}',
            "",
        ),
        joined(
            "a.example",
            '{"*":["10.0.0.1"],"_matrix._tcp.b.example":[["c.example",1,0,5]]}',
            '200\n{"m.server":"b.example"}',
        ),
        joined("127.1", GOOD, ""),
    ],
    words=(
        "a.example",
        "b.example",
        "_matrix-fed._tcp.",
        "_matrix._tcp.",
        "127.0.0.1",
        "::ffff:10.0.0.1",
        "8.8.8.8",
        ":443",
        "m.server",
    ),
    cost=10,
)
def discovery(data: bytes) -> str:
    """A destination of few addresses, none of them refused, with ports that exist, the name as it is written for the
    Host header and its host for the certificate; or CannotTell, which tells a caller nothing of the network."""
    name, known, answer = parts(data, 3)
    try:
        server_name = ServerName.parse(text(name))
    except InvalidIdentifier:
        return "no server name"
    try:
        told = json.loads(known)
    except (ValueError, RecursionError):
        told = {}
    resolver = Fixed(told if isinstance(told, dict) else {})
    guard = Egress()
    web = Web([answer])
    addresses = Addresses(resolver, guard)
    finder = Discovery(
        WellKnown(web, addresses, clock=lambda: 0.0), addresses, resolver, randbelow=lambda below: below - 1
    )
    try:
        found = runner().run(finder.find(server_name))
    except CannotTell as error:
        return _messages.see(str(error).replace(f"homeserver of {server_name} cannot", "homeserver of X cannot"))
    assert 0 < len(found.addresses) <= MAX_ADDRESSES
    for address, port in found.addresses:
        assert guard.objection(address) is None
        assert 0 < port < 65536
    written = ServerName.parse(found.host_header)
    assert written == server_name or web.asked
    assert str(parse_host(written.host)) == found.tls_name
    if written.port is not None:
        assert {port for _, port in found.addresses} == {written.port}
    return f"{len(found.addresses)} {written == server_name} {written.port is not None} {':' in found.tls_name}"


@target(
    "federation-userinfo",
    parser="uvs.homeserver.userinfo.read_userinfo",
    whose="other people's homeservers'",
    seeds=[
        joined("200", '{"sub":"@alice:x"}'),
        joined("200", '{"sub":"@alice:evil.example"}'),
        joined("401", '{"errcode":"M_UNKNOWN_TOKEN"}'),
        joined("403", "<html>"),
        joined("429", "{}"),
    ],
    words=("sub", "@alice:x", "errcode", "401", "403", "200", "404", "500", ":"),
)
def federation_userinfo(data: bytes) -> str:
    """A homeserver vouches for its own users and nobody else; a no is a status for it with a Matrix error code."""
    status, body = parts(data, 2)
    code = int(status) if re.fullmatch(rb"[1-5][0-9]{2}", status) else 200
    try:
        answer = answers.read_answer(Response(code, {}, bytearray(body)), "Asking", Userinfo)
        user = read_userinfo(answer, ServerName.parse("x"), refusals=RemoteHomeservers.refusals)
    except Overloaded as error:
        return str(error)
    except CannotTell as error:
        message = re.sub(r"vouches for a user of \S+;", "vouches for another's user;", str(error))
        return _messages.see(re.sub(r"[0-9]+", "0", message))
    if isinstance(user, Refusal):
        assert (user, code in RemoteHomeservers.refusals) == (Refusal.BAD_TOKEN, True)
        return user
    assert user.server_name.value == "x"
    assert code == 200
    assert plain_json(body)["sub"] == user.value
    return "user"


class _Network(httpcore.AsyncNetworkBackend):
    """Whoever is connected to says the same bytes, in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.stream: httpcore.AsyncMockStream | None = None

    async def connect_tcp(self, host: str, port: int, *_others: Any, **_more: Any) -> httpcore.AsyncNetworkStream:
        self.stream = httpcore.AsyncMockStream(list(self._pieces))
        return self.stream


@cache
def _client() -> tuple[HttpClient, Any]:
    """A client that goes out through the guard, and the guard."""
    loop = runner()
    transport = GuardedTransport(Egress(unrestricted=True), tls=ssl.create_default_context())
    client = open_client(timeout=5, transport=transport)

    def end() -> None:
        loop.run(client.__aexit__(None, None, None))

    atexit.register(end)
    pool = transport._pool
    assert isinstance(pool, httpcore.AsyncConnectionPool)
    guard = pool._network_backend
    assert isinstance(guard, GuardedBackend)
    assert isinstance(guard._network, httpcore.AnyIOBackend)
    return client, guard


@target(
    "http-client-bytes",
    parser="uvs.net.outbound, from the connection up (h11, httpcore)",
    whose=EVERYBODY,
    seeds=[
        joined("", 'HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n{"errcode":"M_FORBIDDEN"}'),
        joined(
            "x",
            'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"err\r\nb\r\ncode":"M_X"}\r\n0\r\n\r\n',
        ),
        joined(
            "",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 -\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200",
        ),
        joined("", "HTTP/1.1 429 -\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n"),
        joined("\x01", "HTTP/1.0 401 no\r\n\r\n{}"),
        joined("", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    ],
    words=(
        "\r\n",
        "HTTP/1.1 200 OK\r\n",
        "Content-Length: ",
        "Transfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        ": ",
        "204",
        "304",
        "\0",
    ),
    cost=20,
)
def http_client_bytes(data: bytes) -> str:
    """An answer or CannotTell, in words that quote nothing; and every connection is closed."""
    _, pieces = in_pieces(data)
    client, guard = _client()
    guard._network = network = _Network(pieces)
    answer = runner().run(ask_for_a_refusal(client, "https://127.0.0.1:1/"))
    assert network.stream is None or network.stream._closed
    if isinstance(answer, str):
        return answer
    return f"{answer.status // 100} {answer.errcode is not None} {answer.body is not None}"
