"""Asks the service over a socket of its own, and takes the answer apart down to the last byte."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.parts import issued
from tests.parts.faulty_homeserver import room_of, token_of

NO, YES = 0, 1
"""What can be told of a person, in place of a status. All else is a status."""

PATIENCE = 120.0
"""Seconds until a test gives up. What is asserted is shorter."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The one answer."""

    status: int
    headers: Mapping[str, str]
    body: Any
    """JSON, or text where it is none."""
    seconds: float

    @property
    def yes(self) -> bool:
        return self._room_membership is True

    @property
    def no(self) -> bool:
        """Said of a person: not joined, or no valid token."""
        return self.status == 200 and not self.yes

    @property
    def told(self) -> int:
        """YES, NO, or its status."""
        return int(self.yes) if self.status == 200 else self.status

    @property
    def level(self) -> object:
        return self.body["power_levels"]["user"]

    @property
    def _room_membership(self) -> object:
        return self.body["results"].get("room_membership", self.body["results"]["user"]) if self.status == 200 else None


class NotOneAnswerError(Exception):
    """What came is not exactly one answer."""


def request(path: str, body: object = None, **headers: str) -> bytes:
    """As a whole. Without a body it is a GET."""
    raw = b"" if body is None else json.dumps(body).encode()
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: uvs", "Connection: close"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(raw)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def question(person: str, *, room: str | None = None, server_name: str | None = None) -> dict[str, str]:
    """Is this person in their room?"""
    body = {"token": token_of(person), "room_id": room or room_of(person)}
    return body if server_name is None else body | {"matrix_server_name": server_name}


async def exchange(port: int, raw: bytes) -> Answer:
    """Raises NotOneAnswerError, TimeoutError, and OSError where nobody listens."""
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(raw)
            received = await reader.read(-1)
        finally:
            writer.close()
    return _parse(received, time.monotonic() - began)


def _parse(received: bytes, seconds: float) -> Answer:
    top, end, body = received.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if not end or len(body) != int(headers["content-length"]):
        raise NotOneAnswerError(received[:2000])
    is_json = headers["content-type"].startswith("application/json")
    issued.look_at("an answer", "\n".join(lines) + body.decode(errors="replace"))
    return Answer(int(lines[0].split()[1]), headers, json.loads(body) if is_json else body.decode(), seconds)


async def ask(port: int, person: str, *, room: str | None = None, server_name: str | None = None) -> Answer:
    """Ask the service about a person."""
    return await exchange(port, request("/verify/user_in_room", question(person, room=room, server_name=server_name)))


async def get(port: int, path: str) -> Answer:
    return await exchange(port, request(path))
