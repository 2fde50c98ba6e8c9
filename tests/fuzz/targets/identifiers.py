"""Identifiers of the Matrix specification, and the operator's patterns for them."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx

from tests.fuzz.target import Messages, joined, parts, target, text
from uvs.matrix.identifiers import MAX_BYTES, InvalidIdentifier, RoomAlias, RoomID, ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.server_globs import ServerGlobs
from uvs.net.http import path

STRANGERS = "strangers', homeservers'"
HASH_ID = "!" + "A" * 21 + "-_" + "b" * 20
SERVERS = ("matrix.org", "a", "localhost:8448", "1.2.3.4:80", "[::1]", "[2001:db8::1]:8448", "xn--e1afmkfd.example")
WORDS = ("@", "!", "#", ":", "[", "]", "::", ":8448", "/../", "/./", "..;", "%25", "%2e%2e", "．", "؀", "‥", "\ud800")

_reasons = Messages(30)


def _safe(value: str) -> None:
    assert len(value.encode()) <= MAX_BYTES
    assert not set(value) & set("\\?#%")
    assert value.isprintable()


def _only_segment(value: str, before: str, after: str) -> None:
    """Whatever proxies are known to do to a path, `value` stays what stands between `before` and `after`."""
    asked = f"/{before}{path(value)}/{after}"
    on_the_wire = httpx.URL("http://h" + asked).raw_path.decode("ascii")
    assert on_the_wire == asked
    assert on_the_wire.split("/")[-2] == path(value)[1:]
    for _ in range(2):
        on_the_wire = unquote(on_the_wire)
        assert _as_a_proxy_may_see_it(on_the_wire) == f"/{before}/{value}/{after}"


def _as_a_proxy_may_see_it(decoded: str) -> str:
    """Query and fragment cut off, slashes turned and merged, dot segments (with parameters, too) resolved."""
    kept: list[str] = []
    for segment in re.split(r"[?#]", decoded.replace("\\", "/"))[0].split("/"):
        match segment.partition(";")[0]:
            case "..":
                del kept[-1:]
            case "" | ".":
                pass
            case _:
                kept.append(segment)
    return "/" + "/".join(kept)


def _server(name: ServerName) -> None:
    port = "" if name.port is None else name.value[len(name.host) :]
    assert name.host + port == name.value
    assert name.port is None or 0 < name.port < 65536
    if name.host.startswith("["):
        ipaddress.IPv6Address(name.host[1:-1])
    else:
        assert name.host.isascii()
        assert all(part.replace("-", "a").isalnum() for part in name.host.split("."))
    # As the authority of a URL it is what it is, nothing more.
    split = urlsplit(f"https://{name.value}/x")
    assert (split.username, split.path, split.query, split.port) == (None, "/x", "", name.port)


@target(
    "server-name",
    parser="uvs.matrix.identifiers.ServerName.parse",
    whose=STRANGERS,
    seeds=SERVERS,
    words=(*WORDS, "fe80::1%eth0", "::ffff:1.2.3.4", ":0", ":65536", ":08448"),
)
def server_name(data: bytes) -> str:
    """What is accepted is what was sent, is host and port of a URL and nothing more, and has a port that exists."""
    raw = text(data)
    try:
        parsed = ServerName.parse(raw)
    except InvalidIdentifier as error:
        return _reasons.see(str(error))
    assert str(parsed) == raw
    _safe(raw)
    _server(parsed)
    return f"accepted {raw[:1] == '['} {parsed.port is not None}"


@target(
    "user-id",
    parser="uvs.matrix.identifiers.UserID.parse",
    whose=STRANGERS,
    seeds=[*(f"@alice:{server}" for server in SERVERS), "@a/b.c=d:x", "@älter:x", "@Old_Style+1:x"],
    words=(*WORDS, *SERVERS),
)
def user_id(data: bytes) -> str:
    """What is accepted is what was sent, and stays one segment of a path after up to two rounds of percent-decoding and
    the merging of slashes; what is refused is not quoted."""
    raw = text(data)
    try:
        parsed = UserID.parse(raw)
    except InvalidIdentifier as error:
        return _reasons.see(str(error))
    assert str(parsed) == raw
    _safe(raw)
    _server(parsed.server_name)
    assert raw.endswith(":" + parsed.server_name.value)
    assert ServerName.parse(parsed.server_name.value) == parsed.server_name
    _only_segment(raw, "_synapse/admin/v1/users", "joined_rooms")
    return f"accepted {'/' in raw} {raw.isascii()}"


@target(
    "room-id",
    parser="uvs.matrix.identifiers.RoomID.parse",
    whose=STRANGERS,
    seeds=[*(f"!abc:{server}" for server in SERVERS), HASH_ID],
    words=(*WORDS, *SERVERS, HASH_ID),
)
def room_id(data: bytes) -> str:
    """As for user ids; and it holds no slash, and has a server name or else the form of version 12."""
    raw = text(data)
    try:
        parsed = RoomID.parse(raw)
    except InvalidIdentifier as error:
        return _reasons.see(str(error))
    assert str(parsed) == raw
    _safe(raw)
    assert "/" not in raw
    if parsed.is_hash:
        assert (len(raw), parsed.server_name) == (44, "")
    else:
        _server(ServerName.parse(parsed.server_name))
    _only_segment(raw, "_synapse/admin/v1/rooms", "state")
    return f"accepted {parsed.is_hash}"


@target(
    "room-alias",
    parser="uvs.matrix.identifiers.RoomAlias.parse",
    whose="strangers'",
    seeds=[f"#room:{server}" for server in SERVERS],
    words=(*WORDS, *SERVERS),
)
def room_alias(data: bytes) -> str:
    """What is accepted is what was sent, and no room id; what is refused is not quoted."""
    raw = text(data)
    try:
        parsed = RoomAlias.parse(raw)
    except InvalidIdentifier as error:
        return _reasons.see(str(error))
    assert str(parsed) == raw
    _safe(raw[1:])
    _server(ServerName.parse(raw[1:].partition(":")[2]))
    try:
        RoomID.parse(raw)
    except InvalidIdentifier:
        return "accepted"
    raise AssertionError("an alias is a room id as well")


def _fits(pattern: str, name: str) -> bool:
    """The plainest way to hold a name against a pattern with `*` and `?`."""
    reached = {0}
    for char in pattern:
        if char == "*":
            reached = set(range(min(reached), len(name) + 1)) if reached else reached
        else:
            reached = {at + 1 for at in reached if at < len(name) and char in {"?", name[at]}}
    return len(name) in reached


@target(
    "server-globs",
    parser="uvs.matrix.server_globs.ServerGlobs.parse, .matches, .matches_host",
    whose="the operator's patterns, strangers' names",
    seeds=[
        joined("*.example.org", "a.example.org"),
        joined("evil.example.org", "Evil.example.org:8448"),
        joined("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaa"),
        joined("[2001:db8::*]", "[2001:db8::1]:80"),
        joined("?.b.*", "a.b.c"),
        joined("*.*.*.*.*.*.casino", "a." * 120 + "b"),
    ],
    words=("*", "?", "*.*", "[", "]", ".", "A", "a.a.a.a", "-"),
)
def server_globs(data: bytes) -> str:
    """Names fit as by the plainest algorithm, in any case of letters, and soon, whatever the pattern and the name."""
    pattern, name = map(text, parts(data, 2))
    try:
        globs, server = ServerGlobs.parse([pattern]), ServerName.parse(name)
    except InvalidIdentifier as error:
        return _reasons.see(str(error))
    lower = pattern.lower()
    assert globs.matches(server) == _fits(lower, name.lower())
    assert globs.matches_host(server) == (_fits(lower, name.lower()) or _fits(lower, server.host.lower()))
    assert ServerGlobs.parse([*globs.patterns]) == globs
    return f"{globs.matches(server)} {globs.matches_host(server)} {'*' in pattern} {'?' in pattern}"


@target(
    "openid-token",
    parser="uvs.matrix.openid.OpenIDToken",
    whose="strangers'",
    seeds=["RmKaVqpsjlElxFCRMyrtTcNU", "a b&access_token=c#d", "%26+/=;", ""],
    words=("&", "=", "#", "+", "%", ";", "é", "\0", "\ud800"),
)
def openid_token(data: bytes) -> str:
    """It never shows itself; and one that may be sent arrives byte for byte, as the only parameter."""
    token = OpenIDToken(text(data))
    assert str(token) == "<OpenID token>"
    assert repr(token) == "OpenIDToken()"
    if not token.is_possible:
        return "impossible"
    url = httpx.Request("GET", "http://h/userinfo", params={"access_token": token.secret}).url
    assert (url.path, url.fragment) == ("/userinfo", "")
    query = parse_qsl(url.query.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    assert query == [("access_token", token.secret)]
    return "possible"
