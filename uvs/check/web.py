"""One request to a web server that is no homeserver, as a browser would make it, within bounds."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from uvs.errors import CannotTell
from uvs.net.httpx_engine import open_httpx

ANSWER_SECONDS = 10.0
MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whatever it is. Of the body there is no more than MAX_BYTES."""

    status: int
    headers: httpx.Headers
    body: bytes


async def ask(tls: ssl.SSLContext, url: str, *, headers: Mapping[str, str], content: str | None = None) -> Reply:
    """GET `url`, or POST `content` there. Follows nothing. Raises CannotTell."""
    engine = open_httpx(httpx.AsyncHTTPTransport(verify=tls, trust_env=False), httpx.Timeout(ANSWER_SECONDS))
    method = "GET" if content is None else "POST"
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            engine,
            engine.stream(method, url, headers=headers, content=content) as response,
        ):
            return Reply(response.status_code, response.headers, await _read(response))
    except (httpx.TimeoutException, TimeoutError):
        raise CannotTell(f"No whole answer within {ANSWER_SECONDS:g} s: see what holds the web server up.") from None
    except (
        httpx.HTTPError,
        httpx.StreamError,
        httpx.InvalidURL,
        ValueError,
    ) as error:  # the last: a redirect to no URL
        kind = type(error).__name__
        raise CannotTell(f"The web server breaks off ({kind}): see its log, and whether this is HTTP.") from None


async def _read(response: httpx.Response) -> bytes:
    body = b""
    if response.status_code != 101:  # what follows then is no HTTP
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BYTES:
                break
    return body[:MAX_BYTES]
