"""What can go wrong with an answer, by name; and what has to come of it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.faults.asking import NO, YES
from tests.parts.faulty_homeserver import OWN_MEMBERSHIP, USERINFO, WELL_KNOWN, Exchange, Fault, head, token_of, whole

UPSTREAM_FAILED: Final = 502
BUSY: Final = 503
TOO_LATE: Final = 504

HUGE = 300 * 1024 * 1024
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Case:
    """A fault, what has to come of it (a status, NO or YES), and how long to wait before asking again, if that is
    said."""

    fault: Fault
    status: int = UPSTREAM_FAILED
    retry_after: int | None = None
    too_late_as_well: bool = False
    """Where it takes the service so long to see it that the deadline may come first."""

    @property
    def statuses(self) -> set[int]:
        return {self.status, TOO_LATE} if self.too_late_as_well else {self.status}


def sending(raw: bytes) -> Fault:
    """These bytes, and the end."""

    async def fault(exchange: Exchange) -> None:
        await exchange.send(raw)

    return fault


def answering(body: bytes | str | object, status: int = 200, **headers: object) -> Fault:
    return sending(whole(body, status, **headers))


def within(raw: bytes, then: Fault) -> Fault:
    """`then` happens once `raw` is out."""

    async def fault(exchange: Exchange) -> None:
        await exchange.send(raw)
        await asyncio.sleep(0.02)  # so that it does not overtake what is on its way
        await then(exchange)

    return fault


def pouring(raw: bytes, piece: bytes, most: int = HUGE) -> Fault:
    """`raw`, then `piece` again and again."""

    async def fault(exchange: Exchange) -> None:
        await exchange.send(raw)
        for _ in range(most // len(piece)):
            await exchange.send(piece)

    return fault


def dripping(raw: bytes, seconds: float) -> Fault:
    """A byte, then another: each in time."""

    async def fault(exchange: Exchange) -> None:
        for byte in raw:
            await exchange.send(bytes([byte]))
            await asyncio.sleep(seconds)

    return fault


async def hang(exchange: Exchange) -> None:
    await exchange.wait_for_the_end()


async def reset(exchange: Exchange) -> None:
    exchange.reset()


async def close(_: Exchange) -> None:
    """An end in peace."""


async def redirect_for_ever(exchange: Exchange) -> None:
    await exchange.send(whole({}, 302, Location=f"/{exchange.call}?access_token={token_of(exchange.person)}"))


async def without_length(exchange: Exchange) -> None:
    await exchange.send(head() + b" " * _PIECE)
    for _ in range(HUGE // _PIECE):
        await exchange.send(b" " * _PIECE)


CUT = head(Content_Length=1000) + b'{"sub":"'
CHUNKED = head(Transfer_Encoding="chunked")
SPACES = b"10000\r\n" + b" " * _PIECE + b"\r\n"

CONNECTION: Mapping[str, Case] = {
    "reset-at-once": Case(reset),
    "reset-in-head": Case(within(b"HTTP/1.1 200 OK\r\nContent-Ty", reset)),
    "reset-in-body": Case(within(CUT, reset)),
    "reset-in-chunk": Case(within(CHUNKED + b"1000\r\n{", reset)),
    "closed-at-once": Case(close),
    "closed-in-head": Case(sending(b"HTTP/1.1 200 OK\r\nContent-Ty")),
    "closed-in-body": Case(sending(CUT)),
    "closed-in-chunk": Case(sending(CHUNKED + b"1000\r\n{")),
    "closed-before-last-chunk": Case(sending(CHUNKED + b"2\r\n{}\r\n")),
    "hanging": Case(hang, TOO_LATE),
    "hanging-in-status-line": Case(within(b"HTTP/1.1 2", hang), TOO_LATE),
    "hanging-in-head": Case(within(b"HTTP/1.1 200 OK\r\nContent-Ty", hang), TOO_LATE),
    "hanging-in-body": Case(within(CUT, hang), TOO_LATE),
    "hanging-in-chunk": Case(within(CHUNKED + b"1000\r\n{", hang), TOO_LATE),
    "hanging-before-last-chunk": Case(within(CHUNKED + b"2\r\n{}\r\n", hang), TOO_LATE),
    "hanging-in-trailer": Case(within(CHUNKED + b"2\r\n{}\r\n0\r\na: ", hang), TOO_LATE),
    "dripping-head": Case(dripping(head() * 3, 0.05), TOO_LATE),
    "dripping-body": Case(within(head(Content_Length=1000), dripping(b" " * 1000, 0.05)), TOO_LATE),
    "dripping-chunks": Case(within(CHUNKED, dripping(b"1\r\n \r\n" * 200, 0.05)), TOO_LATE),
    "a-byte-a-second": Case(within(head(Content_Length=100), dripping(b" " * 100, 1)), TOO_LATE),
    "100-continue-for-ever": Case(pouring(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100)),
    "103-early-hints-then-nothing": Case(within(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", hang), TOO_LATE),
}

SIZE: Mapping[str, Case] = {
    "300-mb": Case(pouring(head(Content_Length=HUGE), b" " * _PIECE)),
    "300-mb-without-length": Case(without_length),
    "300-mb-chunked": Case(pouring(CHUNKED, SPACES)),
    "300-mb-in-small-chunks": Case(pouring(CHUNKED, b"1\r\n \r\n" * 10_000), too_late_as_well=True),
    "300-mb-chunk-extension": Case(pouring(CHUNKED + b"1;", b"x" * _PIECE)),
    "300-mb-trailer": Case(pouring(CHUNKED + b"0\r\n", b"x: y\r\n" * 10_000)),
    "300-mb-of-gzip": Case(pouring(head(Content_Encoding="gzip", Content_Length=HUGE), b"\x1f\x8b\x08" * 20_000)),
    "gzip-of-300-mb": Case(answering(gzip.compress(b" " * HUGE, 1), Content_Encoding="gzip")),
    "gzip-as-transfer-encoding": Case(pouring(head(Transfer_Encoding="gzip, chunked"), SPACES)),
    "300-mb-of-an-error": Case(pouring(head(500, Content_Length=HUGE), b" " * _PIECE)),
    "300-mb-of-a-refusal": Case(pouring(head(404, Content_Length=HUGE), b" " * _PIECE)),
    "10000-headers": Case(sending(head(**{f"X_{n}": n for n in range(10_000)}) + b"{}")),
    "10000-short-headers": Case(sending(b"HTTP/1.1 200 -\r\n" + b"a:b\r\n" * 10_000 + b"\r\n{}")),
    "300-mb-of-headers": Case(pouring(b"HTTP/1.1 200 -\r\n", b"x-a: b\r\n" * 10_000)),
    "300-mb-header": Case(pouring(b"HTTP/1.1 200 -\r\nx: ", b"x" * _PIECE)),
    "300-mb-status-line": Case(pouring(b"HTTP/1.1 200 ", b"x" * _PIECE)),
    "a-long-redirect": Case(answering({}, 302, Location="/" + "x" * 50_000)),
}

NO_HTTP: Mapping[str, Case] = {
    name: Case(sending(raw))
    for name, raw in {
        "garbage": bytes(range(256)) * 8,
        "zeros": b"\0" * 1000,
        "tls-alert": b"\x15\x03\x01\x00\x02\x02\x28",
        "http-2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" * 3,
        "http-0-9": b"<html>hello</html>",
        "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
        "http-9": b"HTTP/9.9 200 -\r\nContent-Length: 2\r\n\r\n{}",
        "status-99": b"HTTP/1.1 99 -\r\nContent-Length: 2\r\n\r\n{}",
        "status-1000": b"HTTP/1.1 1000 -\r\nContent-Length: 2\r\n\r\n{}",
        "status-text": b"HTTP/1.1 yes -\r\nContent-Length: 2\r\n\r\n{}",
        "status-600": b"HTTP/1.1 600 -\r\nContent-Length: 2\r\n\r\n{}",
        "negative-length": b"HTTP/1.1 200 -\r\nContent-Length: -1\r\n\r\n{}",
        "length-of-letters": b"HTTP/1.1 200 -\r\nContent-Length: x\r\n\r\n{}",
        "length-of-a-googol": b"HTTP/1.1 200 -\r\nContent-Length: 1" + b"0" * 100 + b"\r\n\r\n{}",
        "two-lengths": b"HTTP/1.1 200 -\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "chunk-of-letters": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
        "negative-chunk": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
        "chunk-that-lies": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
        "no-colon": b"HTTP/1.1 200 -\r\nhello\r\n\r\n{}",
        "nul-in-header": b"HTTP/1.1 200 -\r\na: b\0c\r\n\r\n{}",
        "header-not-latin": b"HTTP/1.1 200 -\r\n\xff\xfe: \xff\r\n\r\n{}",
        "switching-protocols": b"HTTP/1.1 101 -\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n{}",
        "switching-to-websocket-then-data": b"HTTP/1.1 101 -\r\nUpgrade: websocket\r\n\r\n" + b"\x81\x05hello" * 100,
        "no-content": b"HTTP/1.1 204 -\r\n\r\n",
        "not-modified": b"HTTP/1.1 304 -\r\n\r\n",
        "a-request": b"GET / HTTP/1.1\r\nHost: uvs\r\n\r\n",
    }.items()
}

BODY: Mapping[str, Case] = {
    name: Case(answering(raw))
    for name, raw in {
        "empty": b"",
        "html": "<!doctype html><html><body>It works!</body></html>",
        "invalid-utf-8": b'{"sub":"\xff"}',
        "utf-16": '{"sub":"@a:b"}'.encode("utf-16"),
        "not-a-number": b'{"sub":NaN}',
        "cut-off": b'{"sub":"@member',
        "two-objects": b'{"a":1}{"a":1}',
        "deep-lists": b"[" * 30_000,
        "deep-objects": b'{"a":' * 10_000,
        "deep-and-closed": b"[" * 30_000 + b"]" * 30_000,
        "a-long-number": b"1" * 60_000,
        "a-long-text": b'"' + b"x" * 60_000 + b'"',
        "null": b"null",
        "empty-list": b"[]",
        "empty-object": b"{}",
        "a-refusal-with-200": json.dumps({"errcode": "M_UNKNOWN_TOKEN", "error": "no"}).encode(),
    }.items()
}

STATUS: Mapping[str, Case] = {
    "redirect": Case(answering({}, 302, Location="http://elsewhere.invalid/")),
    "redirect-for-ever": Case(redirect_for_ever),
    "redirect-to-nowhere": Case(answering({}, 301)),
    "redirect-to-a-file": Case(answering({}, 307, Location="file:///etc/passwd")),
    "login-page": Case(answering("<html>log in</html>", 401, WWW_Authenticate="Basic")),
    "forbidden": Case(answering({"errcode": "M_FORBIDDEN"}, 403)),
    "not-found": Case(answering("<html>not found</html>", 404)),
    "gone": Case(answering({"errcode": "M_GONE"}, 410)),
    "teapot": Case(answering("short and stout", 418)),
    "server-error": Case(answering({"errcode": "M_UNKNOWN"}, 500)),
    "bad-gateway": Case(answering("<html>bad gateway</html>", 502)),
    "gateway-timeout": Case(answering("<html>gateway timeout</html>", 504)),
    "limited": Case(answering({"errcode": "M_LIMIT_EXCEEDED"}, 429, Retry_After=7), BUSY, 7),
    "limited-until": Case(answering({}, 429, Retry_After="Wed, 21 Oct 2037 07:28:00 GMT"), BUSY, 60),
    "limited-until-yesterday": Case(answering({}, 429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), BUSY, 1),
    "limited-until-who-knows": Case(answering({}, 429, Retry_After="tomorrow"), BUSY, 5),
    "limited-for-a-year": Case(answering({}, 429, Retry_After=31_536_000), BUSY, 60),
    "limited-for-ever": Case(answering({}, 429, Retry_After="9" * 400), BUSY, 60),
    "unavailable": Case(answering("<html>", 503), BUSY, 5),
    "unavailable-for-a-while": Case(answering("<html>", 503, Retry_After=30), BUSY, 30),
}

EVERY: Mapping[str, Case] = {**CONNECTION, **SIZE, **NO_HTTP, **BODY, **STATUS}

STRANGERS: Final = "stranger's"
"""A way in besides those to the operator's own homeservers."""

# What is different in one way in, and why.
_DIFFERENT: Mapping[tuple[str, str, str], int] = {
    # Some homeservers answer so to a token that they do not know; and no credential of ours can be the reason.
    (STRANGERS, USERINFO, "forbidden"): NO,
    # The guard ends the call where an interim answer comes, and does not wait for what may come after it.
    (STRANGERS, USERINFO, "103-early-hints-then-nothing"): UPSTREAM_FAILED,
    # So Synapse says that our own user may not see the room: who is joined is known, and their level is not.
    ("msc4502", OWN_MEMBERSHIP, "forbidden"): YES,
}


def case_of(way: str, call: str, fault: str) -> Case:
    """What has to come of the fault there: what EVERY says, unless there is a good reason."""
    if call == WELL_KNOWN:  # the specification then goes on without it
        return Case(EVERY[fault].fault, YES)
    different = _DIFFERENT.get((way, call, fault))
    return EVERY[fault] if different is None else Case(EVERY[fault].fault, different)
