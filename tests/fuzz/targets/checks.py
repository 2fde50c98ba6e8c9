"""What `uvs check` reads: the site of the Jitsi domain, and a token that somebody was given."""

from __future__ import annotations

import json
import re

import httpx

from tests.fuzz.target import Messages, joined, parts, target, text
from uvs.check import jitsi
from uvs.check.people import GivenToken
from uvs.check.render import for_machines, for_people
from uvs.check.rows import Report, State
from uvs.check.web import Reply
from uvs.errors import CannotTell

_messages = Messages(30)


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
    code = int(status) if re.fullmatch(rb"[1-5][0-9]{2}", status) else 200
    fields = [line.partition(b":")[::2] for line in headers.split(b"\n") if b":" in line]
    reply = Reply(code, httpx.Headers([(name, value.strip()) for name, value in fields]), body)
    report = Report()
    group = report.group("Jitsi")
    if jitsi._check_file(group, [reply]):
        jitsi._check_type(group, reply)
        jitsi._check_readable(group, [reply])
    assert all(line.isprintable() for line in for_people(report, colour=False).splitlines())
    assert len(json.loads(for_machines(report))["rows"]) == len(group.rows) > 0
    try:
        found = jitsi._target("https://meet.example/x", text(location))
    except CannotTell as error:
        return _messages.see(str(error))
    assert found.startswith("https:")
    return " ".join(row.state for row in group.rows if row.state is not State.SKIPPED)


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
