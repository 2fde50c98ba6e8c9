"""The command line: what it prints, and its exit status (0 all is well, 1 to be mended elsewhere, 2 the call is)."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fake_homeserver import JOINED_ROOMS, STATE, USERINFO, WHOAMI, FakeHomeserver, after, answering
from tests.parts import ROOT
from tests.unit.serving import served
from uvs import __version__
from uvs.cli import main
from uvs.settings import PREFIX

SECRET = "SeCrEt"


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


class Uvs:
    """The command, run in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for name in list(os.environ):
            if name.startswith(PREFIX):
                monkeypatch.delenv(name)

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def __call__(self, *arguments: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        captured = self._capsys.readouterr()
        assert SECRET not in captured.out + captured.err
        return Said(int(ended.value.code or 0), captured.out, captured.err)


@pytest.fixture
def uvs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Uvs:
    return Uvs(monkeypatch, capsys)


def run(*command: str) -> Said:
    """The command, run as operators do."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


class TestCalls:
    @pytest.mark.parametrize(
        "command", [[sys.executable, "-m", "uvs"], [sys.executable, "-c", "from uvs.cli import main; main()"]]
    )
    def test_it_tells_its_version(self, command: list[str]) -> None:
        assert run(*command, "--version") == Said(0, f"uvs {__version__}\n", "")

    def test_without_a_command_it_serves_and_so_says_what_is_missing(self) -> None:
        said = run(sys.executable, "-m", "uvs")
        assert said == run(sys.executable, "-m", "uvs", "serve")
        assert (said.status, said.out) == (2, "")
        assert said.err.splitlines() == [
            "uvs cannot start; 2 to mend in the settings:",
            "  UVS_ACCESS_TOKEN: is required. Example: syt_…",
            "  UVS_HOMESERVER_URL: is required. Example: https://matrix.example.org",
        ]

    @pytest.mark.parametrize("command", [[], ["serve"], ["check"], ["export-prosody"], ["health"]])
    def test_every_command_has_help(self, uvs: Uvs, command: list[str]) -> None:
        said = uvs(*command, "--help")
        assert said.status == 0
        assert said.out.startswith(f"usage: {' '.join(['uvs', *command])} ")
        assert max(len(line) for line in said.out.splitlines()) <= 200

    def test_the_help_names_every_command_and_where_settings_come_from(self, uvs: Uvs) -> None:
        out = " ".join(uvs("--help").out.split())
        for word in ("serve", "check", "export-prosody", "health", "--version", "UVS_CONFIG_FILE", "README.md"):
            assert word in out

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["nonsense"], "invalid choice: 'nonsense'"),
            (["--nonsense"], "unrecognized arguments: --nonsense"),
            (["serve", "x"], "unrecognized arguments: x"),
            (["health", "--json"], "unrecognized arguments: --json"),
            (["export-prosody"], "the following arguments are required: DIR"),
            (["check", "--user"], "--user: expected one argument"),
            (["check", "--user", "alice"], "--user: does not start with @ (example: @alice:example.org)"),
            (["check", "--user", "@alice"], "--user: has no server name (example: @alice:example.org)"),
            (["check", "--user", "@a/../b:c"], "--user: contains an empty or dot path segment"),
            (["check", "--room", "#alias:example.org"], "--room: does not start with ! (example: !abc:example.org)"),
            (["check", "--room", "!a\n:b"], "--room: contains control or invisible characters"),
            (["check", "--room", "!\udce9:b"], "--room: contains characters that are not Unicode text"),
        ],
    )
    def test_a_bad_call_is_named(self, uvs: Uvs, arguments: list[str], reason: str) -> None:
        said = uvs(*arguments)
        assert (said.status, said.out) == (2, "")
        assert said.err.splitlines()[-1].endswith(reason) or reason in said.err

    @pytest.mark.parametrize("arguments", [["--user", "@a:b"], ["--room", "!a:b"], ["--json", "--user", "@a:b"]])
    def test_a_person_and_a_room_go_together(self, uvs: Uvs, arguments: list[str]) -> None:
        uvs.set(UVS_HOMESERVER_URL="http://127.0.0.1:1", UVS_ACCESS_TOKEN=SECRET)
        assert uvs("check", *arguments) == Said(2, "", "uvs check: --user and --room go together\n")

    @pytest.mark.parametrize("command", [[], ["serve"], ["check"], ["check", "--json"], ["health"]])
    def test_mistakes_in_the_settings_are_listed(self, uvs: Uvs, command: list[str]) -> None:
        uvs.set(UVS_HOMESERVER_URL=f"http://x:{SECRET}@a", UVS_ACCESS_TOKEN=f"{SECRET} x", UVS_PORTT="1")
        said = uvs(*command)
        assert (said.status, said.out) == (2, "")
        first, *lines = said.err.splitlines()
        assert first == "uvs cannot start; 3 to mend in the settings:"
        assert [line.split(":")[0].strip() for line in lines] == ["UVS_ACCESS_TOKEN", "UVS_HOMESERVER_URL", "UVS_PORTT"]


class TestExportProsody:
    MODULES = sorted(file.name for file in (ROOT / "prosody_lua").glob("*.lua"))

    def test_the_modules_are_copied_and_named(self, uvs: Uvs, tmp_path: Path) -> None:
        goal = tmp_path / "new" / "plugins"
        said = uvs("export-prosody", str(goal))
        assert (said.status, said.err) == (0, "")
        assert sorted(file.name for file in goal.iterdir()) == self.MODULES != []
        for name in self.MODULES:
            assert (goal / name).read_bytes() == (ROOT / "prosody_lua" / name).read_bytes()
            assert f"{goal / name}\n" in said.out
        assert said.out.splitlines()[-1] == f'Now add "{goal}" to plugin_paths in the Prosody configuration.'

    def test_old_ones_are_replaced_and_other_files_stay(self, uvs: Uvs, tmp_path: Path) -> None:
        (tmp_path / self.MODULES[0]).write_text("old")
        (tmp_path / "mod_other.lua").write_text("other")
        assert uvs("export-prosody", str(tmp_path)).status == 0
        assert (tmp_path / self.MODULES[0]).read_text() != "old"
        assert (tmp_path / "mod_other.lua").read_text() == "other"

    @pytest.mark.parametrize("goal", ["file", "file/below", "/proc/nowhere"])
    def test_a_folder_that_cannot_be_written_is_named(self, uvs: Uvs, tmp_path: Path, goal: str) -> None:
        (tmp_path / "file").touch()
        said = uvs("export-prosody", str(tmp_path / goal))
        assert (said.status, said.out) == (1, "")
        assert re.fullmatch(r"uvs: the modules cannot be copied to \S+: [A-Z][a-z ]+\n", said.err)

    def test_it_needs_no_settings(self, uvs: Uvs, tmp_path: Path) -> None:
        uvs.set(UVS_PORT="nonsense")
        assert uvs("export-prosody", str(tmp_path)).status == 0


class World:
    """A homeserver that listens, and settings that fit it."""

    def __init__(self, uvs: Uvs, homeserver: FakeHomeserver) -> None:
        self.homeserver = homeserver
        self.moderator = homeserver.register("moderator")
        self.member = homeserver.register("member")
        self.visitor = homeserver.register("visitor")
        self.room = homeserver.create_room(self.moderator)
        homeserver.add(self.moderator, self.room, self.member)
        uvs.set(
            UVS_HOMESERVER_URL=homeserver.url,
            UVS_ACCESS_TOKEN=homeserver.register("uvs", admin=True).access_token,
            UVS_OPENID_VERIFY_SERVER_NAME=homeserver.server_name,
        )


@pytest.fixture(scope="module")
def listening() -> Iterator[FakeHomeserver]:
    homeserver = FakeHomeserver()
    with served(homeserver) as port:
        homeserver.url = f"http://127.0.0.1:{port}"
        yield homeserver


@pytest.fixture
def world(uvs: Uvs, listening: FakeHomeserver) -> Iterator[World]:
    yield World(uvs, listening)
    listening.faults.clear()


GOOD = """\
ok    settings
ok    homeserver answers, token is valid
ok    token may read members
ok    token may read power levels
ok    OpenID tokens can be redeemed
"""


class TestCheck:
    def test_all_is_well(self, uvs: Uvs, world: World) -> None:
        assert uvs("check") == Said(0, GOOD, f"asking {world.homeserver.url} …\n")

    @pytest.mark.parametrize(
        ("who", "says"),
        [
            ("moderator", "is joined to {room}, has level 100, and is a moderator (from 50 on)."),
            ("member", "is joined to {room}, has level 0, and is not a moderator (from 50 on)."),
            ("visitor", "is not joined to {room}: an invitation, a knock or a ban is not enough."),
        ],
    )
    def test_it_tells_a_persons_standing(self, uvs: Uvs, world: World, who: str, says: str) -> None:
        user = f"@{who}:matrix.example"
        said = uvs("check", "--user", user, "--room", world.room)
        assert said.status == 0
        assert said.out == f"{GOOD}ok    standing can be looked up\n      {user} {says.format(room=world.room)}\n"

    def test_it_tells_that_somebody_created_a_version_12_room(self, uvs: Uvs, world: World) -> None:
        room = world.homeserver.create_room(world.moderator, version="12")
        said = uvs("check", "--user", world.moderator.user_id, "--room", room)
        assert "has level the creator's, and is a moderator (from 50 on)." in said.out

    def test_a_room_the_homeserver_does_not_know_has_no_members(self, uvs: Uvs, world: World) -> None:
        said = uvs("check", "--user", world.member.user_id, "--room", "!nowhere:matrix.example")
        assert said.status == 0
        assert "is not joined to !nowhere:matrix.example" in said.out

    @pytest.mark.parametrize(
        ("variables", "faults", "failed", "mend"),
        [
            ({"UVS_ACCESS_TOKEN": SECRET}, {}, "homeserver answers, token is valid", "log in again"),
            ({"UVS_HOMESERVER_URL": "http://127.0.0.1:1"}, {}, "homeserver answers, token is valid", "ConnectError"),
            ({}, {WHOAMI: answering(200, "<html>")}, "homeserver answers, token is valid", "see what is at its URL"),
            ({}, {WHOAMI: answering(404, {})}, "homeserver answers, token is valid", "UVS_HOMESERVER_URL"),
            ({}, {WHOAMI: answering(301)}, "homeserver answers, token is valid", "redirects to"),
            (
                {"UVS_REQUEST_TIMEOUT": "0.2"},
                {WHOAMI: after(1, answering(200))},
                "homeserver answers, token is valid",
                "too long",
            ),
            (
                {"UVS_OPENID_VERIFY_SERVER_NAME": "other.example"},
                {},
                "server name is the homeserver's own",
                "is matrix.example; write that.",
            ),
            ({}, {JOINED_ROOMS: answering(403)}, "token may read members", "token of a server administrator"),
            ({}, {STATE: answering(403)}, "token may read power levels", "token of a server administrator"),
            ({}, {USERINFO: answering(404)}, "OpenID tokens can be redeemed", "UVS_FEDERATION_URL"),
            ({}, {USERINFO: answering(500)}, "OpenID tokens can be redeemed", "HTTP status 500"),
        ],
    )
    def test_what_fails_is_named_with_its_mend(
        self, uvs: Uvs, world: World, variables: dict[str, str], faults: dict[str, Any], failed: str, mend: str
    ) -> None:
        uvs.set(**variables)
        world.homeserver.faults.update(faults)
        said = uvs("check", "--user", world.member.user_id, "--room", world.room)
        (line,) = [line for line in said.out.splitlines() if not line.startswith("ok    ")]
        assert said.status == 1
        assert line.startswith(f"FAIL  {failed}: ")
        assert mend in line
        assert "standing" not in said.out

    def test_a_standing_that_cannot_be_told_fails(self, uvs: Uvs, world: World) -> None:
        world.homeserver.remove_state(world.room, "m.room.create")
        world.homeserver.remove_state(world.room, "m.room.power_levels")
        said = uvs("check", "--user", world.member.user_id, "--room", world.room)
        assert said.status == 1
        assert said.out.splitlines()[-1].startswith("FAIL  standing can be looked up: ")

    def test_warnings_come_first_and_do_not_fail(self, uvs: Uvs, world: World) -> None:
        uvs.set(UVS_COLOUR="red", UVS_DISABLE_IP_BLACKLIST="true")
        said = uvs("check")
        assert said.status == 0
        assert said.out.splitlines()[:2] == [
            "warn  UVS_COLOUR is set, but there is no such option.",
            "warn  UVS_DISABLE_IP_BLACKLIST has no effect: no server but the configured one is contacted.",
        ]

    def test_for_machines_it_is_one_json_object_and_nothing_else(self, uvs: Uvs, world: World) -> None:
        uvs.set(UVS_COLOUR="red")
        said = uvs("check", "--json", "--user", world.moderator.user_id, "--room", world.room)
        assert (said.status, said.err) == (0, "")
        report = json.loads(said.out)
        assert report["warnings"] == ["UVS_COLOUR is set, but there is no such option."]
        assert [finding["good"] for finding in report["findings"]] == [True] * 6
        assert report["standing"].pop("says").startswith("@moderator:matrix.example is joined to ")
        assert report["standing"] == {"joined": True, "power_level": 100}

    def test_for_machines_a_failure_is_in_it(self, uvs: Uvs, world: World) -> None:
        world.homeserver.faults[USERINFO] = answering(404)
        said = uvs("check", "--json")
        assert said.status == 1
        report = json.loads(said.out)
        assert report["standing"] is None
        (failed,) = [finding for finding in report["findings"] if not finding["good"]]
        assert failed["check"] == "OpenID tokens can be redeemed"
        assert "UVS_FEDERATION_URL" in failed["mend"]


class TestHealth:
    @pytest.fixture(autouse=True)
    def required(self, uvs: Uvs) -> None:
        uvs.set(UVS_HOMESERVER_URL="http://127.0.0.1:1", UVS_ACCESS_TOKEN=SECRET)

    @pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "localhost"])
    @pytest.mark.parametrize(("answered", "status"), [(200, 0), (404, 1), (500, 1), (301, 1)])
    def test_it_is_good_where_the_service_answers(self, uvs: Uvs, address: str, answered: int, status: int) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert (scope["method"], scope["path"]) == ("GET", "/health")
            await send({"type": "http.response.start", "status": answered, "headers": []})
            await send({"type": "http.response.body"})

        with served(app) as port:
            uvs.set(UVS_LISTEN_ADDRESS=address, UVS_PORT=str(port))
            said = uvs("health")
        assert (said.status, said.out) == (status, "")
        assert said.err.endswith(f": HTTP status {answered}\n" if status else "")

    @pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "nowhere.invalid", "a..b"])
    def test_it_is_bad_where_nobody_does(self, uvs: Uvs, address: str) -> None:
        with socket.socket() as silent:  # bound, so nobody else gets the port; not listening
            silent.bind(("127.0.0.1", 0))
            port = silent.getsockname()[1]
            uvs.set(UVS_LISTEN_ADDRESS=address, UVS_PORT=str(port))
            said = uvs("health")
        assert (said.status, said.out) == (1, "")
        where = "127.0.0.1" if address == "0.0.0.0" else address
        assert said.err.startswith(f"uvs does not answer on {where} port {port}: ")

    def test_it_is_bad_where_something_else_answers(self, uvs: Uvs) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            other.listen()
            uvs.set(UVS_PORT=str(other.getsockname()[1]))
            child = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "import socket; s, _ = socket.socket(fileno=0).accept(); s.send(b'SSH-2.0\\r\\n')",
                ],
                stdin=other.fileno(),
            )
            said = uvs("health")
            child.wait(10)
        assert said.status == 1
        assert said.err.startswith("uvs does not answer on 127.0.0.1 port ")
