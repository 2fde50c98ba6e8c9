"""Moderation in the call is moderation in Matrix; what Jitsi Meet and Prosody decide about entering still counts."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from xml.etree import ElementTree as ET

import pytest

from tests.e2e.conftest import AUTH_TOKEN, Room, StartProsody
from tests.e2e.reasons import NO_TOKEN
from tests.parts.jitsi_client import Joined, Session, Via, log_in
from tests.parts.prosody import SERVICE_PASSWORD, Config, Prosody, lua
from tests.parts.service import Service
from tests.parts.stanzas import MUC_OWNER, MUC_USER, StanzaError, element, stanza, status_codes
from tests.parts.synapse import Synapse
from tests.parts.widget import InCall, Widgets


@pytest.fixture
def via() -> Via:
    """After the login, both ways are one in Prosody."""
    return Via.WEBSOCKET


def bare(jid: str) -> str:
    return jid.split("/", 1)[0]


async def service_account(widgets: Widgets, name: str, host: str) -> Session:
    """One of Jitsi's own services logs in, with its password."""
    secret = b64encode(f"\0{name}\0{SERVICE_PASSWORD}".encode()).decode()
    outcome = await log_in(
        widgets.prosody, Via.TCP, room=None, token=None, domain=host, mechanism="PLAIN", response=secret
    )
    assert isinstance(outcome, Session), outcome
    return widgets.keep(outcome)


# --- who is owner -----------------------------------------------------------------------------------------------------


async def test_the_first_one_in_is_not_owner_by_being_first(widgets: Widgets, lasting_room: Room) -> None:
    first = await widgets.enter(lasting_room.member, lasting_room.room_id)
    assert "201" in first.joined.codes
    assert (first.joined.affiliation, first.joined.role) == ("member", "participant")


async def test_a_moderator_who_comes_later_is_owner_all_the_same(widgets: Widgets, lasting_room: Room) -> None:
    await widgets.enter(lasting_room.member, lasting_room.room_id)
    second = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    assert (second.joined.affiliation, second.joined.role) == ("owner", "moderator")


async def test_everybody_sees_who_moderates_from_the_first_moment(widgets: Widgets, lasting_room: Room) -> None:
    member = await widgets.enter(lasting_room.member, lasting_room.room_id)
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    seen = await member.session.expect(lambda each: each.get("from") == moderator.joined.nick)
    item = seen.find(f"{{{MUC_USER}}}x/{{{MUC_USER}}}item")
    assert item is not None
    assert (item.get("affiliation"), item.get("role")) == ("owner", "moderator")


async def test_nobody_becomes_owner_when_the_owner_leaves(widgets: Widgets, lasting_room: Room) -> None:
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    member = await widgets.enter(lasting_room.member, lasting_room.room_id)
    await moderator.session.leave(moderator.joined)
    await member.session.ping()
    again = await member.session.join(widgets.conference(lasting_room.room_id))
    assert isinstance(again, Joined)
    assert again.affiliation != "owner"


@pytest.mark.parametrize("affiliation", ["owner", "admin"])
async def test_a_moderator_cannot_make_a_plain_member_owner(
    widgets: Widgets, lasting_room: Room, affiliation: str
) -> None:
    member = await widgets.enter(lasting_room.member, lasting_room.room_id)
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    conference = widgets.conference(lasting_room.room_id)
    granted = await moderator.session.set_affiliation(conference, bare(member.session.jid), affiliation)
    assert isinstance(granted, StanzaError)
    await member.session.ping()
    assert not _was_promoted(member)


async def test_a_moderator_cannot_hand_a_plain_member_the_role_of_moderator(
    widgets: Widgets, lasting_room: Room
) -> None:
    member = await widgets.enter(lasting_room.member, lasting_room.room_id)
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    nick = member.joined.nick.split("/", 1)[1]
    granted = await moderator.session.set_role(widgets.conference(lasting_room.room_id), nick, "moderator")
    assert isinstance(granted, StanzaError)
    await member.session.ping()
    assert not _was_promoted(member)


async def test_a_moderator_cannot_prepare_ownership_for_somebody_who_is_not_there(
    widgets: Widgets, lasting_room: Room
) -> None:
    """A person's next address could not be known; that of somebody who is logged in is."""
    member = await widgets.session(lasting_room.member, lasting_room.room_id)
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    conference = widgets.conference(lasting_room.room_id)
    assert isinstance(await moderator.session.set_affiliation(conference, bare(member.jid), "owner"), StanzaError)
    joined = await member.join(conference)
    assert isinstance(joined, Joined)
    assert joined.affiliation != "owner"


def _was_promoted(call: InCall) -> bool:
    items = (
        each.find(f"{{{MUC_USER}}}x/{{{MUC_USER}}}item")
        for each in call.session.history
        if each.get("from") == call.joined.nick
    )
    return any(item is not None and item.get("role") == "moderator" for item in items)


async def test_a_member_can_grant_nothing(widgets: Widgets, lasting_room: Room) -> None:
    await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    member = await widgets.enter(lasting_room.member, lasting_room.room_id)
    conference = widgets.conference(lasting_room.room_id)
    for affiliation in ("owner", "admin", "member", "outcast"):
        granted = await member.session.set_affiliation(conference, bare(member.session.jid), affiliation)
        assert isinstance(granted, StanzaError), affiliation
    assert isinstance(await member.session.configure(conference, membersonly="1"), StanzaError)


async def test_a_moderator_can_mute_and_kick(widgets: Widgets, lasting_room: Room) -> None:
    member = await widgets.enter(lasting_room.member, lasting_room.room_id)
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    nick = member.joined.nick.split("/", 1)[1]
    kicked = await moderator.session.set_role(widgets.conference(lasting_room.room_id), nick, "none")
    assert isinstance(kicked, ET.Element)
    gone = await member.session.expect(
        lambda each: each.get("type") == "unavailable" and each.get("from") == member.joined.nick
    )
    assert "307" in status_codes(gone)


async def test_who_was_kicked_from_the_call_may_come_back(widgets: Widgets, lasting_room: Room) -> None:
    """A kick is not a ban; they are still in the Matrix room."""
    member = await widgets.enter(lasting_room.member, lasting_room.room_id)
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    nick = member.joined.nick.split("/", 1)[1]
    await moderator.session.set_role(widgets.conference(lasting_room.room_id), nick, "none")
    await widgets.enter(lasting_room.member, lasting_room.room_id)


# --- what else decides about entering ---------------------------------------------------------------------------------


async def test_a_password_is_asked_of_members(widgets: Widgets, lasting_room: Room) -> None:
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    conference = widgets.conference(lasting_room.room_id)
    set_up = await moderator.session.configure(conference, roomsecret="opensesame", passwordprotectedroom="1")
    assert isinstance(set_up, ET.Element)
    session = await widgets.session(lasting_room.member, lasting_room.room_id)
    for wrong in (None, "", "OpenSesame"):
        refused = await session.join(conference, password=wrong)
        assert isinstance(refused, StanzaError)
        assert refused.condition == "not-authorized"
    assert isinstance(await session.join(conference, password="opensesame"), Joined)


async def test_a_password_is_asked_of_the_next_moderator_as_well(widgets: Widgets, room: Room) -> None:
    widgets.synapse.set_level(room.moderator, room.room_id, room.member, 50)
    first = await widgets.enter(room.moderator, room.room_id)
    conference = widgets.conference(room.room_id)
    await first.session.configure(conference, roomsecret="opensesame", passwordprotectedroom="1")
    second = await widgets.session(room.member, room.room_id)
    assert isinstance(await second.join(conference), StanzaError)
    joined = await second.join(conference, password="opensesame")
    assert isinstance(joined, Joined)
    assert joined.affiliation == "owner"


async def test_a_lobby_holds_members_back_until_a_moderator_admits_them(widgets: Widgets, lasting_room: Room) -> None:
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    conference = widgets.conference(lasting_room.room_id)
    assert isinstance(await moderator.session.configure(conference, membersonly="1"), ET.Element)
    session = await widgets.session(lasting_room.member, lasting_room.room_id)
    refused = await session.join(conference)
    assert isinstance(refused, StanzaError)
    assert refused.condition == "registration-required"
    lobby = f"{conference.split('@', 1)[0]}@{widgets.prosody.lobby}"
    assert isinstance(await session.join(lobby), Joined)
    admitted = await moderator.session.set_affiliation(conference, bare(session.jid), "member")
    assert isinstance(admitted, ET.Element)
    assert isinstance(await session.join(conference), Joined)


async def test_a_lobby_holds_the_next_moderator_back_as_well(widgets: Widgets, room: Room) -> None:
    widgets.synapse.set_level(room.moderator, room.room_id, room.member, 50)
    first = await widgets.enter(room.moderator, room.room_id)
    conference = widgets.conference(room.room_id)
    assert isinstance(await first.session.configure(conference, membersonly="1"), ET.Element)
    second = await widgets.session(room.member, room.room_id)
    assert isinstance(await second.join(conference), StanzaError)


async def test_a_lobby_throws_nobody_out_who_is_in_the_call(widgets: Widgets, lasting_room: Room) -> None:
    member = await widgets.enter(lasting_room.member, lasting_room.room_id)
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    conference = widgets.conference(lasting_room.room_id)
    await moderator.session.configure(conference, membersonly="1")
    await member.session.say(conference, "still here")
    await moderator.session.expect_message("still here")


async def test_who_was_banned_from_the_call_stays_out_with_a_new_login(widgets: Widgets, lasting_room: Room) -> None:
    member = await widgets.enter(lasting_room.member, lasting_room.room_id)
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    conference = widgets.conference(lasting_room.room_id)
    banned = await moderator.session.set_affiliation(conference, bare(member.session.jid), "outcast")
    assert isinstance(banned, ET.Element)
    session = await widgets.session(lasting_room.member, lasting_room.room_id)
    refused = await session.join(conference)
    assert isinstance(refused, StanzaError)
    assert refused.condition == "forbidden"


async def test_a_ban_from_the_call_can_be_lifted(widgets: Widgets, lasting_room: Room) -> None:
    member = await widgets.enter(lasting_room.member, lasting_room.room_id)
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    conference, address = widgets.conference(lasting_room.room_id), bare(member.session.jid)
    await moderator.session.set_affiliation(conference, address, "outcast")
    await moderator.session.set_affiliation(conference, address, "none")
    await widgets.enter(lasting_room.member, lasting_room.room_id)


# --- the end of a conference ------------------------------------------------------------------------------------------


async def test_a_conference_that_was_destroyed_begins_anew(widgets: Widgets, lasting_room: Room) -> None:
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    conference = widgets.conference(lasting_room.room_id)
    query = element(MUC_OWNER, "query")
    ET.SubElement(query, f"{{{MUC_OWNER}}}destroy")
    assert isinstance(await moderator.session.iq("set", conference, query), ET.Element)
    first = await widgets.enter(lasting_room.member, lasting_room.room_id)
    assert "201" in first.joined.codes
    assert first.joined.affiliation != "owner"
    joined = await moderator.session.join(conference)
    assert isinstance(joined, Joined)
    assert joined.affiliation == "owner"


async def test_a_conference_that_everybody_has_left_begins_anew(widgets: Widgets, lasting_room: Room) -> None:
    for _ in range(2):
        moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
        assert "201" in moderator.joined.codes
        await moderator.session.configure(widgets.conference(lasting_room.room_id), membersonly="1")
        await moderator.session.leave(moderator.joined)
    first = await widgets.enter(lasting_room.member, lasting_room.room_id)
    assert first.joined.affiliation != "owner"


# --- Jitsi's own services ---------------------------------------------------------------------------------------------


@pytest.fixture
async def with_recorders(start_prosody: StartProsody, synapse: Synapse, service: Service) -> AsyncIterator[Widgets]:
    """As docker-jitsi-meet configures it: the focus makes the rooms, and recorders come from a domain of their own."""
    options = {"uvs_sync_power_levels": "true", "uvs_allow_domains": f"{{ {lua('recorder.meet.example')} }}"}
    config = Config(service.url, AUTH_TOKEN, options=options, conference_options={"restrict_room_creation": "true"})
    opened = Widgets(synapse, start_prosody(config), Via.WEBSOCKET)
    yield opened
    await opened.close()


async def test_the_focus_makes_the_conference_and_its_people_get_in(
    with_recorders: Widgets, lasting_room: Room
) -> None:
    conference = with_recorders.conference(lasting_room.room_id)
    focus = await service_account(with_recorders, "focus", with_recorders.prosody.services)
    made = await focus.join(conference, nick="focus")
    assert isinstance(made, Joined)
    assert made.affiliation == "owner"
    member = await with_recorders.enter(lasting_room.member, lasting_room.room_id)
    assert member.joined.affiliation == "member"
    moderator = await with_recorders.enter(lasting_room.moderator, lasting_room.room_id)
    assert moderator.joined.affiliation == "owner"


async def test_where_only_the_focus_makes_rooms_nobody_else_does(with_recorders: Widgets, lasting_room: Room) -> None:
    session = await with_recorders.session(lasting_room.moderator, lasting_room.room_id)
    assert isinstance(await session.join(with_recorders.conference(lasting_room.room_id)), StanzaError)


async def test_the_focus_speaks_to_its_people(with_recorders: Widgets, lasting_room: Room) -> None:
    """Jingle offers go from the focus to each occupant, and come back."""
    conference = with_recorders.conference(lasting_room.room_id)
    focus = await service_account(with_recorders, "focus", with_recorders.prosody.services)
    assert isinstance(await focus.join(conference, nick="focus"), Joined)
    member = await with_recorders.enter(lasting_room.member, lasting_room.room_id)
    offer = stanza(
        "iq", {"type": "set", "id": "offer", "to": member.joined.nick}, element("urn:xmpp:jingle:1", "jingle")
    )
    await focus.send(offer)
    received = await member.session.expect(lambda each: each.get("type") == "set" and each.tag.endswith("}iq"))
    assert received.get("from") == f"{conference}/focus"
    await member.session.send(
        stanza("iq", {"type": "result", "id": received.get("id", ""), "to": received.get("from", "")})
    )
    answer = await focus.expect(lambda each: each.tag.endswith("}iq") and each.get("id") == "offer")
    assert answer.get("type") == "result"


async def test_a_recorder_of_an_exempt_domain_gets_in_and_is_not_owner(
    with_recorders: Widgets, lasting_room: Room
) -> None:
    conference = with_recorders.conference(lasting_room.room_id)
    focus = await service_account(with_recorders, "focus", with_recorders.prosody.services)
    assert isinstance(await focus.join(conference, nick="focus"), Joined)
    recorder = await service_account(with_recorders, "recorder", with_recorders.prosody.recorders)
    joined = await recorder.join(conference, nick="recorder")
    assert isinstance(joined, Joined)
    assert joined.affiliation != "owner"


async def test_a_recorder_that_comes_first_does_not_become_owner(
    start_prosody: StartProsody, synapse: Synapse, service: Service, lasting_room: Room
) -> None:
    options = {"uvs_sync_power_levels": "true", "uvs_allow_domains": f"{{ {lua('recorder.meet.example')} }}"}
    widgets = Widgets(synapse, start_prosody(Config(service.url, AUTH_TOKEN, options=options)), Via.WEBSOCKET)
    try:
        recorder = await service_account(widgets, "recorder", widgets.prosody.recorders)
        joined = await recorder.join(widgets.conference(lasting_room.room_id), nick="recorder")
        assert isinstance(joined, Joined)
        assert joined.affiliation != "owner"
        moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
        assert moderator.joined.affiliation == "owner"
    finally:
        await widgets.close()


@pytest.mark.parametrize("account", ["recorder", "jibri"])
async def test_a_service_whose_domain_is_not_exempt_stays_out(
    widgets: Widgets, lasting_room: Room, account: str
) -> None:
    prosody: Prosody = widgets.prosody
    host = prosody.recorders if account == "recorder" else prosody.services
    session = await service_account(widgets, account, host)
    refused = await session.join(widgets.conference(lasting_room.room_id), nick=account)
    assert refused == StanzaError("not-allowed", NO_TOKEN)
