"""What somebody tries who knows Prosody and Jitsi Meet from the inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from xml.etree import ElementTree as ET

import pytest

from tests.e2e.conftest import AUTH_TOKEN, Room, StartProsody
from tests.e2e.reasons import NO_TOKEN, OTHER_ROOM
from tests.e2e.scene import Scene
from tests.e2e.test_other_rooms import make_breakout_room
from tests.parts.jitsi_client import Joined, Refused, Session, Via, connect, query_string
from tests.parts.jitsi_token import conference_node
from tests.parts.prosody import Config, Prosody, Version, lua
from tests.parts.service import Service
from tests.parts.stanzas import (
    CLIENT,
    DATA_FORM,
    FOCUS,
    MUC_ADMIN,
    MUC_USER,
    SASL,
    StanzaError,
    element,
    error_of,
    stanza,
)
from tests.parts.synapse import Synapse
from tests.parts.widget import InCall, Widgets

RAYO = "urn:xmpp:rayo:1"


@pytest.fixture
def via() -> Via:
    """After the login, both ways are one in Prosody."""
    return Via.WEBSOCKET


@pytest.fixture
def rank() -> str:
    return "moderator"


# --- one host's stream, another host's login --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_exempt_domain(
    version: Version, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prosody]:
    options = {"uvs_allow_domains": f"{{ {lua('recorder.meet.example')} }}"}
    directory = tmp_path_factory.mktemp(f"prosody-{version}-")
    with Prosody(version, directory, Config(service.url, AUTH_TOKEN, options=options)) as running:
        yield running
        assert running.lua_errors() == []


async def log_in_across(
    prosody: Prosody, via: Via, *, stream_of: str, account_of: str, room: str, token: str
) -> tuple[Session, Refused | None]:
    """Open a stream to one host, and send <auth/> to the mechanisms of another."""
    session = await connect(prosody, via, query=query_string(room=room, token=token), domain=stream_of)
    await session.open()
    await session.send(element(SASL, "abort"))
    await session.expect(lambda each: each.tag == f"{{{SASL}}}failure")
    await session.send(element(SASL, "auth", {"mechanism": "ANONYMOUS", "to": account_of}))
    answer = await session.expect(lambda each: each.tag in {f"{{{SASL}}}failure", f"{{{SASL}}}success"})
    text = answer.findtext(f"{{{SASL}}}text")
    return session, None if answer.tag.endswith("success") else Refused(answer[0].tag.split("}")[1], text, None)


@pytest.mark.parametrize("way", [Via.WEBSOCKET, Via.BOSH])
async def test_a_matrix_login_gives_no_account_on_a_domain_that_may_enter_every_room(
    with_exempt_domain: Prosody, synapse: Synapse, lasting_room: Room, way: Via
) -> None:
    token = Widgets(synapse, with_exempt_domain, way).jwt(lasting_room.member, lasting_room.room_id)
    session, refused = await log_in_across(
        with_exempt_domain,
        way,
        stream_of=with_exempt_domain.recorders,
        account_of=with_exempt_domain.domain,
        room=conference_node(lasting_room.room_id),
        token=token,
    )
    assert refused == Refused("not-allowed", NO_TOKEN, None)
    await session.close()


async def test_the_login_of_another_host_binds_nothing_here(
    start_prosody: StartProsody, synapse: Synapse, service: Service, lasting_room: Room
) -> None:
    more = 'VirtualHost "guest.meet.example"\n    authentication = "anonymous"\n'
    prosody = start_prosody(Config(service.url, AUTH_TOKEN, more=more))
    session, refused = await log_in_across(
        prosody,
        Via.WEBSOCKET,
        stream_of=prosody.domain,
        account_of="guest.meet.example",
        room=conference_node(lasting_room.room_id),
        token=Widgets(synapse, prosody, Via.WEBSOCKET).jwt(lasting_room.member, lasting_room.room_id),
    )
    assert refused is None
    await session.open()
    bound = await session.bind()
    assert isinstance(bound, StanzaError)
    assert bound.condition == "not-allowed"
    await session.close()


# --- people of the same conference ------------------------------------------------------------------------------------


def administration(kind: str, room: str, *items: dict[str, str]) -> ET.Element:
    query = element(MUC_ADMIN, "query")
    for item in items:
        ET.SubElement(query, f"{{{MUC_ADMIN}}}item", item)
    return stanza("iq", {"type": kind, "to": room, "id": "attempt"}, query)


@pytest.mark.parametrize("decoys", [0, 1])
async def test_a_member_cannot_throw_a_moderator_out_by_reserving_their_nickname(
    widgets: Widgets, lasting_room: Room, decoys: int
) -> None:
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    member = await widgets.enter(lasting_room.member, lasting_room.room_id)
    item = {
        "jid": member.session.jid.split("/")[0],
        "nick": moderator.joined.nick.split("/")[1],
        "affiliation": "member",
    }
    room = widgets.conference(lasting_room.room_id)
    harmless = [{"nick": "nobody", "role": "participant"}] * decoys  # Jitsi's lobby plug-in looks at every item
    await member.session.send(administration("set", room, *harmless, item))
    answer = await member.session.expect(lambda each: each.get("id") == "attempt")
    assert error_of(answer) == StanzaError("not-allowed", "Nobody in a conference needs that.")
    await moderator.session.say(room, "still here")
    await member.session.expect_message("still here")


def foreign_child(name: str) -> Callable[[InCall, str], ET.Element]:
    def make(_: InCall, room: str) -> ET.Element:
        x = element(MUC_USER, "x")
        ET.SubElement(x, f"{{urn:test:foreign}}{name}", {"to": "somebody@elsewhere.example"})
        return stanza("message", {"to": room, "id": "attempt"}, x)

    return make


def registration(_: InCall, room: str) -> ET.Element:
    query = element("jabber:iq:register", "query")
    form = ET.SubElement(query, f"{{{DATA_FORM}}}x", {"type": "submit"})
    field = ET.SubElement(form, f"{{{DATA_FORM}}}field", {"var": "FORM_TYPE"})
    ET.SubElement(field, f"{{{DATA_FORM}}}value").text = "http://jabber.org/protocol/muc#register"
    return stanza("iq", {"type": "set", "to": room, "id": "attempt"}, query)


def error_to_nobody(_: InCall, room: str) -> ET.Element:
    return stanza("message", {"type": "error", "to": f"{room}/nobody", "id": "attempt"}, element(CLIENT, "error"))


STUMBLING_BLOCKS: dict[str, Callable[[InCall, str], ET.Element]] = {
    "an invitation in another namespace": foreign_child("invite"),
    "a decline in another namespace": foreign_child("decline"),
    "a question about no item": lambda _, room: administration("get", room),
    "a registration without a nickname": registration,
    "an error to an occupant who is not there": error_to_nobody,
}


@pytest.mark.parametrize("what", STUMBLING_BLOCKS)
async def test_nothing_that_a_member_sends_makes_prosody_stumble(
    widgets: Widgets, lasting_room: Room, what: str
) -> None:
    """Prosody itself raises errors at these, and leaves the sender without an answer."""
    member = await widgets.enter(lasting_room.member, lasting_room.room_id)
    attempt = STUMBLING_BLOCKS[what](member, widgets.conference(lasting_room.room_id))
    await member.session.send(attempt)
    await member.session.ping()
    answers = [each.get("type") for each in member.session.history if each.get("id") == "attempt"]
    assert answers == ([] if attempt.get("type") == "error" else ["error"])
    # The fixture looks for Lua errors in the log.


# --- Jitsi's services as messengers -----------------------------------------------------------------------------------


async def refused_by_service(scene: Scene, to: str, payload: ET.Element) -> bool:
    answer = await scene.intruder.session.iq("set", to, payload)
    return answer == StanzaError("not-allowed", OTHER_ROOM)


def dial(room: str) -> ET.Element:
    call = element(RAYO, "dial", {"to": "+15550100", "from": "fromnumber"})
    ET.SubElement(call, f"{{{RAYO}}}header", {"name": "JvbRoomName", "value": room})
    return call


async def test_no_telephone_is_called_into_another_conference(scene: Scene) -> None:
    assert await refused_by_service(scene, scene.prosody.focus, dial(scene.target))
    assert await refused_by_service(scene, f"{scene.home}/focus", dial(scene.target))
    assert not await refused_by_service(scene, f"{scene.home}/focus", dial(scene.home))


@pytest.mark.parametrize("attribute", ["roomJid", "breakoutRoomJid", "room", "whatever"])
async def test_no_attribute_for_a_service_names_another_conference(scene: Scene, attribute: str) -> None:
    asked = element(FOCUS, "conference", {"room": scene.home})
    assert not await refused_by_service(scene, scene.prosody.focus, asked)
    asked.set(attribute, f"{scene.target}/somebody")
    assert await refused_by_service(scene, scene.prosody.focus, asked)


async def test_people_of_another_conference_cannot_be_moved(scene: Scene) -> None:
    """The breakout rooms' component sends its request to whatever address a moderator names."""
    for participant, outcome in ((scene.inside, "error"), (scene.intruder, None)):
        attributes = {"type": "features/breakout-rooms/move-to-room", "participantJid": participant.session.jid}
        moved = element(CLIENT, "breakout_rooms", attributes)
        session = scene.intruder.session
        await session.send(stanza("message", {"to": scene.prosody.breakout, "id": participant.joined.nick}, moved))
        await session.ping()
        answers = [each for each in session.history if each.get("id") == participant.joined.nick]
        texts = [each.findtext(".//{urn:ietf:params:xml:ns:xmpp-stanzas}text") for each in answers]
        assert (OTHER_ROOM in texts) == (outcome == "error")


async def test_nobody_waits_in_a_lobby_that_there_is_not(widgets: Widgets, lasting_room: Room) -> None:
    """Made in advance, it would keep Jitsi's plug-in from making the real one."""
    session = await widgets.session(lasting_room.member, lasting_room.room_id)
    lobby = f"{conference_node(lasting_room.room_id)}@{widgets.prosody.lobby}"
    assert await session.join(lobby) == StanzaError("not-allowed", OTHER_ROOM)
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    await moderator.session.configure(widgets.conference(lasting_room.room_id), membersonly="1")
    assert isinstance(await session.join(lobby), Joined)


async def test_who_is_kept_waiting_does_not_slip_into_a_breakout_room(
    scene: Scene, widgets: Widgets, other_lasting_room: Room
) -> None:
    """Whoever was in the call before knows the name of the breakout room."""
    breakout = await make_breakout_room(scene)
    assert isinstance(await scene.inside.session.configure(scene.target, membersonly="1"), ET.Element)
    session = await widgets.session(other_lasting_room.member, other_lasting_room.room_id)
    waiting = StanzaError("not-allowed", "You have not joined this conference.")
    assert await session.join(breakout) == waiting  # nobody is in it, it would be made
    assert isinstance(await scene.inside.session.join(breakout), Joined)
    assert await session.join(breakout) == waiting
    address = session.jid.split("/")[0]
    assert isinstance(await scene.inside.session.set_affiliation(scene.target, address, "member"), ET.Element)
    assert isinstance(await session.join(breakout), Joined)
