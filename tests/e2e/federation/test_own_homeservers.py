"""Two homeservers of one operator: who vouches for whom, and who is believed about which room."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.federation.conftest import Admins, OpenDesk, Person, Room
from tests.e2e.federation.desk import NOBODY, Desk, member, stranger
from tests.parts.federation import USERINFO, TwoServers
from tests.parts.synapse import User
from uvs.matrix.power_levels import CREATOR_LEVEL

Listing = Callable[..., Desk]


@pytest.fixture(scope="session")
def listing(
    world: TwoServers, admins: Admins, open_desk: OpenDesk, tmp_path_factory: pytest.TempPathFactory
) -> Listing:
    """A service whose default is `one`, and which has `two` as a further homeserver. Strangers' servers are off."""

    @functools.cache
    def open_listing(*authoritative_for: str, url: str | None = None) -> Desk:
        table = {
            "server_name": world.two.server_name,
            "url": url or world.two.url,
            "access_token": admins.two.access_token,
            "authoritative_for": authoritative_for,
        }
        file = tmp_path_factory.mktemp("settings") / "uvs.toml"
        # Such JSON is TOML.
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        file.write_text("\n".join(["[[homeservers]]", *lines]))
        return open_desk(UVS_FEDERATION="off", UVS_CONFIG_FILE=str(file))

    return open_listing


def test_people_of_both_are_verified_in_a_room_of_the_default(listing: Listing, room: Room) -> None:
    desk = listing()
    assert desk.verify(room.creator, room.room_id) == member(room.creator, 100)
    assert desk.verify(room.member_of_one, room.room_id) == member(room.member_of_one)
    assert desk.verify(room.member_of_two, room.room_id) == member(room.member_of_two)
    assert desk.verify(room.stranger_of_two, room.room_id) == stranger(room.stranger_of_two)


def test_a_token_is_good_only_at_the_homeserver_that_gave_it(listing: Listing, room: Room) -> None:
    desk = listing()
    assert desk.verify(room.member_of_two, room.room_id, server_name="one.example") == NOBODY
    assert desk.verify(room.member_of_one, room.room_id, server_name="two.example") == NOBODY


@pytest.mark.parametrize(
    ("authoritative_for", "version", "believed"),
    [
        ([], "10", False),
        (["two.example"], "10", True),
        (["*"], "10", True),
        (["one.example", "three.example"], "10", False),
        # From version 12 on a room's id does not say where it was made: only who is believed about all rooms is.
        (["two.example"], "12", False),
        (["*"], "12", True),
    ],
    ids=str,
)
def test_about_a_room_that_the_default_does_not_know_only_who_is_listed_for_it_is_believed(
    listing: Listing,
    world: TwoServers,
    person: Person,
    authoritative_for: Sequence[str],
    version: str,
    believed: bool,
) -> None:
    creator = person(world.two, "creator")
    room_id = world.two.create_room(creator, version=version)
    level = CREATOR_LEVEL if version == "12" else 100
    assert listing(*authoritative_for).verify(creator, room_id) == (
        member(creator, level) if believed else stranger(creator)
    )


def invited(world: TwoServers, creator: User, room_id: str, guest: User) -> None:
    world.two.invite(creator, room_id, guest)


def declined(world: TwoServers, creator: User, room_id: str, guest: User) -> None:
    world.two.invite(creator, room_id, guest)
    world.one.leave(guest, room_id)


def left(world: TwoServers, creator: User, room_id: str, guest: User) -> None:
    world.join(creator, room_id, guest)
    world.one.leave(guest, room_id)


def kicked(world: TwoServers, creator: User, room_id: str, guest: User) -> None:
    world.join(creator, room_id, guest)
    world.two.kick(creator, room_id, guest)
    world.wait_until_out(guest, room_id)


@pytest.mark.parametrize("happened", [invited, declined, left, kicked], ids=lambda happened: happened.__name__)
def test_a_room_in_which_nobody_of_the_default_is_is_none_that_it_knows(
    listing: Listing, world: TwoServers, person: Person, happened: Callable[[TwoServers, User, str, User], None]
) -> None:
    """Otherwise one invitation would end the calls of everybody else in that room."""
    creator, guest = person(world.two, "creator"), person(world.one, "guest")
    room_id = world.two.create_room(creator)
    happened(world, creator, room_id, guest)
    desk = listing("two.example")
    assert desk.verify(creator, room_id) == member(creator, 100)
    assert desk.verify(guest, room_id) == stranger(guest)


def test_the_default_is_asked_about_its_own_people_only_at_home(
    listing: Listing, world: TwoServers, person: Person
) -> None:
    """`two` is believed about this room when it comes to people of `two`, and about nobody else."""
    creator, guest = person(world.two, "creator"), person(world.one, "guest")
    room_id = world.two.create_room(creator)
    assert listing("*").verify(guest, room_id) == stranger(guest)


def forged(user: User, room_id: str) -> dict[str, Any]:
    """The answers of a homeserver that says of `user` that they are in the room, with level 100."""
    in_path = quote(user.user_id, safe="")
    levels = {
        "type": "m.room.power_levels",
        "state_key": "",
        "sender": user.user_id,
        "content": {"users": {user.user_id: 100}},
    }
    return {
        USERINFO: {"sub": user.user_id},
        "/_matrix/client/v3/account/whoami": {"user_id": "@administrator:two.example"},
        f"/_synapse/admin/v2/users/{in_path}": {"name": user.user_id, "deactivated": False, "locked": False},
        f"/_synapse/admin/v1/users/{in_path}/joined_rooms": {"joined_rooms": [room_id]},
        f"/_synapse/admin/v1/rooms/{quote(room_id, safe='')}/state": {"state": [levels]},
    }


class TestWhoAdministersAnotherHomeserverAndLies:
    """Even where that homeserver is believed about every room that the default does not know."""

    def test_gets_nobody_into_a_room_of_the_default(self, listing: Listing, world: TwoServers, room: Room) -> None:
        user = room.stranger_of_two
        liar = world.serve_at_address(forged(user, room.room_id))
        assert listing("*", url=liar.url).verify(user, room.room_id) == stranger(user)
        about_the_room = (quote(room.room_id, safe=""), quote(user.user_id, safe="") + "/joined_rooms")
        assert not any(word in path for path in liar.asked for word in about_the_room)

    def test_raises_nobodys_level_in_a_room_of_the_default(
        self, listing: Listing, world: TwoServers, room: Room
    ) -> None:
        liar = world.serve_at_address(forged(room.member_of_two, room.room_id))
        desk = listing("*", url=liar.url)
        assert desk.verify(room.member_of_two, room.room_id) == member(room.member_of_two, 0)

    def test_invents_no_room_in_the_name_of_the_default(
        self, listing: Listing, world: TwoServers, person: Person
    ) -> None:
        accomplice, invented = person(world.two, "accomplice"), "!invented:one.example"
        liar = world.serve_at_address(forged(accomplice, invented))
        assert listing("two.example", url=liar.url).verify(accomplice, invented) == stranger(accomplice)

    def test_is_believed_about_the_rooms_for_which_the_operator_listed_it(
        self, listing: Listing, world: TwoServers, person: Person
    ) -> None:
        """What listing grants, no less and no more."""
        accomplice, invented = person(world.two, "accomplice"), "!invented:two.example"
        liar = world.serve_at_address(forged(accomplice, invented))
        assert listing("two.example", url=liar.url).verify(accomplice, invented) == member(accomplice, 100)

    def test_vouches_for_nobody_of_the_default(self, listing: Listing, world: TwoServers, room: Room) -> None:
        liar = world.serve_at_address(forged(room.creator, room.room_id))
        answer = listing("*", url=liar.url).ask(room.creator, room.room_id, server_name="two.example")
        assert answer.status_code == 502
        assert room.creator.user_id not in answer.text
