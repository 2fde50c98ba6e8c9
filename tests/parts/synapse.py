"""A real Synapse on SQLite: one process, plain HTTP on the loopback interface, nothing asked of the outside world."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tests.parts import PARTS, PartMissingError, issued
from tests.parts.processes import Process, Stoppable, free_port, listening

START_SECONDS = 60.0
"""It takes a second or two where nothing else is going on. Preparing the database is a quarter of that, so that keeping
a prepared one is not worth the while."""

_SECRET = issued.secret()
_PASSWORD = "correct horse battery staple"


class Version(StrEnum):
    """The versions that the service is tested with; the values are where `make parts` puts them."""

    NEWEST = "synapse"
    OLDEST = "synapse-oldest"

    @property
    def room_versions(self) -> tuple[str, ...]:
        """Those tried in tests; version 12 came with Synapse 1.135."""
        return ("1", "6", "9", "10", "11") if self is Version.OLDEST else ("1", "6", "9", "10", "11", "12")


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who is logged in."""

    user_id: str
    access_token: str


class MatrixError(Exception):
    """The homeserver said no to something the test needs."""

    def __init__(self, what: str, status: int, body: str) -> None:
        super().__init__(f"{what}: {status} {body}")
        self.status = status


class Synapse(Stoppable):
    """A running homeserver and what tests do on it. A call that does not succeed raises MatrixError."""

    def __init__(
        self,
        directory: Path,
        *,
        server_name: str = "matrix.example",
        options: Mapping[str, Any] | None = None,
        python_path: Sequence[Path] = (),
        version: Version = Version.NEWEST,
    ) -> None:
        """`options` go over the configuration, lists at the end of the one that is there; `python_path` is where
        its modules are found."""
        directory.mkdir(parents=True, exist_ok=True)
        self.server_name = server_name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._database = directory / "homeserver.db"
        self._http = httpx.Client(base_url=self.url, timeout=30.0, trust_env=False)
        self._directory = directory
        self._python = python_of(version)
        self._python_path = os.pathsep.join(str(each) for each in python_path)
        config = _write_config(directory, server_name, self.port, self._database, options or {})
        self._listeners = [
            (address, listener["port"]) for listener in config["listeners"] for address in listener["bind_addresses"]
        ]
        self.start()

    def start(self) -> None:
        """Also after `process.stop()`: its database and its keys are still there. Returns once it listens on all of
        its ports: on the further ones it does so a moment later than on the first."""
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = Process(
            [self._python, "-m", "synapse.app.homeserver", "--config-path", self._directory / "homeserver.yaml"],
            self._directory / "synapse.log",
            env=env | ({"PYTHONPATH": self._python_path} if self._python_path else {}),
        )
        self.process.wait_until(
            lambda: all(listening(port, address) for address, port in self._listeners), timeout=START_SECONDS
        )

    # --- people -------------------------------------------------------------------------------------------------------

    def register(self, localpart: str, *, admin: bool = False, displayname: str | None = None) -> User:
        """Through the shared-secret route, which knows administrators and no limits."""
        nonce = self._request("GET", "/_synapse/admin/v1/register")["nonce"]
        parts = (nonce, localpart, _PASSWORD, "admin" if admin else "notadmin")
        body = {
            "nonce": nonce,
            "username": localpart,
            "displayname": displayname or localpart,
            "password": _PASSWORD,
            "admin": admin,
            "mac": hmac.new(_SECRET.encode(), "\0".join(parts).encode(), hashlib.sha1).hexdigest(),
        }
        answer = self._request("POST", "/_synapse/admin/v1/register", body=body)
        return User(answer["user_id"], issued.register(answer["access_token"]))

    def login(self, user_id: str) -> User:
        identifier = {"type": "m.id.user", "user": user_id}
        body = {"type": "m.login.password", "identifier": identifier, "password": _PASSWORD}
        token: str = self._request("POST", "/_matrix/client/v3/login", body=body)["access_token"]
        return User(user_id, issued.register(token))

    def logout(self, user: User) -> None:
        self._request("POST", "/_matrix/client/v3/logout", user)

    def deactivate(self, user: User) -> None:
        identifier = {"type": "m.id.user", "user": user.user_id}
        auth = {"type": "m.login.password", "identifier": identifier, "password": _PASSWORD}
        self._request("POST", "/_matrix/client/v3/account/deactivate", user, {"auth": auth})

    def lock(self, admin: User, user: User) -> None:
        path = f"/_synapse/admin/v2/users/{quote(user.user_id, safe='')}"
        self._request("PUT", path, admin, {"locked": True})

    def openid_token(self, user: User) -> str:
        path = f"/_matrix/client/v3/user/{quote(user.user_id, safe='')}/openid/request_token"
        token: str = self._request("POST", path, user)["access_token"]
        return issued.register(token)

    def expire_openid_token(self, token: str) -> None:
        """What an hour does to it."""
        with closing(sqlite3.connect(self._database, timeout=10)) as database, database:
            changed = database.execute("UPDATE open_id_tokens SET ts_valid_until_ms = 1 WHERE token = ?", (token,))
            if changed.rowcount != 1:
                raise MatrixError("expire_openid_token", 404, "no such token")

    # --- rooms --------------------------------------------------------------------------------------------------------

    def create_room(
        self,
        creator: User,
        *,
        version: str = "10",
        power_levels: Mapping[str, Any] | None = None,
        preset: str = "private_chat",
        creation_content: Mapping[str, Any] | None = None,
        join_rule: str | None = None,
        alias: str | None = None,
    ) -> str:
        """`power_levels` goes over the content that Synapse makes; `alias` is a localpart."""
        body: dict[str, Any] = {"room_version": version, "preset": preset}
        if power_levels is not None:
            body["power_level_content_override"] = power_levels
        if creation_content is not None:
            body["creation_content"] = creation_content
        if join_rule is not None:
            body["initial_state"] = [
                {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": join_rule}}
            ]
        if alias is not None:
            body["room_alias_name"] = alias
        room_id: str = self._request("POST", "/_matrix/client/v3/createRoom", creator, body)["room_id"]
        return room_id

    def invite(self, actor: User, room_id: str, user: User) -> None:
        self._membership("invite", actor, room_id, user)

    def kick(self, actor: User, room_id: str, user: User) -> None:
        self._membership("kick", actor, room_id, user)

    def ban(self, actor: User, room_id: str, user: User) -> None:
        self._membership("ban", actor, room_id, user)

    def unban(self, actor: User, room_id: str, user: User) -> None:
        self._membership("unban", actor, room_id, user)

    def join(self, user: User, room_id: str) -> None:
        self._request("POST", f"/_matrix/client/v3/join/{quote(room_id, safe='')}", user)

    def knock(self, user: User, room_id: str) -> None:
        self._request("POST", f"/_matrix/client/v3/knock/{quote(room_id, safe='')}", user)

    def leave(self, user: User, room_id: str) -> None:
        self._request("POST", f"{_room(room_id)}/leave", user)

    def add(self, actor: User, room_id: str, *users: User) -> None:
        """Invite them and let them join."""
        for user in users:
            self.invite(actor, room_id, user)
            self.join(user, room_id)

    def state(self, reader: User, room_id: str, kind: str, state_key: str = "") -> dict[str, Any]:
        return self._request("GET", _state(room_id, kind, state_key), reader)

    def send_state(
        self, sender: User, room_id: str, kind: str, content: Mapping[str, Any], state_key: str = ""
    ) -> None:
        self._request("PUT", _state(room_id, kind, state_key), sender, content)

    def joined_rooms(self, user: User) -> list[str]:
        room_ids: list[str] = self._request("GET", "/_matrix/client/v3/joined_rooms", user)["joined_rooms"]
        return room_ids

    def members(self, reader: User, room_id: str) -> dict[str, str]:
        """Memberships by user. Waits until Synapse knows all of a room that was joined elsewhere."""
        events = self._request("GET", f"{_room(room_id)}/members", reader)["chunk"]
        return {event["state_key"]: event["content"]["membership"] for event in events}

    def wait_until_gone(self, reader: User, room_id: str, user: User) -> None:
        """Synapse leaves the rooms of a deactivated account when it finds the time."""
        deadline = time.monotonic() + 10
        while self.state(reader, room_id, "m.room.member", user.user_id)["membership"] == "join":
            if time.monotonic() > deadline:
                raise MatrixError("wait_until_gone", 200, "still joined")
            time.sleep(0.02)

    def set_level(self, actor: User, room_id: str, user: User, level: int) -> None:
        levels = self.state(actor, room_id, "m.room.power_levels")
        levels.setdefault("users", {})[user.user_id] = level
        self.send_state(actor, room_id, "m.room.power_levels", levels)

    def create_alias(self, user: User, room_id: str, localpart: str) -> str:
        alias = f"#{localpart}:{self.server_name}"
        path = f"/_matrix/client/v3/directory/room/{quote(alias, safe='')}"
        self._request("PUT", path, user, {"room_id": room_id})
        return alias

    # --- plumbing -----------------------------------------------------------------------------------------------------

    def _membership(self, verb: str, actor: User, room_id: str, user: User) -> None:
        self._request("POST", f"{_room(room_id)}/{verb}", actor, {"user_id": user.user_id})

    def _request(
        self, method: str, path: str, user: User | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        headers = {} if user is None else {"Authorization": f"Bearer {user.access_token}"}
        json_body = None if method == "GET" else dict(body or {})
        response = self._http.request(method, path, json=json_body, headers=headers)
        if response.status_code != 200:
            raise MatrixError(f"{method} {path}", response.status_code, response.text)
        answer: dict[str, Any] = response.json()
        return answer

    def stop(self) -> None:
        self._http.close()
        self.process.stop()
        issued.look_at("log of Synapse", self.process.log_text())


def _room(room_id: str) -> str:
    return f"/_matrix/client/v3/rooms/{quote(room_id, safe='')}"


def _state(room_id: str, kind: str, state_key: str) -> str:
    return f"{_room(room_id)}/state/{quote(kind, safe='')}/{quote(state_key, safe='')}"


def python_of(version: Version) -> Path:
    """The interpreter of the environment that this Synapse is installed in."""
    other = os.environ.get("UVS_TEST_SYNAPSE_PYTHON") if version is Version.NEWEST else None
    python = Path(other or PARTS / version / "bin" / "python")
    if not python.exists():
        raise PartMissingError(python)
    return python


def _write_config(
    directory: Path, server_name: str, port: int, database: Path, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Whatever only slows a test down, limits it or talks to others is off. JSON is YAML, and needs no library. Returns
    what it wrote."""
    key = b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    (directory / "signing.key").write_text(f"ed25519 a_test {key}\n")
    log = {
        "version": 1,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "WARNING", "handlers": ["console"]},
        # One line for each request: what tests look at to see which calls were made.
        "loggers": {"synapse.access": {"level": "INFO"}},
        "disable_existing_loggers": False,
    }
    (directory / "log.yaml").write_text(json.dumps(log))
    unlimited = {"per_second": 100_000, "burst_count": 100_000}
    config: dict[str, Any] = {
        "server_name": server_name,
        "public_baseurl": f"http://127.0.0.1:{port}/",
        "report_stats": False,
        "pid_file": str(directory / "synapse.pid"),
        "signing_key_path": str(directory / "signing.key"),
        "log_config": str(directory / "log.yaml"),
        "listeners": [
            {
                "port": port,
                "type": "http",
                "tls": False,
                "bind_addresses": ["127.0.0.1"],
                "resources": [{"names": ["client", "openid"], "compress": False}],
            }
        ],
        "database": {"name": "sqlite3", "args": {"database": str(database)}},
        "registration_shared_secret": _SECRET,
        "macaroon_secret_key": _SECRET,
        "form_secret": _SECRET,
        "bcrypt_rounds": 4,
        "trusted_key_servers": [],
        "federation_domain_whitelist": [],
        "enable_media_repo": False,
        "presence": {"enabled": False},
        "user_directory": {"enabled": False},
        "rc_message": unlimited,
        "rc_registration": unlimited,
        "rc_room_creation": unlimited,
        "rc_login": {"address": unlimited, "account": unlimited, "failed_attempts": unlimited},
        "rc_joins": {"local": unlimited, "remote": unlimited},
        "rc_joins_per_room": unlimited,
        "rc_invites": {"per_room": unlimited, "per_user": unlimited, "per_issuer": unlimited},
    }
    for name, value in options.items():
        config[name] = [*config.get(name, []), *value] if isinstance(value, list) else value
    (directory / "homeserver.yaml").write_text(json.dumps(config, indent=2))
    return config
