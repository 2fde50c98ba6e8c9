"""XEP-0198: a call survives a change of network, and the id of a session is no way in for anybody else.

lib-jitsi-meet resumes over WebSocket only, with `previd` in the address and the same token as before.
"""

from __future__ import annotations

import contextlib

import pytest

from tests.e2e.conftest import Room
from tests.e2e.reasons import NO_TOKEN, NOT_A_MEMBER, NOT_VERIFIED
from tests.parts.jitsi_client import Joined, Refused, Session, Via, connect, query_string
from tests.parts.jitsi_token import conference_node
from tests.parts.stanzas import SMACKS, StanzaError, element
from tests.parts.widget import InCall, Widgets
from tests.parts.xmpp_transport import StreamClosedError


@pytest.fixture
def via() -> Via:
    return Via.WEBSOCKET


async def enter_resumable(widgets: Widgets, room: Room, *, jwt: str | None = None) -> InCall:
    """A member enters the call, and the session can be resumed from the first stanza on."""
    session = await widgets.log_in_with(jwt or widgets.jwt(room.member, room.room_id), room.room_id)
    assert isinstance(session, Session), session
    await session.enable_resumption()
    joined = await session.join(widgets.conference(room.room_id))
    assert isinstance(joined, Joined)
    return InCall(session, joined)


async def authenticated(widgets: Widgets, room: Room, *, previd: str | None, token: str | None) -> Session | Refused:
    """A new stream, as far as before it is bound or resumed."""
    query = query_string(room=conference_node(room.room_id), token=token, previd=previd)
    session = widgets.keep(await connect(widgets.prosody, Via.WEBSOCKET, query=query))
    await session.open()
    refused = await session.authenticate()
    if refused is not None:
        return refused
    await session.open()
    return session


async def lose(call: InCall) -> str:
    """The network fails. Returns what the session can be resumed with."""
    await call.session.vanish()
    assert call.session.resume_id is not None
    return call.session.resume_id


# --- the person themselves --------------------------------------------------------------------------------------------


async def test_a_lost_connection_is_resumed_and_nothing_is_missed(widgets: Widgets, lasting_room: Room) -> None:
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    jwt = widgets.jwt(lasting_room.member, lasting_room.room_id)
    call = await enter_resumable(widgets, lasting_room, jwt=jwt)
    previd = await lose(call)
    await moderator.session.say(widgets.conference(lasting_room.room_id), "are you still there?")
    session = await authenticated(widgets, lasting_room, previd=previd, token=jwt)
    assert isinstance(session, Session)
    assert await session.resume(previd, call.session.handled)
    await session.expect_message("are you still there?")
    await session.say(widgets.conference(lasting_room.room_id), "yes")
    await moderator.session.expect_message("yes")


async def test_a_call_is_resumed_after_the_openid_token_has_expired(widgets: Widgets, room: Room) -> None:
    jwt = widgets.jwt(room.member, room.room_id)
    call = await enter_resumable(widgets, room, jwt=jwt)
    widgets.synapse.expire_openid_token(widgets.tokens[-1])
    previd = await lose(call)
    session = await authenticated(widgets, room, previd=previd, token=jwt)
    assert isinstance(session, Session)
    assert await session.resume(previd, call.session.handled)


async def test_a_call_is_resumed_after_logging_out_of_matrix(widgets: Widgets, room: Room) -> None:
    jwt = widgets.jwt(room.member, room.room_id)
    call = await enter_resumable(widgets, room, jwt=jwt)
    widgets.synapse.logout(room.member)
    previd = await lose(call)
    session = await authenticated(widgets, room, previd=previd, token=jwt)
    assert isinstance(session, Session)
    assert await session.resume(previd, call.session.handled)


async def test_a_resumed_session_is_bound_to_its_room_as_before(
    widgets: Widgets, lasting_room: Room, other_lasting_room: Room
) -> None:
    jwt = widgets.jwt(lasting_room.member, lasting_room.room_id)
    call = await enter_resumable(widgets, lasting_room, jwt=jwt)
    previd = await lose(call)
    session = await authenticated(widgets, lasting_room, previd=previd, token=jwt)
    assert isinstance(session, Session)
    assert await session.resume(previd, call.session.handled)
    assert isinstance(await session.join(widgets.conference(other_lasting_room.room_id), nick="x"), StanzaError)


async def test_a_session_can_be_resumed_over_and_over(widgets: Widgets, lasting_room: Room) -> None:
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    jwt = widgets.jwt(lasting_room.member, lasting_room.room_id)
    call = await enter_resumable(widgets, lasting_room, jwt=jwt)
    previd, handled = await lose(call), call.session.handled
    for number in range(3):
        session = await authenticated(widgets, lasting_room, previd=previd, token=jwt)
        assert isinstance(session, Session), number
        assert await session.resume(previd, handled), number
        await session.say(widgets.conference(lasting_room.room_id), f"here again {number}")
        await session.expect_message(f"here again {number}")
        handled = session.handled
        await session.vanish()
    await moderator.session.expect_message("here again 2")


# --- anybody else -----------------------------------------------------------------------------------------------------

GARBAGE = [
    "",
    "x",
    " ",
    "\0",
    "nil",
    "true",
    "%s",
    "..",
    "../../x",
    "a" * 5000,
    "\u00e9\u202e",
    "[]",
    "0",
    "-1",
    "__index",
]


@pytest.mark.parametrize("previd", GARBAGE, ids=range(len(GARBAGE)))
async def test_a_made_up_id_is_no_way_in(widgets: Widgets, lasting_room: Room, previd: str) -> None:
    refused = await authenticated(widgets, lasting_room, previd=previd, token=None)
    assert refused == Refused("not-allowed", NO_TOKEN, shown=NO_TOKEN)


@pytest.mark.parametrize("previd", GARBAGE, ids=range(len(GARBAGE)))
async def test_a_made_up_id_does_not_keep_a_member_out(widgets: Widgets, lasting_room: Room, previd: str) -> None:
    session = await widgets.log_in(lasting_room.member, lasting_room.room_id, previd=previd)
    assert isinstance(session, Session)


async def test_an_id_without_the_token_is_no_way_in(widgets: Widgets, lasting_room: Room) -> None:
    call = await enter_resumable(widgets, lasting_room)
    refused = await authenticated(widgets, lasting_room, previd=await lose(call), token=None)
    assert refused == Refused("not-allowed", NO_TOKEN, shown=NO_TOKEN)


async def test_the_id_of_another_member_resumes_nothing(widgets: Widgets, lasting_room: Room) -> None:
    call = await enter_resumable(widgets, lasting_room)
    previd = await lose(call)
    own = widgets.jwt(lasting_room.moderator, lasting_room.room_id)
    session = await authenticated(widgets, lasting_room, previd=previd, token=own)
    assert isinstance(session, Session)
    assert not await session.resume(previd, call.session.handled)
    assert await session.bind() != call.session.jid


async def test_the_id_of_a_member_does_not_let_a_visitor_in(widgets: Widgets, lasting_room: Room) -> None:
    call = await enter_resumable(widgets, lasting_room)
    own = widgets.jwt(lasting_room.visitor, lasting_room.room_id)
    refused = await authenticated(widgets, lasting_room, previd=await lose(call), token=own)
    assert refused == Refused("not-allowed", NOT_A_MEMBER, shown=NOT_A_MEMBER)


async def test_who_was_kicked_cannot_come_back_by_resuming(widgets: Widgets, room: Room) -> None:
    moderator = await widgets.enter(room.moderator, room.room_id)
    jwt = widgets.jwt(room.member, room.room_id)
    call = await enter_resumable(widgets, room, jwt=jwt)
    previd = await lose(call)
    widgets.synapse.expire_openid_token(widgets.tokens[-1])
    nick = call.joined.nick.split("/", 1)[1]
    kicked = await moderator.session.set_role(widgets.conference(room.room_id), nick, "none")
    assert not isinstance(kicked, StanzaError)
    refused = await authenticated(widgets, room, previd=previd, token=jwt)
    assert refused == Refused("not-allowed", NOT_VERIFIED, shown=NOT_VERIFIED)


async def test_who_was_kicked_while_connected_cannot_come_back_by_resuming(widgets: Widgets, room: Room) -> None:
    moderator = await widgets.enter(room.moderator, room.room_id)
    jwt = widgets.jwt(room.member, room.room_id)
    call = await enter_resumable(widgets, room, jwt=jwt)
    widgets.synapse.expire_openid_token(widgets.tokens[-1])
    nick = call.joined.nick.split("/", 1)[1]
    kicked = await moderator.session.set_role(widgets.conference(room.room_id), nick, "none")
    assert not isinstance(kicked, StanzaError)
    previd = await lose(call)
    refused = await authenticated(widgets, room, previd=previd, token=jwt)
    assert refused == Refused("not-allowed", NOT_VERIFIED, shown=NOT_VERIFIED)


async def test_who_has_left_matrix_meanwhile_and_lost_the_session_is_verified_anew(
    widgets: Widgets, room: Room
) -> None:
    call = await enter_resumable(widgets, room)
    moderator = await widgets.enter(room.moderator, room.room_id)
    await moderator.session.set_role(widgets.conference(room.room_id), call.joined.nick.split("/", 1)[1], "none")
    widgets.synapse.kick(room.moderator, room.room_id, room.member)
    previd = await lose(call)
    refused = await authenticated(widgets, room, previd=previd, token=widgets.jwt(room.member, room.room_id))
    assert refused == Refused("not-allowed", NOT_A_MEMBER, shown=NOT_A_MEMBER)


async def test_the_id_of_somebody_who_is_connected_is_no_way_in(widgets: Widgets, room: Room) -> None:
    jwt = widgets.jwt(room.member, room.room_id)
    call = await enter_resumable(widgets, room, jwt=jwt)
    widgets.synapse.expire_openid_token(widgets.tokens[-1])
    refused = await authenticated(widgets, room, previd=call.session.resume_id, token=jwt)
    assert refused == Refused("not-allowed", NOT_VERIFIED, shown=NOT_VERIFIED)
    await call.session.ping()


async def test_the_session_of_somebody_who_is_connected_cannot_be_taken_over(
    widgets: Widgets, lasting_room: Room, other_lasting_room: Room
) -> None:
    call = await enter_resumable(widgets, lasting_room)
    previd = call.session.resume_id
    assert previd is not None
    token = widgets.jwt(other_lasting_room.member, other_lasting_room.room_id)
    session = await authenticated(widgets, other_lasting_room, previd=previd, token=token)
    assert isinstance(session, Session)
    assert not await session.resume(previd, 0)
    await call.session.ping()


async def test_a_verified_stranger_cannot_resume_the_session_of_another_without_asking_for_it(
    widgets: Widgets, lasting_room: Room, other_lasting_room: Room
) -> None:
    """Whoever logs in as themselves has no claim to a session that hibernates."""
    call = await enter_resumable(widgets, lasting_room)
    previd = await lose(call)
    token = widgets.jwt(other_lasting_room.member, other_lasting_room.room_id)
    session = await authenticated(widgets, other_lasting_room, previd=None, token=token)
    assert isinstance(session, Session)
    assert not await session.resume(previd, call.session.handled)


async def test_a_stream_that_is_let_in_for_its_id_can_be_used_for_nothing_but_resuming(
    widgets: Widgets, lasting_room: Room
) -> None:
    jwt = widgets.jwt(lasting_room.member, lasting_room.room_id)
    call = await enter_resumable(widgets, lasting_room, jwt=jwt)
    session = await authenticated(widgets, lasting_room, previd=await lose(call), token=jwt)
    assert isinstance(session, Session)
    bound = await session.bind()
    assert isinstance(bound, StanzaError)
    assert bound.condition == "not-allowed"


async def test_a_stream_that_is_let_in_for_one_id_cannot_resume_another(widgets: Widgets, lasting_room: Room) -> None:
    jwt = widgets.jwt(lasting_room.member, lasting_room.room_id)
    first, second = [await enter_resumable(widgets, lasting_room, jwt=jwt) for _ in range(2)]
    first_id, second_id = await lose(first), await lose(second)
    session = await authenticated(widgets, lasting_room, previd=first_id, token=jwt)
    assert isinstance(session, Session)
    assert not await session.resume(second_id, second.session.handled)


async def test_who_is_kicked_between_the_login_and_the_resumption_is_not_resumed(
    widgets: Widgets, lasting_room: Room
) -> None:
    moderator = await widgets.enter(lasting_room.moderator, lasting_room.room_id)
    jwt = widgets.jwt(lasting_room.member, lasting_room.room_id)
    call = await enter_resumable(widgets, lasting_room, jwt=jwt)
    previd = await lose(call)
    session = await authenticated(widgets, lasting_room, previd=previd, token=jwt)
    assert isinstance(session, Session)
    nick = call.joined.nick.split("/", 1)[1]
    await moderator.session.set_role(widgets.conference(lasting_room.room_id), nick, "none")
    assert not await session.resume(previd, call.session.handled)


@pytest.mark.parametrize("handled", ["", "x", "nan", "1e400", "0x7fffffffffffffff", None])
async def test_a_resumption_that_counts_nonsense_fails(
    widgets: Widgets, lasting_room: Room, handled: str | None
) -> None:
    jwt = widgets.jwt(lasting_room.member, lasting_room.room_id)
    call = await enter_resumable(widgets, lasting_room, jwt=jwt)
    previd = await lose(call)
    session = await authenticated(widgets, lasting_room, previd=previd, token=jwt)
    assert isinstance(session, Session)
    attributes = {"previd": previd} | ({} if handled is None else {"h": handled})
    await session.send(element(SMACKS, "resume", attributes))
    with contextlib.suppress(StreamClosedError):
        await session.expect(lambda each: each.tag == f"{{{SMACKS}}}failed")
    # The fixture looks for Lua errors in the log.


async def test_a_session_that_was_closed_properly_cannot_be_resumed(widgets: Widgets, room: Room) -> None:
    jwt = widgets.jwt(room.member, room.room_id)
    call = await enter_resumable(widgets, room, jwt=jwt)
    widgets.synapse.expire_openid_token(widgets.tokens[-1])
    previd = call.session.resume_id
    await call.session.close()
    refused = await authenticated(widgets, room, previd=previd, token=jwt)
    assert refused == Refused("not-allowed", NOT_VERIFIED, shown=NOT_VERIFIED)


async def test_after_bosh_an_id_is_no_way_in_either(widgets: Widgets, room: Room) -> None:
    """A BOSH session has no stream that could be moved; the id must not let it past the verification."""
    jwt = widgets.jwt(room.member, room.room_id)
    call = await enter_resumable(widgets, room, jwt=jwt)
    widgets.synapse.expire_openid_token(widgets.tokens[-1])
    query = query_string(room=conference_node(room.room_id), previd=await lose(call), token=jwt)
    session = widgets.keep(await connect(widgets.prosody, Via.BOSH, query=query))
    await session.open()
    assert await session.authenticate() == Refused("not-allowed", NOT_VERIFIED, shown=NOT_VERIFIED)
