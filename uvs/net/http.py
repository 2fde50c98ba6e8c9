"""The one seam to the network's HTTP. Nothing but `uvs.net` knows how requests really travel: to the operator's own
homeservers over the direct engine, to servers that strangers named over httpx and the egress guard.

Every call through here is bounded: in time by the client's timeout and the caller's deadline (`asyncio.timeout` at the
edge), in size by `limit` and by a budget that all calls of a client share (`uvs.net.answers`), in number by `most`.
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
from uvs.net.answers import Answer, ByteBudget, read_answer
from uvs.net.calls import Call, Failed, Observe, Outcome, observe_nothing
from uvs.net.direct import DirectEngine
from uvs.net.engine import Body, Engine, Request
from uvs.net.httpx_engine import HttpxEngine
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
) -> HttpClient:
    """A client for the operator's own homeservers, or for what `transport` leads to. `timeout` (seconds) bounds each
    call; the deadline of the whole is the caller's. `most` calls are under way at once; further ones wait.

    The environment's proxies are ignored: an administrator's token goes to the homeserver and nowhere else.
    """
    engine: Engine
    if transport is None:
        engine = DirectEngine(tls=tls or trust(), timeout=timeout, most=most)
    else:
        engine = HttpxEngine(transport, timeout=timeout)
    return HttpClient(engine, observe=observe, budget=budget or ByteBudget(), most=most)


def path(*segments: str) -> str:
    """Join `segments` to an absolute path, each percent-encoded on its own."""
    return "".join(["/" + _quote(segment) for segment in segments])


_ESCAPES = {code: quote(chr(code), safe="") for code in range(128)}


def _quote(text: str) -> str:
    """As urllib.parse.quote with nothing safe, five times as fast: each verification has several identifiers."""
    return text.translate(_ESCAPES) if text.isascii() else quote(text, safe="")


class HttpClient:
    """Asks for JSON within bounds. `what` names the call in messages: never the URL, which may carry a token."""

    def __init__(self, engine: Engine, *, observe: Observe, budget: ByteBudget, most: int) -> None:
        self._engine = engine
        self._observe = observe
        self._budget = budget
        self._places = asyncio.Semaphore(most)

    async def __aenter__(self) -> Self:
        await self._engine.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._engine.close()

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
        if params:
            url += "?" + "&".join([f"{_quote(name)}={_quote(value)}" for name, value in params.items()])
        return await self._ask(Request("GET", url, what, headers or {}, None, extensions or {}), call, limit, expect)

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
        headers = {"Content-Type": "application/json", **(headers or {})}
        return await self._ask(Request("POST", url, what, headers, msgspec.json.encode(body)), call, limit, expect)

    async def _ask(self, request: Request, call: Call, limit: int, expect: type[T]) -> Answer[T]:
        async with self._places:
            started = time.perf_counter()  # the homeserver's time: our own queue is none of its
            outcome = Outcome.TIMEOUT  # whoever is cancelled has waited too long
            try:
                with self._budget.account() as take:
                    response = await self._engine.exchange(request, Body(request.what, limit, take))
                    answer = read_answer(response, request.what, expect)
                outcome = answer.outcome
                if outcome is Outcome.UNREADABLE:
                    response.distrust()
            except Failed as error:
                outcome = error.outcome
                raise
            except Overloaded:
                outcome = Outcome.BUSY
                raise
            finally:
                self._observe(call, outcome, time.perf_counter() - started)
            return answer
