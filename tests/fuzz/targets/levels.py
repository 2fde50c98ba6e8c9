"""Power levels and room creation: events whose content was written by whoever administers the room."""

from __future__ import annotations

import msgspec

from tests.fuzz.target import joined, parts, target, text
from uvs.homeserver.events import read_content
from uvs.matrix.identifiers import RoomID, UserID
from uvs.matrix.power_levels import CREATOR_LEVEL, DEFAULTS, MAX_LEVEL, PowerLevels, RoomCreation, read_level

ALICE = UserID.parse("@alice:x")
ROOMS = (RoomID.parse("!a:x"), RoomID.parse("!" + "A" * 43))

CONTENTS = (
    '{"users":{"@alice:x":100,"@bob:x":"50"},"users_default":0,"state_default":50,"events":{"m.room.name":50},"ban":50,'
    '"kick":50,"redact":50,"invite":0,"events_default":0,"historical":100,"notifications":{"room":50}}',
    '{"users":{"@alice:x":" +075 "},"users_default":"10"}',
    '{"users":null,"users_default":1e999}',
    "{}",
)
CREATIONS = (
    '{"room_version":"12","additional_creators":["@alice:x"]}',
    '{"room_version":"10","creator":"@alice:x"}',
    '{"creator":"@alice:x"}',
    '{"room_version":"org.matrix.hydra.11"}',
)
WORDS = (*DEFAULTS, "users", "events", "@alice:x", "room_version", "creator", "additional_creators", "12", "11", "50")


def _is_level(value: object) -> bool:
    return type(value) is int and abs(value) <= MAX_LEVEL


@target(
    "read-level",
    parser="uvs.matrix.power_levels.read_level",
    whose="room administrators'",
    seeds=["50", "-1", '"50"', '" +050 "', "50.9", "1e999", "true", "null", "[50]", '"٥٠"', "9007199254740993"],
    words=('"', " ", "+", "-", "0", "e", ".", "_", "\\u0661", "\\t", "9" * 400),
)
def one_level(data: bytes) -> str:
    """A level is an integer that JSON can carry, or none; whole numbers and texts of digits are what they say."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        value = text(data)
    level = read_level(value)
    assert level is None or _is_level(level)
    if type(value) is int:
        assert level == max(-MAX_LEVEL, min(MAX_LEVEL, value))
    elif type(value) is float and abs(value) < MAX_LEVEL:
        assert level == int(value)
    elif isinstance(value, str) and level is not None:
        assert set(value.strip()) <= set("+-0123456789")
        if len(value) < 400:
            assert level == max(-MAX_LEVEL, min(MAX_LEVEL, int(value)))
    elif not isinstance(value, int | float) or isinstance(value, bool):
        assert level is None or isinstance(value, str)
    return f"{type(value).__name__} {level is not None} {level is not None and abs(level) == MAX_LEVEL}"


@target(
    "power-levels",
    parser="uvs.matrix.power_levels.PowerLevels.read",
    whose="room administrators'",
    seeds=CONTENTS,
    words=WORDS,
    cost=2,
)
def power_levels(data: bytes) -> str:
    """Nothing is raised; every level is an integer that JSON can carry; the defaults are filled in; users are not told;
    and a level that was given is the one that counts."""
    content = read_content(msgspec.Raw(data))
    levels = PowerLevels.read(content)
    numbers = 0
    for name, value in levels.room.items():
        for number in value.values() if isinstance(value, dict) else [value]:
            assert _is_level(number), name
            numbers += 1
    assert levels.room.keys() >= DEFAULTS.keys()
    for name in DEFAULTS:
        given = read_level(content.get(name))
        assert levels.room[name] == (DEFAULTS[name] if given is None else given)
    assert "users" not in levels.room
    assert all(map(_is_level, levels.users.values()))
    assert msgspec.json.decode(msgspec.json.encode(levels.room)) == levels.room
    users = content.get("users")
    own = read_level(users.get(ALICE.value)) if isinstance(users, dict) else None
    assert levels.level_of(ALICE, None) == (levels.users_default if own is None else own)
    assert levels.exists
    assert not levels.needs_creation(ALICE, ROOMS[0])
    assert levels.needs_creation(ALICE, ROOMS[1]) == (own is None)
    return f"{own is None} {len(levels.users) > 1} {min(numbers, 12)}"


@target(
    "room-creation",
    parser="uvs.matrix.power_levels.RoomCreation.read",
    whose="room administrators'",
    seeds=[joined('"@alice:x"', creation) for creation in CREATIONS],
    words=WORDS,
    cost=2,
)
def room_creation(data: bytes) -> str:
    """Nothing is raised; creators are texts that stand in the event; nobody stands above every level but in rooms of
    version 12 and later."""
    first, second = parts(data, 2)
    try:
        sender = msgspec.json.decode(first)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        sender = None
    content = read_content(msgspec.Raw(second))
    creation = RoomCreation.read(sender, content)
    version, named, more = content.get("room_version"), [sender], content.get("additional_creators")
    if creation.privileged:
        assert isinstance(version, str)
        assert version == "org.matrix.hydra.11" or int(version) >= 12
        named += more if isinstance(more, list) else []
    else:
        assert len(creation.creators) <= 1
        named.append(content.get("creator"))
    assert creation.creators <= {name for name in named if isinstance(name, str)}
    for levels in (PowerLevels.read(None), PowerLevels.read({"users_default": 7})):
        level = levels.level_of(ALICE, creation)
        if ALICE.value not in creation.creators:
            assert level == (7 if levels.exists else 0)
        elif creation.privileged:
            assert level == CREATOR_LEVEL
        else:
            assert level == (7 if levels.exists else 100)
    return f"{creation.privileged} {min(len(creation.creators), 3)} {ALICE.value in creation.creators}"
