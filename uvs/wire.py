"""What every HTTP API of the service does with a request before it decides anything: the limits, the deadline, the
body, the caller's own credential."""

from __future__ import annotations

import asyncio
import hmac
import zlib
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from python_multipart.multipart import parse_options_header
from starlette.requests import Request
from starlette.responses import Response

from uvs.errors import DeadlineExceeded, InvalidRequest
from uvs.limits import ConcurrencyLimit, RateLimit, caller

MAX_BODY = 102_400
"""Bytes of a request body, also after decompression. COMPAT: the limit of the service that clients were written for."""

MAX_STRANGERS = 100
"""Requests at once without the caller's credential. They get 403 once their body is read, which may take them the whole
deadline, and must not take the places of those who have it."""

_CODECS = {  # COMPAT: what that service decodes; None needs no work
    "utf-8": None,
    "utf8": None,
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "utf-32": "utf-32",
}
_UTF8_MARK = b"\xef\xbb\xbf"

Endpoint = Callable[[Request], Awaitable[Response]]


def log_facts(request: Request) -> dict[str, Any]:
    """What the log line of this request will say besides method, path, status and duration. Never put a secret here."""
    facts: dict[str, Any] = request.scope.setdefault("state", {}).setdefault("log_facts", {})
    return facts


def json_response(content: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Render `content` as JSON."""
    return Response(msgspec.json.encode(content), status, headers=headers, media_type="application/json; charset=utf-8")


class Callers:
    """Who may ask, and how often: whoever shows the credential as often as they like (one Prosody speaks for thousands
    of people), everybody else only so often from one address. Without a credential everybody may ask, as a stranger."""

    def __init__(self, *, auth_token: str | None, rate: RateLimit) -> None:
        self._authorization = None if auth_token is None else f"Bearer {auth_token}".encode()
        self._rate = rate

    @property
    def welcome(self) -> bool:
        """Whether strangers may ask."""
        return self._authorization is None

    def knows(self, request: Request) -> bool:
        """Whether this caller shows the credential."""
        if self._authorization is None:
            return False
        given = [value for name, value in request.scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._authorization)

    async def count(self, request: Request) -> None:
        """A stranger asks. Raises LimitExceeded where they have asked too often."""
        await self._rate.ask(caller(request.client.host if request.client else ""))

    async def admit(self, request: Request) -> bool:
        """Whether this caller may ask. Raises LimitExceeded."""
        if self.knows(request):
            return True
        await self.count(request)
        return self.welcome


def forbidden(request: Request) -> Response:
    """The answer to whoever may not ask. COMPAT: its body is the existing service's."""
    log_facts(request).update(outcome="rejected", reason="wrong-auth-token")
    return json_response({}, status=403)


def guarded(callers: Callers, answer: Endpoint) -> Endpoint:
    """`answer`, for callers that may ask: what needs no `Gate`, since it reads no body and asks for little."""

    async def guard(request: Request) -> Response:
        return await answer(request) if await callers.admit(request) else forbidden(request)

    return guard


class Gate:
    """The way in to an API: at most so many requests at once, one deadline for each, the body read once, the caller
    looked at."""

    def __init__(self, *, callers: Callers, timeout: float, concurrency: ConcurrencyLimit) -> None:
        """`timeout` in seconds."""
        self._callers = callers
        self._timeout = timeout
        self._concurrency = concurrency
        self._strangers = ConcurrencyLimit(MAX_STRANGERS, mend="send the right credential")

    async def admit(
        self, request: Request, answer: Callable[[Request, Mapping[str, Any]], Awaitable[Response]]
    ) -> Response:
        """Let `answer` see the request and its JSON object. Raises InvalidRequest and CannotTell.

        The order is the API's: body, credential, and only then fields.
        """
        known = self._callers.knows(request)
        admitted = known or self._callers.welcome
        with (self._concurrency if admitted else self._strangers).place():
            reading = True
            try:
                async with asyncio.timeout(self._timeout):
                    if not known:
                        await self._callers.count(request)
                    body = await read_json(request)
                    reading = False
                    return await answer(request, body) if admitted else forbidden(request)
            except TimeoutError:
                if reading:
                    raise InvalidRequest("Invalid request: the body did not arrive in time.", status=408) from None
                raise DeadlineExceeded(
                    f"No answer within {self._timeout:g} s; see whether the homeserver is overloaded."
                ) from None


async def read_json(request: Request) -> Mapping[str, Any]:
    """The request's JSON object. Empty where the body is absent, a list, or of another media type: the missing fields
    are then named. Raises InvalidRequest, which quotes nothing of the body."""
    head = dict(reversed(request.scope["headers"]))  # of several of one name, the first counts
    media_type, charset = _content_type(head.get(b"content-type", b""))
    if media_type != b"application/json":
        return {}
    if charset not in _CODECS:
        raise InvalidRequest("Invalid request: unsupported charset, use utf-8.", status=415)
    encoding = head.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
    raw = _inflate(await _read(request, head.get(b"content-length", b"0")), encoding)
    if not raw:
        return {}
    try:
        codec = _CODECS[charset]
        if codec is not None:
            raw = raw.decode(codec).encode()
        body = msgspec.json.decode(raw.removeprefix(_UTF8_MARK))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        body = None
    if not isinstance(body, dict | list):
        raise InvalidRequest("Invalid request: the body is not a JSON object.")
    return body if isinstance(body, dict) else {}


@lru_cache(maxsize=16)
def _content_type(header: bytes) -> tuple[bytes, str]:
    """Media type and charset. Callers have one each, and never another."""
    media_type, options = parse_options_header(header)
    return media_type, options.get(b"charset", b"utf-8").decode("latin-1").lower()


async def _read(request: Request, declared: bytes) -> bytes:
    if declared.isdigit() and int(declared[:12]) > MAX_BODY:
        raise _too_large()
    pieces: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()  # `request.stream` does the same in several times the time
        if message["type"] == "http.disconnect":
            raise InvalidRequest("Invalid request: the connection ended within the body.")
        piece = message.get("body", b"")
        size += len(piece)
        if size > MAX_BODY:
            raise _too_large()
        pieces.append(piece)
        more = message.get("more_body", False)
    return b"".join(pieces)


def _inflate(raw: bytes, encoding: str) -> bytes:
    if encoding in {"", "identity"}:
        return raw
    if encoding not in {"gzip", "deflate"}:
        raise InvalidRequest("Invalid request: unsupported content encoding, send the body as it is.", status=415)
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib, whichever it is
    try:
        body = inflater.decompress(raw, MAX_BODY + 1)
    except zlib.error:
        raise InvalidRequest("Invalid request: the body is not compressed as its header says.") from None
    if len(body) > MAX_BODY:
        raise _too_large()
    if raw and not inflater.eof:
        raise InvalidRequest("Invalid request: the compressed body is cut off.")
    return body


def _too_large() -> InvalidRequest:
    return InvalidRequest(f"Invalid request: the body is larger than {MAX_BODY} bytes.", status=413)
