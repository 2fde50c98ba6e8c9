"""A Synapse module through which uvs asks who somebody is and what their standing in a room is, in one request and
without an administrator's token. It runs inside Synapse (1.123 or newer) and needs nothing but Synapse.

    modules:
      - module: uvs_synapse_module.UvsModule
        config:
          secret_path: /etc/matrix-synapse/uvs-module-secret    # or `secret`: at least 32 characters
          listener_ports: [8009]                                # answers on these listeners of Synapse only

`POST /_synapse/uvs/v1/verify` with `Authorization: Bearer <secret>` and a JSON object of texts; there may be
`token` (somebody's OpenID token) or `user_id`, and `room_id` besides. The answer:

    {"server_name": "example.org",
     "user_id": "@alice:example.org",                     null: the token is not valid
     "account": {"deactivated": false, "locked": false},  null: no account of this homeserver
     "room": {"joined": true,                             null: unknown here, or this homeserver has left it
              "power_levels": {…} or null,                the contents as they are, null where there is no such event,
              "creation": {"sender": "…", "content": {…}}}}    and both null for whoever is not joined

What follows from it (which level, whether they are let in) is uvs's to decide: nothing is decided here.
"""

from __future__ import annotations

import hmac
import json
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synapse.http.site import SynapseRequest
from synapse.module_api import DirectServeJsonResource, ModuleApi
from synapse.module_api.errors import Codes, ConfigError, SynapseError
from synapse.util.cancellation import cancellable
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError

PATH = "/_synapse/uvs/v1/verify"
MIN_SECRET = 32  # characters
MIN_DISTINCT = 8  # different ones among them: a placeholder is no secret
MAX_BODY = 8192  # bytes
MAX_TOKEN = 4096  # bytes
MAX_IDENTIFIER = 255  # bytes (specification, appendices)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What the configuration says."""

    secret: str = field(repr=False)
    listener_ports: frozenset[int]


class UvsModule:
    """What Synapse loads."""

    def __init__(self, config: Config, api: ModuleApi) -> None:
        if api.worker_name is not None:
            return  # OpenID tokens are in the hands of the main process
        self._api = api
        # The module API has no look-up of OpenID tokens, nor one of a server's membership of a room. These are what
        # Synapse's own `/openid/userinfo` and the queries of other homeservers ask.
        store: Any = api._store  # noqa: SLF001
        try:
            self._user_of_token: Callable[[str, int], Awaitable[str | None]] = store.get_user_id_for_open_id_token
            self._is_host_joined: Callable[[str, str], Awaitable[bool]] = store.is_host_joined
        except AttributeError:
            raise ConfigError("uvs_synapse_module does not know this version of Synapse; get a newer one") from None
        api.register_web_resource(PATH, _Resource(config, self))
        logger.info("uvs_synapse_module answers %s on port %s", PATH, sorted(config.listener_ports))

    @staticmethod
    def parse_config(config: Mapping[str, Any]) -> Config:
        """Raises ConfigError, which keeps Synapse from starting."""
        unknown = config.keys() - {"secret", "secret_path", "listener_ports"}
        if unknown:
            raise ConfigError(f"unknown option {min(map(str, unknown))}", ("config",))
        if ("secret" in config) == ("secret_path" in config):
            raise ConfigError("set either secret_path or secret", ("config",))
        ports = config.get("listener_ports")
        if not isinstance(ports, list) or not ports or not all(type(port) is int and port > 0 for port in ports):
            raise ConfigError("name the internal listeners to answer on, as [8009]", ("config", "listener_ports"))
        return Config(_secret(config), frozenset(ports))

    async def tell(self, question: Question) -> dict[str, Any]:
        """Answer, reading no more than one account and three state events."""
        user_id, account, room = question.user_id, None, None
        if question.token is not None:
            user_id = await self._user_of_token(question.token, int(time.time() * 1000))
        if user_id is not None and self._api.is_mine(user_id):
            info = await self._api.get_userinfo_by_id(user_id)
            if info is not None:
                account = {"deactivated": bool(info.is_deactivated), "locked": bool(info.locked)}
        if user_id is not None and question.room_id is not None:
            room = await self._room(user_id, question.room_id)
        return {"server_name": self._api.server_name, "user_id": user_id, "account": account, "room": room}

    async def _room(self, user_id: str, room_id: str) -> dict[str, Any] | None:
        # What is left here of a room without members of this homeserver may be long outdated.
        if not await self._is_host_joined(room_id, self._api.server_name):
            return None
        wanted = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", user_id)]
        state = await self._api.get_room_state(room_id, wanted)
        creation = state.get(("m.room.create", ""))
        if creation is None:
            return None
        member = state.get(("m.room.member", user_id))
        if member is None or member.content.get("membership") != "join":
            return {"joined": False, "power_levels": None, "creation": None}
        levels = state.get(("m.room.power_levels", ""))
        return {
            "joined": True,
            "power_levels": None if levels is None else levels.content,
            "creation": {"sender": creation.sender, "content": creation.content},
        }


@dataclass(frozen=True)
class Question:
    """The body of a request."""

    token: str | None = field(default=None, repr=False)
    user_id: str | None = None
    room_id: str | None = None

    @classmethod
    def read(cls, raw: bytes) -> Question:
        """Raises ValueError, whose text quotes nothing of `raw`."""
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            raise ValueError("the body is not JSON") from None
        if not isinstance(body, dict) or not all(isinstance(value, str) for value in body.values()):
            raise ValueError("the body is not an object of texts")
        if body.keys() - {"token", "user_id", "room_id"}:
            raise ValueError("there is an unknown field")
        token, user_id, room_id = body.get("token"), body.get("user_id"), body.get("room_id")
        if token is not None and user_id is not None:
            raise ValueError("token and user_id exclude each other")
        if room_id is not None and token is None and user_id is None:
            raise ValueError("room_id needs token or user_id")
        if token is not None and not (token.isascii() and token.isprintable() and 0 < len(token) <= MAX_TOKEN):
            raise ValueError("token is not an OpenID token")
        if user_id is not None and not (_is_identifier(user_id, "@") and ":" in user_id):
            raise ValueError("user_id is not a user ID")
        if room_id is not None and not _is_identifier(room_id, "!"):
            raise ValueError("room_id is not a room ID")
        return cls(token, user_id, room_id)


class _Resource(DirectServeJsonResource):
    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self, config: Config, module: UvsModule) -> None:
        super().__init__()
        self._ports = config.listener_ports
        self._credential = f"Bearer {config.secret}".encode()
        self._module = module

    async def _async_render(self, request: SynapseRequest) -> tuple[int, Any] | None:
        # Synapse attaches a module's resources to each of its listeners, the public ones, too.
        here = request.getHost()  # type: ignore[no-untyped-call]
        if (
            not isinstance(here, IPv4Address | IPv6Address)
            or here.port not in self._ports
            or request.path != PATH.encode()
        ):
            raise SynapseError(404, "Unrecognized request", Codes.UNRECOGNIZED)
        return await super()._async_render(request)

    # Whoever hangs up is not worked for any longer, as in Synapse's own `GET /rooms/…/state`, which reads the same.
    @cancellable
    async def _async_render_POST(self, request: SynapseRequest) -> tuple[int, Any]:  # noqa: N802 - Synapse's name
        given = request.requestHeaders.getRawHeaders(b"Authorization") or []
        if len(given) != 1 or not hmac.compare_digest(given[0], self._credential):
            raise SynapseError(401, "The module's secret is missing or wrong", Codes.UNKNOWN_TOKEN)
        raw = request.content.read(MAX_BODY + 1) if request.content else b""
        if len(raw) > MAX_BODY:
            raise SynapseError(413, f"The body is larger than {MAX_BODY} bytes", Codes.TOO_LARGE)
        try:
            question = Question.read(raw)
        except ValueError as error:
            raise SynapseError(400, str(error), Codes.BAD_JSON) from None
        try:
            return 200, await self._module.tell(question)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the last net
            # Without the error's text, which may quote what was asked.
            places = "".join(traceback.format_tb(error.__traceback__))
            logger.error("uvs_synapse_module failed (%s):\n%s", type(error).__name__, places)  # noqa: TRY400
            raise SynapseError(500, "Internal server error") from None


def _secret(config: Mapping[str, Any]) -> str:
    if "secret_path" in config:
        where: tuple[str, str] = ("config", "secret_path")
        try:
            secret = Path(config["secret_path"]).read_text("ascii").strip()
        except (OSError, TypeError, ValueError) as error:
            raise ConfigError(f"the file cannot be read ({type(error).__name__})", where) from None
    else:
        where = ("config", "secret")
        secret = config["secret"]
    if (
        not isinstance(secret, str)
        or not (secret.isascii() and secret.isprintable())
        or " " in secret
        or len(secret) < MIN_SECRET
        or len(set(secret)) < MIN_DISTINCT
    ):
        raise ConfigError(
            f"the secret must be {MIN_SECRET} or more random characters without spaces, as of: openssl rand -hex 32",
            where,
        )
    return secret


def _is_identifier(value: str, sigil: str) -> bool:
    # Printable characters are text that every database stores; lone surrogates and NUL are none.
    return value.startswith(sigil) and value.isprintable() and 1 < len(value.encode()) <= MAX_IDENTIFIER
