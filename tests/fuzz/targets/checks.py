"""What `uvs check` reads: the site of the Jitsi domain, Prosody's answers, a homeserver's version, clock and
certificate, and a token that somebody was given."""

from __future__ import annotations

import json
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import httpx

from tests.fuzz.target import MARKER, Messages, joined, parts, target, text
from uvs.check import homeserver, jitsi, prosody, reach
from uvs.check.people import GivenToken
from uvs.check.render import for_machines, for_people
from uvs.check.rows import MAX_FOUND, Group, Report, Row, State
from uvs.check.web import Reply
from uvs.errors import CannotTell
from uvs.homeserver.ways_in import WAYS_IN, Access

_messages = Messages(30)
_DIGITS = re.compile("[0-9]+")


def reply_of(status: bytes, headers: bytes, body: bytes) -> Reply:
    """The answer of a web server."""
    code = int(status) if re.fullmatch(rb"[1-5][0-9]{2}", status) else 200
    return Reply(code, httpx.Headers(fields_of(headers)), body)


def fields_of(headers: bytes) -> list[tuple[bytes, bytes]]:
    """As they come from the connection."""
    fields = (line.partition(b":")[::2] for line in headers.split(b"\n") if b":" in line)
    return [(name, value.strip()) for name, value in fields]


def rows_shown(report: Report) -> list[Row]:
    """All rows. Asserts that people and machines are shown exactly those: none is forged, and none moves a cursor."""
    rows = [row for group in report.groups for row in group.rows]
    lines = for_people(report, colour=False).splitlines()
    assert all(line.isprintable() for line in lines)
    assert len(lines) == sum(1 + bool(row.mend) for row in rows) + 2 * len(report.groups) + 1
    shown = for_machines(report)
    assert shown.isascii()
    assert len(json.loads(shown)["rows"]) == len(rows) > 0
    return rows


@target(
    "check-jitsi",
    parser="uvs.check.jitsi",
    whose="the Jitsi domain's",
    seeds=[
        joined(
            "200", "content-type: application/json\naccess-control-allow-origin: *", '{"auth":"openidtoken-jwt"}', ""
        ),
        joined("200", "content-type: text/html\naccess-control-allow-origin: *, *", "<html>", ""),
        joined("301", "location: x", "", "/elsewhere"),
        joined("302", "", "", "//[::1]:443/x"),
    ],
    words=(
        "access-control-allow-origin: ",
        "content-type: ",
        "\n",
        "auth",
        "openidtoken-jwt",
        "https://app.element.io",
        "//[",
        "http://",
        "\x1b[2J",
    ),
    cost=4,
)
def check_jitsi(data: bytes) -> str:
    """Rows, in which nothing moves the cursor of a terminal; a redirect leads to a URL, and not from TLS to none."""
    status, headers, body, location = parts(data, 4)
    reply = reply_of(status, headers, body)
    report = Report()
    group = report.group("Jitsi")
    if jitsi._check_file(group, [reply]):
        jitsi._check_type(group, reply)
        jitsi._check_readable(group, [reply])
    rows = rows_shown(report)
    try:
        found = jitsi._target("https://meet.example/x", text(location))
    except CannotTell as error:
        return _messages.see(str(error))
    assert found.startswith("https:")
    return " ".join(row.state for row in rows if row.state is not State.SKIPPED)


# --- Prosody ----------------------------------------------------------------------------------------------------------

_KEY, _ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the example of RFC 6455, section 1.3
_SWITCHED = "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@target(
    "check-prosody",
    parser="uvs.check.prosody",
    whose="whatever answers in Prosody's place",
    seeds=[
        joined(
            "200",
            "<body type='terminate' condition='host-unknown' xmlns='http://jabber.org/protocol/httpbind'/>",
            "101",
            f"{_SWITCHED}\nSec-WebSocket-Protocol: xmpp",
        ),
        joined("200", "<html>", "101", _SWITCHED),
        joined("404", "", "426", "Upgrade: websocket"),
        joined("101", "", "200", f"{_SWITCHED}\nSec-WebSocket-Protocol: xmpp, xmpp"),
    ],
    words=(
        *("Sec-WebSocket-Accept: ", "Sec-WebSocket-Protocol: ", _ACCEPT, "xmpp", "\n", "101", "\x1b[2J"),
        "http://jabber.org/protocol/httpbind",
    ),
    cost=4,
)
def check_prosody(data: bytes) -> str:
    """Rows, in which nothing moves the cursor of a terminal, and which quote nothing; a yes only for a 200 with the
    namespace of BOSH in it, and for a 101 that answers the key once and says once that it speaks XMPP."""
    bosh_status, body, socket_status, headers = parts(data, 4)
    bosh, socket = reply_of(bosh_status, b"", body), reply_of(socket_status, headers, b"")
    url = "https://meet.example/x"
    report = Report()
    prosody._add_rows(
        report.group("Prosody"),
        {
            prosody.BOSH: _outcome(lambda: prosody._read_bosh(bosh, url)),
            prosody.WEBSOCKET: _outcome(lambda: prosody._read_websocket(socket, url, _KEY)),
        },
    )
    rows = rows_shown(report)
    assert MARKER not in repr(rows)
    said: dict[bytes, list[bytes]] = {}
    for name, value in fields_of(headers):
        said.setdefault(name.lower(), []).append(value)
    good = {
        prosody.BOSH: bosh.status == 200 and b"http://jabber.org/protocol/httpbind" in body,
        prosody.WEBSOCKET: socket.status == 101
        and said.get(b"sec-websocket-accept") == [_ACCEPT]
        and said.get(b"sec-websocket-protocol") == [b"xmpp"],
    }
    otherwise = State.YELLOW if any(good.values()) else State.RED
    assert [(row.check, row.state) for row in rows] == [
        (check, State.GREEN if is_good else otherwise) for check, is_good in good.items()
    ]
    return " ".join(_DIGITS.sub("", row.found or row.mend) for row in rows)


def _outcome(read: Callable[[], str]) -> str | CannotTell:
    try:
        return read()
    except CannotTell as error:
        return error


# --- a homeserver's version, clock and certificate --------------------------------------------------------------------

_NOW = 784_111_777.0
"""The date in the examples of RFC 9110, section 5.6.7, which has these three forms."""
_DATES = {
    r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [1-9][0-9]{3} [0-9:]{8} GMT": "%a, %d %b %Y %H:%M:%S GMT",
    r"[A-Z][a-z]+, [0-9]{2}-[A-Z][a-z]{2}-[0-9]{2} [0-9:]{8} GMT": "%A, %d-%b-%y %H:%M:%S GMT",
    r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} [1-9][0-9]{3}": "%a %b %d %H:%M:%S %Y",
}
_DAYS = {r"[1-9][0-9]{13}Z": "%Y%m%d%H%M%SZ"}
_CODES = (10, 9, 18, 62, 64, 1)  # X509_V_ERR_…

_Expected = tuple[State | None, str]
"""The state, where it is known, and what stands in what was found."""


@target(
    "check-homeserver",
    parser="uvs.check.homeserver (version, `Date`), uvs.check.reach (certificate)",
    whose="homeservers', and whatever answers at their URLs",
    seeds=[
        joined("Synapse", "1.163.0", "Sun, 06 Nov 1994 08:49:37 GMT", "\0", "940101000000Z", "941101000000Z", ""),
        joined("Synapse", "1.123.0rc1 (b=x)", "Sunday, 06-Nov-94 08:50:37 GMT", "\1", "19941201000000Z", "1", ""),
        joined(
            "Dendrite", "0.13", "Sun Nov  6 08:49:07 1994", "\3", "940101000000Z", "960101000000Z", b"\x82a.example"
        ),
        joined(
            "", "", "", "\3", "09990101000000Z", "99991231235959Z", b"\x81x\n\x87\x7f\0\0\1\n\x86x\n\x82a\n\x82b\n\x82c"
        ),
    ],
    words=(
        *("1.", "123", ".0", "Synapse", "Sun, 06 Nov 1994 ", "08:49:37", " GMT", " -0000", " +0530", "999999999"),
        *("0999", "Z", "+0000", b"\n\x82", b"\n\x87", "\x1b[2J"),
    ),
    cost=10,
)
def check_homeserver(data: bytes) -> str:
    """Rows, in which nothing moves the cursor of a terminal; versions are compared as by the plainest algorithm; clocks
    are apart by what the date says, in whichever time zone; and the day of a certificate is the one that is in it."""
    name, version, date, choice, begins, ends, names = parts(data, 7)
    access, code = tuple(Access)[sum(choice) % len(Access)], _CODES[sum(choice) % len(_CODES)]
    report = Report()
    group = report.group("a homeserver")
    expected = [_give_version(group, access, text(name), text(version))]
    with _elsewhere():
        expected.append(_give_date(group, date.decode("latin-1")))
        expected.append(_give_certificate(group, code, begins, ends, names))
    rows = rows_shown(report)
    for row, (state, found) in zip(rows, expected, strict=True):
        assert state in {None, row.state}, (row, state)
        assert found in row.found, (row, found)
    return f"{' '.join(row.state for row in rows)} {access} {code} {bool(expected[-1][1])}"


def _give_version(group: Group, access: Access, name: str, version: str) -> _Expected:
    homeserver._compare_version(group, access, homeserver._Server(name, version) if name else None)
    if not name:
        return (State.YELLOW, "not told") if WAYS_IN[access].client_api else (State.SKIPPED, "does not tell it")
    major, _, rest = version.partition(".")
    minor = re.split("[^0-9]", rest, maxsplit=1)[0]
    if not re.fullmatch("[0-9]{1,4}", major) or not 1 <= len(minor) <= 6:
        return State.YELLOW, "not told"
    old = name != "Synapse" or (int(major), int(minor)) < WAYS_IN[access].oldest_synapse
    return State.RED if old else State.GREEN, f"{name} {major}.{minor}"[:MAX_FOUND]


def _give_date(group: Group, date: str) -> _Expected:
    homeserver._compare_clock(group, date or None, _NOW)
    said = _plain(date, _DATES)
    if said is None:
        return (None, "") if date else (State.YELLOW, "no date")
    seconds = int(_NOW - said.timestamp())
    if abs(seconds) < homeserver.APART_SECONDS:
        return State.GREEN, "agrees"
    state = State.YELLOW if abs(seconds) < homeserver.FAR_APART_SECONDS else State.RED
    return state, f"{abs(seconds)} s {'ahead' if seconds > 0 else 'behind'}"


def _give_certificate(group: Group, code: int, begins: bytes, ends: bytes, names: bytes) -> _Expected:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code, error.verify_message = code, "the library's words"
    certificate = certificate_of(begins, ends, names)
    group.fail("TLS", *reach._certificate_problem(error, "hs.example", certificate, _NOW))
    if certificate and code in {9, 10}:
        said = (begins if code == 9 else ends).decode("latin-1")
        century = "" if len(said) > 13 else "19" if said >= "50" else "20"  # RFC 5280, section 4.1.2.5.1
        day = _plain(century + said, _DAYS)
        return State.RED, day.strftime("%Y-%m-%d") if day else ""
    first = re.match(rb"\x82([a-z.]{1,99})(?:\n|$)", names)
    return State.RED, f"not for hs.example but for {first[1].decode()}" if certificate and first and code > 60 else ""


def _plain(said: str, forms: Mapping[str, str]) -> datetime | None:
    """What a time of one of the forms says, all of which are in UTC."""
    for pattern, form in forms.items():
        if re.fullmatch(pattern, said):
            try:
                return datetime.strptime(said, form).replace(tzinfo=UTC)
            except ValueError:
                return None
    return None


@contextmanager
def _elsewhere() -> Iterator[None]:
    """In another time zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "THERE-5:30"
    time.tzset()
    try:
        yield
    finally:
        del os.environ["TZ"]
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


@lru_cache(maxsize=5000)
def certificate_of(begins: bytes, ends: bytes, names: bytes) -> Mapping[str, Any]:
    """What Python reads in a certificate with these times and, a line each with its tag before it, these names."""
    algorithm, someone = bytes.fromhex("300506032b6570"), bytes.fromhex("300c310a30080603550403 0c0178")
    times = (_der(0x17 if len(each) < 14 else 0x18, each) for each in (begins, ends))
    listed = _der(0x30, *(_der(line[0], line[1:]) for line in names.split(b"\n") if line))
    authority = bytes.fromhex("300f0603551d130101ff040530030101ff")  # without it, `get_ca_certs` leaves it out
    extensions = _der(0xA3, _der(0x30, authority, _der(0x30, bytes.fromhex("0603551d11"), _der(4, listed))))
    key = _der(0x30, algorithm, _der(3, bytes(33)))
    inner = _der(
        0x30, bytes.fromhex("a003020102020101"), algorithm, someone, _der(0x30, *times), someone, key, extensions
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=_der(0x30, inner, algorithm, _der(3, bytes(65))))
        return dict(*context.get_ca_certs())
    except (ssl.SSLError, UnicodeDecodeError):
        return {}  # as reach's `show` has it


def _der(tag: int, *values: bytes) -> bytes:
    value = b"".join(values)
    length = len(value).to_bytes(3, "big")
    return bytes([tag]) + (length[2:] if len(value) < 128 else b"\x83" + length) + value


@target(
    "check-token",
    parser="uvs.check.people.GivenToken.read",
    whose="the operator's, from a homeserver",
    seeds=['{"access_token":"abc","matrix_server_name":"x","expires_in":3600,"token_type":"Bearer"}', "abc\n", "{}"],
    words=("access_token", "matrix_server_name", "{", '"', "\\ud800", "[::1]:8448"),
)
def check_token(data: bytes) -> str:
    """A token and whose, or a ValueError that quotes nothing."""
    try:
        given = GivenToken.read(text(data))
    except ValueError as error:
        return _messages.see(str(error))
    assert given.token.secret not in repr(given) or len(given.token.secret) < 12
    return f"{given.server_name is None} {given.token.is_possible}"
