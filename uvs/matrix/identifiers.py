"""Identifiers of the Matrix specification, parsed once at the border (specification, appendices, "Identifier Grammar").

`parse` is the only way to get one, so whoever holds a `UserID` holds a safe one. Safe means more than well-formed: a
stranger's identifier becomes a path segment of a request that carries an administrator's token, and a proxy on the way
may decode percent escapes (even twice), merge slashes, and resolve dot segments. Percent-encoding alone does not
survive that. So everything that could then change which path is asked is refused here, in every identifier.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

MAX_BYTES = 255
"""Upper bound of an identifier in bytes of UTF-8, sigil and server name included (specification, appendices)."""

# Characters that end or re-root a path, or start an escape, once something on the way decodes it.
_PATH_BREAKERS = frozenset("\\?#%")
_HOSTNAME = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_HASH_ROOM_ID = re.compile(r"![A-Za-z0-9_-]{43}", re.ASCII)  # room version 12: "!" + SHA-256, base64url, no server name


REMEMBERED = 4096
"""Names of servers, users and rooms that were parsed lately: the same few come again and again."""


class InvalidIdentifier(ValueError):
    """Not an identifier that can be used safely. The message says why, without quoting what was sent."""


def _check_safe(raw: str) -> None:
    """Refuse what could change a request that the identifier becomes part of."""
    try:
        size = len(raw.encode())
    except UnicodeEncodeError:
        # Lone surrogates. `from None`: the original error quotes the text.
        raise InvalidIdentifier("contains characters that are not Unicode text") from None
    if size > MAX_BYTES:
        raise InvalidIdentifier(f"is longer than {MAX_BYTES} bytes")
    if not raw.isprintable():
        raise InvalidIdentifier("contains control or invisible characters")
    if _PATH_BREAKERS.intersection(raw):
        raise InvalidIdentifier("contains one of \\ ? # %")
    for segment in raw.split("/"):
        # An empty segment lets a proxy that merges slashes ask about "@a/b:x" for "@a//b:x". What follows ";" is a
        # path parameter to some servers, which resolve "..;x" like "..".
        if segment.partition(";")[0] in {"", ".", ".."}:
            raise InvalidIdentifier("contains an empty or dot path segment")


def _check_server_name(raw: str) -> None:
    """Hold `raw` against the grammar `hostname [":" port]` of server names."""
    host, port = raw, None
    if raw.startswith("["):
        address, bracket, rest = raw[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InvalidIdentifier("has a server name with an unclosed or misplaced bracket")
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            raise InvalidIdentifier("has a server name that is not an IPv6 address") from None
        port = rest[1:] if rest else None
    else:
        host, colon, rest = raw.partition(":")
        port = rest if colon else None
        if not _HOSTNAME.fullmatch(host):
            raise InvalidIdentifier("has a server name that is not a host name or an IP address")
    if port is not None and not (_PORT.fullmatch(port) and 0 < int(port) <= 65535):
        raise InvalidIdentifier("has a server name whose port is not between 1 and 65535")


def _split(raw: str, sigil: str, example: str) -> str:
    """Check `sigil` and safety; return the server name part ("" where there is none)."""
    if not raw.startswith(sigil):
        raise InvalidIdentifier(f"does not start with {sigil} (example: {example})")
    _check_safe(raw)
    local, colon, server_name = raw[1:].partition(":")
    if not local:
        raise InvalidIdentifier(f"has nothing between {sigil} and : (example: {example})")
    if colon:
        _check_server_name(server_name)
    return server_name


@dataclass(frozen=True, slots=True)
class ServerName:
    """The name of a homeserver, compared byte for byte as the specification says."""

    value: str

    @staticmethod
    @lru_cache(maxsize=REMEMBERED)
    def parse(raw: str) -> ServerName:
        """Raises InvalidIdentifier."""
        _check_safe(raw)
        _check_server_name(raw)
        return ServerName(raw)

    @property
    def host(self) -> str:
        """The name without its port; an IPv6 address keeps its brackets."""
        return self.value[: self.value.index("]") + 1] if self.value.startswith("[") else self.value.partition(":")[0]

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The IP address that the name is, in its one strict form; `None` where it is a host name."""
        try:
            return ipaddress.ip_address(self.host.strip("[]"))
        except ValueError:
            return None

    @property
    def port(self) -> int | None:
        """The port in the name."""
        rest = self.value[len(self.host) :]
        return int(rest[1:]) if rest else None

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class UserID:
    """`@localpart:server`. Historical local parts (upper case, "/", non-ASCII) are accepted, as homeservers must."""

    value: str
    server_name: ServerName

    @staticmethod
    @lru_cache(maxsize=REMEMBERED)
    def parse(raw: str) -> UserID:
        """Raises InvalidIdentifier."""
        server_name = _split(raw, "@", "@alice:example.org")
        if not server_name:
            raise InvalidIdentifier("has no server name (example: @alice:example.org)")
        return UserID(raw, ServerName(server_name))

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class RoomID:
    """`!opaque:server` up to room version 11, `!` and 43 characters of base64url from version 12 on (MSC4291)."""

    value: str

    @staticmethod
    @lru_cache(maxsize=REMEMBERED)
    def parse(raw: str) -> RoomID:
        """Raises InvalidIdentifier."""
        server_name = _split(raw, "!", "!abc:example.org")
        if "/" in raw:
            raise InvalidIdentifier("contains /")
        if not server_name and not _HASH_ROOM_ID.fullmatch(raw):
            raise InvalidIdentifier("has neither a server name nor the form of a version 12 room id")
        return RoomID(raw)

    @property
    def server_name(self) -> str:
        """The server that the room was made on; "" from version 12 on. A name in an id proves nothing by itself."""
        return self.value.partition(":")[2]

    @property
    def is_hash(self) -> bool:
        """Whether the room's version is 12 or later, where creators stand above every level."""
        return ":" not in self.value

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class RoomAlias:
    """`#name:server`, parsed only to be told apart: an alias is not a room, since it may point elsewhere tomorrow."""

    value: str

    @classmethod
    def parse(cls, raw: str) -> RoomAlias:
        """Raises InvalidIdentifier."""
        if not raw.startswith("#"):
            raise InvalidIdentifier("does not start with #")
        # "#" is refused in identifiers because it ends a path; an alias never becomes part of one.
        if not _split("!" + raw[1:], "!", "#room:example.org"):
            raise InvalidIdentifier("has no server name (example: #room:example.org)")
        return cls(raw)

    def __str__(self) -> str:
        return self.value
