"""Requests: what strangers send to the service."""

from __future__ import annotations

import asyncio
import atexit
import codecs
import gzip
import ipaddress
import json
import sys
import zlib
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from functools import cache
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote

import httpx
from prometheus_client import CollectorRegistry, Gauge
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tests.fuzz.target import MARKER, Messages, joined, parts, plain_json, target
from tests.service import settings
from uvs.app import create_app
from uvs.errors import InvalidRequest
from uvs.limits import caller
from uvs.matrix.identifiers import InvalidIdentifier, RoomID, ServerName
from uvs.ops.metrics import Metrics
from uvs.wire import MAX_BODY, read_json

T = TypeVar("T")

_mistakes = Messages(20)
_answers = Messages(120)
_forms = Messages(60)


@cache
def runner() -> asyncio.Runner:
    """The event loop of this process."""
    # httpcore looks for it with every request, and where it is not, that takes longer than all the rest.
    sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]
    made = asyncio.Runner()
    atexit.register(made.close)
    return made


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of what waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits for something")


def receiving(*chunks: bytes) -> Receive:
    pending: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    pending.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> MutableMapping[str, Any]:
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    return receive


def _headers(**values: bytes) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value) for name, value in values.items() if value]


JSON = b"application/json"
BODY = b'{"token": "abc", "matrix_server_name": "x", "room_id": "!a:x"}'


@target(
    "request-body",
    parser="uvs.wire.read_json",
    whose="strangers'",
    seeds=[
        joined(JSON, b"", BODY),
        joined(JSON + b"; charset=utf-16", b"", BODY.decode().encode("utf-16")),
        joined(JSON + b'; charset="utf-16le"', b"", BODY.decode().encode("utf-16-le")),
        joined(JSON + b"; charset=utf-32", b"identity", BODY.decode().encode("utf-32")),
        joined(JSON, b"gzip", gzip.compress(BODY, mtime=0)),
        joined(JSON, b"deflate", zlib.compress(BODY)),
        joined(JSON, b"gzip", gzip.compress(b" " * (MAX_BODY + 1), mtime=0)),
        joined(JSON, b"", codecs.BOM_UTF8 + b"[]"),
        joined(b"multipart/form-data; boundary*=utf-8''x", b"br", b""),
    ],
    words=(
        "charset=",
        "utf-8",
        "utf-16be",
        "gzip",
        "deflate",
        "identity",
        ";",
        '"',
        "*=",
        "*0=",
        "%",
        "[" * 2000,
        "\\",
    ),
)
def request_body(data: bytes) -> str:
    """An object as Python's own reader has it, or the caller's mistake with its status; never more than the limit; the
    message quotes nothing."""
    media_type, encoding, body = parts(data, 3)
    headers = _headers(content_type=media_type, content_encoding=encoding)
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    half = len(body) // 2
    try:
        read = at_once(read_json(Request(scope, receiving(body[:half], body[half:]))))
    except InvalidRequest as error:
        return _mistake(error)
    assert isinstance(read, dict)
    if read and not encoding and b"charset" not in media_type.lower():
        assert len(body) <= MAX_BODY
        expected = plain_json(body.removeprefix(codecs.BOM_UTF8))
        assert read == expected or "Infinity" in repr(expected) or "inf" in repr(expected)
    return f"read {bool(read)} {bool(encoding)}"


def _mistake(error: InvalidRequest) -> str:
    assert error.status in {400, 413, 415}
    return _mistakes.see(str(error))


class Upstream(httpx.AsyncBaseTransport):
    """Answers every question with what makes a yes, and looks at each request that leaves."""

    def __init__(self) -> None:
        self.asked: list[httpx.URL] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url)
        return httpx.Response(200, json=self._answer([unquote(part) for part in _segments(request.url)]))

    def _answer(self, segments: list[str]) -> Any:
        match segments:
            case ["_matrix", "client", "v3", "account", "whoami"]:
                return {"user_id": "@admin:x"}
            case ["_matrix", "federation", "v1", "openid", "userinfo"]:
                return {"sub": "@alice:x"}
            case ["_synapse", "admin", "v2", "users", "@alice:x" | "@admin:x"]:
                return {"deactivated": False, "locked": False}
            case ["_synapse", "admin", "v1", "users", "@alice:x" | "@admin:x", "joined_rooms"]:
                return {"joined_rooms": ["!a:x"]}
            case ["_synapse", "admin", "v1", "rooms", room, "state"]:
                RoomID.parse(room)
                return {"state": [_event("m.room.create", {"creator": "@alice:x"}), _event("m.room.power_levels", {})]}
        raise AssertionError(f"nobody asks this: {segments}")


def _event(kind: str, content: object) -> object:
    return {"type": kind, "state_key": "", "sender": "@alice:x", "content": content}


def _segments(url: httpx.URL) -> list[str]:
    return url.raw_path.decode("ascii").partition("?")[0].split("/")[1:]


@cache
def running_app() -> tuple[Starlette, Upstream]:
    """The whole application, for as long as this process runs."""
    upstream = Upstream()
    app = create_app(
        settings(auth_token="right", rate_limit=0, federation="off", trusted_proxies="10.0.0.0/8"), transport=upstream
    )
    lifespan = app.router.lifespan_context(app)
    loop = runner()

    async def start() -> None:
        await lifespan.__aenter__()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))  # the report on the homeserver

    loop.run(start())

    def end() -> None:
        loop.run(lifespan.__aexit__(None, None, None))

    atexit.register(end)
    return app, upstream


def ask(app: Callable[[Scope, Receive, Send], Any], scope: Mapping[str, Any], body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer."""
    status, answer = 0, b""

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, answer
        status = message.get("status", status)
        answer += message.get("body", b"")

    async def whole() -> None:
        await app(dict(scope), receiving(body), send)

    runner().run(whole())
    return status, answer


def _scope(path: bytes, headers: list[tuple[bytes, bytes]], client: str = "192.0.2.1") -> dict[str, Any]:
    raw, _, query = path.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": unquote(raw.decode("ascii", "replace")),
        "raw_path": raw,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": (client, 1),
        "server": ("127.0.0.1", 3000),
    }


ROOM_PATH = b"/verify/user_in_room"
WORDS = (
    "token",
    "matrix_server_name",
    "room_id",
    "@",
    "!",
    "#",
    ":",
    "!a:x",
    "x",
    "y",
    "/verify/user",
    "//",
    "Bearer ",
)


@target(
    "verify",
    parser="uvs.verification.api, by way of the whole application",
    whose="strangers'",
    seeds=[
        joined(ROOM_PATH, b"Bearer right", BODY),
        joined(b"/verify/user", b"Bearer right", b'{"token": "abc", "matrix_server_name": "x"}'),
        joined(ROOM_PATH, b"Bearer right", b'{"token": "abc", "matrix_server_name": "y", "room_id": "#a:x"}'),
        joined(
            ROOM_PATH,
            b"Bearer right",
            b'{"token": "%s", "matrix_server_name": "x", "room_id": "!%s"}' % (b"a" * 4000, b"B" * 43),
        ),
        joined(b"/verify/user?token=x", b"Bearer wrong", BODY),
    ],
    words=WORDS,
    cost=20,
)
def verify(data: bytes) -> str:
    """Never 5xx, never a word of the request in the answer; and nothing leaves for the homeserver but the known
    questions, about exactly the room and with exactly the token that were sent."""
    return _verify(*parts(data, 3))


def _verify(path: bytes, authorization: bytes, body: bytes) -> str:
    app, upstream = running_app()
    upstream.asked.clear()
    headers = _headers(content_type=JSON, authorization=authorization)
    status, answer = ask(app, _scope(path, headers), body)
    assert MARKER.encode() not in answer
    if not upstream.asked:
        assert status in {200, 400, 403, 404, 413}, status
        return _answers.see(f"{status} {answer.decode()}")
    assert (status, authorization) == (200, b"Bearer right")
    sent = plain_json(body.removeprefix(codecs.BOM_UTF8))
    for url in upstream.asked:
        segments = _segments(url)
        if segments[-1] == "userinfo":
            assert parse_qs(url.query.decode(), keep_blank_values=True) == {"access_token": [sent["token"]]}
        if segments[-1] == "state":
            assert unquote(segments[-2]) == sent["room_id"]
    told = json.loads(answer)
    if told["results"].get("room_membership"):
        assert sent["room_id"] == "!a:x"
    return f"asked {told['results']}"


@target(
    "verify-fields",
    parser="uvs.verification.api, field by field",
    whose="strangers'",
    seeds=['["abc", "x", "!a:x"]', '["abc", "y:8448", "#a:x"]', '["", null, 1]', "[true, [], {}]"],
    words=WORDS,
    cost=20,
)
def verify_fields(data: bytes) -> str:
    """As `verify`, with whatever JSON in each of the three fields."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        fields = data.decode("utf-8", "replace").split(",")
    if not isinstance(fields, list):
        fields = [fields] * 3
    body = json.dumps(dict(zip(("token", "matrix_server_name", "room_id"), fields, strict=False))).encode()
    return _verify(ROOM_PATH, b"Bearer right", body) + _kinds(fields)


def _kinds(fields: list[Any]) -> str:
    server = fields[1] if len(fields) > 1 else None
    try:
        return " server" if isinstance(server, str) and ServerName.parse(server) else ""
    except InvalidIdentifier:
        return " no server"


TRUSTED = ("10.0.0.0/8", "fd00::/8", "127.0.0.1/32")


@target(
    "forwarded",
    parser="uvicorn.middleware.proxy_headers, uvs.limits.caller",
    whose="strangers', past a trusted proxy",
    seeds=[
        joined("192.0.2.1, 10.0.0.2", "https", ""),
        joined("[2001:db8::1]:99, fd00::1", "", ""),
        joined("127.0.0.1", "http", "directly"),
        joined("192.0.2.1:8080,unknown", "wss", ""),
        joined("::ffff:10.0.0.1, fe80::1%eth0", "", ""),
    ],
    words=(", ", ":", "[", "]", "10.0.0.1", "::ffff:", "%", "1" * 5000, "_hidden", "unknown", "for="),
)
def forwarded(data: bytes) -> str:
    """From a trusted address the caller is the last address that is none; from any other, whoever connected. Nothing is
    raised, and each caller counts as one address, one IPv6 network, or as all that say nonsense."""
    chain, scheme, directly = parts(data, 3)
    peer = "192.0.2.9" if directly else "10.0.0.1"
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope)

    middleware: Any = ProxyHeadersMiddleware(app, trusted_hosts=list(TRUSTED))  # type: ignore[arg-type]
    scope = _scope(b"/", _headers(x_forwarded_for=chain, x_forwarded_proto=scheme), peer)
    at_once(middleware(scope, receiving(), None))
    host = seen[0]["client"][0]
    counted = caller(host)
    assert counted == "" or counted.isdigit() or ipaddress.IPv4Address(counted)
    if directly:
        assert host == peer
        return "not trusted"
    last = chain.decode("latin-1").split(",")[-1].strip()
    if last and not set(last) & set(":[]") and not _is_trusted(last):
        assert host == last
    return f"{counted == ''} {_is_trusted(host)} {host == peer}"


def _is_trusted(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(network) for network in TRUSTED)


@cache
def _metrics() -> Metrics:
    metrics = Metrics()
    metrics.registry = CollectorRegistry()  # to write out all that there is takes a millisecond, and is not the point
    Gauge("uvs_ready", "One is enough.", registry=metrics.registry)
    return metrics


@target(
    "metrics-accept",
    parser="uvs.ops.metrics.Metrics.render",
    whose="whoever reaches /metrics",
    seeds=["application/openmetrics-text;version=1.0.0;escaping=underscores", "text/plain;version=0.0.4", "*/*", ""],
    words=("version=", "escaping=", "allow-utf-8", ";", ",", "q=0.5", "application/openmetrics-text", "1.0.0", "²"),
    cost=2,
)
def metrics_accept(data: bytes) -> str:
    """Whatever is asked for, the answer is one of the forms there are."""
    body, media_type = _metrics().render(data.decode("latin-1"))
    assert b"uvs_ready" in body
    return _forms.see(media_type)
