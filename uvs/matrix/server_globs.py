"""Patterns of server names, as operators write them: `*` stands for anything, `?` for one character (the globs of
`m.room.server_acl`, client-server API)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from uvs.matrix.identifiers import InvalidIdentifier, ServerName

_PATTERN = re.compile(r"[A-Za-z0-9.:*?\[\]-]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ServerGlobs:
    """A list of patterns. Upper and lower case are alike, since they are to DNS."""

    patterns: tuple[str, ...] = ()

    @classmethod
    def parse(cls, patterns: list[str]) -> ServerGlobs:
        """Raises InvalidIdentifier."""
        if not all(_PATTERN.fullmatch(pattern) for pattern in patterns):
            raise InvalidIdentifier("is not a server name with * or ? in it")
        return cls(tuple(pattern.lower() for pattern in patterns))

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def matches(self, server_name: ServerName) -> bool:
        """Whether a pattern fits the whole name, port included: to allow one server is not to allow each port of it."""
        return self._match(server_name.value)

    def matches_host(self, server_name: ServerName) -> bool:
        """Whether a pattern fits the name, with or without its port: who is denied must not come back on another."""
        return self._match(server_name.value) or self._match(server_name.host)

    def matches_room_server(self, server_name: str) -> bool:
        """Whether a pattern fits the server name in a room id; "" (from room version 12 on) fits `*` alone."""
        return self._match(server_name)

    def _match(self, name: str) -> bool:
        return any(_compile(pattern).fullmatch(name.lower()) for pattern in self.patterns)


NO_SERVERS = ServerGlobs()


def _compile(pattern: str) -> re.Pattern[str]:
    # Not fnmatch: there "[" begins a set of characters, here an IPv6 address. As there, what stands between two stars
    # is taken where it fits first and nowhere else (an atomic group): trying every place takes minutes for some names.
    first, *rest = ("".join("." if c == "?" else re.escape(c) for c in part) for part in pattern.split("*"))
    for part in rest[:-1]:
        first += f"(?>.*?{part})"
    return re.compile(first + "".join(f".*{part}" for part in rest[-1:]), re.ASCII)
