"""`uvs check --server`, in the world of two homeservers."""

from __future__ import annotations

import pytest

from tests.e2e.checking import Checked, check
from tests.e2e.federation.conftest import Admins, Room
from tests.parts.federation import NETWORK, TwoServers


@pytest.fixture
def settings(world: TwoServers, admins: Admins) -> dict[str, str]:
    """Those of the operator of `one`."""
    host, port = world.dns.address
    return {
        "UVS_HOMESERVER_URL": world.one.url,
        "UVS_ACCESS_TOKEN": admins.one.access_token,
        "UVS_FEDERATION": "on",
        "UVS_CA_FILE": str(world.ca_file),
        "UVS_DNS_SERVERS": f"{host}:{port}",
        "UVS_ALLOWED_NETWORKS": NETWORK,
    }


def found(checked: Checked) -> dict[str, str]:
    rows = checked.states("other homeserver")
    return {name: rows[name] for name in ("people let in", "destination", "answers")}


def test_another_homeserver_is_found_and_answers(settings: dict[str, str]) -> None:
    checked = check(settings, "--server", "two.example")
    assert found(checked) == {"people let in": "green", "destination": "green", "answers": "green"}
    assert checked.status == 0


def test_our_own_is_known_as_such_also_where_no_setting_names_it(settings: dict[str, str]) -> None:
    assert found(check(settings, "--server", "one.example"))["destination"] == "skipped"


def test_a_network_that_is_not_open_is_named(settings: dict[str, str]) -> None:
    checked = check(settings | {"UVS_ALLOWED_NETWORKS": "192.0.2.0/24"}, "--server", "two.example")
    assert found(checked) == {"people let in": "green", "destination": "red", "answers": "skipped"}
    assert "loopback" in checked.row("destination")["found"]


def test_a_person_of_another_homeserver(world: TwoServers, settings: dict[str, str], lasting_room: Room) -> None:
    guest = lasting_room.member_of_two
    answer = f'{{"access_token": "{world.two.openid_token(guest)}", "matrix_server_name": "two.example"}}'
    checked = check(settings, "--room", lasting_room.room_id, "--openid-token-file", "-", given=answer)
    assert checked.not_green() == {}
    assert checked.standing == {"joined": True, "power_level": 0, "moderator": False}
    by_name = check(settings, "--room", lasting_room.room_id, "--user", guest.user_id)
    assert by_name.row("server")["state"] == "green"
    assert by_name.standing == checked.standing
