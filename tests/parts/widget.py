"""What a Matrix client does when somebody opens the Jitsi widget of a room, up to being in the call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.parts.jitsi_client import Joined, Refused, Session, Via, log_in
from tests.parts.jitsi_token import conference_node, element_jwt
from tests.parts.prosody import Prosody
from tests.parts.stanzas import StanzaError
from tests.parts.synapse import Synapse, User


@dataclass(frozen=True, slots=True)
class InCall:
    """Somebody who is in the conference."""

    session: Session
    joined: Joined


class Widgets:
    """Opens widgets, and ends every session at the end. `tokens` are the OpenID tokens that were used."""

    def __init__(self, synapse: Synapse, prosody: Prosody, via: Via) -> None:
        self.synapse = synapse
        self.prosody = prosody
        self.via = via
        self.tokens: list[str] = []
        self._sessions: list[Session] = []

    def conference(self, room_id: str) -> str:
        return f"{conference_node(room_id)}@{self.prosody.conference}"

    def jwt(self, user: User, room_id: str, *, changes: Mapping[str, Any] | None = None) -> str:
        """With an OpenID token that Synapse issues for it."""
        openid_token = self.synapse.openid_token(user)
        self.tokens.append(openid_token)
        return element_jwt(
            self.prosody.domain,
            room_id,
            openid_token,
            server_name=self.synapse.server_name,
            name=user.user_id,
            changes=changes,
        )

    async def log_in(self, user: User, room_id: str, *, previd: str | None = None) -> Session | Refused:
        return await self.log_in_with(self.jwt(user, room_id), room_id, previd=previd)

    async def log_in_with(self, token: str | None, room_id: str, *, previd: str | None = None) -> Session | Refused:
        outcome = await log_in(self.prosody, self.via, room=conference_node(room_id), token=token, previd=previd)
        if isinstance(outcome, Session):
            self._sessions.append(outcome)
        return outcome

    async def session(self, user: User, room_id: str) -> Session:
        """Log in, which has to work."""
        outcome = await self.log_in(user, room_id)
        assert isinstance(outcome, Session), outcome
        return outcome

    async def enter(self, user: User, room_id: str) -> InCall:
        """Log in and join the call, which has to work."""
        session = await self.session(user, room_id)
        joined = await session.join(self.conference(room_id), name=user.user_id)
        assert isinstance(joined, Joined), joined
        return InCall(session, joined)

    async def try_to_enter(self, user: User, room_id: str) -> InCall | Refused | StanzaError:
        outcome = await self.log_in(user, room_id)
        if isinstance(outcome, Refused):
            return outcome
        joined = await outcome.join(self.conference(room_id), name=user.user_id)
        return InCall(outcome, joined) if isinstance(joined, Joined) else joined

    def keep(self, session: Session) -> Session:
        """End this one too, at the end."""
        self._sessions.append(session)
        return session

    async def close(self) -> None:
        while self._sessions:
            await self._sessions.pop().close()
