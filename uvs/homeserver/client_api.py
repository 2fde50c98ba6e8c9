"""What two of the ways in have in common: the homeserver's own APIs, asked with our token; who that token belongs to;
and the redeeming of OpenID tokens, which needs no token of ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar

import msgspec

from uvs.cache import Question
from uvs.errors import CannotTell, Overloaded, Refusal
from uvs.homeserver import Federation, Finding, Standing
from uvs.homeserver.credential import Credential
from uvs.homeserver.proofs import Proofs, keeping_nothing
from uvs.homeserver.userinfo import LIMIT, PATH, WHAT, Userinfo, parse_user, read_userinfo
from uvs.matrix.identifiers import RoomID, ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.power_levels import PowerLevels, RoomCreation
from uvs.net.answers import Answer
from uvs.net.calls import Call
from uvs.net.http import HttpClient, path

START_UP_CHECK = OpenIDToken("uvs-start-up-check")
NO_ROOM = RoomID.parse("!uvs-start-up-check:invalid")
"""Nobody holds that token, and nobody is in that room: with them the calls can be made without a person."""

_NO_OPENID = (
    "add the `openid` resource to the listener behind UVS_HOMESERVER_URL, or name another in UVS_FEDERATION_URL"
)

T = TypeVar("T")


class _Whoami(msgspec.Struct):
    user_id: str


class _IssuedToken(msgspec.Struct):
    access_token: str


class ClientApi(ABC):
    """One homeserver and our token there, called `credential_name` in the log. `mends` says for each status with which
    it is refused what to do."""

    credential_name: ClassVar[str]
    mends: ClassVar[Mapping[int, str]]

    def __init__(  # noqa: PLR0913 - what there is to say of a homeserver
        self,
        client: HttpClient,
        *,
        url: str,
        access_token: str,
        federation_url: str | None = None,
        server_name: ServerName | None = None,
        federation: Federation | None = None,
        proofs: Proofs | None = None,
    ) -> None:
        """The URLs have no slash at the end. Without `server_name`, the homeserver is asked for it. `federation` finds
        where OpenID tokens are redeemed, if that is not at `federation_url` or `url`. Without `proofs`, nothing is
        kept."""
        self._client = client
        self._credential = Credential(access_token, self.credential_name, self.mends)
        self._url = url
        self._federation_url = federation_url or url
        self._federation = federation
        self._configured_name = server_name
        self._own_id: UserID | None = None
        self._proofs = proofs or keeping_nothing()

    async def server_name(self) -> ServerName:
        """The configured name, or that of the token's owner."""
        return self._configured_name or (await self.own_id()).server_name

    async def own_id(self) -> UserID:
        """The token's owner, asked for once."""
        if self._own_id is None:
            await self._whoami()
        assert self._own_id is not None  # noqa: S101 - every answer sets it
        return self._own_id

    async def _whoami(self) -> None:
        answer = await self._get(
            "Looking up who the access token belongs to",
            "/_matrix/client/v3/account/whoami",
            call=Call.WHOAMI,
            expect=_Whoami,
        )
        if answer.body is None:
            raise answer.unexpected("see whether UVS_HOMESERVER_URL is where the homeserver's client API is")
        self._own_id = parse_user(answer.body.user_id, answer.what)

    async def own_token(self) -> OpenIDToken:
        """An OpenID token of the token's owner."""
        own_id = await self.own_id()
        answer = await self._client.post(
            self._url + "/_matrix/client/v3/user" + path(own_id.value, "openid", "request_token"),
            body={},
            headers=self._credential.headers(),
            call=Call.OPENID_REQUEST,
            what="Asking for an OpenID token of our own",
            limit=LIMIT,
            expect=_IssuedToken,
        )
        self._credential.check(answer)
        if answer.body is None:
            raise answer.unexpected()
        return OpenIDToken(answer.body.access_token)

    async def _user(self, token: OpenIDToken) -> UserID | Refusal:
        """The user who was given `token`, or BAD_TOKEN."""
        return await self._proofs.get(self._proofs.token(token, partial(self._redeem, token)))

    async def _redeem(self, token: OpenIDToken) -> UserID | Refusal:
        """The same, and the homeserver is asked whatever is known."""
        answer = await self._client.get(
            self._federation_url + PATH,
            params={"access_token": token.secret},
            call=Call.USERINFO,
            what=WHAT,
            limit=LIMIT,
            expect=Userinfo,
        )
        if answer.status == 404:
            return await self._redeem_elsewhere(token, answer)
        return read_userinfo(answer, await self.server_name())

    async def _redeem_elsewhere(self, token: OpenIDToken, answer: Answer[Any]) -> UserID | Refusal:
        """Where other homeservers find this one. COMPAT: the existing service asks there and nowhere else."""
        unexpected = answer.unexpected(_NO_OPENID)
        if self._federation is None:
            raise unexpected
        name = await self.server_name()
        try:
            return await self._federation.redeem(name, token)
        except Overloaded:
            raise
        except CannotTell as error:
            unexpected.detail, unexpected.lasting = error.detail, error.lasting
            raise unexpected from None

    async def _get(  # noqa: PLR0913 - one call and its bounds
        self,
        what: str,
        path_: str,
        *,
        call: Call,
        expect: type[T],
        params: Mapping[str, str] | None = None,
        limit: int = LIMIT,
        answers: Collection[int] = (),
    ) -> Answer[T]:
        """Ask with the token. Raises CredentialRefused where the token is the reason for the refusal; a status in
        `answers` is an answer to the question."""
        answer = await self._client.get(
            self._url + path_,
            params=params,
            headers=self._credential.headers(),
            call=call,
            what=what,
            limit=limit,
            expect=expect,
        )
        if answer.status not in answers:
            self._credential.check(answer)
        return answer

    async def check(self) -> list[Finding]:
        """Who the token belongs to, and whether that fits the settings. The first finding says whether anything more
        can be asked."""
        name = "homeserver answers, token is valid"
        try:
            await self._whoami()
        except CannotTell as error:
            return [Finding(name, str(error), certain=error.lasting)]
        return [Finding(name), *check_name((await self.own_id()).server_name, self._configured_name)]

    @abstractmethod
    async def _ask_power_levels(self, room_id: RoomID) -> msgspec.Raw | None:
        """The content of the room's power levels event; `None` where it has none."""

    @abstractmethod
    async def _ask_creation(self, room_id: RoomID) -> tuple[str, msgspec.Raw]:
        """Who sent the room's creation event, and its content."""

    def _power_levels(self, room_id: RoomID) -> Question[PowerLevels]:
        return self._proofs.power_levels(room_id, self._ask_power_levels)

    def _creation(self, room_id: RoomID) -> Question[RoomCreation]:
        return self._proofs.creation(room_id, self._ask_creation)

    def _levels(self, room_id: RoomID) -> tuple[Question[PowerLevels], Question[RoomCreation] | None]:
        """What has to be known for a standing. Where creators stand above all, who they are is asked at once."""
        return self._power_levels(room_id), self._creation(room_id) if room_id.is_hash else None

    async def _standing(
        self, user: UserID, room_id: RoomID, levels: PowerLevels, creation: Question[RoomCreation] | None
    ) -> Standing:
        """That of a joined member. `creation` is looked up where it was not asked and matters."""
        if not levels.needs_creation(user, room_id):
            return Standing.of(user, room_id, levels, None)
        if creation is None:
            creation = self._creation(room_id)
            await self._proofs.ask(creation)
        return Standing.of(user, room_id, levels, creation.result())


def check_name(actual: ServerName, configured: ServerName | None) -> list[Finding]:
    """What is wrong with the configured server name, if anything."""
    if configured in {None, actual}:
        return []
    mend = (
        f"UVS_OPENID_VERIFY_SERVER_NAME (in a table: server_name) is {configured}, but the homeserver at its URL is "
        f"{actual}; write that."
    )
    return [Finding("server name is the homeserver's own", mend)]


async def check_call(name: str, call: Callable[[], Awaitable[object]]) -> Finding:
    """Whether `call` brings an answer, whatever it is."""
    try:
        await call()
    except CannotTell as error:
        return Finding(name, str(error), certain=error.lasting)
    return Finding(name)
