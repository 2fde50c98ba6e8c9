"""The remote homeserver does not answer: cannot tell, in time, and nobody else suffers from it."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.federation.conftest import MakeRoom, OpenDesk, Room
from tests.e2e.federation.desk import Desk, Verdict, member, stranger
from tests.parts.federation import NO_PORT_443, USERINFO, TwoServers, eventually
from uvs.homeserver.federation import PLACES_OF_ONE

DEADLINE_SECONDS = 4.0
CROWD = PLACES_OF_ONE + 10


@pytest.fixture
def desk(open_desk: OpenDesk) -> Desk:
    return open_desk(UVS_REQUEST_TIMEOUT=f"{DEADLINE_SECONDS:g}")


def in_flight(desk: Desk) -> float:
    """Requests that the service is answering."""
    found = re.search(r"^uvs_requests_in_flight (\S+)$", desk.service.metrics(), re.MULTILINE)
    assert found
    return float(found[1])


def assert_in_time(began: float) -> None:
    assert time.monotonic() - began < DEADLINE_SECONDS + 1


def test_a_remote_homeserver_that_is_down_is_no_reason_to_say_no(
    world: TwoServers, desk: Desk, lasting_room: Room
) -> None:
    room, token = lasting_room, world.two.openid_token(lasting_room.member_of_two)
    assert desk.verify(room.member_of_two, room.room_id, token=token) == member(room.member_of_two)
    with world.two_down():
        began = time.monotonic()
        answer = desk.ask(room.member_of_two, room.room_id, token=token)
        assert_in_time(began)
        assert (answer.status_code, answer.json()["errcode"]) == (502, "UVS_UPSTREAM_FAILED")
        assert desk.verify(room.member_of_one, room.room_id) == member(room.member_of_one)
    # Where it is was known before, so there is nothing to wait for.
    assert desk.verify(room.member_of_two, room.room_id, token=token) == member(room.member_of_two)


def test_ones_own_people_are_verified_in_a_room_of_a_homeserver_that_is_down(
    world: TwoServers, desk: Desk, make_room: MakeRoom
) -> None:
    room = make_room(world.two)
    with world.two_down():
        assert desk.verify(room.member_of_one, room.room_id) == member(room.member_of_one)
        assert desk.verify(room.stranger_of_one, room.room_id) == stranger(room.stranger_of_one)


def test_a_remote_homeserver_that_hangs_holds_up_nobody_else(world: TwoServers, desk: Desk, lasting_room: Room) -> None:
    room, token = lasting_room, world.two.openid_token(lasting_room.member_of_two)
    with world.two_hanging(), ThreadPoolExecutor(CROWD) as pool:
        began = time.monotonic()
        crowd = [pool.submit(desk.ask, room.member_of_two, room.room_id, token=token) for _ in range(CROWD)]
        eventually("those of the crowd wait who have a place", lambda: in_flight(desk) >= PLACES_OF_ONE)
        assert desk.verify(room.member_of_one, room.room_id) == member(room.member_of_one)
        assert in_flight(desk) >= PLACES_OF_ONE
        answers = [each.result() for each in crowd]
        assert_in_time(began)
    turned_away = [answer for answer in answers if answer.status_code == 503]
    assert len(turned_away) == CROWD - PLACES_OF_ONE
    assert all("retry-after" in answer.headers for answer in turned_away)
    assert {answer.status_code for answer in answers} <= {502, 503, 504}
    assert desk.verify(room.member_of_two, room.room_id, token=token) == member(room.member_of_two)


def test_who_is_added_to_dns_is_found_as_soon_as_its_absence_may_no_longer_be_kept(
    world: TwoServers, desk: Desk, lasting_room: Room
) -> None:
    def ask() -> int:
        someone = lasting_room.member_of_two
        return desk.ask(someone, lasting_room.room_id, server_name="late.example", token="some-token").status_code

    assert ask() == 502
    world.add("late.example", {USERINFO: {"sub": "@guest:late.example"}})
    eventually("late.example is found", lambda: ask() == 200)


def test_a_delegation_holds_while_the_web_server_that_it_came_from_is_down(
    world: TwoServers, desk: Desk, lasting_room: Room
) -> None:
    """For as long as it says; of one that could not be fetched before, see the unit tests: they need not wait."""
    name, delegate = "web.example", "federation.web.example"
    homeserver = world.add(delegate, {USERINFO: {"sub": f"@guest:{name}"}})
    world.dns.add_address(delegate, homeserver.address)
    web = world.delegate(name, f"{delegate}:{homeserver.port}")
    if web is None:
        pytest.skip(NO_PORT_443)

    def ask() -> Verdict:
        someone = lasting_room.member_of_two
        return desk.verify(someone, lasting_room.room_id, server_name=name, token="some-token")

    guest = Verdict(f"@guest:{name}", joined=False)
    assert ask() == guest
    web.stop()
    assert ask() == guest
