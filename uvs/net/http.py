"""The one seam to the HTTP engine. `httpx.AsyncClient` is the interface of the code and of its tests; nothing but this
module knows how requests really travel.

Every call through here is bounded: in time by the caller's deadline (`asyncio.timeout` at the edge), in size by
`limit`, in number by the pool. No redirect is followed, so no credential crosses one, and nothing is decompressed, so
a small answer cannot become a large one.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from uvs import __version__
from uvs.errors import CannotTell, Overloaded

MAX_CONNECTIONS = 100
"""Connections to one homeserver at once: more than a Synapse main process can serve, fewer than it can hold open."""

KEEPALIVE_SECONDS = 30.0
"""Idle connections are closed before the usual 60 s of reverse proxies, which would cut one off under a request."""

# The engine logs whole URLs at INFO, and headers at DEBUG: tokens. No log level of ours may turn that on.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_BUSY_RETRY_AFTER = 5  # seconds, where the homeserver names none
_MAX_RETRY_AFTER = 60  # seconds: a lying upstream must not lock callers out for a year


@functools.cache
def _tls() -> ssl.SSLContext:
    """The system's certificates: reading them takes 25 ms, and tests open hundreds of clients."""
    return ssl.create_default_context()


def open_client(*, timeout: float, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client for one homeserver. `timeout` (seconds) bounds each call; the deadline of the whole is the caller's.

    The environment's proxies are ignored: an administrator's token goes to the homeserver and nowhere else.
    """
    return httpx.AsyncClient(
        transport=transport,
        verify=_tls(),
        limits=httpx.Limits(
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,
            keepalive_expiry=KEEPALIVE_SECONDS,
        ),
        # The engine leaves a connection open that is cancelled while TLS is agreed on, so that must fail by itself
        # before the deadline cancels it.
        timeout=httpx.Timeout(timeout, connect=timeout / 3),
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none: every call stands for itself
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": f"uvs/{__version__}"},
    )


def path(*segments: str) -> str:
    """Join `segments` to an absolute path, each percent-encoded on its own."""
    return "".join("/" + quote(segment, safe="") for segment in segments)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `body` is the decoded JSON object, empty where the body is anything else."""

    status: int
    body: Mapping[str, Any]
    what: str

    @property
    def errcode(self) -> str | None:
        """The Matrix error code of a refusal, where there is one."""
        errcode = self.body.get("errcode")
        return errcode if isinstance(errcode, str) and errcode else None

    def unexpected(self, mend: str = "look into the homeserver's log") -> CannotTell:
        """The exception for an answer nobody can rely on."""
        if self.status == 200:
            return CannotTell(f"{self.what} failed: the answer is not what a homeserver says; see what is at its URL.")
        # A proxy's own error page may be gone once the homeserver behind it has started.
        lasting = self.status < 500 and self.errcode is not None
        if self.status in range(300, 400):
            mend = "write the URL that this redirects to into the settings; a redirect is not followed with a token"
            lasting = True
        return CannotTell(f"{self.what} failed with HTTP status {self.status}: {mend}.", lasting=lasting)


async def get_json(  # noqa: PLR0913 - one call, its address, and its bounds
    client: httpx.AsyncClient,
    url: str,
    *,
    what: str,
    limit: int,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """GET `url` and read at most `limit` bytes of JSON. `what` names the call in messages: never the URL, which may
    carry a token.

    Raises CannotTell where no usable answer comes, Overloaded where the other side says it has too much to do.
    """
    try:
        # The engine's own timeouts are for each step; a drip of bytes would never meet one.
        async with asyncio.timeout(client.timeout.read):
            response = await _send(client, client.build_request("GET", url, params=params, headers=headers))
            try:
                raw = await _read(response, limit, what)
            finally:
                await response.aclose()
    except (httpx.TimeoutException, TimeoutError):
        raise CannotTell(f"{what} took too long: see whether the homeserver is overloaded.") from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        # Only the kind of the error: its text may quote the request.
        kind = type(error).__name__
        raise CannotTell(f"{what} failed ({kind}): see whether the homeserver is up and its URL is right.") from None
    if response.status_code in {429, 503}:
        raise Overloaded(f"{what} failed: the homeserver has too much to do.", retry_after=_retry_after(response))
    return Answer(response.status_code, _decode(raw), what)


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    try:
        return await client.send(request, stream=True)
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
        # An idle connection that the other side closed at this very moment. GET may be repeated; once is enough.
        return await client.send(request, stream=True)


async def _read(response: httpx.Response, limit: int, what: str) -> bytes:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise CannotTell(f"{what} failed: the answer is compressed, unasked for; turn that off in the proxy before it.")
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > limit:
            raise CannotTell(f"{what} failed: the answer is larger than {limit} bytes.")
        chunks.append(chunk)
    return b"".join(chunks)


def _decode(raw: bytes) -> Mapping[str, Any]:
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after(response: httpx.Response) -> int:
    value = response.headers.get("retry-after", "")
    seconds = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else _BUSY_RETRY_AFTER
    return max(1, min(_MAX_RETRY_AFTER, seconds))
