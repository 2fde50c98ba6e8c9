"""Another homeserver, found by its name: with DNS and TLS of the test's own, and what the service itself would ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.parts.dns_server import servfail
from tests.service import settings
from tests.unit.checked import assert_only, row, states
from tests.unit.strangers import Behave, Internet, Stranger, by_path, hang, says
from uvs.check.rows import Group, State
from uvs.check.server import ANSWERS, FOUND, LET_IN, check_server
from uvs.matrix.identifiers import ServerName
from uvs.ways import connect

NAME = "other.example"
KNOWS_NOBODY = by_path(userinfo=says(401, '{"errcode": "M_UNKNOWN_TOKEN"}'))
WELL_KNOWN, FED, OLD = f"well-known of {NAME}", f"SRV _matrix-fed._tcp.{NAME}", f"SRV _matrix._tcp.{NAME}"


class Operator:
    """Asks about a server by name, with settings that fit that internet."""

    def __init__(self, internet: Internet, directory: Path) -> None:
        self.internet = internet
        self._ca_file = internet.authority.write(directory / "ca.pem")
        self.group = Group("other homeserver")

    async def serve(self, behave: Behave = KNOWS_NOBODY, *names: str, expired: bool = False) -> Stranger:
        """`other.example`, found by its SRV record."""
        stranger = await self.internet.serve(*(names or (NAME,)), behave=behave, expired=expired)
        self.internet.dns.add_service(f"_matrix-fed._tcp.{NAME}", f"matrix.{NAME}", stranger.port)
        self.internet.dns.add_address(f"matrix.{NAME}", stranger.address)
        return stranger

    async def check(self, name: str = NAME, **options: Any) -> Group:
        loaded = settings(
            **{
                "federation": "on",
                "ca_file": self._ca_file,
                "dns_servers": [f"{self.internet.dns.address[0]}:{self.internet.dns.address[1]}"],
                "allowed_networks": [str(self.internet.network)],
                "openid_verify_server_name": "matrix.example",
                **options,
            }
        )
        async with connect(loaded) as ways:
            await check_server(self.group, ServerName.parse(name), loaded.own_homeservers, ways)
        return self.group


@pytest.fixture
def operator(net: Internet, tmp_path: Path) -> Operator:
    return Operator(net, tmp_path)


async def test_each_step_is_a_row(operator: Operator) -> None:
    stranger = await operator.serve()
    group = await operator.check()
    assert states(group) == [
        (LET_IN, State.GREEN),
        (f"addresses of {NAME}", State.SKIPPED),
        (WELL_KNOWN, State.SKIPPED),
        (FED, State.GREEN),
        (f"addresses of matrix.{NAME}", State.GREEN),
        (FOUND, State.GREEN),
        (ANSWERS, State.GREEN),
    ]
    assert f"{stranger.address} port {stranger.port}; Host: {NAME}" in row(group, FOUND).found


async def test_one_of_our_own_is_not_looked_for(operator: Operator) -> None:
    assert states(await operator.check("matrix.example")) == [
        (LET_IN, State.GREEN),
        (FOUND, State.SKIPPED),
        (ANSWERS, State.SKIPPED),
    ]
    assert "matrix.example" not in {name for name, _ in operator.internet.dns.asked}


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        ({"federation": "off"}, "UVS_FEDERATION=on"),
        ({"federation": "listed", "federation_allow": "partner.example"}, "UVS_FEDERATION_ALLOW"),
        ({"federation_deny": "*.example"}, "UVS_FEDERATION_DENY"),
    ],
)
async def test_where_its_people_are_not_let_in_it_is_found_and_not_asked(
    operator: Operator, options: dict[str, str], mend: str
) -> None:
    stranger = await operator.serve()
    group = await operator.check(**options)
    assert mend in assert_only(group, LET_IN, State.RED).mend
    assert row(group, FOUND).state is State.GREEN
    assert row(group, ANSWERS).state is State.SKIPPED
    assert stranger.connections == 0


async def test_there_is_no_such_server(operator: Operator) -> None:
    group = await operator.check()
    assert f"{NAME} has no address in DNS" in assert_only(group, FOUND, State.RED).found
    assert row(group, ANSWERS).state is State.SKIPPED


async def test_dns_does_not_answer(operator: Operator) -> None:
    for kind in ("A", "AAAA", "SRV"):
        for name in (NAME, f"_matrix-fed._tcp.{NAME}", f"_matrix._tcp.{NAME}"):
            operator.internet.dns.on(name, kind, servfail)
    group = await operator.check()
    assert_only(group, FOUND, State.RED)


async def test_it_is_in_a_network_that_is_not_open(operator: Operator) -> None:
    forbidden = await operator.internet.forbidden()
    operator.internet.dns.add_address(NAME, forbidden.address)
    red = assert_only(await operator.check(), FOUND, State.RED)
    assert "UVS_ALLOWED_NETWORKS" in red.found


@pytest.mark.parametrize(
    ("behave", "names", "expired", "found"),
    [
        (KNOWS_NOBODY, ("impostor.example",), False, "certificate is not valid"),
        (KNOWS_NOBODY, (NAME,), True, "certificate has expired"),
        (says(404, "<html>"), (NAME,), False, "404"),
        (says(200, "<html>"), (NAME,), False, "the answer is not what a homeserver says"),
        (says(502), (NAME,), False, "502"),
    ],
)
async def test_it_does_not_answer_as_it_should(
    operator: Operator, behave: Behave, names: tuple[str, ...], expired: bool, found: str
) -> None:
    await operator.serve(behave, *names, expired=expired)
    group = await operator.check()
    assert row(group, FOUND).state is State.GREEN
    assert found in assert_only(group, ANSWERS, State.RED).found


async def test_it_is_silent(operator: Operator) -> None:
    await operator.serve(hang)
    assert "took too long" in assert_only(await operator.check(request_timeout=0.5), ANSWERS, State.RED).found


async def test_it_vouches_for_whatever_it_is_asked(operator: Operator) -> None:
    await operator.serve(by_path(userinfo=says(200, f'{{"sub": "@anybody:{NAME}"}}')))
    assert "UVS_FEDERATION_DENY" in assert_only(await operator.check(), ANSWERS, State.RED).mend
