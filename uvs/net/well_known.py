"""`/.well-known/matrix/server`: to whom a host delegates (server-server API, "Resolving server names", step 3).

What goes wrong here is no error: the specification then goes on without it. What a document says is kept for as long as
its headers say, and that there is none for a while that doubles each time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import httpx
import msgspec

from uvs.cache import tell_nobody
from uvs.errors import CannotTell
from uvs.matrix.identifiers import InvalidIdentifier, ServerName
from uvs.net.answers import Answer
from uvs.net.cache import Cache
from uvs.net.calls import Call
from uvs.net.dates import read_date
from uvs.net.destination import Addresses, Destination, Step, Tell, get
from uvs.net.hosts import parse_host
from uvs.net.http import HttpClient

PATH = "/.well-known/matrix/server"
HTTPS_PORT = 443
LIMIT = 50 * 1024  # bytes, as Synapse
MAX_REDIRECTS = 3
FETCH_SECONDS = 4.0
"""For the whole of it, so that there is time left to go on without."""

DEFAULT_SECONDS = 24 * 3600.0
"""How long a document holds that does not say (the specification's recommendation, as is the next)."""
MAX_SECONDS = 48 * 3600.0
MIN_SECONDS = 300.0
"""And one that says less, except for one that says it must not be kept."""

FIRST_BACK_OFF = 60.0
MAX_BACK_OFF = 3600.0
"""Seconds until it is tried again where there was no good document: doubled each time, up to an hour."""

MAX_SILENCE = 300.0
"""Where there was no answer at all, it is tried again after this at the latest: what broke may be our own line or name
servers, and whoever's homeserver is found by a document would be kept out for up to an hour after it was mended."""

REFRESH_AT = 0.8
"""The part of its time after which a document is fetched anew: if that fails, the old one still holds."""

MAX_KEPT = 10_000
"""Hosts remembered."""

MAX_HOW = 200
"""Characters that are remembered of what went wrong."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SECONDS = re.compile(r'"?([0-9]{1,12})"?', re.ASCII)


class _Document(msgspec.Struct):
    server: str = msgspec.field(name="m.server")


class _Useless(Exception):
    """There was an answer, and it holds no delegation."""


@dataclass(frozen=True, slots=True)
class Delegation:
    """What is known of a host: to whom it delegates (`None`: to nobody)."""

    to: ServerName | None
    how: str
    """In one short line: it is kept."""
    holds_until: float = 0.0
    failures: int = 0


class WellKnown:
    """`client` goes out through a GuardedTransport. `clock` gives seconds and never goes back."""

    def __init__(  # noqa: PLR0913 - what a test has to choose is passed in
        self,
        client: HttpClient,
        addresses: Addresses,
        *,
        clock: Callable[[], float],
        tell: Callable[[bool], None] = tell_nobody,
        seconds: float = FETCH_SECONDS,
        port: int = HTTPS_PORT,
    ) -> None:
        """`tell` hears of each question whether it could be answered from memory. `seconds` bounds a fetch: if callers
        give up before, nothing is ever remembered of a web server that is silent. `port` is for tests, which may not
        listen on every port."""
        self._client = client
        self._addresses = addresses
        self._clock = clock
        self._seconds = seconds
        self._port = port
        self._cache: Cache[str, Delegation] = Cache(most=MAX_KEPT, clock=clock, tell=tell)

    async def delegate(self, host: str, tell: Tell) -> ServerName | None:
        """To whom `host` (a name) delegates. `tell` hears what came out, and, where nothing was remembered, how."""
        found = await self._cache.get(host, lambda previous: self._load(host, previous, tell))
        tell(Step(f"well-known of {host}", found.how, good=found.to is not None))
        return found.to

    async def _load(self, host: str, previous: Delegation | None, tell: Tell) -> tuple[Delegation, float]:
        try:
            async with asyncio.timeout(self._seconds):
                delegate, seconds = await self._fetch(host, tell)
        except (CannotTell, TimeoutError, _Useless) as error:
            problem = str(error) or f"no answer within {self._seconds:g} s"
            return self._without(previous, f"none: {problem[:MAX_HOW]}", no_answer=not isinstance(error, _Useless))
        delegation = Delegation(delegate, f"delegates to {delegate}, for {seconds:.0f} s", self._clock() + seconds)
        return delegation, seconds * REFRESH_AT

    def _without(self, previous: Delegation | None, how: str, *, no_answer: bool) -> tuple[Delegation, float]:
        """What to believe where no good document came, and until when."""
        failures = previous.failures if previous is not None else 0
        seconds = min(MAX_SILENCE if no_answer else MAX_BACK_OFF, FIRST_BACK_OFF * 2 ** min(failures, 10))
        if previous is not None and previous.to is not None and no_answer:
            left = previous.holds_until - self._clock()
            if left > 0:
                return replace(previous, failures=failures + 1), min(seconds, left)
        return Delegation(None, how, failures=failures + 1), seconds

    async def _fetch(self, host: str, tell: Tell) -> tuple[ServerName, float]:
        """The delegate, and for how long that holds. Raises CannotTell, _Useless."""
        url = httpx.URL(f"https://{host}{PATH}")
        seen = {url}
        while (answer := await self._get(url, tell)).status in _REDIRECTS:
            url = _target(url, answer.headers.get("location", ""))
            if url in seen:
                raise _Useless("it redirects in a circle")
            if len(seen) > MAX_REDIRECTS:
                raise _Useless(f"it redirects more than {MAX_REDIRECTS} times")
            seen.add(url)
        return _delegate(answer), lifetime(answer.headers)

    async def _get(self, url: httpx.URL, tell: Tell) -> Answer[_Document]:
        name = url.raw_host.decode("ascii")  # as it stands there: `host` would decode an internationalised name
        host = parse_host(f"[{name}]" if ":" in name else name)
        port = self._port if url.port is None else url.port
        if url.scheme != "https" or url.userinfo or host is None or not 0 < port < 65536:
            raise _Useless("it redirects to what is not https, or has a user name, or names no host and port")
        found = await self._addresses.of(host, tell)
        destination = Destination(tuple((address, port) for address in found), url.netloc.decode(), str(host))
        tell(Step("GET", str(url)))
        return await get(
            self._client,
            destination,
            url.raw_path.decode(),
            call=Call.WELL_KNOWN,
            what=f"Fetching {PATH}",
            limit=LIMIT,
            expect=_Document,
        )


def _target(url: httpx.URL, location: str) -> httpx.URL:
    try:
        target = url.join(location).copy_with(fragment=None)
        target.netloc.decode()  # the engine takes anything between brackets, and would stumble over it later
    except (httpx.InvalidURL, ValueError):
        raise _Useless("it redirects to what is no URL") from None
    return target


def _delegate(answer: Answer[_Document]) -> ServerName:
    if answer.status >= 500:
        raise CannotTell(f"HTTP status {answer.status}")
    if answer.status != 200:
        raise _Useless(f"HTTP status {answer.status}")
    if answer.body is None:
        raise _Useless('it is not JSON with a text "m.server"')
    try:
        return ServerName.parse(answer.body.server)
    except InvalidIdentifier as error:
        raise _Useless(f"m.server {error}") from None


def lifetime(headers: Mapping[str, str]) -> float:
    """For how many seconds an answer holds (RFC 9111), within reason. 0: it must not be kept."""
    directives: dict[str, str] = {}
    for directive in headers.get("cache-control", "").split(","):
        name, _, value = directive.partition("=")
        directives.setdefault(name.strip().lower(), value.strip())
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    if "max-age" in directives:
        seconds = _number(directives["max-age"])
    elif "expires" in headers:
        seconds = _between(headers.get("date", ""), headers["expires"])
    else:
        seconds = DEFAULT_SECONDS
    return max(MIN_SECONDS, min(MAX_SECONDS, seconds - _number(headers.get("age", ""))))


def _number(text: str) -> float:
    """Seconds; what is no number counts as 0."""
    match = _SECONDS.fullmatch(text.strip())
    return float(match[1]) if match else 0.0


def _between(start: str, end: str) -> float:
    """Seconds between two dates of the same clock, the server's: ours may be wrong. What is no date has passed."""
    try:
        return read_date(end) - read_date(start)
    except ValueError:
        return 0.0
