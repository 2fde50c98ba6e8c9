"""Prosody's side: whether the two ways by which browsers reach it are answered by Prosody. Nobody logs in."""

from __future__ import annotations

import hashlib
import secrets
import ssl
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from uvs.check.reach import reach
from uvs.check.rows import Group
from uvs.check.web import Reply, ask
from uvs.errors import CannotTell
from uvs.net.tls import trust

BOSH, WEBSOCKET = "BOSH", "WebSocket"
PATHS = {BOSH: "/http-bind", WEBSOCKET: "/xmpp-websocket"}

_BOSH_NAMESPACE = "http://jabber.org/protocol/httpbind"
_WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455

Ask = Callable[[ssl.SSLContext, str], Awaitable[str]]


async def check_prosody(group: Group, url: str, ca_file: Path | None, *, now: Callable[[], float] = time.time) -> None:
    """Add the rows. `url` is that of one of the two, or of the site that has both."""
    url = url.replace("ws", "http", 1) if url.startswith("ws") else url
    one = [row for row, path in PATHS.items() if urlsplit(url).path.endswith(path)]
    wanted = {one[0]: url} if one else {row: url + path for row, path in PATHS.items()}
    if not await reach(group, url, ca_file, now=now):
        group.skip("the server cannot be reached", *wanted)
        return
    outcomes: dict[str, str | CannotTell] = {}
    for row, place in wanted.items():
        group.begin(row)
        try:
            outcomes[row] = await _ASKS[row](trust(ca_file), place)
        except CannotTell as error:
            outcomes[row] = error
    _add_rows(group, outcomes)


def _add_rows(group: Group, outcomes: Mapping[str, str | CannotTell]) -> None:
    one_answers = any(isinstance(outcome, str) for outcome in outcomes.values())
    for row, outcome in outcomes.items():
        if isinstance(outcome, str):
            group.ok(row, outcome)
        elif one_answers:
            group.warn(row, f"{outcome} As long as Jitsi's config.js names only the other one, that will do.")
        else:
            group.fail(row, str(outcome))


async def _ask_bosh(tls: ssl.SSLContext, url: str) -> str:
    """A request that opens no session, since it does not say with whom (XEP-0124, section 17)."""
    body = f'<body rid="{1 + secrets.randbelow(2**32)}" wait="1" hold="1" xmlns="{_BOSH_NAMESPACE}"/>'
    return _read_bosh(await ask(tls, url, headers={"Content-Type": "text/xml; charset=utf-8"}, content=body), url)


def _read_bosh(reply: Reply, url: str) -> str:
    if reply.status != 200:
        raise CannotTell(f"HTTP status {reply.status}: {_where(url)}.")
    if _BOSH_NAMESPACE.encode() not in reply.body:
        raise CannotTell(f"What answers is not BOSH: {_where(url)}.")
    return "Prosody answers"


async def _ask_websocket(tls: ssl.SSLContext, url: str) -> str:
    """The opening handshake (RFC 6455, section 4; RFC 7395, section 3.1)."""
    key = b64encode(secrets.token_bytes(16)).decode()
    parts = urlsplit(url)
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "xmpp",
        "Origin": f"{parts.scheme}://{parts.netloc}",
    }
    return _read_websocket(await ask(tls, url, headers=headers), url, key)


def _read_websocket(reply: Reply, url: str, key: str) -> str:
    if reply.status != 101:
        hint = (
            "; and see that the web server passes on Upgrade and Connection" if reply.status in {200, 400, 426} else ""
        )
        raise CannotTell(f"HTTP status {reply.status} instead of 101: {_where(url)}{hint}.")
    accept = b64encode(hashlib.sha1((key + _WEBSOCKET_GUID).encode(), usedforsecurity=False).digest()).decode()
    if reply.headers.get("sec-websocket-accept") != accept or reply.headers.get("sec-websocket-protocol") != "xmpp":
        raise CannotTell(f"What answers is a WebSocket, but not one for XMPP: {_where(url)}.")
    return "Prosody answers"


def _where(url: str) -> str:
    return f"see whether the web server leads {urlsplit(url).path} to Prosody, and whether Prosody runs"


_ASKS: dict[str, Ask] = {BOSH: _ask_bosh, WEBSOCKET: _ask_websocket}
