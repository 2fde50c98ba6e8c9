"""The listener behind UVS_HOMESERVER_URL has no `openid` resource, and nothing says where there is one: the homeserver
is found as others find it."""

from __future__ import annotations

from tests.e2e.federation.conftest import OpenDesk, Room
from tests.e2e.federation.desk import NOBODY, member, stranger
from tests.parts.federation import TwoServers, eventually


def test_ones_own_people_are_verified_where_other_homeservers_would_ask(
    world: TwoServers, open_desk: OpenDesk, lasting_room: Room
) -> None:
    room = lasting_room
    desk = open_desk(UVS_HOMESERVER_URL=world.client_url(world.one), UVS_FEDERATION="off")
    assert desk.verify(room.creator, room.room_id) == member(room.creator, 100)
    assert desk.verify(room.stranger_of_one, room.room_id) == stranger(room.stranger_of_one)
    assert desk.verify(room.creator, room.room_id, token="nobodys") == NOBODY
    assert desk.verify(room.member_of_two, room.room_id) == NOBODY


def test_where_the_guard_does_not_let_it_be_reached_the_mend_says_what_to_set(
    world: TwoServers, open_desk: OpenDesk, lasting_room: Room
) -> None:
    desk = open_desk(UVS_HOMESERVER_URL=world.client_url(world.one), UVS_ALLOWED_NETWORKS="")
    answer = desk.ask(lasting_room.creator, lasting_room.room_id)
    assert answer.status_code == 502
    assert "UVS_FEDERATION_URL" in answer.json()["error"]
    assert "127." not in answer.text
    # The service writes its line once the answer is out.
    eventually("the log says why", lambda: "loopback" in desk.log_text())
