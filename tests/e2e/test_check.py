"""`uvs check` on the real parts: a Synapse with all three ways in, Prosody of both versions, nginx in front of them.
What goes wrong on the way to a homeserver that has only to be reached is in tests/unit/test_check_*.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.checking import check
from tests.parts import PARTS, ROOT
from tests.parts.certificates import Authority
from tests.parts.processes import Process, free_port, listening
from tests.parts.prosody import Config, Prosody
from tests.parts.service import Service
from tests.parts.synapse import User
from tests.parts.ways_in import OpenSynapse

ACCESSES = ("synapse-admin", "msc4502", "synapse-module")
NGINX = PARTS / "tools/usr/sbin/nginx"

SITE = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    access_log off; default_type text/html;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate}; ssl_certificate_key {key};
        {lines}
        location / {{ default_type text/html; return 200 "<!doctype html><title>Jitsi Meet</title>"; }}
    }}
}}
"""
PROSODY = """
        location = /http-bind {{ proxy_pass http://127.0.0.1:{port}/http-bind; proxy_set_header Host {domain}; }}
        location = /xmpp-websocket {{
            proxy_pass http://127.0.0.1:{port}/xmpp-websocket; proxy_set_header Host {domain};
            proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
        }}
"""


@pytest.fixture(scope="module")
def homeserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSynapse]:
    with OpenSynapse(tmp_path_factory.mktemp("synapse"), server_name="check.example") as running:
        yield running


@pytest.fixture(scope="module")
def admin(homeserver: OpenSynapse) -> User:
    return homeserver.register("uvs", admin=True)


Settings = Callable[..., dict[str, str]]


@pytest.fixture
def settings(homeserver: OpenSynapse, admin: User) -> Settings:
    def settings(access: str = "synapse-admin", **others: str) -> dict[str, str]:
        way_in = {f"UVS_{name.upper()}": value for name, value in homeserver.way_in(access, admin).items()}
        return way_in | {"UVS_OPENID_VERIFY_SERVER_NAME": homeserver.server_name} | others

    return settings


@pytest.mark.parametrize("access", ACCESSES)
def test_all_is_well(settings: Settings, access: str) -> None:
    checked = check(settings(access))
    assert checked.not_green() == ({"an OpenID token is verified": "yellow"} if access == "synapse-module" else {})
    assert checked.status == 0


@pytest.mark.parametrize(
    ("access", "version"),
    [("synapse-admin", "10"), ("synapse-admin", "12"), ("msc4502", "10"), ("synapse-module", "12")],
)
def test_what_becomes_of_a_person(homeserver: OpenSynapse, settings: Settings, access: str, version: str) -> None:
    creator, member, visitor = (
        homeserver.register(f"{name}-{access}-{version}") for name in ("creator", "member", "visitor")
    )
    room = homeserver.create_room(creator, version=version)
    homeserver.add(creator, room, member)
    told = access != "msc4502"  # its user is not in the room
    as_creator = check(settings(access), "--user", creator.user_id, "--room", room)
    as_member = check(
        settings(access), "--room", room, "--openid-token-file", "-", given=homeserver.openid_token(member)
    )
    outside = check(settings(access), "--user", visitor.user_id, "--room", room)
    assert as_creator.standing is not None
    assert as_creator.standing["moderator"] is (True if told else None)
    assert as_member.standing == {
        "joined": True,
        "power_level": 0 if told else None,
        "moderator": False if told else None,
    }
    assert as_member.row("an OpenID token is verified")["found"] == f"it is that of {member.user_id}"
    assert outside.standing == {"joined": False, "power_level": None, "moderator": None}
    assert {name for name, state in outside.not_green().items() if state == "red"} == {"joined"}


@pytest.mark.parametrize("access", ACCESSES)
def test_a_room_alone(homeserver: OpenSynapse, settings: Settings, access: str) -> None:
    room = homeserver.create_room(homeserver.register(f"somebody-{access}"), power_levels={"state_default": 60})
    found = check(settings(access), "--room", room).row("room")["found"]
    assert ("from 60 on" in found) == (access == "synapse-admin")
    unknown = check(settings(access), "--room", "!nowhere:check.example")
    assert unknown.states("!nowhere") == {"room": "red"}


@pytest.mark.parametrize("access", ["synapse-admin", "synapse-module"])
def test_an_account_that_cannot_be_used(homeserver: OpenSynapse, admin: User, settings: Settings, access: str) -> None:
    gone, locked = homeserver.register(f"gone-{access}"), homeserver.register(f"locked-{access}")
    homeserver.deactivate(gone)
    homeserver.lock(admin, locked)
    for user, says in (
        (gone.user_id, "it is deactivated"),
        (locked.user_id, "it is locked"),
        ("@nobody:check.example", "no such account"),
    ):
        checked = check(settings(access), "--user", user)
        assert checked.status == 1
        assert says in checked.row("account")["found"]


def test_a_token_that_is_no_administrators(homeserver: OpenSynapse, settings: Settings) -> None:
    somebody = homeserver.register("somebody-else")
    checked = check(settings(UVS_ACCESS_TOKEN=somebody.access_token))
    assert set(checked.not_green()) == {
        "token may read accounts",
        "token may read members",
        "token may read power levels",
    }
    assert "server administrator" in checked.row("token may read members")["mend"]


def test_a_listener_without_what_is_needed(homeserver: OpenSynapse, settings: Settings) -> None:
    wrong = check(settings(UVS_HOMESERVER_URL=homeserver.module_url))
    assert "UVS_HOMESERVER_URL" in wrong.row("homeserver answers, token is valid")["mend"]
    no_openid = check(settings(UVS_FEDERATION_URL=homeserver.module_url))
    assert "`openid` resource" in no_openid.row("OpenID tokens can be redeemed")["mend"]
    no_module = check(settings("synapse-module", UVS_HOMESERVER_URL=homeserver.url))
    assert "listener_ports" in no_module.row("homeserver answers, secret is valid")["mend"]
    assert [each.status for each in (wrong, no_openid, no_module)] == [1, 1, 1]


# --- Jitsi's side -----------------------------------------------------------------------------------------------------


class Site:
    """A Jitsi domain: nginx with a certificate of a private authority."""

    def __init__(self, opened: ExitStack, folder: Path) -> None:
        self._opened = opened
        self._folder = folder
        authority = Authority()
        self.settings = {"UVS_CA_FILE": str(authority.write(folder / "ca.pem"))}
        self._certificate, self._key = authority.write_certificate(folder, "localhost")

    def start(self, *lines: str) -> str:
        """With these lines in its server block. Returns its URL."""
        port = free_port()
        config = self._folder / f"nginx-{port}.conf"
        config.write_text(
            SITE.format(
                folder=self._folder, port=port, certificate=self._certificate, key=self._key, lines="\n".join(lines)
            )
        )
        nginx = Process([NGINX, "-e", "stderr", "-c", config], self._folder / "log")
        self._opened.enter_context(nginx)
        nginx.wait_until(lambda: listening(port), timeout=20)
        return f"https://localhost:{port}"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as opened:
        yield Site(opened, tmp_path)


@pytest.fixture
def jitsi_only(settings: Settings, site: Site) -> dict[str, str]:
    """Settings that find the site trusted; the homeserver is not what these tests are about."""
    return settings() | site.settings


FILE = (ROOT / "deploy/nginx/element-jitsi.conf").read_text()
PROXIED = (ROOT / "deploy/nginx/element-jitsi-proxied.conf").read_text()


def to_prosody(prosody: Prosody) -> str:
    return PROSODY.format(port=prosody.http_port, domain=prosody.domain)


def test_a_jitsi_domain_as_documented(site: Site, prosody: Prosody, jitsi_only: dict[str, str]) -> None:
    url = site.start(FILE, to_prosody(prosody))
    checked = check(jitsi_only, "--jitsi", url, "--prosody", url)
    assert checked.not_green() == {}
    assert checked.states("Jitsi domain") | checked.states("Prosody") == {
        "DNS": "green",
        "TCP": "green",
        "TLS": "green",
        "well-known file": "green",
        "content type": "green",
        "readable from Element (CORS)": "green",
        "BOSH": "green",
        "WebSocket": "green",
    }


def test_the_file_that_the_service_serves(site: Site, service: Service, jitsi_only: dict[str, str]) -> None:
    proxied = site.start(PROXIED.replace("http://127.0.0.1:3000", service.url))
    assert check(jitsi_only, "--jitsi", proxied).not_green() == {}
    assert check(jitsi_only, "--jitsi", service.url).not_green() == {"https": "yellow"}


def test_a_jitsi_domain_without_the_file(site: Site, jitsi_only: dict[str, str]) -> None:
    checked = check(jitsi_only, "--jitsi", site.start())
    assert checked.row("well-known file")["found"] == "a page of the site is at /.well-known/element/jitsi"
    assert checked.status == 1


def test_a_jitsi_domain_whose_authority_is_not_trusted(site: Site, settings: Settings) -> None:
    checked = check(settings(), "--jitsi", site.start(FILE))
    assert checked.not_green() == {"TLS": "red"}
    assert "UVS_CA_FILE" in checked.row("TLS")["mend"]


def test_prosody_itself_and_nobody_is_left_there(prosody: Prosody, settings: Settings) -> None:
    before = len(prosody.log_text())
    for url in (f"http://127.0.0.1:{prosody.http_port}", prosody.bosh_url, prosody.websocket_url):
        assert check(settings(), "--prosody", url).not_green() == {}
    log = prosody.log_text()[before:]
    assert "BOSH" in log
    assert "New BOSH session" not in log
    assert "authenticated" not in log.lower()


def test_prosody_is_down(site: Site, start_prosody: Callable[[Config], Prosody], jitsi_only: dict[str, str]) -> None:
    prosody = start_prosody(Config(uvs_url="http://127.0.0.1:1"))
    url = site.start(FILE, to_prosody(prosody))
    prosody.stop()
    behind = check(jitsi_only, "--prosody", url)
    assert behind.not_green() == {"BOSH": "red", "WebSocket": "red"}
    assert "HTTP status 502" in behind.row("BOSH")["mend"]
    assert check(jitsi_only, "--prosody", prosody.bosh_url).not_green() == {"TCP": "red"}
