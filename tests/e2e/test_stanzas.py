"""Nothing that somebody sends reaches a conference which they have not joined, or the people in it."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest

from tests.e2e.conftest import Room
from tests.e2e.scene import Scene
from tests.parts.jitsi_client import Via
from tests.parts.stanzas import (
    CLIENT,
    DISCO_INFO,
    DISCO_ITEMS,
    FOCUS,
    MUC_ADMIN,
    MUC_OWNER,
    MUC_USER,
    PING,
    StanzaError,
    element,
    stanza,
)
from tests.parts.widget import Widgets


@pytest.fixture
def via() -> Via:
    """After the login, both ways are one in Prosody."""
    return Via.WEBSOCKET


@pytest.fixture
def rank() -> str:
    """Whoever may most in a conference of their own."""
    return "moderator"


@pytest.mark.parametrize("component", ["conference", "lobby", "breakout", "internal"])
async def test_nobody_is_told_which_conferences_there_are(scene: Scene, component: str) -> None:
    host = getattr(scene.prosody, component)
    answer = await scene.intruder.session.iq("get", host, element(DISCO_ITEMS, "query"))
    assert isinstance(answer, StanzaError), ET.tostring(answer)


def ask(kind: str, to: Callable[[Scene], str], namespace: str, name: str) -> Callable[[Scene], ET.Element]:
    return lambda scene: stanza("iq", {"type": kind, "to": to(scene), "id": "attempt"}, element(namespace, name))


def say(kind: str, to: Callable[[Scene], str]) -> Callable[[Scene], ET.Element]:
    body = element(CLIENT, "body", text="hello from outside")
    return lambda scene: stanza("message", {"type": kind, "to": to(scene), "id": "attempt"}, body)


def appear(to: Callable[[Scene], str], **attributes: str) -> Callable[[Scene], ET.Element]:
    return lambda scene: stanza("presence", {"to": to(scene), "id": "attempt", **attributes})


def conference(scene: Scene) -> str:
    return scene.target


def occupant(scene: Scene) -> str:
    return scene.inside.joined.nick


def full_jid(scene: Scene) -> str:
    return scene.inside.session.jid


def bare_jid(scene: Scene) -> str:
    return scene.inside.session.jid.split("/", 1)[0]


def invitation(scene: Scene, name: str, room: str, to: str) -> ET.Element:
    x = element(MUC_USER, "x")
    ET.SubElement(x, f"{{{MUC_USER}}}{name}", {"to": to})
    return stanza("message", {"to": room, "id": "attempt"}, x)


def grant(scene: Scene) -> ET.Element:
    query = element(MUC_ADMIN, "query")
    ET.SubElement(
        query, f"{{{MUC_ADMIN}}}item", {"jid": scene.intruder.session.jid.split("/")[0], "affiliation": "owner"}
    )
    return stanza("iq", {"type": "set", "to": scene.target, "id": "attempt"}, query)


def kick(scene: Scene) -> ET.Element:
    query = element(MUC_ADMIN, "query")
    ET.SubElement(query, f"{{{MUC_ADMIN}}}item", {"nick": scene.inside.joined.nick.split("/")[1], "role": "none"})
    return stanza("iq", {"type": "set", "to": scene.target, "id": "attempt"}, query)


def destroy(scene: Scene) -> ET.Element:
    query = element(MUC_OWNER, "query")
    ET.SubElement(query, f"{{{MUC_OWNER}}}destroy")
    return stanza("iq", {"type": "set", "to": scene.target, "id": "attempt"}, query)


STANZAS: dict[str, Callable[[Scene], ET.Element]] = {
    "message to the room": say("groupchat", conference),
    "normal message to the room": say("normal", conference),
    "private message to an occupant": say("chat", occupant),
    "message to a person": say("chat", full_jid),
    "message to an account": say("chat", bare_jid),
    "headline to a person": say("headline", full_jid),
    "error to a person": say("error", full_jid),
    "error to an occupant": say("error", occupant),
    "presence to a person": appear(full_jid),
    "subscription to an account": appear(bare_jid, type="subscribe"),
    "probe of a person": appear(full_jid, type="probe"),
    "leaving a room never entered": appear(occupant, type="unavailable"),
    "presence without a nickname": appear(conference),
    "presence in an occupant's name": appear(occupant),
    "ping of the room": ask("get", conference, PING, "ping"),
    "ping of an occupant": ask("get", occupant, PING, "ping"),
    "ping of a person": ask("get", full_jid, PING, "ping"),
    "who is in the room": ask("get", conference, DISCO_ITEMS, "query"),
    "what the room is": ask("get", conference, DISCO_INFO, "query"),
    "what an occupant's client can": ask("get", occupant, DISCO_INFO, "query"),
    "what an account has": ask("get", bare_jid, DISCO_ITEMS, "query"),
    "the affiliations of the room": ask("get", conference, MUC_ADMIN, "query"),
    "the configuration of the room": ask("get", conference, MUC_OWNER, "query"),
    "media to an occupant": ask("set", occupant, "urn:xmpp:jingle:1", "jingle"),
    "media to a person": ask("set", full_jid, "urn:xmpp:jingle:1", "jingle"),
    "ownership of the room": grant,
    "kicking somebody out of the room": kick,
    "destroying the room": destroy,
    "inviting oneself": lambda s: invitation(s, "invite", s.target, s.intruder.session.jid),
    "inviting somebody out of the own room": lambda s: invitation(s, "invite", s.home, s.inside.session.jid),
    "declining towards somebody": lambda s: invitation(s, "decline", s.home, s.inside.session.jid),
}
WITHOUT_ANSWER = {"error to a person", "error to an occupant", "leaving a room never entered"}


@pytest.mark.parametrize("what", STANZAS)
async def test_no_stanza_reaches_a_room_that_was_not_joined(scene: Scene, what: str) -> None:
    session = scene.intruder.session
    attempt = STANZAS[what](scene)
    await scene.assert_inside_is_undisturbed_by(session.send(attempt))
    answers = [each for each in session.history if each.get("id") == "attempt"]
    assert [each.get("type") for each in answers] == ([] if what in WITHOUT_ANSWER else ["error"])


async def test_the_focus_is_not_sent_to_another_room(scene: Scene) -> None:
    asked = element(FOCUS, "conference", {"room": scene.target, "machine-uid": "0"})
    assert isinstance(await scene.intruder.session.iq("set", scene.prosody.focus, asked), StanzaError)
    assert f"Asked for the conference {scene.target} by {scene.intruder.session.jid}" not in scene.prosody.log_text()


@pytest.mark.parametrize("spelling", [str.upper, lambda room: f"{room}/nick", lambda room: f" {room}"])
async def test_the_focus_is_not_sent_to_another_room_in_another_spelling(
    scene: Scene, spelling: Callable[[str], str]
) -> None:
    asked = element(FOCUS, "conference", {"room": spelling(scene.target)})
    assert isinstance(await scene.intruder.session.iq("set", scene.prosody.focus, asked), StanzaError)


async def test_the_focus_is_sent_to_the_own_room(scene: Scene) -> None:
    asked = element(FOCUS, "conference", {"room": scene.home, "machine-uid": "0"})
    answer = await scene.intruder.session.iq("set", scene.prosody.focus, asked)
    assert isinstance(answer, ET.Element)
    assert f"Asked for the conference {scene.home} by {scene.intruder.session.jid}" in scene.prosody.log_text()


async def test_a_room_is_silent_towards_its_own_people_until_they_join(widgets: Widgets, room: Room) -> None:
    inside = await widgets.enter(room.moderator, room.room_id)
    waiting = await widgets.session(room.member, room.room_id)
    await waiting.say(widgets.conference(room.room_id), "not in yet")
    await waiting.say(inside.joined.nick, "not in yet", "chat")
    await waiting.ping()
    await inside.session.ping()
    assert not inside.session.has_heard("not in yet")


async def test_who_has_left_the_call_is_not_heard_any_more(widgets: Widgets, room: Room) -> None:
    inside = await widgets.enter(room.moderator, room.room_id)
    call = await widgets.enter(room.member, room.room_id)
    await call.session.leave(call.joined)
    await call.session.say(widgets.conference(room.room_id), "already out")
    await call.session.ping()
    await inside.session.ping()
    assert not inside.session.has_heard("already out")


async def test_other_hosts_are_out_of_reach(widgets: Widgets, room: Room) -> None:
    session = await widgets.session(room.member, room.room_id)
    for to in (
        f"focus@{widgets.prosody.services}",
        widgets.prosody.services,
        "elsewhere.example",
        "a@elsewhere.example",
    ):
        answer = await session.iq("get", to, element(PING, "ping"))
        assert isinstance(answer, StanzaError), to
