"""A homeserver over TLS that answers from memory, at once or after `--delay` seconds, and counts what it is asked.

As little as answers HTTP/1.1 correctly, so that the load it adds is small next to what is measured. `GET /calls` says
how often each kind of question was asked since the last time.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import ssl
from collections import Counter
from typing import cast

import httptools
import uvloop

from benchmarks.homeserver_answers import ROOMS, Reply, replies, replies_about_nobody

_WHO = re.compile(rb"([a-z][a-z0-9]*)-([0-9]{8})")  # a percent-encoded sigil ends in a digit
_KINDS = {
    b"userinfo": "userinfo",
    b"whoami": "whoami",
    b"joined_rooms": "joined_rooms",
    b"members": "members",
    b"verify": "module",
}
_STATE = {
    b"": "whole_state",
    b"type=m.room.power_levels": "m.room.power_levels",
    b"type=m.room.create": "m.room.create",
}


class Homeserver:
    """What all connections share."""

    def __init__(self, server_name: str, delay: float) -> None:
        self.calls: Counter[str] = Counter()
        self.delay = delay
        self._nobody = replies_about_nobody(server_name)
        self._replies = {kind.encode(): replies(kind, server_name) for kind in ROOMS}

    def reply(self, target: bytes, body: bytes) -> bytes:
        if target == b"/calls":
            counted, self.calls = self.calls, Counter()
            return Reply(counted).of(b"")
        call = _call(target)
        self.calls[call] += 1
        who = _WHO.search(body or target)
        if who is None:
            return self._nobody[call].of(b"")
        return self._replies[who[1]][call].of(who[2])


def _call(target: bytes) -> str:
    path, _, query = target.partition(b"?")
    before, _, last = path.rpartition(b"/")
    if last == b"state":
        return _STATE[query]
    return _KINDS.get(last) or ("account" if before == b"/_synapse/admin/v2/users" else "unknown")


class Connection(asyncio.Protocol):
    """Nobody asks before the answer to the question before, so answers cannot come out of order."""

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._target = self._body = b""

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        reply = self._homeserver.reply(self._target, self._body)
        if self._homeserver.delay and self._target != b"/calls":
            self._loop.call_later(self._homeserver.delay, self._transport.write, reply)
        else:
            self._transport.write(reply)


async def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stub_homeserver", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("certificate", help="for 127.0.0.1, with its chain; PEM")
    parser.add_argument("key", help="PEM")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds")
    arguments = parser.parse_args()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(arguments.certificate, arguments.key)
    homeserver = Homeserver(f"127.0.0.1:{arguments.port}", arguments.delay)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(homeserver), "127.0.0.1", arguments.port, ssl=tls
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
