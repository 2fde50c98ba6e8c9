"""One connection to Redis: no second tries but where an old connection was found closed, no larger replies than there
may be. (The package is an extra, `uvs[redis]`, so only who was given UVS_CACHE_URL imports this module.)"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from redis._parsers import _AsyncRESP2Parser
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import Connection as TcpConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError

from uvs.cache.redis import MAX_VALUE, TIMEOUT, Command

PORT = 6379


class RedisConnection:
    """Implements `uvs.cache.redis.Connection`. `url` was parsed once (uvs/settings/values.py); `ca_file` is trusted
    besides the system's certificates."""

    def __init__(self, url: str, *, ca_file: Path | None = None) -> None:
        self._connection = _connection(url, ca_file)

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        old = self._connection.is_connected
        try:
            return await self._run(commands)
        except (RedisConnectionError, OSError):
            if not old:
                raise
        # Closed since it was last used, which is nothing to tell: Redis was started anew, or ends idle connections.
        await self.close()
        return await self._run(commands)

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)

    async def _run(self, commands: Sequence[Command]) -> list[Any]:
        await self._connection.connect()  # type: ignore[no-untyped-call]
        await self._connection.send_packed_command(self._connection.pack_commands(commands))
        return [await self._reply() for _ in commands]

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            return error


class _Parser(_AsyncRESP2Parser):
    async def _read(self, length: int) -> bytes:
        if length > MAX_VALUE:
            raise InvalidResponse
        reply: bytes = await super()._read(length)
        return reply


def _connection(url: str, ca_file: Path | None) -> AbstractConnection:
    parts = urlsplit(url)
    path = unquote(parts.path)
    options: dict[str, Any] = {
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "parser_class": _Parser,
        "protocol": 2,
        "driver_info": None,
    }
    if parts.scheme == "unix":
        return UnixDomainSocketConnection(path=path, **options)
    options |= {"host": parts.hostname, "port": parts.port or PORT, "db": int(path.removeprefix("/") or 0)}
    if parts.scheme == "rediss":
        return SSLConnection(ssl_ca_certs=str(ca_file) if ca_file else None, **options)
    return TcpConnection(**options)
