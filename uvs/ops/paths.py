"""Which paths there are, and whom they are for: the one table, from which the routes are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from starlette.routing import Match, Route
from starlette.types import Scope

from uvs.wire import Endpoint


class Audience(StrEnum):
    """Who may reach a path. The values stand in docs/operating.md."""

    ANYBODY = "anybody"
    OWN_SYSTEMS = "your own systems"
    """With UVS_INTERNAL_PORT: on that port only."""


@dataclass(frozen=True, slots=True)
class Path:
    """One path, and the method it answers (HEAD as GET)."""

    path: str
    method: str
    audience: Audience
    credential: bool = False
    """Whether UVS_AUTH_TOKEN is needed, where one is set."""
    any_origin: bool = False
    """Whether pages of every origin may read it (CORS)."""
    quiet: bool = False
    """Asked by machines every few seconds: logged only at debug level, unless the caller made a mistake."""


HEALTH = Path("/health", "GET", Audience.ANYBODY, quiet=True)
WELL_KNOWN = Path("/.well-known/element/jitsi", "GET", Audience.ANYBODY, any_origin=True)
OPENAPI = Path("/openapi.json", "GET", Audience.ANYBODY, any_origin=True)
VERIFY_USER = Path("/verify/user", "POST", Audience.OWN_SYSTEMS, credential=True)
VERIFY_USER_IN_ROOM = Path("/verify/user_in_room", "POST", Audience.OWN_SYSTEMS, credential=True)
READY = Path("/ready", "GET", Audience.OWN_SYSTEMS, quiet=True)
METRICS = Path("/metrics", "GET", Audience.OWN_SYSTEMS, credential=True, quiet=True)

PATHS = (HEALTH, WELL_KNOWN, OPENAPI, VERIFY_USER, VERIFY_USER_IN_ROOM, READY, METRICS)

UNKNOWN = "(unknown path)"
"""Stands for every other path in logs and metrics: a stranger can write anything there, a token by mistake included."""

_BY_PATH = {each.path: each for each in PATHS}


def known(path: str) -> Path | None:
    """The entry of the table."""
    return _BY_PATH.get(path)


def routes(endpoints: Mapping[str, Endpoint], *, internal_port: int | None) -> list[Route]:
    """A route for each path of the table, to the endpoint that is given for it."""
    # Starlette tries one after the other.
    by_use = sorted(PATHS, key=lambda each: each is not VERIFY_USER_IN_ROOM)
    return [_route(each, endpoints[each.path], internal_port) for each in by_use]


def _route(entry: Path, endpoint: Endpoint, internal_port: int | None) -> Route:
    if internal_port is None or entry.audience is Audience.ANYBODY:
        return Route(entry.path, endpoint, methods=[entry.method])
    return _OnPort(entry.path, endpoint, methods=[entry.method], port=internal_port)


class _OnPort(Route):
    """A route that does not exist but on one port: that of the socket, which no header can change."""

    def __init__(self, path: str, endpoint: Endpoint, *, methods: list[str], port: int) -> None:
        super().__init__(path, endpoint, methods=methods)
        self._port = port

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        server = scope.get("server")
        if not server or server[1] != self._port:
            return Match.NONE, {}
        return super().matches(scope)
