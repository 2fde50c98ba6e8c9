"""What a homeserver of the operator's writes, from the connection up."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import h11

from tests.fuzz.target import in_pieces, joined, target
from tests.fuzz.targets.answers import HOMESERVERS
from tests.fuzz.targets.requests import runner
from uvs.errors import CannotTell
from uvs.net.connection import Connection, Lost
from uvs.net.engine import Body, Request, Response

LIMIT = 600
QUESTION = Request("GET", "http://h/", "Asking", {})


class _Transport:
    """Says the same bytes, in pieces, as soon as something is asked."""

    def __init__(self, connection: Connection, pieces: list[bytes]) -> None:
        self._connection = connection
        self._pieces = pieces
        self.open = True

    def write(self, _: bytes) -> None:
        for piece in self._pieces:
            if self.open:
                self._connection.data_received(piece)
        if self.open:
            self._connection.eof_received()

    def abort(self) -> None:
        self.open = False


async def _answer(pieces: list[bytes], held: list[int]) -> tuple[Response | str, bool]:
    """What came of it, and whether the connection could carry another request."""

    def take(size: int) -> bool:
        held[0] += size
        return True

    gone: list[Connection] = []
    connection = Connection(gone.append)
    transport = _Transport(connection, pieces)
    connection.connection_made(cast(asyncio.Transport, transport))
    deadline = asyncio.get_running_loop().time()  # what is not over by then never is
    try:
        response = await connection.ask(QUESTION, b"", Body("Asking", LIMIT, take), deadline)
    except (CannotTell, Lost) as error:
        assert gone == [connection]
        assert not transport.open
        return str(error), False
    assert connection.usable == transport.open == (not gone)
    kept = connection.usable
    connection.close()
    return response, kept


def _as_h11_reads(data: bytes) -> tuple[int, bytes, bool] | None:
    """Status, body, and whether something follows, as another parser has it; `None` where it takes this for no HTTP."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(data)
    status, body = 0, b""
    while True:
        try:
            event: Any = reader.next_event()
        except h11.RemoteProtocolError:
            return None
        match event:
            case h11.Response():
                status = event.status_code
            case h11.Data():
                body += event.data
            case h11.EndOfMessage():
                return status, body, bool(reader.trailing_data[0].strip(b"\r\n"))
            case h11.NEED_DATA | h11.PAUSED | h11.ConnectionClosed():
                raise AssertionError("not whole")


@target(
    "homeserver-bytes",
    parser="uvs.net.connection.Connection (httptools)",
    whose=HOMESERVERS,
    seeds=[
        joined("", 'HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n{"errcode":"M_FORBIDDEN"}'),
        joined("", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
        joined(
            "x",
            'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"err\r\nb\r\ncode":"M_X"}\r\n0\r\n\r\n',
        ),
        joined("", "HTTP/1.1 103 -\r\nLink: x\r\n\r\nHTTP/1.1 429 -\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n"),
        joined("\x01", "HTTP/1.0 401 no\r\n\r\n{}"),
        joined("", "HTTP/1.1 204 -\r\n\r\n"),
        joined("", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    ],
    words=(
        "\r\n",
        "HTTP/1.1 200 OK\r\n",
        "Content-Length: ",
        "Transfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        "304",
        "\0",
    ),
    cost=3,
)
def homeserver_bytes(data: bytes) -> str:
    """A whole answer or an exception in words that quote nothing; where the connection is kept, another parser that
    reads the same bytes reads the same status and body, and nothing follows."""
    raw, pieces = in_pieces(data)
    held = [0]
    outcome, kept = runner().run(_answer(pieces, held))
    assert held[0] <= LIMIT
    if isinstance(outcome, str):
        return outcome
    assert len(outcome.body) == held[0]
    if kept:
        assert _as_h11_reads(raw) in {None, (outcome.status, bytes(outcome.body), False)}
    return f"{outcome.status // 100} {kept}"
