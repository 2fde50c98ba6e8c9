"""What the stub homeserver answers, made once: for a user it has only to put in who it is.

People and rooms have numbers of eight digits. `small-00000007` is the token of `@small-00000007`, who is joined to
`!small-00000007`, a room of `ROOMS["small"]` members. So every verification can be of a token, a user and a room of its
own. The people of a crowd are all in one room.
"""

from __future__ import annotations

import json

ROOMS = {"small": 5, "r10000": 10_000, "r100000": 100_000, "crowd": 500}
"""The kinds of rooms, and how many members each has."""

CROWD = "crowd"
OTHER_ROOMS = 20  # that everybody is in besides

_NUMBER = "########"  # stands for the number, which is as long

EVENTS = {
    "m.room.avatar": 50,
    "m.room.canonical_alias": 50,
    "m.room.encryption": 100,
    "m.room.history_visibility": 100,
    "m.room.name": 50,
    "m.room.power_levels": 100,
    "m.room.server_acl": 100,
    "m.room.tombstone": 100,
}
LEVELS = {
    "ban": 50,
    "events": EVENTS,
    "events_default": 0,
    "invite": 0,
    "kick": 50,
    "redact": 50,
    "state_default": 50,
    "users": {"@moderator:bench.example": 100},
    "users_default": 0,
}


def user_id(kind: str, number: int, server_name: str) -> str:
    return f"@{kind}-{number:08}:{server_name}"


def room_id(kind: str, number: int, server_name: str) -> str:
    return f"!{kind}-{0 if kind == CROWD else number:08}:{server_name}"


class Reply:
    """A whole HTTP response, for whichever number."""

    def __init__(self, body: object, status: str = "200 OK") -> None:
        content = json.dumps(body, separators=(",", ":"))
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        # Taken apart here, so that megabytes need not be searched for the places.
        self._pieces = (head + content).encode("ascii").split(_NUMBER.encode())

    def of(self, number: bytes) -> bytes:
        return number.join(self._pieces)


def replies(kind: str, server_name: str) -> dict[str, Reply]:
    """By the kind of call, what is answered to whoever asks about people and rooms of that kind."""
    user = f"@{kind}-{_NUMBER}:{server_name}"
    room = f"!{kind}-{'0' * 8 if kind == CROWD else _NUMBER}:{server_name}"
    # In a crowd all of them may ask; elsewhere one of the members does, and the others are always the same.
    others = [user_id(kind if kind == CROWD else "other", n, server_name) for n in range(ROOMS[kind])]
    members = others if kind == CROWD else [*others[1:], user]
    creator = "@moderator:bench.example"
    create = _event("m.room.create", creator, {"room_version": "10", "creator": creator})
    levels = _event("m.room.power_levels", creator, LEVELS)
    return {
        "userinfo": Reply({"sub": user}),
        "account": Reply({"name": user, "admin": False, "deactivated": False, "locked": False}),
        "joined_rooms": Reply(
            {"joined_rooms": [*(f"!other{n:08}:{server_name}" for n in range(OTHER_ROOMS)), room], "total": 21}
        ),
        "members": Reply({"members": members, "total": len(members)}),
        "m.room.power_levels": Reply({"state": [levels]}),
        "m.room.create": Reply({"state": [create]}),
        "whole_state": Reply({"state": [create, levels, *(_membership(member) for member in members)]}),
        "module": Reply(
            {
                "server_name": server_name,
                "user_id": user,
                "account": {"deactivated": False, "locked": False},
                "room": {
                    "joined": True,
                    "power_levels": LEVELS,
                    "creation": {"sender": creator, "content": create["content"]},
                },
            }
        ),
    }


def replies_about_nobody(server_name: str) -> dict[str, Reply]:
    """What is answered about others: the owner of the access token, and what a service asks as it starts."""
    admin = f"@admin:{server_name}"
    unknown = Reply({"errcode": "M_NOT_FOUND", "error": "No such room"}, "404 Not Found")
    return {
        "whoami": Reply({"user_id": admin}),
        "userinfo": Reply({"errcode": "M_UNKNOWN_TOKEN", "error": "Not a token"}, "401 Unauthorized"),
        "account": Reply({"name": admin, "admin": True, "deactivated": False, "locked": False}),
        "joined_rooms": Reply({"joined_rooms": [], "total": 0}),
        "members": unknown,
        "m.room.power_levels": unknown,
        "m.room.create": unknown,
        "whole_state": unknown,
        "module": Reply({"server_name": server_name, "user_id": None, "account": None, "room": None}),
        "unknown": Reply({"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}, "404 Not Found"),
    }


def _event(kind: str, sender: str, content: dict[str, object], state_key: str = "") -> dict[str, object]:
    """With what Synapse's admin API tells of each: some 400 bytes for a membership."""
    return {
        "type": kind,
        "room_id": "!some-room-of-the-benchmark:bench.example",
        "sender": sender,
        "content": content,
        "state_key": state_key,
        "origin_server_ts": 1_700_000_000_000,
        "unsigned": {"age": 86_400_000},
        "event_id": "$0123456789abcdefghijklmnopqrstuvwxyzABCDEFG",
        "user_id": sender,
        "age": 86_400_000,
    }


def _membership(user: str) -> dict[str, object]:
    return _event("m.room.member", user, {"membership": "join", "displayname": user[1:16], "avatar_url": None}, user)
