"""The way in through the module that uvs brings along for Synapse (synapse_module/uvs_synapse_module.py): a question is
one `POST /_synapse/uvs/v1/verify`, and the secret for it opens nothing else.

The module tells facts; what follows from them is computed here, with the same code as for the other ways in.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec

from uvs.cache import Loaded, Question
from uvs.errors import CannotTell, Refusal
from uvs.homeserver import Account, Federation, Finding, Standing
from uvs.homeserver.client_api import NO_ROOM, START_UP_CHECK, check_call, check_name
from uvs.homeserver.credential import Credential
from uvs.homeserver.events import read_content, read_levels
from uvs.homeserver.proofs import Proofs, keeping_nothing
from uvs.homeserver.userinfo import parse_user, require_own
from uvs.matrix.identifiers import InvalidIdentifier, RoomID, ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.power_levels import RoomCreation
from uvs.net.calls import Call
from uvs.net.http import HttpClient

PATH = "/_synapse/uvs/v1/verify"
LIMIT = 1024 * 1024  # bytes; two contents of 64 KiB at most, of which escapes may make six times as much

_MENDS = {
    401: "UVS_ACCESS_TOKEN is not (or no longer) the secret that uvs_synapse_module has in Synapse's configuration"
}
_NOT_THERE = (
    "install uvs_synapse_module (`uvs export-synapse-module`), and let UVS_HOMESERVER_URL name a listener of Synapse "
    "whose port is in the module's listener_ports"
)


class _Account(msgspec.Struct):
    deactivated: bool
    locked: bool


class _Creation(msgspec.Struct):
    sender: str
    content: msgspec.Raw


class _Room(msgspec.Struct):
    joined: bool
    power_levels: msgspec.Raw
    creation: _Creation | None


class _Facts(msgspec.Struct):
    server_name: str
    user_id: str | None
    account: _Account | None
    room: _Room | None


_Outcome = tuple[UserID, Standing | Refusal] | Refusal


class SynapseModule:
    """Implements `uvs.homeserver.Inspectable`."""

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
        """`url` is that of the module's listener, without a slash at the end; the module redeems OpenID tokens.
        Without `proofs`, nothing is kept."""
        del federation_url, federation
        self._client = client
        self._url = url
        self._credential = Credential(access_token, "The module's secret", _MENDS)
        self._configured_name = server_name
        self._actual_name: ServerName | None = None
        self._proofs = proofs or keeping_nothing()

    async def server_name(self) -> ServerName:
        if self._configured_name is None and self._actual_name is None:
            await self.ping()
        name = self._configured_name or self._actual_name
        assert name is not None  # noqa: S101 - every answer sets it
        return name

    async def redeem(self, token: OpenIDToken) -> UserID | Refusal:
        known = self._proofs.token(token, None)
        await self._proofs.ask(known)
        if known.answered and isinstance(user := known.result(), UserID):
            return await self._proofs.get(self._proofs.account(user, self._ask_closed)) or user

        async def load() -> Loaded[UserID | Refusal]:
            user = await self._redeem(token)
            return Loaded(user, also=() if isinstance(user, Refusal) else (_keep_user(known, user),))

        return await self._proofs.get(self._proofs.first(token, None, load))

    async def redeem_for(self, token: OpenIDToken, room_id: RoomID) -> tuple[UserID, Standing | Refusal] | Refusal:
        known = self._proofs.token(token, None)
        await self._proofs.ask(known)
        if known.answered and isinstance(user := known.result(), UserID):
            return await self._proofs.get(self._own_standing(user, room_id))

        async def load() -> Loaded[_Outcome]:
            what = "Looking up whose OpenID token it is, and their standing in the room"
            facts = await self._ask(what, token=token.secret, room_id=room_id.value)
            user = await self._user(facts, what)
            if isinstance(user, Refusal):
                return Loaded(user)
            standing, raw = _standing(facts.room, user, room_id)
            also: tuple[tuple[Question[Any], Any, bytes], ...] = (_keep_user(known, user),)
            if raw is not None:
                also += ((self._own_standing(user, room_id), (user, standing), raw),)
            return Loaded((user, standing), also=also)

        return await self._proofs.get(self._proofs.first(token, room_id, load))

    async def standing(self, user: UserID, room_id: RoomID) -> Standing | Refusal:
        async def load() -> Loaded[Standing | Refusal]:
            facts = await self._ask("Looking up the standing in the room", user_id=user.value, room_id=room_id.value)
            return Loaded(*_standing(facts.room, user, room_id))

        def decode(raw: bytes) -> Standing | Refusal:
            return _standing(_room.decode(raw), user, room_id)[0]

        return await self._proofs.get(self._proofs.standing(user, room_id, "standing", load, decode))

    def _own_standing(self, user: UserID, room_id: RoomID) -> Question[_Outcome]:
        """That of somebody whose token is known, so that the state of their account counts, too."""

        async def load() -> Loaded[_Outcome]:
            what = "Looking up the account, and its standing in the room"
            facts = await self._ask(what, user_id=user.value, room_id=room_id.value)
            if closed := _closed(facts, what):
                return Loaded(closed)
            standing, raw = _standing(facts.room, user, room_id)
            return Loaded((user, standing), raw)

        def decode(raw: bytes) -> _Outcome:
            return user, _standing(_room.decode(raw), user, room_id)[0]

        return self._proofs.standing(user, room_id, "account and standing", load, decode)

    async def own_token(self) -> None:
        return None

    async def account(self, user: UserID) -> Account:
        account = (await self._ask("Looking up whether the account is in use", user_id=user.value)).account
        if account is None:
            return Account.ABSENT
        if account.deactivated:
            return Account.DEACTIVATED
        return Account.LOCKED if account.locked else Account.IN_USE

    async def room(self, room_id: RoomID) -> Refusal | None:
        nobody = f"@uvs-check:{await self.server_name()}"
        facts = await self._ask("Looking up the room", user_id=nobody, room_id=room_id.value)
        return Refusal.ROOM_UNKNOWN if facts.room is None else None

    async def ping(self) -> None:
        await self._ask("Asking the module in Synapse")

    async def check(self) -> list[Finding]:
        try:
            await self.ping()
        except CannotTell as error:
            return [Finding("homeserver answers, secret is valid", str(error), certain=error.lasting)]
        assert self._actual_name is not None  # noqa: S101 - every answer sets it
        nobody = UserID.parse(f"@uvs-start-up-check:{self._actual_name}")
        return [
            Finding("homeserver answers, secret is valid"),
            *check_name(self._actual_name, self._configured_name),
            *await asyncio.gather(
                check_call("module can read members", partial(self._find_no_room, nobody)),
                check_call("OpenID tokens can be redeemed", partial(self._redeem, START_UP_CHECK)),
            ),
        ]

    async def _ask(self, what: str, **question: str) -> _Facts:
        answer = await self._client.post(
            self._url + PATH,
            body=question,
            headers=self._credential.headers(),
            call=Call.MODULE,
            what=what,
            limit=LIMIT,
            expect=_Facts,
        )
        self._credential.check(answer)
        if answer.status == 404:
            raise answer.unexpected(_NOT_THERE)
        if answer.body is None:
            raise answer.unexpected()
        try:
            self._actual_name = ServerName.parse(answer.body.server_name)
        except InvalidIdentifier as error:
            raise CannotTell(f"{what} failed: the answer has a server name that {error}.") from None
        return answer.body

    async def _redeem(self, token: OpenIDToken) -> UserID | Refusal:
        what = "Redeeming the OpenID token"
        return await self._user(await self._ask(what, token=token.secret), what)

    async def _ask_closed(self, user: UserID) -> Refusal | None:
        what = "Looking up whether the account is in use"
        return _closed(await self._ask(what, user_id=user.value), what)

    async def _find_no_room(self, nobody: UserID) -> None:
        facts = await self._ask("Looking up the standing in the room", user_id=nobody.value, room_id=NO_ROOM.value)
        _standing(facts.room, nobody, NO_ROOM)

    async def _user(self, facts: _Facts, what: str) -> UserID | Refusal:
        if facts.user_id is None:
            return Refusal.BAD_TOKEN
        user = require_own(parse_user(facts.user_id, what), await self.server_name(), what)
        return _closed(facts, what) or user


def _closed(facts: _Facts, what: str) -> Refusal | None:
    if facts.account is None:
        raise CannotTell(f"{what} failed: the homeserver has no such account; look into its log.")
    if facts.account.deactivated:
        return Refusal.DEACTIVATED
    return Refusal.LOCKED if facts.account.locked else None


def _keep_user(question: Question[UserID | Refusal], user: UserID) -> tuple[Question[Any], UserID, bytes]:
    return question, user, user.value.encode()


def _standing(room: _Room | None, user: UserID, room_id: RoomID) -> tuple[Standing | Refusal, bytes | None]:
    """The standing, and what of the answer may be kept."""
    if room is None:
        return Refusal.ROOM_UNKNOWN, None
    if not room.joined:
        return Refusal.NOT_IN_ROOM, None
    if room.creation is None:
        raise CannotTell("Looking up the standing in the room failed: nothing is told about the room's creation.")
    levels = read_levels(None if bytes(room.power_levels) == b"null" else room.power_levels)
    creation = RoomCreation.read(room.creation.sender, read_content(room.creation.content))
    return Standing.of(user, room_id, levels, creation), msgspec.json.encode(room)


_room = msgspec.json.Decoder(_Room)
