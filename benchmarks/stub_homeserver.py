"""A homeserver that answers at once and counts: `python -m benchmarks.stub_homeserver PORT`.

As little as answers HTTP/1.1 correctly to our client, so that the load it adds is small next to what is measured.
`GET /calls` says how many questions were asked since the last time.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

USER = "@member:bench.example"
ROOM = "!small:bench.example"
LEVELS = {"users": {"@moderator:bench.example": 100, USER: 50}, "state_default": 50, "users_default": 0}
ACCOUNT = {"name": USER, "admin": False, "deactivated": False, "locked": False}
STATE = [{"type": "m.room.power_levels", "state_key": "", "sender": "@moderator:bench.example", "content": LEVELS}]


def _answer(body: object) -> bytes:
    content = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(content),
        content,
    )


_ACCOUNT = _answer(ACCOUNT)  # of whomever: the user's id is the last segment of that path
_ANSWERS = {
    b"userinfo": _answer({"sub": USER}),
    b"whoami": _answer({"user_id": USER}),
    b"joined_rooms": _answer({"joined_rooms": [ROOM, *(f"!room{n}:bench.example" for n in range(20))]}),
    b"state": _answer({"state": STATE}),
}


class Stub(asyncio.Protocol):
    """One connection. A request of ours fits into one segment and has no body, so it ends where its head does."""

    calls = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            target = self._buffer[:end].split(b" ", 2)[1]
            self._buffer = self._buffer[end + 4 :]
            self._transport.write(self._reply(target.partition(b"?")[0]))

    def _reply(self, path: bytes) -> bytes:
        if path == b"/calls":
            counted, Stub.calls = Stub.calls, 0
            return _answer(counted)
        Stub.calls += 1
        before, _, last_segment = path.rpartition(b"/")
        return _ACCOUNT if before == b"/_synapse/admin/v2/users" else _ANSWERS[last_segment]


async def main(port: int) -> None:
    """Serve until terminated."""
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
