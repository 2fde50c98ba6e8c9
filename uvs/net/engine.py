"""What an engine is: something that sends one request and brings the whole answer, within bounds. There are two: the
direct one for the operator's own homeservers (`uvs.net.direct`), and httpx's for servers that strangers named
(`uvs.net.outbound`) and for tests. Why these: docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from uvs import __version__
from uvs.errors import Overloaded
from uvs.net.calls import Failed, Outcome

HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": f"uvs/{__version__}"}
"""Of every request: nothing is wanted compressed, since nothing is decompressed."""

CONNECT_SHARE = 1 / 3
"""The part of a call's time that connecting may take: who does not answer by then, nobody waits for."""

_SCRAPS = 1000
_LEAST_OF_A_PIECE = 16
"""So many pieces of an answer may be of any size; those of one that has more hold so many bytes on average. Each is
work of its own, and nobody else is served meanwhile."""

Take = Callable[[int], bool]
"""Takes so many bytes more, and says whether they were to be had."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request. `url` is absolute and percent-encoded; `extensions` are httpx's."""

    method: str
    url: str
    what: str
    """Names it in messages. Never the URL, which may carry a token."""
    headers: Mapping[str, str]
    body: bytes | None = None
    extensions: Mapping[str, Any] = {}


class Body:
    """The body of one answer: at most `limit` bytes, of which `take` gives each."""

    __slots__ = ("_limit", "_pieces", "_take", "_what", "raw")

    def __init__(self, what: str, limit: int, take: Take) -> None:
        self._what = what
        self._limit = limit
        self._take = take
        self._pieces = 0
        self.raw = bytearray()  # and no list: a thousand pieces of one byte are to take a thousand bytes

    def expect(self, encoding: str) -> None:
        """Raises Failed for an encoding that would have to be undone: a small answer could become a large one."""
        if encoding.strip().lower() not in {"", "identity"}:
            raise Failed(
                f"{self._what} failed: the answer is compressed, unasked for; turn that off in the proxy before it.",
                Outcome.UNREADABLE,
            )

    def add(self, piece: bytes) -> None:
        """Raises Failed where it goes beyond the bounds, Overloaded where no more is to be had."""
        self._pieces += 1
        if self._pieces > _SCRAPS and len(self.raw) < self._pieces * _LEAST_OF_A_PIECE:
            raise Failed(f"{self._what} failed: the answer comes in too many pieces.", Outcome.BROKEN)
        if len(self.raw) + len(piece) > self._limit:
            raise Failed(f"{self._what} failed: the answer is larger than {self._limit} bytes.", Outcome.TOO_LARGE)
        if not self._take(len(piece)):
            raise Overloaded(f"{self._what} failed: too many large answers at once; try again.")
        self.raw += piece


def _nothing() -> None:
    """For a connection that is closed anyway."""


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytearray
    distrust: Callable[[], None] = _nothing
    """To be called where the body is not what was asked for: it may be the answer to another question, so nothing more
    may be asked on its connection. Only before the next `await`."""


class Engine(Protocol):
    """Follows no redirect, keeps no cookie, asks no proxy of the environment."""

    async def exchange(self, request: Request, body: Body) -> Response:
        """Raises Failed where no whole answer comes, and what `body` raises."""

    async def open(self) -> None:
        """Before the first exchange."""

    async def close(self) -> None:
        """No exchange is under way any more."""


def broken(what: str, reason: str, outcome: Outcome = Outcome.BROKEN) -> Failed:
    """The exception for a call that failed on the way. `reason` quotes nothing of the request."""
    return Failed(f"{what} failed ({reason}): see whether the homeserver is up and its URL is right.", outcome)


def too_slow(what: str) -> Failed:
    """… where the answer did not come whole in time."""
    return Failed(f"{what} took too long: see whether the homeserver is overloaded.", Outcome.TIMEOUT)


def nobody_there(what: str) -> Failed:
    """… where no connection was made in time."""
    return Failed(f"{what} took too long: nobody answers at its address.", Outcome.UNREACHABLE)


def untrusted(what: str, problem: str) -> Failed:
    """… where the certificate is the reason; `problem` is what OpenSSL says of it."""
    return Failed(f"{what} failed: the certificate is not valid: {problem.rstrip('.')}.", Outcome.TLS)
