"""The one seam to the HTTP engine. `httpx` is the interface of the code and of its tests; nothing but `uvs.net` knows
how requests really travel.

Every call through here is bounded: in time by the client's timeout and the caller's deadline (`asyncio.timeout` at the
edge), in size by `limit` and by a budget that all calls of a client share (`uvs.net.answers`), in number by the pool.
No redirect is followed, so no credential crosses one.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from uvs.errors import Overloaded
from uvs.net.answers import Answer, ByteBudget, read_answer, read_body
from uvs.net.calls import Call, Failed, Observe, Outcome, observe_nothing
from uvs.net.engine import Transport, open_engine
from uvs.net.errands import Errands
from uvs.net.leftovers import drop, drop_if_spoiled
from uvs.net.tls import trust

MAX_CONNECTIONS = 100
"""Connections to one homeserver at once: more than a Synapse main process can serve, fewer than it can hold open."""

T = TypeVar("T")


def open_client(  # noqa: PLR0913 - what one homeserver is asked with
    *,
    timeout: float,
    tls: ssl.SSLContext | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    observe: Observe = observe_nothing,
    budget: ByteBudget | None = None,
    most: int = MAX_CONNECTIONS,
    repeat: bool = True,
) -> HttpClient:
    """A client for one homeserver. `timeout` (seconds) bounds each call; the deadline of the whole is the caller's.
    `most` calls are under way at once; further ones wait. `repeat`: a call is made again where an idle connection was
    closed under it; with a `transport` that keeps none, a call that was cut off must have reached the other side.

    The environment's proxies are ignored: an administrator's token goes to the homeserver and nowhere else.
    """
    engine = open_engine(
        transport or Transport(tls=tls or trust(), most=most),
        # The engine leaves a connection open that is cancelled while TLS is agreed on, so that must fail by itself
        # before the deadline cancels it.
        httpx.Timeout(timeout, connect=timeout / 3),
    )
    return HttpClient(engine, observe=observe, budget=budget or ByteBudget(), most=most, repeat=repeat)


def path(*segments: str) -> str:
    """Join `segments` to an absolute path, each percent-encoded on its own."""
    return "".join("/" + quote(segment, safe="") for segment in segments)


class HttpClient:
    """Asks for JSON within bounds. `what` names the call in messages: never the URL, which may carry a token."""

    def __init__(
        self, engine: httpx.AsyncClient, *, observe: Observe, budget: ByteBudget, most: int, repeat: bool
    ) -> None:
        self._engine = engine
        self._observe = observe
        self._budget = budget
        # The engine, too, has a queue for connections; its work for each request there grows with all the others.
        self._places = asyncio.Semaphore(most)
        self._repeat = repeat
        self._errands = Errands()

    async def __aenter__(self) -> Self:
        await self._engine.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._errands.close()
        await self._engine.__aexit__(kind, error, trace)

    async def get(  # noqa: PLR0913 - one call, its address, and its bounds
        self,
        url: str,
        *,
        call: Call,
        what: str,
        limit: int,
        expect: type[T],
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> Answer[T]:
        """GET `url` and read at most `limit` bytes of JSON into `expect`.

        Raises CannotTell where no usable answer comes, Overloaded where the other side says it has too much to do.
        """
        try:
            request = self._engine.build_request(
                "GET", url, params=params, headers=headers, extensions=dict(extensions or {})
            )
        except httpx.InvalidURL:
            raise Failed(f"{what} failed: there is no such URL.", Outcome.BROKEN) from None
        return await self._ask(request, call=call, what=what, limit=limit, expect=expect)

    async def post(  # noqa: PLR0913 - one call, its address, and its bounds
        self,
        url: str,
        *,
        body: object,
        call: Call,
        what: str,
        limit: int,
        expect: type[T],
        headers: Mapping[str, str] | None = None,
    ) -> Answer[T]:
        """POST `body` as JSON, for questions that may be asked twice; otherwise like `get`."""
        request = self._engine.build_request(
            "POST",
            url,
            content=msgspec.json.encode(body),
            headers={"Content-Type": "application/json"} | dict(headers or {}),
        )
        return await self._ask(request, call=call, what=what, limit=limit, expect=expect)

    async def _ask(self, request: httpx.Request, *, call: Call, what: str, limit: int, expect: type[T]) -> Answer[T]:
        async with self._places:
            started = time.perf_counter()  # the homeserver's time: our own queue is none of its
            outcome = Outcome.TIMEOUT  # whoever is cancelled has waited too long
            try:
                answer = await self._exchange(request, what, limit, expect)
                outcome = answer.outcome
            except Failed as error:
                outcome = error.outcome
                raise
            except Overloaded:
                outcome = Outcome.BUSY
                raise
            finally:
                self._observe(call, outcome, time.perf_counter() - started)
            return answer

    async def _exchange(self, request: httpx.Request, what: str, limit: int, expect: type[T]) -> Answer[T]:
        try:
            # The engine's own timeouts are for each step; a drip of bytes would never meet one.
            return await self._errands.run(
                self._converse(request, what, limit, expect), seconds=self._engine.timeout.read or 0
            )
        except httpx.ConnectTimeout:
            raise Failed(f"{what} took too long: nobody answers at its address.", Outcome.UNREACHABLE) from None
        except (httpx.TimeoutException, TimeoutError):
            raise Failed(f"{what} took too long: see whether the homeserver is overloaded.", Outcome.TIMEOUT) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise _failed(what, error) from None

    async def _converse(self, request: httpx.Request, what: str, limit: int, expect: type[T]) -> Answer[T]:
        response = await self._send(request)
        try:
            with self._budget.account() as take:
                raw = await read_body(response, limit, what, take)
                drop_if_spoiled(response)
                answer = read_answer(response, raw, what, expect)
            if answer.status == 200 and answer.body is None:
                drop(response)  # it may be the answer to another question
            return answer
        finally:
            await self._errands.finish(response.aclose())

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._send_once(request)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if not self._repeat:
                raise
            # An idle connection that the other side closed at this very moment. All that is asked through here may be
            # asked twice; once more is enough.
            return await self._send_once(request)

    async def _send_once(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._engine.send(request, stream=True)
        except ValueError:
            # The engine takes apart where an answer redirects to, although it is not to follow, and raises what its
            # parsers of names and addresses raise.
            raise httpx.RemoteProtocolError("a redirect to no URL") from None
        except AttributeError:
            # On uvloop, a connection that is reset as soon as it is open has no socket any more, which the engine sets
            # options of.
            raise httpx.ConnectError("reset at once") from None


def _failed(what: str, error: Exception) -> Failed:
    problem = _certificate_problem(error)
    if problem is not None:
        return Failed(f"{what} failed: the certificate is not valid: {problem}.", Outcome.TLS)
    outcome = Outcome.UNREACHABLE if isinstance(error, httpx.ConnectError) else Outcome.BROKEN
    # Only the kind of the error: its text may quote the request.
    kind = type(error).__name__
    return Failed(f"{what} failed ({kind}): see whether the homeserver is up and its URL is right.", outcome)


def _certificate_problem(error: BaseException | None) -> str | None:
    """What OpenSSL says about the certificate, where that is the reason."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message.rstrip(".")
        error = error.__cause__ or error.__context__
    return None
