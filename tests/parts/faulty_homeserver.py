"""A homeserver on real sockets that answers as none should.

It answers the calls of every way in to it, and those of somebody else's service, so it is a stranger's homeserver as
well: by which name it is called, of that server it is, except for `localhost`.

Whoever asks says what will happen: a request about the person `account.hanging` (their OpenID token, their user id, or
the room of that name) meets the fault `hanging` at the call `account`, and good answers at all others. So one service
and one homeserver are enough for every fault at every call at once. Where no person can be named, the host is taken for
one. `faults` are those that meet everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from tests.parts import issued
from tests.parts.processes import free_port

SERVER_NAME = "matrix.example"
ADMIN_TOKEN = issued.secret()
USERINFO, ACCOUNT, JOINED_ROOMS, STATE, WHOAMI = "userinfo", "account", "joined_rooms", "state", "whoami"
CHAIN = (USERINFO, ACCOUNT, JOINED_ROOMS, STATE)
"""The calls of one verification, with an administrator's token."""
IS_HERE, IS_JOINED, OWN_MEMBERSHIP, POWER_LEVELS = "is_here", "is_joined", "own_membership", "power_levels"
MODULE, WELL_KNOWN = "module", "well-known"
CHAINS = {
    "synapse-admin": CHAIN,
    "msc4502": (USERINFO, IS_HERE, IS_JOINED, OWN_MEMBERSHIP, POWER_LEVELS),
    "synapse-module": (MODULE,),
}
"""By way in."""

LEVEL = 50
"""Everybody's, in every room."""

_CALLS = {
    "openid/userinfo": USERINFO,
    "account/whoami": WHOAMI,
    "/joined_rooms": JOINED_ROOMS,
    "/state/m.room.member": OWN_MEMBERSHIP,
    "/state/m.room.power_levels": POWER_LEVELS,
    "/state": STATE,
    "/admin/v2/users/": ACCOUNT,
    "/is_joined?server_name": IS_HERE,
    "/is_joined?mxid": IS_JOINED,
    "/uvs/v1/verify": MODULE,
    "well-known": WELL_KNOWN,
}
_PIECE = 64 * 1024
_TOKEN = issued.secret()
"""What every OpenID token here begins with, so that it is noticed where a part of one is told to anybody."""
_PERSON = re.compile(rf"(?:\b{_TOKEN}-|@|!)([a-z0-9_.-]+)")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, and the way to answer it."""

    call: str
    person: str
    body: bytes
    """What a good homeserver would say."""
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, raw: bytes) -> None:
        # In pieces: what asyncio has in its buffer, it moves with every bit that goes out.
        for start in range(0, len(raw), _PIECE):
            self.writer.write(raw[start : start + _PIECE])
            await self.writer.drain()
            await asyncio.sleep(0)  # others are served as well, however fast the other side reads

    async def wait_for_the_end(self) -> None:
        """Until the other side has had enough."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        peer: socket.socket = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Fault = Callable[[Exchange], Awaitable[None]]
"""Answers in its own way; the connection is closed after it."""


def body_of(call: str, person: str, server_name: str = SERVER_NAME) -> dict[str, Any]:
    """The good answer. `server_name` is the homeserver's own."""
    joined = not person.startswith("visitor")
    admin = f"@admin:{SERVER_NAME}"
    levels = {"users_default": LEVEL, "users": {admin: 100}, "events": {"m.room.name": 50}}
    event = {"type": "m.room.power_levels", "state_key": "", "sender": admin, "content": levels}
    account = {"deactivated": False, "locked": False}
    user_id = f"@{person}:{server_name}"
    room = {"joined": joined, "power_levels": levels, "creation": {"sender": admin, "content": {}}}
    facts = {"server_name": server_name, "user_id": user_id if person else None, "account": account, "room": room}
    answers: dict[str, dict[str, Any]] = {
        USERINFO: {"sub": user_id},
        WHOAMI: {"user_id": f"@admin:{server_name}"},
        ACCOUNT: {"name": f"@{person}:{SERVER_NAME}", **account},
        JOINED_ROOMS: {"joined_rooms": [room_of(person)] if joined else [], "total": 1},
        STATE: {"state": [event]},
        IS_HERE: {"joined": True},
        IS_JOINED: {"joined": joined},
        OWN_MEMBERSHIP: {"membership": "join"},
        POWER_LEVELS: event,
        MODULE: facts,
        WELL_KNOWN: {"m.server": server_name},
    }
    return answers[call]


def token_of(person: str) -> str:
    """An OpenID token of theirs. A stranger's is any other."""
    return f"{_TOKEN}-{person}"


def room_of(person: str) -> str:
    """The room that they are in, unless they are a visitor."""
    return f"!{person}:{SERVER_NAME}"


def head(status: int = 200, **headers: object) -> bytes:
    """Status line and headers, underscores for hyphens."""
    lines = [f"HTTP/1.1 {status} -", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def whole(body: bytes | str | object, status: int = 200, **headers: object) -> bytes:
    """A whole answer. Text and bytes go out as they are, everything else as JSON."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    raw = text.encode() if isinstance(text, str) else text
    return head(status, Content_Length=len(raw), **headers) + raw


@dataclass
class FaultyHomeserver:
    """Listens while the context is open. `known` are the faults by name; `greeting` meets every connection before it
    has asked for anything."""

    known: Mapping[str, Fault] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    server_name: str = SERVER_NAME
    greeting: Fault | None = None
    delay: float = 0.0
    """Seconds before every good answer."""
    port: int = field(default_factory=free_port)
    faults: dict[str, Fault] = field(default_factory=dict)
    """By call: those that meet everybody."""
    revoked: bool = False
    """Whether the administrator's token is."""
    asked: Counter[str] = field(default_factory=Counter)
    """How often each call was made."""
    accepted: int = 0
    """Connections, over time."""
    _connections: set[asyncio.Task[None]] = field(default_factory=set)
    _let_in_only: set[socket.socket] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}"

    @property
    def connections(self) -> int:
        """Open ones."""
        return len(self._connections)

    async def open(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port), backlog=2048)
        self._listening.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listening, self._let_in)

    async def close(self) -> None:
        """Listen no longer, and end what is open, as where a process is killed."""
        asyncio.get_running_loop().remove_reader(self._listening)
        self._listening.close()
        while self._connections:
            for connection in self._connections:
                connection.cancel()
            await asyncio.wait(self._connections)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _let_in(self) -> None:
        # Not `asyncio.start_server`, which loses whoever is let in at the moment of its end.
        try:
            peer, _ = self._listening.accept()
        except BlockingIOError:
            return
        self.accepted += 1
        task = asyncio.create_task(self._serve(peer))
        self._connections.add(task)
        self._let_in_only.add(peer)

        def gone(_: object) -> None:
            self._connections.discard(task)
            if peer in self._let_in_only:  # cancelled before it began
                self._let_in_only.discard(peer)
                peer.close()

        task.add_done_callback(gone)

    async def _serve(self, peer: socket.socket) -> None:
        self._let_in_only.discard(peer)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=256 * 1024)
        protocol = asyncio.StreamReaderProtocol(reader)
        # The service may hang up at any time. Cancelled is how a connection ends with the context.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, peer, ssl=self.tls)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await self._converse(reader, writer)
                writer.close()
                await writer.wait_closed()
            except asyncio.CancelledError:
                with contextlib.suppress(AttributeError):  # which is how asyncio says that it is closed already
                    transport.abort()
                await asyncio.sleep(0)  # in which it is closed

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.greeting is not None:
            await self.greeting(Exchange("", "", b"", reader, writer))
            return
        while await self._answer(reader, writer):
            pass

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection is good for more."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n"))}
        target = unquote(head.split(" ", 2)[1])
        question = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        call = next(call for part, call in _CALLS.items() if part in target)
        self.asked[call] += 1
        host = headers["host"]
        server_name = self.server_name if host.startswith("localhost:") else host
        found = _PERSON.search(question.get("token") or question.get("user_id", "") if call == MODULE else target)
        person = found[1] if found else host if call == WELL_KNOWN else ""
        exchange = Exchange(call, person, json.dumps(body_of(call, person, server_name)).encode(), reader, writer)
        # `call.fault`, and possibly more that tells people with the same fault apart.
        wish = person.split(".")
        fault = self.faults.get(call) or (self.known.get(wish[1]) if len(wish) > 1 and wish[0] == call else None)
        if fault is not None:
            await fault(exchange)
            return False
        if self.delay:
            await asyncio.sleep(self.delay)
        if call in {USERINFO, WELL_KNOWN}:
            good = bool(person)
        else:
            good = not self.revoked and headers.get("authorization") == f"Bearer {ADMIN_TOKEN}"
        await exchange.send(whole(exchange.body) if good else whole({"errcode": "M_UNKNOWN_TOKEN"}, 401))
        return True
