"""Whether a URL leads anywhere: each step that can fail does, on real sockets, and is told apart from the others."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from pathlib import Path

import pytest

from tests.parts.certificates import Authority
from tests.parts.connections import accepting
from tests.unit.checked import assert_only, row, states
from uvs.check.reach import FEW_DAYS, reach
from uvs.check.rows import Group, State

DAY = 86_400


async def keep_open(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def ca_file(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.write(tmp_path_factory.mktemp("ca") / "ca.pem")


@pytest.fixture
def group() -> Group:
    return Group("somewhere")


async def test_plain_http_has_no_certificate_to_look_at(group: Group) -> None:
    async with accepting(keep_open) as port:
        assert await reach(group, f"http://127.0.0.1:{port}", None)
    assert states(group) == [("DNS", State.GREEN), ("TCP", State.GREEN), ("TLS", State.SKIPPED)]


async def test_the_certificate_is_good(group: Group, authority: Authority, ca_file: Path) -> None:
    async with accepting(keep_open, tls=authority.server("localhost")) as port:
        assert await reach(group, f"https://localhost:{port}", ca_file)
    assert states(group) == [("DNS", State.GREEN), ("TCP", State.GREEN), ("TLS", State.GREEN)]
    assert "127.0.0.1" in row(group, "DNS").found


async def test_rows_can_be_told_from_those_of_another_url(group: Group) -> None:
    async with accepting(keep_open) as port:
        assert await reach(group, f"http://127.0.0.1:{port}", None, where="federation ")
    assert [name for name, _ in states(group)] == ["federation DNS", "federation TCP", "federation TLS"]


async def test_there_is_no_such_name(group: Group) -> None:
    assert not await reach(group, "https://nowhere.invalid", None)
    assert states(group) == [("DNS", State.RED), ("TCP", State.SKIPPED), ("TLS", State.SKIPPED)]
    assert "nowhere.invalid" in row(group, "DNS").found
    assert row(group, "TCP").found == "DNS comes first"


async def test_a_name_that_dns_cannot_have_is_no_defect(group: Group) -> None:
    assert not await reach(group, f"https://{'a' * 64}.invalid", None)
    assert assert_only(group, "DNS", State.RED)


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "/etc/resolv.conf"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Compare the name"),
        (TimeoutError(), "/etc/resolv.conf"),
    ],
)
async def test_dns_that_does_not_answer_is_told_from_a_name_that_it_does_not_know(
    group: Group, error: OSError, mend: str
) -> None:
    async def resolve(_: str) -> list[str]:
        raise error

    assert not await reach(group, "https://matrix.example", None, resolve=resolve)
    assert mend in assert_only(group, "DNS", State.RED).mend


async def test_one_of_two_addresses_does_not_answer(group: Group) -> None:
    async def resolve(_: str) -> list[str]:
        return ["127.0.0.1", "127.1.2.3"]

    async with accepting(keep_open) as port:
        assert await reach(group, f"http://matrix.example:{port}", None, resolve=resolve)
    yellow = assert_only(group, "TCP", State.YELLOW)
    assert yellow.found == f"127.0.0.1 port {port} answers; not so: 127.1.2.3 refuses"


async def test_nobody_listens(group: Group) -> None:
    with socket.socket() as silent:  # bound, so nobody else gets the port; not listening
        silent.bind(("127.0.0.1", 0))
        assert not await reach(group, f"https://127.0.0.1:{silent.getsockname()[1]}", None)
    assert states(group) == [("DNS", State.GREEN), ("TCP", State.RED), ("TLS", State.SKIPPED)]
    assert "127.0.0.1 refuses" in row(group, "TCP").found


async def test_the_certificate_has_expired(group: Group, authority: Authority, ca_file: Path) -> None:
    async with accepting(keep_open, tls=authority.server("localhost", expired=True)) as port:
        assert not await reach(group, f"https://localhost:{port}", ca_file)
    red = assert_only(group, "TLS", State.RED)
    yesterday = time.strftime("%Y-%m-%d", time.gmtime(time.time() - DAY))
    assert red.found == f"the certificate expired on {yesterday}"
    assert "Renew it" in red.mend


async def test_the_certificate_is_for_another_name(group: Group, authority: Authority, ca_file: Path) -> None:
    async with accepting(keep_open, tls=authority.server("matrix.example", "other.example")) as port:
        assert not await reach(group, f"https://localhost:{port}", ca_file)
    red = assert_only(group, "TLS", State.RED)
    assert red.found == "the certificate is not for localhost but for matrix.example, other.example"


async def test_of_many_other_names_some_are_shown(group: Group, authority: Authority, ca_file: Path) -> None:
    names = [f"{number}.example" for number in range(50)]
    async with accepting(keep_open, tls=authority.server(*names)) as port:
        assert not await reach(group, f"https://localhost:{port}", ca_file)
    found = assert_only(group, "TLS", State.RED).found
    assert found.endswith("but for 0.example, 1.example, 2.example, 3.example, 4.example, …")


async def test_an_address_that_the_certificate_lacks_is_a_wrong_name(
    group: Group, authority: Authority, ca_file: Path
) -> None:
    async with accepting(keep_open, tls=authority.server("localhost")) as port:
        assert not await reach(group, f"https://127.0.0.1:{port}", ca_file)
    assert "is not for 127.0.0.1 but for localhost" in assert_only(group, "TLS", State.RED).found


@pytest.mark.parametrize("expired", [False, True])
async def test_nobody_who_is_trusted_issued_the_certificate(group: Group, ca_file: Path, expired: bool) -> None:
    async with accepting(keep_open, tls=Authority().server("localhost", expired=expired)) as port:
        assert not await reach(group, f"https://localhost:{port}", ca_file)
    red = assert_only(group, "TLS", State.RED)
    assert "UVS_CA_FILE" in red.mend


@pytest.mark.parametrize(("days", "state"), [(FEW_DAYS, State.GREEN), (FEW_DAYS - 1, State.YELLOW), (0, State.YELLOW)])
async def test_a_certificate_that_ends_soon_is_yellow(
    group: Group, authority: Authority, ca_file: Path, days: int, state: State
) -> None:
    context = authority.server("localhost")
    async with accepting(keep_open, tls=context) as port:
        _, writer = await asyncio.open_connection("localhost", port, ssl=authority.client())
        ends = ssl.cert_time_to_seconds(writer.get_extra_info("peercert")["notAfter"])
        writer.transport.abort()
        assert await reach(group, f"https://localhost:{port}", ca_file, now=lambda: ends - days * DAY - 60)
    assert row(group, "TLS").state is state
    assert f" {days} days" in row(group, "TLS").found


async def test_the_port_speaks_plain_http(group: Group, ca_file: Path) -> None:
    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with accepting(http) as port:
        assert not await reach(group, f"https://localhost:{port}", ca_file)
    assert "write http:// into the URL" in assert_only(group, "TLS", State.RED).mend


async def test_the_connection_is_reset_in_the_handshake(group: Group, ca_file: Path) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with accepting(reset) as port:
        assert not await reach(group, f"https://localhost:{port}", ca_file)
    assert assert_only(group, "TLS", State.RED).found == "the handshake is not answered"


async def test_a_silent_port_ends_the_step_in_time(group: Group, ca_file: Path) -> None:
    started = time.monotonic()
    async with accepting(keep_open) as port:
        assert not await reach(group, f"https://localhost:{port}", ca_file)
    assert time.monotonic() - started < 12
    assert assert_only(group, "TLS", State.RED).found == "the handshake is not answered"
