"""The engine for servers that strangers named, and for tests: httpx, over the transport it is given."""

from __future__ import annotations

import logging
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from uvs.net.calls import Failed, Outcome
from uvs.net.engine import CONNECT_SHARE, HEADERS, Body, Request, Response, broken, nobody_there, too_slow, untrusted
from uvs.net.errands import Errands

# It logs whole URLs at INFO, and headers at DEBUG: tokens. No log level of ours may turn that on.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


def open_httpx(transport: httpx.AsyncBaseTransport, timeout: httpx.Timeout) -> httpx.AsyncClient:
    """A client that goes where it is told and nowhere else: it follows nothing, asks no proxy of the environment, keeps
    no cookie, and wants nothing compressed."""
    return httpx.AsyncClient(
        transport=transport,
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers=HEADERS,
    )


class HttpxEngine:
    """Implements `uvs.net.engine.Engine`."""

    def __init__(self, transport: httpx.AsyncBaseTransport, *, timeout: float) -> None:
        """`timeout`: seconds for each call."""
        self._timeout = timeout
        self._errands = Errands()
        # httpx leaves a connection open that is cancelled while TLS is agreed on, so that must fail by itself before
        # the deadline cancels it.
        self._client = open_httpx(transport, httpx.Timeout(timeout, connect=timeout * CONNECT_SHARE))

    async def open(self) -> None:
        await self._client.__aenter__()

    async def close(self) -> None:
        await self._errands.close()
        await self._client.__aexit__(None, None, None)

    async def exchange(self, request: Request, body: Body) -> Response:
        try:
            # httpx's own timeouts are for each step; a drip of bytes would never meet one.
            return await self._errands.run(self._converse(request, body), seconds=self._timeout)
        except httpx.ConnectTimeout:
            raise nobody_there(request.what) from None
        except (httpx.TimeoutException, TimeoutError):
            raise too_slow(request.what) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise _failed(request.what, error) from None

    async def _converse(self, request: Request, body: Body) -> Response:
        response = await self._send(
            self._client.build_request(
                request.method,
                request.url,
                content=request.body,
                headers=request.headers,
                extensions=dict(request.extensions),
            )
        )
        try:
            body.expect(response.headers.get("content-encoding", ""))
            assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - it is an AsyncClient
            async for piece in response.stream:  # and not `aiter_raw`, which closes the connection at the end
                body.add(piece)
            return Response(response.status_code, response.headers, body.raw)
        finally:
            await self._errands.finish(response.aclose())

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._client.send(request, stream=True)
        except ValueError:
            # httpx takes apart where an answer redirects to, although it is not to follow, and raises what its parsers
            # of names and addresses raise.
            raise httpx.RemoteProtocolError("a redirect to no URL") from None
        except AttributeError:
            # On uvloop, a connection that is reset as soon as it is open has no socket any more, which httpcore sets
            # options of.
            raise httpx.ConnectError("reset at once") from None


def _failed(what: str, error: Exception) -> Failed:
    problem = _certificate_problem(error)
    if problem is not None:
        return untrusted(what, problem)
    # Only the kind of the error: its text may quote the request.
    outcome = Outcome.UNREACHABLE if isinstance(error, httpx.ConnectError) else Outcome.BROKEN
    return broken(what, type(error).__name__, outcome)


def _certificate_problem(error: BaseException | None) -> str | None:
    """What OpenSSL says about the certificate, where that is the reason."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None
