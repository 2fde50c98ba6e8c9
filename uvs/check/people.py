"""A person and a room: would the service let them in, and as what?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from uvs.check.homeserver import VERIFIED
from uvs.check.rows import Group
from uvs.errors import CannotTell, Refusal
from uvs.homeserver import Account, Inspectable, Standing
from uvs.matrix.identifiers import InvalidIdentifier, RoomID, ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.power_levels import CREATOR_LEVEL, PowerLevels
from uvs.settings import OwnHomeserver
from uvs.verification.decision import Refused
from uvs.ways import Ways

SERVER, ACCOUNT, ROOM, JOINED, LEVEL = "server", "account", "room", "joined", "level"

NOT_LET_IN: Mapping[Refusal, str] = {
    Refusal.SERVER_NOT_CONFIGURED: "Set UVS_FEDERATION=on, or listed with that name in UVS_FEDERATION_ALLOW, if "
    "they are to be let in (docs/homeservers.md).",
    Refusal.SERVER_DENIED: "Take the name out of UVS_FEDERATION_DENY, if they are to be let in.",
}
_REFUSED: Mapping[Refusal, str] = {
    **NOT_LET_IN,
    Refusal.BAD_TOKEN: "Get a new one, of that homeserver: a token lasts an hour.",
    Refusal.DEACTIVATED: "Nobody can use this account any longer; they need another.",
    Refusal.LOCKED: "Unlock the account, if that is meant to end.",
}
_CLOSED: Mapping[Account, str] = {
    Account.DEACTIVATED: _REFUSED[Refusal.DEACTIVATED],
    Account.LOCKED: _REFUSED[Refusal.LOCKED],
    Account.ABSENT: "Compare the id with what Element shows in the person's profile.",
}
_IDS = "Compare the id with the one in Element (Room settings, Advanced)."
_JITSI = "with uvs_sync_power_levels = true"


class _Issued(msgspec.Struct):
    access_token: str
    matrix_server_name: str


@dataclass(frozen=True, slots=True)
class GivenToken:
    """A person's OpenID token; without a server name, it is one of the default homeserver."""

    token: OpenIDToken
    server_name: ServerName | None = None

    @classmethod
    def read(cls, text: str) -> GivenToken:
        """Read the bare token, or the answer to `POST …/openid/request_token`. Raises ValueError."""
        text = text.strip()
        if not text:
            raise ValueError("there is no token in it")
        if not text.startswith("{"):
            return cls(OpenIDToken(text))
        try:
            answer = msgspec.json.decode(text, type=_Issued)
            return cls(OpenIDToken(answer.access_token), ServerName.parse(answer.matrix_server_name))
        except InvalidIdentifier as error:
            raise ValueError(f"its matrix_server_name {error}") from None
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise ValueError("it is neither a token nor a homeserver's answer with one") from None


@dataclass(frozen=True, slots=True)
class Question:
    """Whom and what it is about."""

    user: UserID | None = None
    room: RoomID | None = None
    token: GivenToken | None = None

    @property
    def title(self) -> str:
        who = str(self.user) if self.user else ("the owner of the given token" if self.token else "")
        return " in ".join(filter(None, [who, str(self.room) if self.room else ""]))

    @property
    def checks(self) -> list[str]:
        """The names of the rows that answer it."""
        rows = {
            VERIFIED: self.token is not None,
            ACCOUNT: self.user is not None,
            ROOM: self.room is not None,
            JOINED: self.room is not None and (self.user is not None or self.token is not None),
        }
        return [row for row, asked in rows.items() if asked] + ([LEVEL] if rows[JOINED] else [])


@dataclass(slots=True)
class People:
    """Answers a question with the service's own decision. `own` are the homeservers as they stand in the settings."""

    group: Group
    question: Question
    own: tuple[OwnHomeserver, ...]
    ways: Ways
    joined: bool | None = None
    """What came out, if that was asked and could be told."""
    standing: Standing | None = None

    async def check(self) -> None:
        """Add the rows."""
        user, room = self.question.user, self.question.room
        if self.question.token is not None:
            owner = await self._verify(self.question.token)
            if owner is None:
                self.group.skip("the token comes first", *self.question.checks[1:])
                return
            if user is not None and owner != user:
                self.group.fail("owner", f"Ask about {owner}, or give a token of {user}.", "the token is of another")
            user = user or owner
        if self.question.user is not None and not await self._may_come(self.question.user):
            self.group.skip("the row above comes first", *([ROOM, JOINED, LEVEL] if room else []))
            return
        if room is not None and user is not None:
            await self._standing(user, room)
        elif room is not None:
            await self._room(room)

    # --- the person ---------------------------------------------------------------------------------------------------

    async def _verify(self, given: GivenToken) -> UserID | None:
        self.group.begin(VERIFIED)
        try:
            user = await self.ways.verifier.user(given.token, given.server_name)
        except CannotTell as error:
            self.group.cannot_tell(VERIFIED, error)
            return None
        if isinstance(user, Refused):
            self.group.fail(VERIFIED, _REFUSED.get(user.reason, "Get a new one."), f"it is refused ({user.reason})")
            return None
        self.group.ok(VERIFIED, f"it is that of {user}")
        return user

    async def _may_come(self, user: UserID) -> bool:
        """Add the row of the person's server, or of their account. Says whether they may be verified at all, as far as
        that can be known."""
        self.group.begin(ACCOUNT)
        try:
            home = await self._home(user.server_name)
            if home is not None:
                return self._check_account(await home.account(user))
        except CannotTell as error:
            self.group.cannot_tell(ACCOUNT, error)
            return False
        refusal = self.ways.policy.refusal(user.server_name)
        if refusal is not None:
            self.group.fail(SERVER, NOT_LET_IN[refusal], f"people of {user.server_name} are not let in ({refusal})")
            return False
        self.group.ok(SERVER, f"people of {user.server_name} are let in; what their account is, that server knows")
        return True

    def _check_account(self, account: Account) -> bool:
        if account is Account.NOT_TOLD:
            mend = "See for yourself; synapse-admin and synapse-module can tell (docs/homeserver-access.md)."
            self.group.warn(ACCOUNT, mend, "msc4502 cannot know whether it is deactivated or locked")
        elif account is Account.IN_USE:
            self.group.ok(ACCOUNT, account)
        else:
            found = "the homeserver has no such account" if account is Account.ABSENT else f"it is {account}"
            self.group.fail(ACCOUNT, _CLOSED[account], found)
            return False
        return True

    async def _home(self, server_name: ServerName) -> Inspectable | None:
        """The operator's own homeserver of that name."""
        for own, homeserver in zip(self.own, self.ways.homeservers, strict=True):
            if server_name == (own.server_name or await homeserver.server_name()):
                return homeserver
        return None

    # --- the room -----------------------------------------------------------------------------------------------------

    async def _room(self, room: RoomID) -> None:
        self.group.begin(ROOM)
        try:
            levels = await self.ways.homeservers[0].room(room)
        except CannotTell as error:
            self.group.cannot_tell(ROOM, error)
            return
        if isinstance(levels, Refusal):
            self._unknown(room)
        else:
            self.group.ok(ROOM, f"known to the homeserver; {_threshold(levels)}")

    def _unknown(self, room: RoomID) -> None:
        believed = [
            str(own.server_name) for own in self.own[1:] if own.authoritative_for.matches_room_server(room.server_name)
        ]
        others = f" Or name one of the people of {' or '.join(believed)} with --user." if believed else ""
        mend = f"{_IDS} If it is right, nobody of your default homeserver is in that room: invite somebody.{others}"
        self.group.fail(ROOM, mend, "the homeserver does not know it")

    async def _standing(self, user: UserID, room: RoomID) -> None:
        self.group.begin(JOINED)
        try:
            standing = await self.ways.verifier.standing(user, room)
        except CannotTell as error:
            self.group.cannot_tell(JOINED, error)
            self.group.skip(f"{JOINED} comes first", LEVEL)
            return
        if standing is Refusal.ROOM_UNKNOWN:
            self._unknown(room)
            self.group.skip(f"{ROOM} comes first", JOINED, LEVEL)
            self.joined = False
            return
        self.group.ok(ROOM, "known to the homeserver")
        self.joined = not isinstance(standing, Refusal)
        if isinstance(standing, Refusal):
            found = f"{user} is not joined: an invitation, a knock or a ban is not enough"
            self.group.fail(
                JOINED, "Let them join it. If they are in the room that came after it, open the call there.", found
            )
            self.group.skip(f"{JOINED} comes first", LEVEL)
            return
        self.standing = standing
        self.group.ok(JOINED, f"{user} is joined")
        self._level(standing)

    def _level(self, standing: Standing) -> None:
        if standing.level is None or standing.power_levels is None:
            mend = (
                "Let the application service's user join the room, or use another way in (docs/homeserver-access.md)."
            )
            self.group.warn(LEVEL, mend, "cannot be known in this way: member of the call, nobody is its moderator")
            return
        level = "the creator's" if standing.level == CREATOR_LEVEL else str(standing.level)
        part = "moderator" if is_moderator(standing) else "member"
        self.group.ok(LEVEL, f"{level}: {part} of the call; {_threshold(standing.power_levels)}")


def is_moderator(standing: Standing) -> bool | None:
    """What the Prosody modules make of it, with `uvs_sync_power_levels = true`."""
    if standing.level is None or standing.power_levels is None:
        return None
    return standing.level >= standing.power_levels.state_default


def _threshold(levels: PowerLevels | None) -> str:
    if levels is None:
        return "its levels cannot be known in this way"
    return f"moderators are those from {levels.state_default} on, {_JITSI}"
