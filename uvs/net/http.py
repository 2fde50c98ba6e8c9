"""The one seam to the HTTP engine. `httpx` is the interface of the code and of its tests; nothing but `uvs.net` knows
how requests really travel.

Every call through here is bounded: in time by the client's timeout and the caller's deadline (`asyncio.timeout` at the
edge), in size by `limit` and by a budget that all calls of a client share, in number by the pool. No redirect is
followed, so no credential crosses one; nothing is decompressed, so a small answer cannot become a large one; and what
an answer does not have to hold is not built in memory (`expect`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from uvs import __version__
from uvs.errors import CannotTell, Overloaded
from uvs.net.engine import Transport
from uvs.net.errands import Errands
from uvs.net.leftovers import drop, drop_if_spoiled

MAX_CONNECTIONS = 100
"""Connections to one homeserver at once: more than a Synapse main process can serve, fewer than it can hold open."""

MAX_BUFFERED = 24 * 1024 * 1024
"""Bytes of answers of one homeserver held at once, unless it is given less: a thousand large ones must not fill the
memory."""

# The engine logs whole URLs at INFO, and headers at DEBUG: tokens. No log level of ours may turn that on.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_SCRAPS = 1000
_LEAST_OF_A_PIECE = 16
"""So many pieces of an answer may be of any size; those of one that has more hold so many bytes on average. Each is
work of its own, and nobody else is served meanwhile."""

_BUSY_RETRY_AFTER = 5  # seconds, where the homeserver names none
_MAX_RETRY_AFTER = 60  # seconds: a lying upstream must not lock callers out for a year

T = TypeVar("T")


class Call(StrEnum):
    """What is asked. The values are labels of metrics, so the set is closed."""

    ACCOUNT = "account"
    DNS = "dns"
    IS_JOINED = "is_joined"
    JOINED_ROOMS = "joined_rooms"
    MODULE = "module"
    OPENID_REQUEST = "openid_request"
    STATE = "state"
    USERINFO = "userinfo"
    VERSIONS = "versions"
    WELL_KNOWN = "well_known"
    WHOAMI = "whoami"


class Outcome(StrEnum):
    """How a call ended. The values are labels of metrics, so the set is closed."""

    OK = "ok"
    REFUSED = "refused"  # 4xx
    BUSY = "busy"  # 429, 503, or no memory left for the answer
    FAILED = "failed"  # 5xx
    REDIRECT = "redirect"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    BLOCKED = "blocked"  # by the egress guard
    BROKEN = "broken"  # cut off, reset, or no HTTP
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"  # 200, but not what was asked for


Observe = Callable[[Call, Outcome, float], None]
"""Told of every call: what, how it ended, seconds."""


def observe_nothing(_call: Call, _outcome: Outcome, _seconds: float) -> None:
    """For who measures nothing."""


class Failed(CannotTell):
    """The call brought no usable answer."""

    def __init__(self, message: str, outcome: Outcome, *, lasting: bool = False, detail: str | None = None) -> None:
        super().__init__(message, lasting=lasting, detail=detail)
        self.outcome = outcome


class ByteBudget:
    """How many bytes of answers may be held at once."""

    def __init__(self, most: int = MAX_BUFFERED) -> None:
        self._free = most

    @contextmanager
    def account(self) -> Iterator[Callable[[int], bool]]:
        """Gives a function that takes so many bytes more, and says whether they were to be had."""
        taken = 0

        def take(size: int) -> bool:
            nonlocal taken
            if size > self._free:
                return False
            self._free -= size
            taken += size
            return True

        try:
            yield take
        finally:
            self._free += taken


@functools.cache  # reading them takes 25 ms, and tests open hundreds of clients
def trust(ca_file: Path | None = None) -> ssl.SSLContext:
    """The system's certificates (OpenSSL honours SSL_CERT_FILE), and the operator's own. Raises OSError."""
    context = ssl.create_default_context()
    context.options |= ssl.OP_NO_RENEGOTIATION  # a server could ask for one handshake after the other
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


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
    engine = httpx.AsyncClient(
        transport=transport or Transport(tls=tls or trust(), most=most),
        # The engine leaves a connection open that is cancelled while TLS is agreed on, so that must fail by itself
        # before the deadline cancels it.
        timeout=httpx.Timeout(timeout, connect=timeout / 3),
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none: every call stands for itself
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": f"uvs/{__version__}"},
    )
    return HttpClient(engine, observe=observe, budget=budget or ByteBudget(), most=most, repeat=repeat)


def path(*segments: str) -> str:
    """Join `segments` to an absolute path, each percent-encoded on its own."""
    return "".join("/" + quote(segment, safe="") for segment in segments)


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A whole answer. `body` is there only where the status is 200 and the JSON is what was expected."""

    status: int
    body: T | None
    what: str
    errcode: str | None = None  # the Matrix error code of a refusal, where there is one
    headers: Mapping[str, str] = field(default_factory=httpx.Headers)

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
                outcome = _outcome(answer)
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
                raw = await _read(response, limit, what, take)
                drop_if_spoiled(response)
                answer = _answer(response, raw, what, expect)
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


async def _read(response: httpx.Response, limit: int, what: str, take: Callable[[int], bool]) -> bytearray:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise Failed(
            f"{what} failed: the answer is compressed, unasked for; turn that off in the proxy before it.",
            Outcome.UNREADABLE,
        )
    raw = bytearray()  # and no list: a thousand pieces of one byte are to take a thousand bytes
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - the engine is asynchronous
    pieces = 0
    async for chunk in response.stream:  # and not `aiter_raw`, which gives the connection back at the end
        pieces += 1
        if pieces > _SCRAPS and len(raw) < pieces * _LEAST_OF_A_PIECE:
            raise Failed(f"{what} failed: the answer comes in too many pieces.", Outcome.BROKEN)
        if len(raw) + len(chunk) > limit:
            raise Failed(f"{what} failed: the answer is larger than {limit} bytes.", Outcome.TOO_LARGE)
        if not take(len(chunk)):
            raise Overloaded(f"{what} failed: too many large answers at once; try again.")
        raw += chunk
    return raw


def _answer(response: httpx.Response, raw: bytearray, what: str, expect: type[T]) -> Answer[T]:
    if response.status_code in {429, 503}:
        raise Overloaded(f"{what} failed: the homeserver has too much to do.", retry_after=_retry_after(response))
    if response.status_code == 200:
        return Answer(200, _decode(raw, expect), what, headers=response.headers)
    refusal = _decode(raw, _Refusal)
    errcode = refusal.errcode if refusal is not None and refusal.errcode else None
    return Answer(response.status_code, None, what, errcode, response.headers)


class _Refusal(msgspec.Struct):
    errcode: str


def _decode(raw: bytearray, expect: type[T]) -> T | None:
    try:
        return msgspec.json.decode(raw, type=expect)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _outcome(answer: Answer[Any]) -> Outcome:
    if answer.status == 200:
        return Outcome.UNREADABLE if answer.body is None else Outcome.OK
    if answer.status >= 500:
        return Outcome.FAILED
    if answer.status >= 400:
        return Outcome.REFUSED
    return Outcome.REDIRECT if answer.status >= 300 else Outcome.UNREADABLE


def _retry_after(response: httpx.Response) -> int:
    value = response.headers.get("retry-after", "")
    seconds = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else _BUSY_RETRY_AFTER
    return max(1, min(_MAX_RETRY_AFTER, seconds))
