"""One homeserver: new enough, on time, and can the credential do what is needed? On real sockets, against the fake."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.fake_homeserver import (
    ACCOUNT,
    JOINED_ROOMS,
    MODULE,
    OPENID_REQUEST,
    SERVER_VERSION,
    STATE,
    USERINFO,
    VERSIONS,
    WHOAMI,
    FakeHomeserver,
    Fault,
    after,
    answering,
)
from tests.service import settings
from tests.unit.checked import assert_only, row, states
from tests.unit.serving import served
from uvs.check.homeserver import CREDENTIAL, VERIFIED, check_homeserver
from uvs.check.rows import Group, State
from uvs.ways import connect

ACCESSES = ("synapse-admin", "msc4502", "synapse-module")
HTML = answering(200, "<html>Welcome to nginx!</html>")


@dataclass
class World:
    homeserver: FakeHomeserver
    group: Group = field(default_factory=lambda: Group("homeserver"))

    async def check(
        self,
        access: str = "synapse-admin",
        *,
        faults: Mapping[str, Fault] | None = None,
        token_given: bool = False,
        apart: float = 0.0,
        **options: Any,
    ) -> Group:
        self.homeserver.faults = dict(faults or {})
        way_in = self.homeserver.way_in(access, self.homeserver.register("uvs", admin=True))
        loaded = settings(**{"openid_verify_server_name": "matrix.example", **way_in, **options})
        async with connect(loaded) as ways:
            await check_homeserver(
                self.group,
                loaded.own_homeservers[0],
                ways.homeservers[0],
                ways.clients[0],
                ca_file=None,
                token_given=token_given,
                now=lambda: time.time() + apart,
            )
        return self.group


@pytest.fixture(scope="module")
def homeserver() -> Iterator[FakeHomeserver]:
    homeserver = FakeHomeserver()
    with served(homeserver) as port:
        homeserver.url = f"http://127.0.0.1:{port}"
        # By the host it tells the listener of the module from the other one.
        homeserver.module_url = f"http://localhost:{port}"
        yield homeserver


@pytest.fixture
def world(homeserver: FakeHomeserver) -> World:
    return World(homeserver)


@pytest.mark.parametrize("access", ACCESSES)
async def test_all_is_well(world: World, access: str) -> None:
    group = await world.check(access)
    expected = {State.GREEN, State.SKIPPED} | ({State.YELLOW} if access == "synapse-module" else set())
    assert {state for _, state in states(group)} == expected


@pytest.mark.parametrize(("access", "owner"), [("synapse-admin", "@uvs:"), ("msc4502", "@_uvs:")])
async def test_a_token_of_our_own_is_verified(world: World, access: str, owner: str) -> None:
    group = await world.check(access)
    assert row(group, VERIFIED).state is State.GREEN
    assert owner in row(group, VERIFIED).found


async def test_the_module_has_no_account_for_a_token_and_it_is_said_how_to_give_one(world: World) -> None:
    yellow = assert_only(await world.check("synapse-module"), VERIFIED, State.YELLOW)
    assert "--openid-token-file" in yellow.mend


async def test_no_token_is_made_where_one_is_given(world: World) -> None:
    world.homeserver.calls.clear()
    assert row(await world.check(token_given=True), VERIFIED).state is State.SKIPPED
    assert OPENID_REQUEST not in {call for call, _ in world.homeserver.calls}


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("access", "version", "state"),
    [
        ("synapse-admin", "1.123.0", State.GREEN),
        ("synapse-admin", "1.163.0rc1", State.GREEN),
        ("synapse-admin", "2.0", State.GREEN),
        ("synapse-admin", "1.122.0 (b=develop,c0ffee)", State.RED),
        ("synapse-admin", "0.99.5", State.RED),
        ("msc4502", "1.162.0", State.RED),
        ("synapse-admin", "develop", State.YELLOW),
    ],
)
async def test_a_version_that_is_too_old_is_red(world: World, access: str, version: str, state: State) -> None:
    group = await world.check(access, faults={SERVER_VERSION: answering(200, {"server_version": version})})
    assert row(group, "version").state is state
    assert state is State.GREEN or "uvs needs Synapse 1.1" in row(group, "version").mend
    assert row(group, VERIFIED).state is State.GREEN  # that it is old does not keep the rest from being looked at


@pytest.mark.parametrize("fault", [answering(403, {"errcode": "M_FORBIDDEN"}), answering(404, "<html>"), HTML])
async def test_a_version_that_is_not_told_is_yellow(world: World, fault: Fault) -> None:
    group = await world.check(faults={SERVER_VERSION: fault})
    assert_only(group, "version", State.YELLOW)


async def test_another_listener_than_the_client_api_is_gone_on_with(world: World) -> None:
    """A proxy in front may let through what the service asks, and nothing else."""
    refused = answering(404, {"errcode": "M_UNRECOGNIZED"})
    group = await world.check(faults={VERSIONS: refused})
    assert row(group, VERIFIED).state is State.GREEN


@pytest.mark.parametrize("fault", [HTML, answering(200, []), answering(301), answering(502, "<html>"), answering(503)])
async def test_where_no_homeserver_answers_nothing_more_is_asked(world: World, fault: Fault) -> None:
    world.homeserver.calls.clear()
    group = await world.check(faults={VERSIONS: fault})
    assert_only(group, "version", State.RED)
    assert states(group)[-3:] == [("clock", State.SKIPPED), (CREDENTIAL, State.SKIPPED), (VERIFIED, State.SKIPPED)]
    assert {call for call, _ in world.homeserver.calls} == {VERSIONS}


async def test_a_slow_homeserver_is_named_as_such(world: World) -> None:
    group = await world.check(faults={VERSIONS: after(2, answering(200, {"versions": []}))}, request_timeout=0.2)
    assert "took too long" in assert_only(group, "version", State.RED).mend


# --- clock ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("apart", "state", "found"),
    [
        (0, State.GREEN, ""),
        (25, State.GREEN, ""),
        (-25, State.GREEN, ""),
        (40, State.YELLOW, "ahead of"),
        (-40, State.YELLOW, "behind"),
        (3600, State.RED, "ahead of"),
        (-3600, State.RED, "behind"),
    ],
)
async def test_clocks_that_are_apart(world: World, apart: float, state: State, found: str) -> None:
    clock = row(await world.check(apart=apart), "clock")
    assert clock.state is state
    assert found in clock.found
    assert (state is State.GREEN) == (not clock.mend)


# --- the credential ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "faults", "failed", "mend"),
    [
        ({"access_token": "wrong"}, {}, "homeserver answers, token is valid", "log in again"),
        ({}, {WHOAMI: HTML}, "homeserver answers, token is valid", "see what is at its URL"),
        ({}, {WHOAMI: answering(404, {})}, "homeserver answers, token is valid", "UVS_HOMESERVER_URL"),
        (
            {"openid_verify_server_name": "other.example"},
            {},
            "server name is the homeserver's own",
            "is matrix.example; write that.",
        ),
        ({}, {ACCOUNT: answering(403)}, "token may read accounts", "token of a server administrator"),
        ({}, {JOINED_ROOMS: answering(403)}, "token may read members", "token of a server administrator"),
        ({}, {STATE: answering(403)}, "token may read power levels", "token of a server administrator"),
        ({}, {USERINFO: answering(404)}, "OpenID tokens can be redeemed", "UVS_FEDERATION_URL"),
        ({}, {USERINFO: HTML}, "OpenID tokens can be redeemed", "see what is at its URL"),
    ],
)
async def test_what_the_credential_may_not_do_is_named(
    world: World, options: dict[str, Any], faults: dict[str, Fault], failed: str, mend: str
) -> None:
    group = await world.check(faults=faults, **options)
    assert mend in assert_only(group, failed, State.RED).mend
    assert row(group, VERIFIED).state is State.SKIPPED


async def test_the_module_is_not_installed(world: World) -> None:
    group = await world.check("synapse-module", faults={MODULE: answering(404, {"errcode": "M_UNRECOGNIZED"})})
    assert "export-synapse-module" in assert_only(group, "homeserver answers, secret is valid", State.RED).mend


@pytest.mark.parametrize("fault", [answering(403, {"errcode": "M_FORBIDDEN"}), answering(429), HTML])
async def test_a_token_that_is_not_to_be_had_is_yellow(world: World, fault: Fault) -> None:
    yellow = assert_only(await world.check(faults={OPENID_REQUEST: fault}), VERIFIED, State.YELLOW)
    assert "--openid-token-file" in yellow.mend


async def test_a_homeserver_that_does_not_know_its_own_token_is_red(world: World) -> None:
    fault = answering(200, {"access_token": "made-elsewhere", "matrix_server_name": "matrix.example"})
    red = assert_only(await world.check(faults={OPENID_REQUEST: fault}), VERIFIED, State.RED)
    assert "bad-token" in red.found
    assert "made-elsewhere" not in str(world.group)


async def test_the_federation_url_is_looked_at_too(world: World) -> None:
    group = await world.check(federation_url="http://127.0.0.1:1")
    assert row(group, "federation TCP").state is State.RED
    assert row(group, "OpenID tokens can be redeemed").state is State.RED
