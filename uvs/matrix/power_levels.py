"""Power levels, for room versions 1 to 12 (client-server API, `m.room.power_levels`; room versions 10 and 12).

The content of the event was written by whoever administers the room, so anything can be in it. Nothing here raises:
what cannot be read as a level counts as the default of its place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uvs.matrix.identifiers import RoomID, UserID

MAX_LEVEL = 2**53 - 1
"""The largest integer of canonical JSON. Older rooms hold larger ones; they are clamped, never dropped: a level that
cannot be reached must not turn into a default that can."""

CREATOR_LEVEL = MAX_LEVEL
"""How the infinite level of a version 12 room's creators is reported (MSC4289)."""

NO_EVENT_CREATOR_LEVEL = 100
"""The creator's level in a room without a power levels event; everybody else has 0."""

DEFAULTS = {
    "ban": 50,
    "kick": 50,
    "redact": 50,
    # Also where the whole event is missing (the specification has 0 there): a moderator's threshold of 0 would make
    # everybody in the call one.
    "state_default": 50,
    "events_default": 0,
    "users_default": 0,
    "invite": 0,
}

# Rooms up to version 9 hold levels as text: one base 10 integer, a sign, white space around it, leading zeros.
_TEXT_LEVEL = re.compile(r"\s*([+-]?)0*([0-9]{1,400})\s*", re.ASCII)
_LAST_VERSION_OF_MORTAL_CREATORS = 11
_LAST_VERSION_WITH_CREATOR_FIELD = 10


def read_level(value: object) -> int | None:
    """Read one level as the specification and Synapse do; `None` where it is not one."""
    if type(value) is int and -MAX_LEVEL <= value <= MAX_LEVEL:
        return value  # as nearly all are
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        match = _TEXT_LEVEL.fullmatch(value)
        if match is None:
            return None
        value = int(match[1] + match[2])
    elif isinstance(value, float):
        if math.isnan(value):
            return None
        # Synapse truncates; infinity is a number too large for the decoder.
        value = int(max(-MAX_LEVEL, min(MAX_LEVEL, value)))
    if not isinstance(value, int):
        return None
    return max(-MAX_LEVEL, min(MAX_LEVEL, value))


@dataclass(frozen=True, slots=True)
class RoomCreation:
    """What the `m.room.create` event says about who created the room."""

    creators: frozenset[str]
    privileged: bool  # whether creators stand above every level (version 12 and later)

    @classmethod
    def read(cls, sender: object, content: Mapping[str, Any]) -> RoomCreation:
        """Read the event's `sender` and `content`. An unknown version grants its creators nothing special."""
        version = content.get("room_version", "1")
        number = int(version) if isinstance(version, str) and re.fullmatch(r"[0-9]{1,4}", version, re.ASCII) else None
        if version == "org.matrix.hydra.11":  # COMPAT: the name under which Synapse tried version 12
            number = 12
        if number is not None and number > _LAST_VERSION_OF_MORTAL_CREATORS:
            more = content.get("additional_creators")
            named = [sender, *(more if isinstance(more, list) else [])]
            return cls(frozenset(name for name in named if isinstance(name, str)), privileged=True)
        # Up to version 10 the content names the creator; later, and in versions nobody knows, the sender is it.
        creator = (
            content.get("creator") if number is not None and number <= _LAST_VERSION_WITH_CREATOR_FIELD else sender
        )
        return cls(frozenset([creator] if isinstance(creator, str) else ()), privileged=False)


@dataclass(frozen=True, slots=True)
class PowerLevels:
    """The levels of one room.

    `room` is the event's content as it goes over the wire: without `users`, with the defaults filled in, and with
    nothing in it but levels and maps of levels, since the content may hold whatever its author liked.
    """

    room: Mapping[str, int | dict[str, int]]
    users: Mapping[str, int]
    users_default: int
    state_default: int
    exists: bool  # whether the room has a power levels event at all

    @classmethod
    def read(cls, content: Mapping[str, Any] | None) -> PowerLevels:
        """Read the event's content; `None` where the room has no such event."""
        source = content or {}
        levels = DEFAULTS | {key: level for key, value in source.items() if (level := read_level(value)) is not None}
        maps = {key: _read_map(value) for key, value in source.items() if isinstance(value, Mapping)}
        users = maps.pop("users", {})
        levels.pop("users", None)
        return cls(
            {**maps, **levels}, users, levels["users_default"], levels["state_default"], exists=content is not None
        )

    def needs_creation(self, user: UserID, room_id: RoomID) -> bool:
        """Whether the level of `user` depends on who created the room: a version 12 room's creators are never listed
        in its power levels (the event would be rejected), and without the event nobody is."""
        return user.value not in self.users and (room_id.is_hash or not self.exists)

    def level_of(self, user: UserID, creation: RoomCreation | None) -> int:
        """The level of `user`. `creation` may be `None` only where it cannot matter: see `needs_creation`."""
        if creation is not None and user.value in creation.creators:
            if creation.privileged:
                return CREATOR_LEVEL
            if not self.exists:
                return NO_EVENT_CREATOR_LEVEL
        return self.users.get(user.value, self.users_default)


def _read_map(value: Mapping[str, Any]) -> dict[str, int]:
    """Keep the entries of a map of levels that can be read."""
    return {key: level for key, entry in value.items() if (level := read_level(entry)) is not None}
