"""What is asked of a homeserver, behind one `Protocol`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from uvs.matrix.identifiers import RoomID, ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.power_levels import PowerLevels


@dataclass(frozen=True, slots=True)
class Standing:
    """What a joined member may do in the room."""

    level: int
    power_levels: PowerLevels


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked about the homeserver. `mend` is empty where all is well."""

    name: str
    mend: str = ""
    certain: bool = True  # False: nothing is known (the homeserver did not answer), so asking again is worth it

    @property
    def good(self) -> bool:
        return not self.mend


class Homeserver(Protocol):
    """Every method raises CannotTell where the homeserver gives no answer that can be relied on."""

    async def server_name(self) -> ServerName:
        """The server name that the homeserver's users carry."""

    async def redeem(self, token: OpenIDToken) -> UserID | None:
        """The user who was given `token`; `None` where the homeserver says that it is not (or no longer) valid."""

    async def standing(self, user: UserID, room_id: RoomID) -> Standing | None:
        """What `user` may do in the room; `None` where they are not joined to it."""

    async def check(self) -> list[Finding]:
        """Make the calls above once, and say of each whether it works. Raises nothing."""
