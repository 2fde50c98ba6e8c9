"""The way out: whatever the other side does, a call ends in time, in bounds, and tells nobody the token."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

import httpx
import pytest
import respx
from hypothesis import example, given
from hypothesis import strategies as st

from tests.parts.connections import accepting
from uvs.errors import CannotTell, Overloaded
from uvs.net.answers import Answer, ByteBudget
from uvs.net.calls import Call, Failed, Outcome
from uvs.net.http import MAX_CONNECTIONS, HttpClient, open_client, path

SECRET = "SeCrEt"
LIMIT = 1000

Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Raw:
    """A server that writes what it likes."""

    url: str = ""
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0


@asynccontextmanager
async def serving(behave: Behave) -> AsyncIterator[Raw]:
    """`behave` is called for every request, and its connection lives until it raises or closes it."""
    raw = Raw()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw.connections += 1
        while not writer.is_closing():
            raw.heads.append(await reader.readuntil(b"\r\n\r\n"))
            await behave(reader, writer)
            await writer.drain()

    async with accepting(serve) as port:
        raw.url = f"http://127.0.0.1:{port}"
        yield raw


def ok(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers, b"", body])


def writes(*pieces: bytes, then_close: bool = False, then_reset: bool = False) -> Behave:
    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if then_reset:
            peer: socket.socket = writer.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        if then_close:
            writer.close()

    return behave


def repeats(first: bytes, piece: bytes, *, pause: float = 0) -> Behave:
    """Never stops writing `piece`."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


async def ask(client: HttpClient, url: str, **options: Any) -> Answer[Any]:
    defaults = {
        "call": Call.STATE,
        "expect": dict[str, Any],
        "what": "The question",
        "limit": LIMIT,
        "headers": {"Authorization": f"Bearer {SECRET}"},
        "params": {"access_token": SECRET},
    }
    return await client.get(url, **{**defaults, **options})


async def ask_once(behave: Behave, *, patience: float = 5) -> Answer[Any]:
    async with serving(behave) as raw, open_client(timeout=patience) as client:
        return await ask(client, raw.url + "/x")


async def cannot_tell(behave: Behave, *, patience: float = 5) -> CannotTell:
    """The exception, which quotes nothing of the request."""
    with pytest.raises(CannotTell) as raised:
        await ask_once(behave, patience=patience)
    assert SECRET not in str(raised.value)
    assert "127.0.0.1" not in str(raised.value)
    assert str(raised.value).startswith("The question ")
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    return raised.value


class TestWhatIsSent:
    @respx.mock
    async def test_the_request_asks_for_plain_json(self) -> None:
        route = respx.get("https://matrix.example/x").respond(json={})
        async with open_client(timeout=5, transport=httpx.AsyncHTTPTransport()) as client:
            await ask(client, "https://matrix.example/x")
        headers = route.calls.last.request.headers
        assert headers["accept"] == "application/json"
        assert headers["accept-encoding"] == "identity"
        assert headers["user-agent"].startswith("uvs/")
        assert headers["authorization"] == f"Bearer {SECRET}"

    @pytest.mark.parametrize(
        "segment",
        ["@alice:matrix.example", "!a:b:8448", "@a/b:c", "@ünï💥:b", "a b+c", "@a=_-.~!$&'()*,;:@:b", "%41", ""],
    )
    async def test_a_segment_arrives_as_it_was_encoded_and_nothing_else_changes(self, segment: str) -> None:
        async with serving(writes(ok(b"{}"))) as raw, open_client(timeout=5) as client:
            await ask(client, raw.url + "/prefix" + path("users", segment, "joined"), params=None)
        target = raw.heads[0].split(b" ")[1].decode("ascii")
        assert target == "/prefix" + path("users", segment, "joined")
        assert [unquote(part) for part in target.split("/")] == ["", "prefix", "users", segment, "joined"]

    @given(segments=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4))
    @example(segments=["a%2Fb", "%2e%2e", "?x", "#x", "\\", "\0", "[::1]"])
    def test_no_segment_can_become_another_request(self, segments: list[str]) -> None:
        request = httpx.Request("GET", "http://matrix.example/a" + path(*segments))
        if not {".", ".."}.intersection(segments):  # identifiers have none
            assert request.url.raw_path == b"/a" + path(*segments).encode()
            assert request.url.host == "matrix.example"

    @given(token=st.text(st.characters(codec="utf-8")))
    @example(token="a+b c&d=e%20;f#g?h/\0")
    def test_a_token_in_the_query_arrives_as_it_is(self, token: str) -> None:
        request = httpx.Request("GET", "http://matrix.example/x", params={"access_token": token})
        query = parse_qs(request.url.query.decode("ascii"), keep_blank_values=True, strict_parsing=True)
        assert query == {"access_token": [token]}

    async def test_the_environments_proxies_are_passed_by(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with serving(writes(ok(b'{"proxy": 1}'))) as proxy, serving(writes(ok(b'{"direct": 1}'))) as raw:
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
                monkeypatch.setenv(name.lower(), proxy.url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            async with open_client(timeout=5) as client:
                assert (await ask(client, raw.url)).body == {"direct": 1}
        assert proxy.connections == 0

    async def test_no_cookie_is_kept(self) -> None:
        async with serving(writes(ok(b"{}", b"Set-Cookie: a=b; Path=/"))) as raw, open_client(timeout=5) as client:
            for _ in range(2):
                await ask(client, raw.url)
        assert len(raw.heads) == 2
        assert b"cookie" not in raw.heads[1].lower()


class TestRedirects:
    @pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
    @pytest.mark.parametrize("goal", ["elsewhere", "same server"])
    async def test_none_is_followed_and_the_token_goes_nowhere_else(self, status: int, goal: str) -> None:
        async with serving(writes(ok(b"{}"))) as elsewhere:
            location = elsewhere.url.encode() if goal == "elsewhere" else b"/y"
            head = b"HTTP/1.1 %d -\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, location)
            async with serving(writes(head)) as raw, open_client(timeout=5) as client:
                answer = await ask(client, raw.url)
        assert (answer.status, answer.body) == (status, None)
        assert len(raw.heads) == 1
        assert elsewhere.connections == 0


class TestBodies:
    @pytest.mark.parametrize(
        ("content", "body"),
        [
            (b'{"a": 1}', {"a": 1}),
            (b' {"a": [1.5, null, "\xc3\xbc"]}\n', {"a": [1.5, None, "ü"]}),
            (b'{"a": 1, "a": 2}', {"a": 2}),
            (b'{"a": 99999999999999999999999}', {"a": 99999999999999999999999}),
            (b"", None),
            (b"null", None),
            (b"[]", None),
            (b'"text"', None),
            (b"<html>", None),
            (b'{"a": NaN}', None),
            (b'{"a": Infinity}', None),
            (b'{"a": 1e999}', None),
            (b'{"a": 1} {"a": 2}', None),
            (b'{"a": "\xff"}', None),
            (b'{"a": "\\ud800"}', None),
            (b'\xef\xbb\xbf{"a": 1}', None),
            (b'{"a":' * 150, None),
        ],
    )
    async def test_an_object_is_read_and_anything_else_is_none(
        self, content: bytes, body: dict[str, Any] | None
    ) -> None:
        assert (await ask_once(writes(ok(content)))).body == body

    async def test_nesting_that_no_stack_holds_is_no_object(self) -> None:
        async with serving(writes(ok(b'{"a":' + b"[" * 900_000))) as raw, open_client(timeout=5) as client:
            assert (await ask(client, raw.url, limit=1_000_000)).body is None

    @pytest.mark.parametrize(
        ("body", "errcode"),
        [
            ('{"errcode": "M_X"}', "M_X"),
            ('{"errcode": ""}', None),
            ('{"errcode": 1}', None),
            ('{"errcode": null}', None),
            ("[]", None),
        ],
    )
    @respx.mock
    async def test_the_error_code_is_a_text_or_none(self, body: str, errcode: str | None) -> None:
        respx.get("https://matrix.example/x").respond(401, text=body)
        async with open_client(timeout=5, transport=httpx.AsyncHTTPTransport()) as client:
            assert (await ask(client, "https://matrix.example/x")).errcode == errcode

    async def test_a_body_of_the_limit_is_read(self) -> None:
        content = b'{"a": 1}'.ljust(LIMIT)
        assert (await ask_once(writes(ok(content)))).body == {"a": 1}

    @pytest.mark.parametrize(
        "head", [b"Content-Length: 1001", b"Content-Length: 99999999999", b"Transfer-Encoding: chunked", b"X: y"]
    )
    async def test_a_body_over_the_limit_is_not_read_to_its_end(self, head: bytes) -> None:
        piece = b"3e9\r\n" + b" " * 1001 + b"\r\n" if b"chunked" in head else b" " * 1001
        error = await cannot_tell(repeats(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n", piece))
        assert str(error) == "The question failed: the answer is larger than 1000 bytes."

    @pytest.mark.parametrize("encoding", [b"gzip", b"GZIP", b"deflate", b"br", b"x, gzip", b"nonsense"])
    async def test_nothing_is_decompressed(self, encoding: bytes) -> None:
        bomb = gzip.compress(bytes(200_000))
        assert len(bomb) < LIMIT
        error = await cannot_tell(writes(ok(bomb, b"Content-Encoding: " + encoding)))
        assert "compressed" in str(error)

    @pytest.mark.parametrize("encoding", [b"identity", b"Identity", b""])
    async def test_an_encoding_that_is_none_is_fine(self, encoding: bytes) -> None:
        assert (await ask_once(writes(ok(b'{"a": 1}', b"Content-Encoding: " + encoding)))).body == {"a": 1}


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n"
BROKEN: dict[str, Behave] = {
    "ends before the head": writes(then_close=True),
    "ends within the head": writes(b"HTTP/1.1 200 OK\r\nContent-", then_close=True),
    "ends within the body": writes(HEAD, b'{"a": 1}', then_close=True),
    "ends within a chunk": writes(
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{"a": 1}', then_close=True
    ),
    "ends before the last chunk": writes(
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"a": 1}\r\n', then_close=True
    ),
    "is reset before the head": writes(then_reset=True),
    "is reset within the body": writes(HEAD, b'{"a": 1}', then_reset=True),
    "is not HTTP": writes(b"\x16\x03\x01 220 ready\r\n\r\n", then_close=True),
    "has no status": writes(b"HTTP/1.1 OK\r\n\r\n", then_close=True),
    "has two lengths": writes(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"),
    "has a negative length": writes(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}"),
    "has a chunk of no size": writes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
    "has endless headers": repeats(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 1000),
    "has an endless header": repeats(b"HTTP/1.1 200 OK\r\na: ", b"b" * 10_000),
}
SLOW: dict[str, Behave] = {
    "never answers": repeats(b"", b"", pause=0.05),
    "drips a head": repeats(b"HTTP/1.1 200 OK\r\na: ", b"b", pause=0.05),
    "drips a body": repeats(HEAD, b"", pause=0.05),
    "drips a chunked body": repeats(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", pause=0.05
    ),
    "is always about to answer": repeats(b"", b"HTTP/1.1 102 Processing\r\n\r\n", pause=0.05),
}


class TestFaults:
    @pytest.mark.parametrize("fault", BROKEN)
    async def test_an_answer_that_is_broken_is_cannot_tell(self, fault: str) -> None:
        error = await cannot_tell(BROKEN[fault])
        assert str(error).endswith("): see whether the homeserver is up and its URL is right.")
        assert not error.lasting

    @pytest.mark.parametrize("fault", SLOW)
    async def test_an_answer_that_is_slow_is_cannot_tell_in_time(self, fault: str) -> None:
        started = time.monotonic()
        error = await cannot_tell(SLOW[fault], patience=0.3)
        assert str(error) == "The question took too long: see whether the homeserver is overloaded."
        assert time.monotonic() - started < 2

    async def test_a_length_that_is_too_short_cuts_the_answer_and_spoils_no_other(self) -> None:
        async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            lie = HEAD.replace(b": 20", b": 4") + b'{"a": 1}'
            writer.write(lie if len(raw.heads) == 1 else ok(b'{"b": 2}'))

        async with serving(behave) as raw, open_client(timeout=5) as client:
            assert (await ask(client, raw.url)).body is None
            assert (await ask(client, raw.url)).body == {"b": 2}

    @pytest.mark.parametrize(
        "error",
        [
            httpx.ConnectError(SECRET),
            httpx.ConnectTimeout(SECRET),
            httpx.PoolTimeout(SECRET),
            httpx.ReadTimeout(SECRET),
            httpx.WriteError(SECRET),
            httpx.LocalProtocolError(SECRET),
            httpx.UnsupportedProtocol(SECRET),
            httpx.InvalidURL(SECRET),
            httpx.StreamClosed(),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_every_failure_of_the_engine_is_cannot_tell_without_its_text(self, error: Exception) -> None:
        async def fail(_: httpx.Request) -> httpx.Response:
            raise error

        async with open_client(timeout=5, transport=httpx.MockTransport(fail)) as client:
            with pytest.raises(CannotTell) as raised:
                await ask(client, "https://matrix.example/x")
        assert SECRET not in str(raised.value)
        assert not raised.value.lasting

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("http://127.0.0.1:1", "connection refused"),
            ("http://nowhere.invalid", "its host name is not known"),
            ("https://[::1]:1", "connection refused|cannot assign requested address"),
        ],
    )
    async def test_nobody_there_is_cannot_tell_and_says_why(self, url: str, words: str) -> None:
        async with open_client(timeout=5) as client:
            with pytest.raises(CannotTell, match=words):
                await ask(client, url)

    async def test_plain_http_where_tls_is_expected_is_cannot_tell(self) -> None:
        async with serving(writes(ok(b"{}"))) as raw, open_client(timeout=0.3) as client:
            with pytest.raises(CannotTell):
                await ask(client, raw.url.replace("http", "https"))
        assert SECRET.encode() not in b"".join(raw.heads)


class TestConnections:
    async def test_where_another_server_has_all_of_them_one_makes_room(self) -> None:
        async with (
            serving(writes(ok(b'{"a": 1}'))) as one,
            serving(writes(ok(b'{"b": 2}'))) as other,
            open_client(timeout=5, most=2) as client,
        ):
            for _ in range(3):
                assert [answer.body for answer in await asyncio.gather(*(ask(client, one.url) for _ in range(9)))] == [
                    {"a": 1}
                ] * 9
                assert (await ask(client, other.url)).body == {"b": 2}
            assert one.connections <= 4
            assert other.connections <= 3

    async def test_one_is_used_again(self) -> None:
        async with serving(writes(ok(b"{}"))) as raw, open_client(timeout=5) as client:
            for _ in range(3):
                await ask(client, raw.url)
        assert (raw.connections, len(raw.heads)) == (1, 3)

    @pytest.mark.parametrize("reset", [True, False])
    async def test_one_that_ends_under_a_request_is_made_anew_once(self, reset: bool) -> None:
        requests = 0

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal requests
            requests += 1
            end = writes(then_reset=True) if reset else writes(then_close=True)
            await (end if requests == 2 else writes(ok(b'{"a": 1}')))(reader, writer)

        async with serving(behave) as raw, open_client(timeout=5) as client:
            assert [(await ask(client, raw.url)).body for _ in range(2)] == [{"a": 1}, {"a": 1}]
        assert (raw.connections, len(raw.heads)) == (2, 3)

    async def test_a_request_is_repeated_no_more_than_once(self) -> None:
        async with serving(writes(then_close=True)) as raw, open_client(timeout=5) as client:
            with pytest.raises(CannotTell, match="the connection is closed instead of an answer"):
                await ask(client, raw.url)
        assert len(raw.heads) == 2

    async def test_an_answer_that_breaks_off_is_not_asked_for_again(self) -> None:
        async with serving(BROKEN["ends within the body"]) as raw, open_client(timeout=5) as client:
            with pytest.raises(CannotTell):
                await ask(client, raw.url)
        assert len(raw.heads) == 1

    async def test_one_that_never_gets_through_tls_is_given_up_and_closed(self) -> None:
        closed = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            closed.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, open_client(timeout=0.6) as client:
            with pytest.raises(CannotTell, match="took too long"):
                await ask(client, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            await asyncio.wait_for(closed.wait(), 2)

    async def test_those_that_were_given_up_leave_room_for_others(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if b"/slow" in raw.heads[-1]:
                await asyncio.sleep(60)
            writer.write(ok(b'{"a": 1}'))

        async with serving(behave) as raw, open_client(timeout=0.5) as client:
            slow = [ask(client, raw.url + "/slow") for _ in range(MAX_CONNECTIONS + 20)]
            ended = await asyncio.gather(*slow, return_exceptions=True)
            assert {type(error) for error in ended} == {Failed}
            assert (await ask(client, raw.url)).body == {"a": 1}

    async def test_those_whose_caller_gave_up_leave_room_for_others(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if b"/slow" in raw.heads[-1]:
                await asyncio.sleep(60)
            writer.write(ok(b'{"a": 1}'))

        async def give_up(client: HttpClient, seconds: float) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await ask(client, raw.url + "/slow")

        async with serving(behave) as raw, open_client(timeout=5) as client:
            await asyncio.gather(*(give_up(client, number / 500) for number in range(MAX_CONNECTIONS + 20)))
            assert (await ask(client, raw.url)).body == {"a": 1}


class TestTooMuchToDo:
    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize(
        ("given_", "seconds"),
        [
            (None, 5),
            ("7", 7),
            ("0", 1),
            ("60", 60),
            ("61", 60),
            ("999999999", 60),
            ("9" * 5000, 60),
            ("-1", 5),
            ("1.5", 5),
            ("+5", 5),
            ("5 ", 5),
            ("٥", 5),
            ("soon", 5),
            ("Fri, 31 Dec 1999 23:59:59 GMT", 1),
            ("Fri, 31 Dec 2100 23:59:59 GMT", 60),
            ("Fri, 31 Dec 99999 23:59:59 GMT", 5),
        ],
    )
    @respx.mock
    async def test_is_passed_on_with_a_time_to_wait_within_reason(
        self, status: int, given_: str | None, seconds: int
    ) -> None:
        headers = {} if given_ is None else {"Retry-After": given_.encode()}
        respx.get("https://matrix.example/x").respond(status, headers=headers)  # type: ignore[arg-type]
        async with open_client(timeout=5, transport=httpx.AsyncHTTPTransport()) as client:
            with pytest.raises(Overloaded) as raised:
                await ask(client, "https://matrix.example/x")
        assert raised.value.retry_after == seconds
        assert str(raised.value) == "The question failed: the homeserver has too much to do."


@pytest.mark.parametrize(
    ("status", "body", "lasting", "words"),
    [
        (200, {}, False, "the answer is not what a homeserver says"),
        (204, {}, False, "HTTP status 204"),
        (302, {}, True, "the URL that this redirects to"),
        (400, {"errcode": "M_UNKNOWN"}, True, "HTTP status 400: look into the homeserver's log"),
        (404, {"errcode": "M_UNRECOGNIZED"}, True, "HTTP status 404"),
        (404, {}, False, "HTTP status 404"),
        (500, {"errcode": "M_UNKNOWN"}, False, "HTTP status 500"),
        (502, {}, False, "HTTP status 502"),
    ],
)
def test_an_answer_nobody_can_rely_on_says_whether_asking_again_is_of_use(
    status: int, body: dict[str, str], lasting: bool, words: str
) -> None:
    answer: Answer[None] = Answer(status, None, "The question", body.get("errcode"))
    error = answer.unexpected()
    assert error.lasting is lasting
    assert words in str(error)


class Observed:
    """What was observed of the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Call, Outcome]] = []

    def __call__(self, call: Call, outcome: Outcome, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append((call, outcome))


OUTCOMES: dict[Outcome, Behave] = {
    Outcome.OK: writes(ok(b"{}")),
    Outcome.REFUSED: writes(b"HTTP/1.1 404 -\r\nContent-Length: 0\r\n\r\n"),
    Outcome.BUSY: writes(b"HTTP/1.1 429 -\r\nContent-Length: 0\r\n\r\n"),
    Outcome.FAILED: writes(b"HTTP/1.1 500 -\r\nContent-Length: 0\r\n\r\n"),
    Outcome.REDIRECT: writes(b"HTTP/1.1 302 -\r\nContent-Length: 0\r\n\r\n"),
    Outcome.TIMEOUT: SLOW["never answers"],
    Outcome.BROKEN: BROKEN["ends within the body"],
    Outcome.TOO_LARGE: writes(ok(b" " * (LIMIT + 1))),
    Outcome.UNREADABLE: writes(ok(b"[]")),
}


class TestWhatIsObserved:
    @pytest.mark.parametrize("outcome", OUTCOMES)
    async def test_every_call_is_told_once_with_how_it_ended(self, outcome: Outcome) -> None:
        observed = Observed()
        async with serving(OUTCOMES[outcome]) as raw, open_client(timeout=0.5, observe=observed) as client:
            with contextlib.suppress(CannotTell):
                await ask(client, raw.url)
        assert observed.calls == [(Call.STATE, outcome)]

    async def test_nobody_there_is_unreachable(self) -> None:
        observed = Observed()
        async with open_client(timeout=5, observe=observed) as client:
            with pytest.raises(CannotTell):
                await ask(client, "http://127.0.0.1:1")
        assert observed.calls == [(Call.STATE, Outcome.UNREACHABLE)]

    async def test_a_caller_who_gives_up_has_waited_too_long(self) -> None:
        observed = Observed()
        async with serving(SLOW["never answers"]) as raw, open_client(timeout=5, observe=observed) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await ask(client, raw.url)
        assert observed.calls == [(Call.STATE, Outcome.TIMEOUT)]


class TestTheBudgetOfBytes:
    async def test_more_than_may_be_held_at_once_is_turned_away_and_given_back(self) -> None:
        budget = ByteBudget(900)
        first_has_its_part = asyncio.Event()
        first_may_end = asyncio.Event()

        async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(raw.heads) == 1:
                writer.write(ok(b" " * 800)[:-300])
                await writer.drain()
                first_has_its_part.set()
                await first_may_end.wait()
                writer.write(b" " * 300)
            else:
                writer.write(ok(b"{}".ljust(500)))

        async with serving(behave) as raw, open_client(timeout=5, budget=budget) as client:
            first = asyncio.create_task(ask(client, raw.url))
            await first_has_its_part.wait()
            await asyncio.sleep(0.05)  # until it is read here
            with pytest.raises(Overloaded):
                await ask(client, raw.url)
            first_may_end.set()
            await first
            assert (await ask(client, raw.url)).body == {}


class TestPost:
    async def test_the_body_goes_out_as_json_with_our_credential(self) -> None:
        received: list[bytes] = []

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.append(await reader.readexactly(len(b'{"a":"\xc3\xbc"}')))
            writer.write(ok(b'{"b": 1}'))

        async with serving(behave) as raw, open_client(timeout=5) as client:
            answer = await client.post(
                raw.url + "/x",
                body={"a": "ü"},
                call=Call.MODULE,
                what="The question",
                limit=LIMIT,
                expect=dict[str, Any],
                headers={"Authorization": f"Bearer {SECRET}"},
            )
        assert answer.body == {"b": 1}
        assert received == ['{"a":"ü"}'.encode()]
        assert raw.heads[0].startswith(b"POST /x HTTP/1.1")
        assert b"content-type: application/json" in raw.heads[0].lower()
        assert f"Bearer {SECRET}".encode() in raw.heads[0]
