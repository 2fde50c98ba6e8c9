"""The way to the operator's own homeservers, where it does more than the seam promises (test_http_seam.py)."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.parts.connections import accepting
from tests.unit.test_http_seam import LIMIT, Behave, Raw, ask, ask_once, cannot_tell, ok, serving, writes
from uvs.errors import CannotTell
from uvs.net.calls import Failed
from uvs.net.connection import MAX_HEAD, MAX_INTERIM, Connection
from uvs.net.direct import DirectEngine
from uvs.net.http import MAX_CONNECTIONS, HttpClient, open_client

GOOD = ok(b'{"good": 1}')
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


async def ask_twice(first: bytes, *, then_close: bool = False) -> Raw:
    """The second answer is good, and nobody gets another's."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first if len(raw.heads) == 1 else GOOD)
        if then_close and len(raw.heads) == 1:
            await writer.drain()
            writer.close()

    async with serving(behave) as raw, open_client(timeout=5) as client:
        with contextlib.suppress(CannotTell):
            await ask(client, raw.url)
        await asyncio.sleep(0.05)  # until what came late is there
        assert (await ask(client, raw.url)).body == {"good": 1}
    return raw


class TestConnections:
    @pytest.mark.parametrize(
        "behind",
        [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"HTTP/1.1 200", b"\x00"],
        ids=["a byte", "another answer", "part of one", "a zero"],
    )
    async def test_none_is_used_again_on_which_more_came_than_the_answer(self, behind: bytes) -> None:
        assert (await ask_twice(ok(b"{}") + behind)).connections == 2

    async def test_none_is_used_again_on_which_something_came_while_it_was_idle(self) -> None:
        async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(GOOD)
            await writer.drain()
            if len(raw.heads) == 1:
                await asyncio.sleep(0.02)
                writer.write(ok(b'{"of": "nobody"}'))

        async with serving(behave) as raw, open_client(timeout=5) as client:
            assert (await ask(client, raw.url)).body == {"good": 1}
            await asyncio.sleep(0.1)
            assert (await ask(client, raw.url)).body == {"good": 1}
        assert raw.connections == 2

    async def test_none_is_used_again_that_the_other_side_wants_closed(self) -> None:
        assert (await ask_twice(ok(b"{}", b"Connection: close"))).connections == 2
        assert (await ask_twice(ok(b"{}").replace(b"HTTP/1.1", b"HTTP/1.0"))).connections == 2

    async def test_none_is_used_again_whose_answer_was_not_what_was_asked_for(self) -> None:
        assert (await ask_twice(ok(b"[]"))).connections == 2

    async def test_line_breaks_between_two_answers_are_nothing(self) -> None:
        assert (await ask_twice(ok(b"{}") + b"\r\n")).connections in {1, 2}

    async def test_all_are_closed_with_the_client(self) -> None:
        ended = asyncio.Event()

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(GOOD)
            await writer.drain()
            await reader.read()
            ended.set()
            writer.close()

        async with serving(behave) as raw:
            async with open_client(timeout=5) as client:
                await ask(client, raw.url)
            await asyncio.wait_for(ended.wait(), 2)

    async def test_the_next_address_of_a_name_is_tried_where_one_refuses(self) -> None:
        async with serving(writes(GOOD)) as raw, open_client(timeout=5) as client:
            url = raw.url.replace("127.0.0.1", "localhost")  # which is ::1 as well, where nobody listens
            assert (await ask(client, url)).body == {"good": 1}


class TestServersThatSpeakFirst:
    @pytest.mark.parametrize("says", [b"", b"x", b"HTTP/1.1 503 -\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"])
    async def test_are_cannot_tell_and_leave_nothing_open(self, says: bytes) -> None:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(says)
            writer.close()

        async with accepting(serve) as port, open_client(timeout=5, most=5) as client:
            outcomes = await asyncio.gather(
                *(ask(client, f"http://127.0.0.1:{port}") for _ in range(100)), return_exceptions=True
            )
            await asyncio.sleep(0.05)
            assert not opened(client)
        assert {type(outcome) for outcome in outcomes} == {Failed}


class TestAnswers:
    async def test_one_without_a_length_ends_with_its_connection(self) -> None:
        head = b"HTTP/1.1 200 OK\r\n\r\n"
        assert (await ask_once(writes(head, b'{"a": ', b"1}", then_close=True))).body == {"a": 1}
        assert (await ask_twice(head + b'{"a": 1}', then_close=True)).connections == 2

    async def test_one_without_a_length_that_is_reset_breaks_off(self) -> None:
        error = await cannot_tell(writes(b"HTTP/1.1 200 OK\r\n\r\n", b'{"a": 1}', then_reset=True))
        assert "breaks off" in str(error)

    async def test_interim_answers_are_read_over(self) -> None:
        assert (await ask_once(writes(HINTS * MAX_INTERIM + GOOD))).body == {"good": 1}

    @pytest.mark.parametrize(
        ("behave", "words"),
        [
            (writes(HINTS * (MAX_INTERIM + 1) + GOOD), "too many interim answers"),
            (writes(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "HTTP allows"),
            (writes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), "compressed"),
            (writes(ok(b"{}", b"Transfer-Encoding: chunked")), "HTTP allows"),
            (writes(b"HTTP/1.1 200 OK\r\na: " + b"b" * MAX_HEAD), "head of the answer is too large"),
            (writes(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"), "HTTP allows"),
        ],
        ids=["interim", "upgrade", "compressed transfer", "two ways to end", "head", "bare line feeds"],
    )
    async def test_what_is_no_answer_is_told_as_what_it_is(self, behave: Behave, words: str) -> None:
        assert words in str(await cannot_tell(behave))

    async def test_ten_thousand_headers_are_not_kept(self) -> None:
        many = b"".join(b"X-%d: y\r\n" % number for number in range(3000))
        answer = await ask_once(writes(ok(b"{}", b"Retry-After: 1")[:-6] + b"\r\n" + many + b"\r\n{}"))
        assert set(answer.headers) == {"content-length", "retry-after"}


class TestRequests:
    @pytest.mark.parametrize("url", ["http://h\r\nX: y/", "http://h/a b", "http://h/\x00", "ftp://h/", "http://h:0x1/"])
    async def test_what_would_be_another_request_is_none(self, url: str) -> None:
        async with open_client(timeout=5) as client:
            with pytest.raises(CannotTell):
                await ask(client, url, params=None)

    async def test_a_header_cannot_bring_another_one(self) -> None:
        async with serving(writes(GOOD)) as raw, open_client(timeout=5) as client:
            with pytest.raises(ValueError, match="cannot be a header"):
                await ask(client, raw.url, headers={"Authorization": "Bearer a\r\nX: y"})
        assert not raw.heads

    @pytest.mark.parametrize("host", ["a..example", "a" * 64 + ".example"])
    async def test_a_host_name_that_is_none_is_not_known(self, host: str) -> None:
        async with open_client(timeout=5) as client:
            with pytest.raises(CannotTell, match="its host name is not known"):
                await ask(client, f"http://{host}")

    async def test_the_host_is_written_as_it_is_in_a_url(self) -> None:
        async with serving(writes(GOOD)) as raw, open_client(timeout=5) as client:
            await ask(client, raw.url, limit=LIMIT)
        assert f"\r\nHost: {raw.url.removeprefix('http://')}\r\n".encode() in raw.heads[0]


async def test_a_thousand_who_give_up_at_any_moment_leave_nothing_open() -> None:
    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        writer.write(GOOD[:20])
        await asyncio.sleep(0.01)
        writer.write(GOOD[20:])

    async def give_up(client: HttpClient, url: str, seconds: float) -> None:
        with contextlib.suppress(TimeoutError, CannotTell):
            async with asyncio.timeout(seconds):
                await ask(client, url)

    async with serving(behave) as raw, open_client(timeout=5) as client:
        await asyncio.gather(*(give_up(client, raw.url, number % 50 / 1000) for number in range(1000)))
        assert (await ask(client, raw.url)).body == {"good": 1}
        assert 1 <= len(opened(client)) <= MAX_CONNECTIONS


async def test_who_gives_up_in_the_turn_in_which_the_answer_comes_leaves_nothing_open() -> None:
    asked, over = asyncio.Event(), asyncio.Event()

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await over.wait()
        writer.close()

    async with serving(behave) as raw, open_client(timeout=5) as client:
        asking = asyncio.create_task(ask(client, raw.url))
        await asyncio.wait_for(asked.wait(), 5)
        (connection,) = engine_of(client)._open
        connection.data_received(GOOD)  # the event loop tells of it, and the deadline ends, in one turn
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not opened(client)
        over.set()


def engine_of(client: HttpClient) -> DirectEngine:
    assert isinstance(client._engine, DirectEngine)
    return client._engine


def opened(client: HttpClient) -> set[Connection]:
    """The open connections, all of which are idle."""
    engine = engine_of(client)
    assert engine._opening == 0
    assert engine._open == {each for idle in engine._idle.values() for each in idle}
    return engine._open


class TestACrowd:
    async def test_has_as_many_as_there_may_be_where_answers_take_their_time(self) -> None:
        together = asyncio.Event()

        async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(raw.heads) == MAX_CONNECTIONS:
                together.set()
            await together.wait()
            writer.write(GOOD)

        async with serving(behave) as raw, open_client(timeout=5) as client:
            answers = await asyncio.gather(*(ask(client, raw.url) for _ in range(MAX_CONNECTIONS)))
        assert {answer.status for answer in answers} == {200}
        assert raw.connections == MAX_CONNECTIONS

    async def test_is_served_in_turn_where_no_connection_is_used_again(self) -> None:
        async with serving(writes(ok(b"{}", b"Connection: close"))) as raw, open_client(timeout=5) as client:
            answers = await asyncio.gather(*(ask(client, raw.url) for _ in range(300)))
        assert {answer.status for answer in answers} == {200}
        assert raw.connections == 300

    async def test_does_not_wait_for_ever_where_no_connection_can_be_made(self) -> None:
        async with open_client(timeout=5) as client:
            outcomes = await asyncio.gather(
                *(ask(client, "http://127.0.0.1:1") for _ in range(300)), return_exceptions=True
            )
        assert all("connection refused" in str(outcome) for outcome in outcomes)

    async def test_hears_in_time_that_nobody_answers(self) -> None:
        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()

        async with await asyncio.start_server(hang, "127.0.0.1", 0) as server, open_client(timeout=0.9) as client:
            port = server.sockets[0].getsockname()[1]
            begun = asyncio.get_running_loop().time()
            outcomes = await asyncio.gather(
                *(ask(client, f"https://127.0.0.1:{port}") for _ in range(100)), return_exceptions=True
            )
            assert asyncio.get_running_loop().time() - begun < 2.5
            await asyncio.sleep(0.05)  # until the other side has seen that they are closed
        assert all("nobody answers at its address" in str(outcome) for outcome in outcomes)
