"""Somebody who was verified for one Matrix room gets into no other conference, in no spelling and by no detour."""

from __future__ import annotations

import json
from base64 import b32encode
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest

from tests.e2e.conftest import Room
from tests.e2e.reasons import OTHER_ROOM
from tests.e2e.scene import Scene
from tests.parts.jitsi_client import Joined, Refused, Via
from tests.parts.jitsi_token import conference_node
from tests.parts.stanzas import CLIENT, StanzaError, element, stanza
from tests.parts.widget import Widgets

JITMEET = "http://jitsi.org/jitmeet"


@pytest.fixture
def via() -> Via:
    """After the login, both ways are one in Prosody."""
    return Via.WEBSOCKET


# --- logging in -------------------------------------------------------------------------------------------------------


async def test_a_token_for_one_room_does_not_log_in_at_the_address_of_another(
    widgets: Widgets, room: Room, other_room: Room
) -> None:
    outcome = await widgets.log_in_with(widgets.jwt(room.member, room.room_id), other_room.room_id)
    assert outcome == Refused("not-allowed", OTHER_ROOM, shown=OTHER_ROOM)


# --- joining ----------------------------------------------------------------------------------------------------------


def respell(node: str) -> str:
    """Another text that decodes to the same bytes: the bits that base32 leaves over are set."""
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    return node[:-1] + alphabet[alphabet.index(node[-1]) + 1]


SPELLINGS: dict[str, Callable[[Scene], str]] = {
    "plain": lambda s: s.target,
    "upper case": lambda s: s.target.upper(),
    "upper case node": lambda s: f"{s.target_node.upper()}@{s.prosody.conference}",
    "mixed case": lambda s: f"{s.target_node.capitalize()}@{s.prosody.conference}",
    "padded": lambda s: f"{s.target_node}{'=' * (-len(s.target_node) % 8)}@{s.prosody.conference}",
    "not canonical": lambda s: f"{respell(s.target_node)}@{s.prosody.conference}",
    "one character less": lambda s: f"{s.target_node[:-1]}@{s.prosody.conference}",
    "base32 of the alias": lambda s: (
        f"{b32encode(b'#room:matrix.example').decode().rstrip('=').lower()}@{s.prosody.conference}"
    ),
    "base32 of the room id with white space": lambda s: (
        f"{b32encode((s.target_room_id + ' ').encode()).decode().rstrip('=').lower()}@{s.prosody.conference}"
    ),
    "the room id": lambda s: f"{s.target_room_id}@{s.prosody.conference}",
    "the room id, escaped": lambda s: f"{s.target_room_id.replace(':', chr(92) + '3a')}@{s.prosody.conference}",
    "percent-encoded": lambda s: f"%{ord(s.target_node[0]):02x}{s.target_node[1:]}@{s.prosody.conference}",
    "full width letters": lambda s: f"{chr(ord(s.target_node[0]) + 0xFEE0)}{s.target_node[1:]}@{s.prosody.conference}",
    "soft hyphen": lambda s: f"{s.target_node[:3]}\u00ad{s.target_node[3:]}@{s.prosody.conference}",
    "zero width joiner": lambda s: f"{s.target_node}\u200d@{s.prosody.conference}",
    "long s": lambda s: f"{s.target_node.replace('s', chr(0x17F))}@{s.prosody.conference}",
    "dot after the host": lambda s: f"{s.target}.",
    "upper case host": lambda s: f"{s.target_node}@{s.prosody.conference.upper()}",
    "full width dot in the host": lambda s: s.target.replace(".", "\u3002", 1),
    "with a tenant": lambda s: f"[tenant]{s.target_node}@{s.prosody.conference}",
    "tenant as host": lambda s: f"{s.target_node}@conference.tenant.{s.prosody.domain}",
    "own room in front": lambda s: f"{s.home}@{s.target}",
    "a room that nobody has": lambda s: f"shadow@{s.prosody.conference}",
    "lobby": lambda s: f"{s.target_node}@{s.prosody.lobby}",
    "breakout": lambda s: f"{s.target_node}@{s.prosody.breakout}",
    "internal": lambda s: f"{s.target_node}@{s.prosody.internal}",
    "own room on the internal component": lambda s: f"{s.home_node}@{s.prosody.internal}",
    "own room on the breakout component": lambda s: f"{s.home_node}@{s.prosody.breakout}",
    "the brewery": lambda s: f"jvbbrewery@{s.prosody.internal}",
}
NICKS = ("intruder", "with/slash", "with@sign", "a@b/c", "\u00e9")


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
async def test_no_spelling_of_another_room_lets_anybody_in(scene: Scene, spelling: Callable[[Scene], str]) -> None:
    async def attempt() -> None:
        outcome = await scene.intruder.session.join(spelling(scene), nick="intruder")
        assert isinstance(outcome, StanzaError), outcome

    await scene.assert_inside_is_undisturbed_by(attempt())


@pytest.mark.parametrize("nick", NICKS)
async def test_no_nickname_lets_anybody_in(scene: Scene, nick: str) -> None:
    async def attempt() -> None:
        for resource in (nick, f"{scene.home}/{nick}"):
            assert isinstance(await scene.intruder.session.join(scene.target, nick=resource), StanzaError)

    await scene.assert_inside_is_undisturbed_by(attempt())


async def test_a_refused_join_says_that_the_conference_belongs_to_another_room(scene: Scene) -> None:
    assert await scene.intruder.session.join(scene.target) == StanzaError("not-allowed", OTHER_ROOM)


async def test_nobody_can_open_the_conference_of_another_room_first(
    widgets: Widgets, room: Room, other_room: Room
) -> None:
    intruder = await widgets.session(room.moderator, room.room_id)
    target = widgets.conference(other_room.room_id)
    assert await intruder.join(target) == StanzaError("not-allowed", OTHER_ROOM)
    # It was not even created: the first one of its own people is told that it is new.
    entered = await widgets.enter(other_room.member, other_room.room_id)
    assert "201" in entered.joined.codes


async def test_people_of_both_rooms_get_into_their_own_calls_at_the_same_time(
    widgets: Widgets, room: Room, other_room: Room
) -> None:
    here = await widgets.enter(room.member, room.room_id)
    there = await widgets.enter(other_room.member, other_room.room_id)
    await here.session.say(widgets.conference(room.room_id), "only for us")
    await here.session.expect_message("only for us")
    await there.session.ping()
    assert not there.session.has_heard("only for us")


# --- lobby and breakout rooms -----------------------------------------------------------------------------------------


async def make_breakout_room(scene: Scene) -> str:
    """As a moderator's Jitsi Meet does; returns the address that all in the call are told."""
    session = scene.inside.session
    attributes = {"type": "features/breakout-rooms/add", "subject": "aside"}
    await session.send(stanza("message", {"to": scene.prosody.breakout}, element(CLIENT, "breakout_rooms", attributes)))
    message = await session.expect(lambda each: each.find(f"{{{JITMEET}}}json-message") is not None)
    news = json.loads(message.findtext(f"{{{JITMEET}}}json-message") or "")
    (address,) = (room["jid"] for room in news["rooms"].values())
    assert isinstance(address, str)
    return address


async def open_lobby(scene: Scene) -> str:
    assert isinstance(await scene.inside.session.configure(scene.target, membersonly="1"), ET.Element)
    return f"{scene.target_node}@{scene.prosody.lobby}"


async def test_the_breakout_room_of_another_conference_is_closed(
    scene: Scene, widgets: Widgets, other_lasting_room: Room
) -> None:
    breakout = await make_breakout_room(scene)
    assert await scene.intruder.session.join(breakout) == StanzaError("not-allowed", OTHER_ROOM)
    own = await widgets.enter(other_lasting_room.member, other_lasting_room.room_id)
    assert isinstance(await own.session.join(breakout), Joined)
    assert await scene.intruder.session.join(breakout) == StanzaError("not-allowed", OTHER_ROOM)


async def test_the_lobby_of_another_conference_is_closed(
    scene: Scene, widgets: Widgets, other_lasting_room: Room
) -> None:
    lobby = await open_lobby(scene)
    assert await scene.intruder.session.join(lobby) == StanzaError("not-allowed", OTHER_ROOM)
    own = await widgets.session(other_lasting_room.member, other_lasting_room.room_id)
    assert isinstance(await own.join(lobby), Joined)
    assert await scene.intruder.session.join(lobby) == StanzaError("not-allowed", OTHER_ROOM)


def test_the_conference_is_named_as_jitsi_names_it() -> None:
    assert conference_node("!abc:x") == "efqweyz2pa"
