"""Power levels as room versions 1 to 12 have them, and as room administrators can mangle them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvs.matrix.identifiers import RoomID, UserID
from uvs.matrix.power_levels import CREATOR_LEVEL, DEFAULTS, MAX_LEVEL, PowerLevels, RoomCreation, read_level

ALICE = UserID.parse("@alice:x")
BOB = UserID.parse("@bob:x")
OLD_ROOM = RoomID.parse("!a:x")
NEW_ROOM = RoomID.parse("!" + "A" * 43)


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (50, 50),
        (-1, -1),
        ("50", 50),
        (" +050\t", 50),
        ("-007", -7),
        ("\n 100 \n", 100),
        (50.0, 50),
        (50.9, 50),
        (-50.9, -50),
        (2**60, MAX_LEVEL),
        (-(2**60), -MAX_LEVEL),
        ("9" * 300, MAX_LEVEL),
        (float("inf"), MAX_LEVEL),
        ("", None),
        ("5 0", None),
        ("5.0", None),
        ("1e3", None),
        ("0x10", None),
        ("1_000", None),
        ("٥٠", None),
        ("--5", None),
        ("9" * 10_000, None),
        (float("nan"), None),
        (True, None),
        (None, None),
        ([50], None),
        ({"level": 50}, None),
    ],
)
def test_a_level_is_read_as_the_specification_says(value: object, level: int | None) -> None:
    assert read_level(value) == level


@pytest.mark.parametrize(
    ("content", "level"),
    [
        ({"users": {"@alice:x": 75}}, 75),
        ({"users": {"@alice:x": "75"}}, 75),
        ({"users": {"@alice:x": 0}, "users_default": 50}, 0),
        ({"users": {"@alice:x": "admin"}, "users_default": 10}, 10),
        ({"users": {"@alice:x": None}, "users_default": 10}, 10),
        ({"users": {"@ALICE:x": 75}}, 0),
        ({"users": ["@alice:x"], "users_default": 5}, 5),
        ({"users": None}, 0),
        ({"users_default": "20"}, 20),
        ({"users_default": []}, 0),
        ({}, 0),
    ],
)
def test_a_user_has_their_own_level_else_the_default_else_0(content: dict[str, Any], level: int) -> None:
    assert PowerLevels.read(content).level_of(ALICE, None) == level


def test_without_the_event_the_creator_has_100_and_everybody_else_0() -> None:
    levels = PowerLevels.read(None)
    creation = RoomCreation.read("@alice:x", {"creator": "@alice:x"})
    assert (levels.level_of(ALICE, creation), levels.level_of(BOB, creation)) == (100, 0)
    assert levels.room == DEFAULTS, "also state_default: a threshold of 0 would make everybody a moderator"


@pytest.mark.parametrize(
    ("version", "sender", "content", "creators", "privileged"),
    [
        (None, "@bob:x", {"creator": "@alice:x"}, {"@alice:x"}, False),
        ("1", "@bob:x", {"creator": "@alice:x"}, {"@alice:x"}, False),
        ("10", "@bob:x", {"creator": "@alice:x"}, {"@alice:x"}, False),
        ("10", "@bob:x", {}, set(), False),
        ("11", "@alice:x", {"creator": "@mallory:x"}, {"@alice:x"}, False),
        ("11", "@alice:x", {"additional_creators": ["@mallory:x"]}, {"@alice:x"}, False),
        ("12", "@alice:x", {}, {"@alice:x"}, True),
        ("12", "@alice:x", {"creator": "@mallory:x"}, {"@alice:x"}, True),
        ("12", "@alice:x", {"additional_creators": ["@bob:x", 1, {}, None]}, {"@alice:x", "@bob:x"}, True),
        ("12", "@alice:x", {"additional_creators": "@bob:x"}, {"@alice:x"}, True),
        ("12", None, {}, set(), True),
        ("13", "@alice:x", {}, {"@alice:x"}, True),
        ("org.matrix.hydra.11", "@alice:x", {}, {"@alice:x"}, True),
        ("org.example.unknown", "@alice:x", {}, {"@alice:x"}, False),
        (12, "@alice:x", {}, {"@alice:x"}, False),
        ("1²", "@alice:x", {}, {"@alice:x"}, False),
    ],
)
def test_who_created_a_room_depends_on_its_version(
    version: object, sender: object, content: dict[str, Any], creators: set[str], privileged: bool
) -> None:
    if version is not None:
        content = {**content, "room_version": version}
    assert RoomCreation.read(sender, content) == RoomCreation(frozenset(creators), privileged)


def test_creators_of_a_version_12_room_stand_above_every_level_with_and_without_the_event() -> None:
    creation = RoomCreation.read("@alice:x", {"room_version": "12"})
    for levels in (PowerLevels.read(None), PowerLevels.read({"users": {"@alice:x": 0}, "state_default": MAX_LEVEL})):
        assert levels.level_of(ALICE, creation) == CREATOR_LEVEL
        assert levels.level_of(ALICE, creation) >= levels.state_default


@pytest.mark.parametrize(
    ("content", "room", "needed"),
    [
        ({"users": {"@alice:x": 1}}, OLD_ROOM, False),
        ({"users": {"@alice:x": 1}}, NEW_ROOM, False),
        ({}, OLD_ROOM, False),
        ({}, NEW_ROOM, True),
        (None, OLD_ROOM, True),
        (None, NEW_ROOM, True),
    ],
)
def test_the_creation_is_asked_for_only_where_it_can_matter(
    content: dict[str, Any] | None, room: RoomID, needed: bool
) -> None:
    assert PowerLevels.read(content).needs_creation(ALICE, room) is needed


def test_what_goes_over_the_wire_has_numbers_and_no_users() -> None:
    content = {
        "users": {"@alice:x": 1},
        "ban": "75",
        "kick": {},
        "events": {"m.room.name": "10", "x": []},
        "historical": "100",
        "text": "no level",
    }
    assert PowerLevels.read({**content, "notifications": "room"}).room == {
        **DEFAULTS,
        "ban": 75,
        "events": {"m.room.name": 10},
        "historical": 100,
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*DEFAULTS, "users", "events", "notifications", "x"])
CONTENTS = st.dictionaries(KEYS, JSON | st.dictionaries(st.sampled_from(["@alice:x", "m.room.name"]), JSON))


@given(st.none() | CONTENTS)
def test_whatever_the_content_is_levels_are_numbers_that_json_can_carry(content: dict[str, Any] | None) -> None:
    levels = PowerLevels.read(content)
    for key, value in levels.room.items():
        for number in value.values() if isinstance(value, dict) else [value]:
            assert type(number) is int, key
            assert abs(number) <= MAX_LEVEL, key
    assert levels.room.keys() >= DEFAULTS.keys()
    level = levels.level_of(ALICE, None)
    assert type(level) is int
    assert abs(level) <= MAX_LEVEL
    assert "users" not in levels.room


@given(JSON, st.dictionaries(st.sampled_from(["room_version", "creator", "additional_creators"]), JSON))
def test_whatever_the_creation_is_creators_are_text(sender: object, content: dict[str, Any]) -> None:
    assert all(isinstance(creator, str) for creator in RoomCreation.read(sender, content).creators)
