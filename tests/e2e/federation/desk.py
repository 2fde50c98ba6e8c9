"""A service in the world of two homeservers, and what it says about people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.parts import issued
from tests.parts.federation import NETWORK, TwoServers
from tests.parts.service import Service
from tests.parts.synapse import Synapse, User

AUTH_TOKEN = issued.secret()
DEADLINE_SECONDS = 10.0
"""What the service has for one request, unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who somebody is, whether they are in the room, and what their level is there."""

    user_id: str | None
    joined: bool | None
    level: int | None = None


NOBODY = Verdict(None, None)


def member(user: User, level: int = 0) -> Verdict:
    return Verdict(user.user_id, joined=True, level=level)


def stranger(user: User) -> Verdict:
    """Known, and not in the room."""
    return Verdict(user.user_id, joined=False)


class Desk:
    """A running service in front of one of the two."""

    def __init__(
        self, world: TwoServers, home: Synapse, admin: User, directory: Path, options: Mapping[str, str] | None = None
    ) -> None:
        self.world = world
        host, port = world.dns.address
        environment = {
            "UVS_FEDERATION": "on",
            "UVS_CA_FILE": str(world.ca_file),
            "UVS_DNS_SERVERS": f"{host}:{port}",
            "UVS_ALLOWED_NETWORKS": NETWORK,
        }
        self.service = Service(
            directory,
            homeserver_url=home.url,
            access_token=admin.access_token,
            auth_token=AUTH_TOKEN,
            options=environment | dict(options or {}),
        )
        self._http = httpx.Client(
            base_url=self.service.url,
            headers={"Authorization": f"Bearer {AUTH_TOKEN}"},
            timeout=60.0,
            trust_env=False,
        )

    def ask(
        self, user: User, room_id: str, *, server_name: str | None = None, token: str | None = None
    ) -> httpx.Response:
        """With a fresh token of the user's own homeserver, which is also the one that is named, unless told
        otherwise."""
        home = self.world.home(user)
        body = {
            "token": token or home.openid_token(user),
            "matrix_server_name": server_name or home.server_name,
            "room_id": room_id,
        }
        return self._http.post("/verify/user_in_room", json=body)

    def verify(self, user: User, room_id: str, *, server_name: str | None = None, token: str | None = None) -> Verdict:
        """An answer there must be."""
        answer = self.ask(user, room_id, server_name=server_name, token=token)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        assert body["results"]["user"] is (body["user_id"] is not None)
        levels = body["power_levels"]
        return Verdict(body["user_id"], body["results"]["room_membership"], levels and levels["user"])

    def log_text(self) -> str:
        return self.service.log_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        self.service.stop()
