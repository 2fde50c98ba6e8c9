"""Configurations as operators have them: the original README's alone, half-finished ones, and what changes later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from xml.etree import ElementTree as ET

import pytest

from tests.e2e.conftest import AUTH_TOKEN, Room, StartProsody
from tests.e2e.reasons import NO_TOKEN, NOT_A_MEMBER, OTHER_ROOM, UNAVAILABLE
from tests.parts.jitsi_client import Refused, Session, Via, log_in
from tests.parts.jitsi_token import conference_node
from tests.parts.processes import free_port
from tests.parts.prosody import Config, Prosody, lua
from tests.parts.service import Service
from tests.parts.stanzas import DISCO_ITEMS, StanzaError, element
from tests.parts.synapse import Synapse
from tests.parts.widget import Widgets

CANNOT_TELL = Refused("not-allowed", UNAVAILABLE, shown=UNAVAILABLE)

OpenWidgets = Callable[[Config], Widgets]


@pytest.fixture
async def open_widgets(start_prosody: StartProsody, synapse: Synapse) -> AsyncIterator[OpenWidgets]:
    """People open widgets against a Prosody with this configuration."""
    opened: list[Widgets] = []

    def open_against(config: Config) -> Widgets:
        opened.append(Widgets(synapse, start_prosody(config), Via.WEBSOCKET))
        return opened[-1]

    yield open_against
    for widgets in opened:
        await widgets.close()


def test_prosody_finds_nothing_wrong_with_the_configuration(prosody: Prosody) -> None:
    checked = prosody.check_config()
    assert checked.returncode == 0, checked.stdout


# --- the original README, and nothing else ----------------------------------------------------------------------------


@pytest.fixture
def by_readme(open_widgets: OpenWidgets, service: Service) -> Widgets:
    return open_widgets(Config(service.url, AUTH_TOKEN, readme_only=True))


async def test_by_the_readme_alone_the_people_of_the_room_get_in(by_readme: Widgets, lasting_room: Room) -> None:
    member = await by_readme.enter(lasting_room.member, lasting_room.room_id)
    moderator = await by_readme.enter(lasting_room.moderator, lasting_room.room_id)
    await member.session.say(by_readme.conference(lasting_room.room_id), "good morning")
    await moderator.session.expect_message("good morning")


async def test_by_the_readme_alone_nobody_else_gets_in(by_readme: Widgets, lasting_room: Room) -> None:
    refused = await by_readme.log_in(lasting_room.visitor, lasting_room.room_id)
    assert refused == Refused("not-allowed", NOT_A_MEMBER, shown=NOT_A_MEMBER)


async def test_by_the_readme_alone_another_room_is_closed(
    by_readme: Widgets, lasting_room: Room, other_lasting_room: Room
) -> None:
    session = await by_readme.session(lasting_room.member, lasting_room.room_id)
    target = by_readme.conference(other_lasting_room.room_id)
    assert await session.join(target) == StanzaError("not-allowed", OTHER_ROOM)
    await by_readme.enter(other_lasting_room.member, other_lasting_room.room_id)
    assert await session.join(target) == StanzaError("not-allowed", OTHER_ROOM)
    rooms = await session.iq("get", by_readme.prosody.conference, element(DISCO_ITEMS, "query"))
    assert isinstance(rooms, StanzaError)


async def test_by_the_readme_with_syncing_moderators_are_owners(
    open_widgets: OpenWidgets, service: Service, lasting_room: Room
) -> None:
    options = {"uvs_sync_power_levels": "true"}
    widgets = open_widgets(Config(service.url, AUTH_TOKEN, readme_only=True, options=options))
    assert (await widgets.enter(lasting_room.member, lasting_room.room_id)).joined.affiliation == "member"
    assert (await widgets.enter(lasting_room.moderator, lasting_room.room_id)).joined.affiliation == "owner"


async def test_with_the_modules_of_docker_jitsi_meet_it_is_the_same(
    open_widgets: OpenWidgets, service: Service, lasting_room: Room
) -> None:
    """There the guard stands in modules_enabled of the conference component."""
    config = Config(
        service.url,
        AUTH_TOKEN,
        options={"uvs_sync_power_levels": "true"},
        conference_modules=("matrix_power_sync",),
    )
    widgets = open_widgets(config)
    assert (await widgets.enter(lasting_room.member, lasting_room.room_id)).joined.affiliation == "member"
    assert (await widgets.enter(lasting_room.moderator, lasting_room.room_id)).joined.affiliation == "owner"
    refused = await widgets.log_in(lasting_room.visitor, lasting_room.room_id)
    assert refused == Refused("not-allowed", NOT_A_MEMBER, shown=NOT_A_MEMBER)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"app_id": "nil"}, "app_id"),
        ({"app_id": '""'}, "app_id"),
        ({"uvs_base_url": "nil"}, "uvs_base_url"),
        ({"uvs_base_url": '""'}, "uvs_base_url"),
        ({"uvs_base_url": lua("uvs.example:3000")}, "uvs_base_url"),
        ({"uvs_base_url": lua("ftp://uvs.example")}, "uvs_base_url"),
        ({"main_muc": lua("nowhere.example")}, "main_muc"),
    ],
    ids=str,
)
async def test_a_mistake_in_the_configuration_keeps_everybody_out_and_is_named_in_the_log(
    open_widgets: OpenWidgets, service: Service, lasting_room: Room, options: dict[str, str], named: str
) -> None:
    widgets = open_widgets(Config(service.url, AUTH_TOKEN, options=options))
    assert await widgets.log_in(lasting_room.member, lasting_room.room_id) == CANNOT_TELL
    errors = [line for line in widgets.prosody.log_text().splitlines() if " error\t" in line]
    assert any(named in line for line in errors), errors


@pytest.mark.parametrize("value", ['"yes"', "{}", '"50 "', "-1"])
async def test_an_odd_value_for_syncing_makes_no_plain_member_owner(
    open_widgets: OpenWidgets, service: Service, room: Room, synapse: Synapse, value: str
) -> None:
    synapse.set_level(room.moderator, room.room_id, room.member, -2)
    widgets = open_widgets(Config(service.url, AUTH_TOKEN, options={"uvs_sync_power_levels": value}))
    assert (await widgets.enter(room.member, room.room_id)).joined.affiliation != "owner"


async def test_a_wrong_credential_for_the_service_keeps_everybody_out(
    open_widgets: OpenWidgets, service: Service, lasting_room: Room
) -> None:
    widgets = open_widgets(Config(service.url, "not the one"))
    assert await widgets.log_in(lasting_room.member, lasting_room.room_id) == CANNOT_TELL


async def test_a_slash_after_the_address_of_the_service_does_no_harm(
    open_widgets: OpenWidgets, service: Service, lasting_room: Room
) -> None:
    await open_widgets(Config(f"{service.url}/", AUTH_TOKEN)).enter(lasting_room.member, lasting_room.room_id)


async def test_the_issuer_is_what_app_id_says(open_widgets: OpenWidgets, service: Service, lasting_room: Room) -> None:
    widgets = open_widgets(Config(service.url, AUTH_TOKEN, options={"app_id": lua("issuer")}))
    refused = await widgets.log_in(lasting_room.member, lasting_room.room_id)
    assert refused == Refused("not-allowed", NO_TOKEN, shown=NO_TOKEN)
    jwt = widgets.jwt(lasting_room.member, lasting_room.room_id, changes={"iss": "issuer"})
    assert isinstance(await widgets.log_in_with(jwt, lasting_room.room_id), Session)


# --- other hosts, and other servers -----------------------------------------------------------------------------------

GUESTS = 'VirtualHost "guest.meet.example"\n    authentication = "anonymous"\n\n'
"""docker-jitsi-meet's host for guests, for instance."""


async def guest_of(widgets: Widgets) -> Session:
    outcome = await log_in(widgets.prosody, Via.WEBSOCKET, room=None, token=None, domain="guest.meet.example")
    assert isinstance(outcome, Session), outcome
    return widgets.keep(outcome)


async def test_rooms_of_a_component_that_is_activated_later_are_closed_as_well(
    open_widgets: OpenWidgets, service: Service, lasting_room: Room
) -> None:
    more = f'{GUESTS}Component "later.meet.example" "test_later"\n'
    widgets = open_widgets(Config(service.url, AUTH_TOKEN, more=more))
    session = await widgets.session(lasting_room.moderator, lasting_room.room_id)
    guest = await guest_of(widgets)
    later = "rooms.later.meet.example"
    # The plug-in activates that component when it is asked to.
    await session.iq("get", "later.meet.example", element("urn:test:later", "activate", {"host": later}))
    node = conference_node(lasting_room.room_id)
    for room in (f"{node}@{later}", f"anything@{later}"):
        assert await guest.join(room) == StanzaError("not-allowed", NO_TOKEN), room
        assert isinstance(await session.join(room), StanzaError), room
    assert isinstance(await session.iq("get", later, element(DISCO_ITEMS, "query")), StanzaError)


async def test_another_host_with_its_own_logins_does_not_get_in(
    open_widgets: OpenWidgets, service: Service, lasting_room: Room
) -> None:
    widgets = open_widgets(Config(service.url, AUTH_TOKEN, more=GUESTS))
    guest = await guest_of(widgets)
    inside = await widgets.enter(lasting_room.member, lasting_room.room_id)
    conference = widgets.conference(lasting_room.room_id)
    assert await guest.join(conference) == StanzaError("not-allowed", NO_TOKEN)
    await guest.say(conference, "hello from outside")
    await guest.ping()
    await inside.session.ping()
    assert not inside.session.has_heard("hello from outside")


@pytest.mark.parametrize(
    ("options", "condition"),
    [
        ({}, "not-allowed"),
        ({"uvs_allow_s2s": "true"}, "not-allowed"),
        ({"uvs_allow_domains": '{ "elsewhere.example" }'}, "not-allowed"),
        ({"uvs_allow_s2s": "true", "uvs_allow_domains": '{ "elsewhere.example" }'}, "joined"),
    ],
    ids=["by default", "servers allowed", "domain allowed", "both allowed"],
)
async def test_people_of_other_servers_get_in_only_where_both_options_allow_it(
    open_widgets: OpenWidgets, service: Service, lasting_room: Room, options: dict[str, str], condition: str
) -> None:
    """There is no other server here: a plug-in hands Prosody what would come from one."""
    more = 'Component "wire.meet.example" "test_wire"\n'
    widgets = open_widgets(Config(service.url, AUTH_TOKEN, options=options, more=more))
    session = await widgets.session(lasting_room.member, lasting_room.room_id)
    to = f"{widgets.conference(lasting_room.room_id)}/somebody"
    asked = element("urn:test:wire", "presence", {"from": "somebody@elsewhere.example/x", "to": to})
    answer = await session.iq("get", "wire.meet.example", asked)
    assert isinstance(answer, ET.Element)
    assert answer[0].get("outcome") == condition


# --- logs -------------------------------------------------------------------------------------------------------------


async def test_the_log_tells_who_was_let_in_and_why_somebody_was_not(widgets: Widgets, room: Room) -> None:
    await widgets.enter(room.moderator, room.room_id)
    await widgets.log_in(room.visitor, room.room_id)
    log = widgets.prosody.log_text()
    assert f"Let {room.moderator.user_id} in for Matrix room {room.room_id} as its moderator" in log
    assert f"Refused somebody for Matrix room {room.room_id}: not-member" in log


async def test_at_the_usual_level_no_token_is_in_the_log_of_prosody(
    open_widgets: OpenWidgets, service: Service, lasting_room: Room
) -> None:
    widgets = open_widgets(Config(service.url, AUTH_TOKEN, log_level="info"))
    jwts = [widgets.jwt(user, lasting_room.room_id) for user in (lasting_room.member, lasting_room.visitor)]
    outcomes = [await widgets.log_in_with(jwt, lasting_room.room_id) for jwt in jwts]
    assert [type(outcome) for outcome in outcomes] == [Session, Refused]
    assert await widgets.log_in_with(jwts[0] + "x", lasting_room.room_id) is not None
    log = widgets.prosody.log_text()
    assert [secret for secret in (*jwts, *widgets.tokens, AUTH_TOKEN) if secret in log] == []


async def test_a_service_on_a_port_where_nobody_listens_is_named_in_the_log(
    open_widgets: OpenWidgets, lasting_room: Room
) -> None:
    widgets = open_widgets(Config(f"http://127.0.0.1:{free_port()}"))
    assert await widgets.log_in(lasting_room.member, lasting_room.room_id) == CANNOT_TELL
    assert "unavailable" in widgets.prosody.log_text()
