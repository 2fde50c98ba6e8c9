"""What comes as a token: whatever it is, the answer is prompt, and nothing in Prosody breaks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from websockets.exceptions import WebSocketException

from tests.e2e.conftest import Room
from tests.e2e.malformed_tokens import HARMLESS, MALFORMED
from tests.e2e.reasons import NO_TOKEN, OTHER_ROOM
from tests.parts.jitsi_client import Refused, Session, Via, connect, log_in, query_string
from tests.parts.jitsi_token import conference_node, element_payload
from tests.parts.prosody import Prosody
from tests.parts.stanzas import DISCO_ITEMS, StanzaError, element
from tests.parts.widget import Widgets
from tests.parts.xmpp_transport import StreamClosedError

PROMPT_SECONDS = 2.0
REFUSED = Refused("not-allowed", NO_TOKEN, shown=NO_TOKEN)


def payload(widgets: Widgets, room: Room) -> dict[str, Any]:
    """A member's good one."""
    token = widgets.synapse.openid_token(room.member)
    widgets.tokens.append(token)
    return element_payload(widgets.prosody.domain, room.room_id, token, server_name=widgets.synapse.server_name)


def test_the_table_is_long_enough() -> None:
    assert len(MALFORMED) >= 60


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_malformed_token_is_refused_promptly_and_breaks_nothing(
    widgets: Widgets, lasting_room: Room, what: str
) -> None:
    make, reason = MALFORMED[what]
    token = make(payload(widgets, lasting_room))
    began = time.monotonic()
    outcome = await widgets.log_in_with(token, lasting_room.room_id)
    took = time.monotonic() - began
    assert outcome == Refused("not-allowed", reason, shown=reason)
    assert took < PROMPT_SECONDS
    await widgets.session(lasting_room.member, lasting_room.room_id)


@pytest.mark.parametrize("what", HARMLESS)
async def test_what_is_not_believed_may_say_anything_and_grants_nothing(
    widgets: Widgets, lasting_room: Room, what: str
) -> None:
    token = HARMLESS[what](payload(widgets, lasting_room))
    session = await widgets.log_in_with(token, lasting_room.room_id)
    assert isinstance(session, Session), session
    joined = await session.join(widgets.conference(lasting_room.room_id))
    assert not isinstance(joined, StanzaError)
    assert joined.affiliation not in {"owner", "admin"}
    assert joined.role == "participant"


async def test_without_a_token_nobody_gets_in(widgets: Widgets, lasting_room: Room) -> None:
    assert await widgets.log_in_with(None, lasting_room.room_id) == REFUSED


async def test_without_the_name_of_a_conference_nobody_gets_in(widgets: Widgets, lasting_room: Room) -> None:
    token = widgets.jwt(lasting_room.member, lasting_room.room_id)
    outcome = await log_in(widgets.prosody, widgets.via, room=None, token=token)
    assert outcome == Refused("not-allowed", OTHER_ROOM, shown=OTHER_ROOM)


async def test_over_the_port_of_services_nobody_gets_in_without_an_account(prosody: Prosody) -> None:
    refused = await log_in(prosody, Via.TCP, room=None, token=None)
    assert isinstance(refused, Refused)
    assert refused.text == NO_TOKEN


@pytest.mark.parametrize(
    "query", ["token", "token=", "token=&token=", "token[]=x", "room=a&token=%", "token=%00", "&&&", "?"]
)
async def test_an_odd_query_is_refused(widgets: Widgets, query: str) -> None:
    session = widgets.keep(await connect(widgets.prosody, widgets.via, query=query))
    await session.open()
    assert isinstance(await session.authenticate(), Refused)


async def test_the_name_of_the_conference_may_come_in_upper_case(widgets: Widgets, lasting_room: Room) -> None:
    query = query_string(
        room=conference_node(lasting_room.room_id).upper(), token=widgets.jwt(lasting_room.member, lasting_room.room_id)
    )
    session = widgets.keep(await connect(widgets.prosody, widgets.via, query=query))
    await session.open()
    assert await session.authenticate() is None


@pytest.mark.parametrize("room", ["", " ", "*", "shadow", "%", "\0", "a" * 2000])
async def test_the_name_of_another_conference_is_refused(widgets: Widgets, lasting_room: Room, room: str) -> None:
    token = widgets.jwt(lasting_room.member, lasting_room.room_id)
    outcome = await log_in(widgets.prosody, widgets.via, room=room, token=token)
    assert outcome == Refused("not-allowed", OTHER_ROOM, shown=OTHER_ROOM)


async def test_who_was_refused_does_not_get_in_by_trying_again_on_the_same_stream(
    widgets: Widgets, lasting_room: Room
) -> None:
    query = query_string(room=conference_node(lasting_room.room_id), token="x.y.z")
    session = widgets.keep(await connect(widgets.prosody, widgets.via, query=query))
    await session.open()
    for _ in range(3):
        assert await session.authenticate() == REFUSED


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-1", "EXTERNAL", "OAUTHBEARER", "anonymous", ""])
async def test_there_is_no_other_way_to_log_in(widgets: Widgets, lasting_room: Room, mechanism: str) -> None:
    query = query_string(
        room=conference_node(lasting_room.room_id), token=widgets.jwt(lasting_room.member, lasting_room.room_id)
    )
    session = widgets.keep(await connect(widgets.prosody, widgets.via, query=query))
    await session.open()
    refused = await session.authenticate(mechanism, "AGZvY3VzAHNlY3JldA==")
    assert isinstance(refused, Refused)
    assert refused.condition == "invalid-mechanism"


async def test_nothing_can_be_done_before_the_login(widgets: Widgets, lasting_room: Room) -> None:
    session = widgets.keep(await connect(widgets.prosody, widgets.via))
    await session.open()
    try:
        outcome = await session.join(widgets.conference(lasting_room.room_id))
        assert isinstance(outcome, StanzaError)
        assert isinstance(await session.bind(), StanzaError)
        assert isinstance(
            await session.iq("get", widgets.prosody.conference, element(DISCO_ITEMS, "query")), StanzaError
        )
    except StreamClosedError:
        pass  # what Prosody does with a stranger who does not stop


@pytest.mark.parametrize("size", [9_000, 40_000, 300_000])
async def test_after_an_enormous_token_the_next_login_works(widgets: Widgets, lasting_room: Room, size: int) -> None:
    """COMPAT: Prosody does not answer requests whose head is larger than its parser reads; that is between it and the
    client, as long as it goes on serving others."""
    try:
        async with asyncio.timeout(PROMPT_SECONDS):
            outcome = await widgets.log_in_with("a" * size, lasting_room.room_id)
            assert outcome == REFUSED
    except (TimeoutError, WebSocketException, StreamClosedError, httpx.HTTPError, OSError):
        assert size > 9_000
    await widgets.session(lasting_room.member, lasting_room.room_id)
