"""Who gets into the call of a Matrix room, and as what: real Synapse, real service, real Prosody."""

from __future__ import annotations

from tests.e2e.conftest import Room
from tests.e2e.reasons import NOT_A_MEMBER
from tests.parts.jitsi_client import Refused
from tests.parts.widget import Widgets


async def test_a_member_gets_in_as_a_participant(widgets: Widgets, room: Room) -> None:
    call = await widgets.enter(room.member, room.room_id)
    assert call.joined.role == "participant"


async def test_a_visitor_is_refused_and_told_why(widgets: Widgets, room: Room) -> None:
    outcome = await widgets.log_in(room.visitor, room.room_id)
    assert outcome == Refused("not-allowed", NOT_A_MEMBER, shown=NOT_A_MEMBER)
