"""What the fuzzers have found, as ordinary tests."""

from __future__ import annotations

import asyncio
import calendar
import json
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID

from tests.fuzz.targets.checks import certificate_of
from tests.fuzz.targets.discovery import Fixed, Web
from uvs.check import homeserver, jitsi, reach
from uvs.check.rows import Group, State
from uvs.errors import CannotTell
from uvs.homeserver.events import read_content
from uvs.homeserver.ways_in import Access
from uvs.matrix.identifiers import ServerName
from uvs.matrix.server_globs import ServerGlobs
from uvs.net.dates import read_date
from uvs.net.destination import Addresses, Step
from uvs.net.egress import Egress
from uvs.net.well_known import WellKnown
from uvs.ops.metrics import Metrics
from uvs.settings import Mistakes, load


@pytest.mark.parametrize("raw", [b'{"users_default\x95": 10}', b'{"\xff": 1}', b'"\xff"'])
def test_the_content_of_an_event_that_is_not_utf_8_counts_as_empty(raw: bytes) -> None:
    # The answer around it is read all the same: a part that is left as it is, is not looked at.
    assert read_content(msgspec.Raw(raw)) == {}


def test_no_server_name_makes_the_holding_against_a_pattern_slow() -> None:
    globs = ServerGlobs.parse(["*.*.*.*.*.*.casino", "*a*a*a*a*a*a*a*a*a*a*b"])
    started = time.thread_time()
    assert not globs.matches(ServerName.parse("a." * 126 + "a"))
    assert time.thread_time() - started < 5  # with every way tried, it does not end while anybody waits


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\u2028"])
def test_a_mistake_is_one_line_whatever_the_name_of_the_option_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "uvs.toml"
    for text in (f"{json.dumps(name)} = 1", f"[[homeservers]]\n{json.dumps(name)} = 1"):
        file.write_text(text)
        monkeypatch.setenv("UVS_CONFIG_FILE", str(file))
        with pytest.raises(Mistakes) as raised:
            load()
        assert all(line.isprintable() for line in raised.value.lines)


def test_an_empty_list_of_homeservers_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVS_HOMESERVERS", "[]")
    with pytest.raises(Mistakes, match=r"^UVS_HOMESERVERS: must have one table at least\."):
        load()


@pytest.mark.parametrize("host", ["xn--d.example", "xn--e1afmkfd.example", "xn--a-ecp.example"])
async def test_a_well_known_may_redirect_to_any_name_in_its_ascii_form(host: str) -> None:
    # The first is none that could be shown in other letters, which is nothing to stumble over.
    web = Web([f"302 https://{host}/".encode(), b'200\n{"m.server": "b.example"}'])
    addresses = Addresses(Fixed({"*": ["8.8.8.8"]}), Egress())
    steps: list[Step] = []
    found = await WellKnown(web, addresses, clock=lambda: 0.0).delegate("a.example", steps.append)
    assert str(found) == "b.example"
    assert f"addresses of {host}" in [step.name for step in steps]


async def test_a_well_known_may_redirect_to_brackets_around_anything() -> None:
    web = Web(["302 https://[::👍]/".encode()])
    steps: list[Step] = []
    addresses = Addresses(Fixed({"*": ["8.8.8.8"]}), Egress())
    assert await WellKnown(web, addresses, clock=lambda: 0.0).delegate("a.example", steps.append) is None
    assert steps[-1].outcome == "none: it redirects to what is no URL"


@pytest.mark.parametrize("location", ["//[", "https://[x]/", "http://meet.example/"])
def test_a_redirect_of_the_jitsi_domain_to_what_is_no_url_is_said(location: str) -> None:
    with pytest.raises(CannotTell, match=r"^It redirects to (what is no URL|plain HTTP)"):
        jitsi._target("https://meet.example/x", location)


def test_metrics_repeat_nothing_of_what_was_asked_for() -> None:
    _, media_type = Metrics().render("application/openmetrics-text;version=1.0.0.0SeCrEt\xb2")
    assert media_type.startswith("text/plain; version=0.0.4")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests are in another time zone."""
    with monkeypatch.context() as context:
        context.setenv("TZ", "THERE-5:30")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("date", ["Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 -0000"])
def test_a_date_without_a_zone_is_in_utc_wherever_this_is(date: str) -> None:
    assert read_date(date) == calendar.timegm((1994, 11, 6, 8, 49, 37))


@pytest.mark.parametrize(
    "date",
    ["Sun, 06 Nov 99999999999 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 +99999999999999", "", ",", "Sun, 06 Nov"],
)
def test_a_date_that_no_calendar_has_counts_as_none(date: str) -> None:
    group = Group("a homeserver")
    homeserver._compare_clock(group, date, 0.0)
    assert [(row.state, row.found) for row in group.rows] == [(State.YELLOW, "the homeserver's answer has no date")]


def test_a_version_with_too_many_digits_is_not_read_in_part() -> None:
    group = Group("a homeserver")
    homeserver._compare_version(group, Access.SYNAPSE_ADMIN, homeserver._Server("Synapse", "1.0000123"))
    assert group.rows[0].found == "not told"


@pytest.mark.parametrize(("code", "found"), [(10, "the certificate expired"), (9, "the certificate is not valid")])
def test_a_certificate_of_a_time_that_python_does_not_read_is_told_of_all_the_same(code: int, found: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code = code
    certificate = certificate_of(b"09990101000000Z", b"09991231235959Z", b"")
    assert certificate
    assert reach._certificate_problem(error, "hs.example", certificate, 0.0)[1] == found


async def test_a_certificate_whose_names_are_no_text_is_told_of(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "its own authority")])
    now = datetime.now(UTC)
    names = b"\x30\x0a\x87\x04\x7f\x00\x00\x01\x82\x02\xff\xfe"  # 127.0.0.1, and a host name
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=99))
        .add_extension(x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, names), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "both.pem"
    nothing = serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, nothing)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        group = Group("a homeserver")
        assert await reach.reach(group, f"https://127.0.0.1:{port}", file)
    assert group.rows[-1].found == "the certificate is accepted, but a name in it is no text"
