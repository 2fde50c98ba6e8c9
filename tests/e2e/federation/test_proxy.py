"""A real forward proxy of the operator's stands between the service and everybody else's homeservers."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.federation.conftest import OpenDesk, Room
from tests.e2e.federation.desk import member
from tests.parts.federation import TwoServers
from tests.parts.tinyproxy import Tinyproxy


def test_people_of_another_homeserver_are_verified_through_it_and_ones_own_past_it(
    world: TwoServers, open_desk: OpenDesk, lasting_room: Room, tmp_path: Path
) -> None:
    with Tinyproxy(tmp_path) as proxy:
        desk = open_desk(UVS_FEDERATION_PROXY=proxy.url)
        assert desk.verify(lasting_room.member_of_one, lasting_room.room_id) == member(lasting_room.member_of_one)
        assert proxy.asked() == []
        assert desk.verify(lasting_room.member_of_two, lasting_room.room_id) == member(lasting_room.member_of_two)
        assert proxy.asked()
        # It is told addresses that were judged, and no name that it would look up itself.
        assert all(target.startswith("127.") for target in proxy.asked())


def test_without_it_nobody_goes_around_it(
    world: TwoServers, open_desk: OpenDesk, lasting_room: Room, tmp_path: Path
) -> None:
    with Tinyproxy(tmp_path) as proxy:
        gone = proxy.url
    desk = open_desk(UVS_FEDERATION_PROXY=gone)
    assert desk.ask(lasting_room.member_of_two, lasting_room.room_id).status_code == 502
    assert desk.verify(lasting_room.member_of_one, lasting_room.room_id) == member(lasting_room.member_of_one)
