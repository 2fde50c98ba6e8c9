"""What somebody else's homeserver tries, and what is told to whoever names a server in order to learn something."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.e2e.federation.conftest import OpenDesk, Room
from tests.e2e.federation.desk import Desk, Verdict
from tests.parts.federation import NO_PORT_443, USERINFO, TwoServers, loopback_address
from tests.parts.processes import free_port


def test_a_homeserver_vouches_for_its_own_people_only(world: TwoServers, at_one: Desk, lasting_room: Room) -> None:
    victim = lasting_room.creator
    world.add("mallory.example", {USERINFO: {"sub": victim.user_id}})
    answer = at_one.ask(victim, lasting_room.room_id, server_name="mallory.example", token="anything-at-all")
    assert answer.status_code == 502
    assert victim.user_id not in answer.text


def test_who_is_vouched_for_by_a_stranger_is_that_strangers_and_no_member(
    world: TwoServers, at_one: Desk, lasting_room: Room
) -> None:
    localpart = lasting_room.creator.user_id.partition(":")[0]
    world.add("namesake.example", {USERINFO: {"sub": f"{localpart}:namesake.example"}})
    verdict = at_one.verify(
        lasting_room.creator, lasting_room.room_id, server_name="namesake.example", token="anything-at-all"
    )
    assert verdict == Verdict(f"{localpart}:namesake.example", joined=False)


@pytest.mark.parametrize("way", ["srv", "well-known"])
def test_who_delegates_to_somebody_elses_homeserver_vouches_for_nobody(
    world: TwoServers, at_one: Desk, lasting_room: Room, way: str
) -> None:
    """The token is good there, and the person is in the room; but it was not that server that was named."""
    name = f"{way}-parasite.example"
    if way == "srv":
        world.dns.add_service(f"_matrix-fed._tcp.{name}", "matrix.one.example", world.federation_port(world.one))
    elif world.delegate(name, f"federation.two.example:{world.federation_port(world.two)}") is None:
        pytest.skip(NO_PORT_443)
    answer = at_one.ask(lasting_room.member_of_two, lasting_room.room_id, server_name=name)
    assert answer.status_code == 502
    assert lasting_room.member_of_two.user_id not in answer.text


def test_a_server_without_a_certificate_for_its_name_is_told_no_token(
    world: TwoServers, at_one: Desk, lasting_room: Room
) -> None:
    impostor = world.add(
        "bank.example", {USERINFO: {"sub": "@teller:bank.example"}}, certificate_name="impostor.example"
    )
    answer = at_one.ask(lasting_room.member_of_two, lasting_room.room_id, server_name="bank.example")
    assert answer.status_code == 502
    assert impostor.asked == []


class TestTheOperatorsOwnNetwork:
    """Here it is not allowed: `two`, on a loopback address, is inside."""

    @pytest.fixture
    def guarded(self, open_desk: OpenDesk) -> Desk:
        return open_desk(UVS_ALLOWED_NETWORKS="")

    def test_nobody_can_have_the_service_connect_to_it(
        self, world: TwoServers, guarded: Desk, lasting_room: Room
    ) -> None:
        with socket.create_server((loopback_address(), 0)) as canary:
            canary.setblocking(False)
            address, port = canary.getsockname()
            world.dns.add_address("canary.example", address)
            world.dns.add_service("_matrix-fed._tcp.srv-canary.example", "canary.example", port)
            for name in (f"canary.example:{port}", "srv-canary.example", f"{address}:{port}"):
                answer = guarded.ask(lasting_room.member_of_two, lasting_room.room_id, server_name=name)
                assert answer.status_code == 502
            with pytest.raises(BlockingIOError):
                canary.accept()

    def test_nobody_learns_from_the_answer_what_is_in_it(
        self, world: TwoServers, guarded: Desk, lasting_room: Room
    ) -> None:
        """An address that is inside, open or closed, a name that is not there: all the same to whoever asks."""
        world.dns.add_address("inside.example", loopback_address())

        def ask(name: str) -> dict[str, Any]:
            answer = guarded.ask(lasting_room.member_of_two, lasting_room.room_id, server_name=name)
            assert answer.status_code == 502
            body: dict[str, Any] = answer.json()
            del body["reference"]
            body["error"] = body["error"].replace(name, "NAME")
            return body

        open_one = f"federation.two.example:{world.federation_port(world.two)}"
        names = [open_one, f"inside.example:{free_port()}", "nobody.example", f"{loopback_address()}:{free_port()}"]
        answers = [ask(name) for name in names]
        assert answers == [answers[0]] * len(answers)
