"""Of which homeservers people are verified: on, off, listed, denied. Who is not wanted is not even asked."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.e2e.federation.conftest import OpenDesk, Room
from tests.e2e.federation.desk import NOBODY, member
from tests.parts.federation import USERINFO, TwoServers
from tests.parts.synapse import Synapse, User


def times_asked(homeserver: Synapse, witness: User) -> int:
    """How often anybody wanted to know from it whose an OpenID token is."""
    homeserver.joined_rooms(witness)  # it logs a request just after it has answered it, and before the next
    return homeserver.process.log_text().count(f'"GET {USERINFO}')


@pytest.mark.parametrize(
    "options",
    [
        {"UVS_FEDERATION": "off"},
        {"UVS_FEDERATION": "", "UVS_OPENID_VERIFY_SERVER_NAME": "one.example"},
        {"UVS_FEDERATION": "listed", "UVS_FEDERATION_ALLOW": "three.example,*.two.example,tw?.exampl"},
        {"UVS_FEDERATION": "listed", "UVS_FEDERATION_ALLOW": "two.example", "UVS_FEDERATION_DENY": "T*.example"},
    ],
    ids=str,
)
def test_people_of_a_homeserver_that_is_not_wanted_are_nobody(
    world: TwoServers, open_desk: OpenDesk, lasting_room: Room, options: Mapping[str, str]
) -> None:
    desk, before = open_desk(**options), times_asked(world.two, lasting_room.member_of_two)
    assert desk.verify(lasting_room.member_of_two, lasting_room.room_id) == NOBODY
    assert times_asked(world.two, lasting_room.member_of_two) == before
    assert desk.verify(lasting_room.member_of_one, lasting_room.room_id) == member(lasting_room.member_of_one)


@pytest.mark.parametrize(
    "options",
    [
        {"UVS_FEDERATION": ""},
        {"UVS_FEDERATION": "on", "UVS_OPENID_VERIFY_SERVER_NAME": "one.example"},
        {"UVS_FEDERATION": "on", "UVS_ALLOWED_NETWORKS": "", "UVS_DISABLE_IP_BLACKLIST": "true"},
        {"UVS_FEDERATION": "listed", "UVS_FEDERATION_ALLOW": "three.example,T*.Example", "UVS_FEDERATION_DENY": "o*"},
    ],
    ids=str,
)
def test_people_of_a_homeserver_that_is_wanted_are_verified(
    world: TwoServers, open_desk: OpenDesk, lasting_room: Room, options: Mapping[str, str]
) -> None:
    desk, before = open_desk(**options), times_asked(world.two, lasting_room.member_of_two)
    assert desk.verify(lasting_room.member_of_two, lasting_room.room_id) == member(lasting_room.member_of_two)
    assert times_asked(world.two, lasting_room.member_of_two) == before + 1


def test_the_certificate_authority_may_also_come_from_the_environment_of_openssl(
    world: TwoServers, open_desk: OpenDesk, lasting_room: Room
) -> None:
    desk = open_desk(UVS_CA_FILE="", SSL_CERT_FILE=str(world.ca_file))
    assert desk.verify(lasting_room.member_of_two, lasting_room.room_id) == member(lasting_room.member_of_two)
