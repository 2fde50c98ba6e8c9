"""`uvs check` as its user meets it: what is printed, where, and the exit status (the number of red rows)."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_homeserver import SERVER_VERSION, STATE, USERINFO, WHOAMI, FakeHomeserver, after, answering
from tests.parts import ROOT
from tests.parts.synapse import User
from tests.service import settings
from tests.unit.command import SECRET, Said, Uvs
from tests.unit.serving import served
from uvs import __version__
from uvs.check import walk as walking
from uvs.check.people import Question
from uvs.check.render import MAX_STATUS, exit_status, for_machines, for_people
from uvs.check.rows import Report, State
from uvs.check.walk import Wanted, walk
from uvs.matrix.identifiers import UserID
from uvs.settings import Loaded, Mistakes


@pytest.fixture
def uvs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Uvs:
    return Uvs(monkeypatch, capsys)


class World:
    """A homeserver that listens, and settings that fit it."""

    def __init__(self, uvs: Uvs, homeserver: FakeHomeserver) -> None:
        self.homeserver = homeserver
        self.admin = homeserver.register("uvs", admin=True)
        self.moderator = homeserver.register("moderator")
        self.member = homeserver.register("member")
        self.visitor = homeserver.register("visitor")
        self.room = homeserver.create_room(self.moderator)
        homeserver.add(self.moderator, self.room, self.member)
        uvs.set(
            UVS_HOMESERVER_URL=homeserver.url,
            UVS_ACCESS_TOKEN=self.admin.access_token,
            UVS_OPENID_VERIFY_SERVER_NAME=homeserver.server_name,
        )

    def person(self, name: str) -> User:
        found = getattr(self, name)
        assert isinstance(found, User)
        return found


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


def last_group(out: str) -> list[str]:
    """The lines of the last group of rows."""
    return out.split("\n\n")[-2].splitlines()


class TestTheTable:
    def test_all_is_well(self, uvs: Uvs, world: World) -> None:
        said = uvs("check")
        port = world.homeserver.url.rpartition(":")[2]
        assert said == Said(
            0,
            f"""\
settings
  ok    options                      no mistakes
  ok    cache                        tokens 300 s, membership 5 s, levels 5 s (memory); delegations 5 min to 48 hours

homeserver matrix.example ({world.homeserver.url}, synapse-admin)
  ok    DNS                          127.0.0.1 is an address
  ok    TCP                          127.0.0.1 port {port} answers
  skip  TLS                          plain HTTP, as the URL says
  ok    version                      Synapse 1.163.0
  ok    clock                        agrees with the homeserver's
  ok    homeserver answers, token is valid
  ok    token may read accounts
  ok    token may read members
  ok    token may read power levels
  ok    OpenID tokens can be redeemed
  ok    an OpenID token is verified  it is that of @uvs:matrix.example

12 green, 0 yellow, 0 red, 1 skipped
""",
            "",
        )

    def test_what_fails_says_below_what_to_do(self, uvs: Uvs, world: World) -> None:
        world.homeserver.faults[USERINFO] = answering(404)
        said = uvs("check")
        assert said.status == 1
        lines = said.out.splitlines()
        mend = lines[lines.index("  FAIL  OpenID tokens can be redeemed") + 1]
        assert mend.startswith("        → Redeeming the OpenID token failed")
        assert "UVS_FEDERATION_URL" in mend

    def test_the_exit_status_counts_the_red_rows(self, uvs: Uvs, world: World) -> None:
        world.homeserver.faults |= {USERINFO: answering(404), STATE: answering(403)}
        said = uvs("check")
        assert said.status == said.out.count("  FAIL  ") == 2

    def test_warnings_of_the_settings_are_yellow(self, uvs: Uvs, world: World) -> None:
        assert world
        uvs.set(UVS_COLOUR="red")
        said = uvs("check")
        assert said.status == 0
        assert "  warn  options\n        → UVS_COLOUR is set, but there is no such option.\n" in said.out

    @pytest.mark.parametrize("arguments", [[], ["--user", "@a:b"], ["--jitsi", "https://meet.example"]])
    def test_mistakes_in_the_settings_are_red_and_all_there_is(self, uvs: Uvs, arguments: list[str]) -> None:
        uvs.set(UVS_HOMESERVER_URL=f"http://x:{SECRET}@a", UVS_ACCESS_TOKEN=f"{SECRET} x", UVS_PORTT="1")
        said = uvs("check", *arguments)
        assert (said.status, said.err) == (3, "")
        red = re.findall(r"^  FAIL  (\S+)\n        → \S", said.out, re.MULTILINE)
        assert red == ["UVS_ACCESS_TOKEN", "UVS_HOMESERVER_URL", "UVS_PORTT"]
        assert last_group(said.out)[1] == "  skip  all of it  the settings come first"

    def test_a_homeserver_that_is_down_is_one_red_row_and_no_more(self, uvs: Uvs, world: World) -> None:
        uvs.set(UVS_HOMESERVER_URL="http://127.0.0.1:1")
        said = uvs("check", "--user", world.member.user_id, "--room", world.room)
        assert said.status == 1
        assert last_group(said.out)[1:] == [
            f"  skip  {row:27}  the homeserver above comes first" for row in ("account", "room", "joined", "level")
        ]

    def test_every_homeserver_has_its_own_rows(self, uvs: Uvs, world: World) -> None:
        other = FakeHomeserver(server_name="other.example")
        admin = other.register("uvs", admin=True)
        with served(other) as port:
            table = {
                "server_name": "other.example",
                "url": f"http://127.0.0.1:{port}",
                "access_token": admin.access_token,
            }
            uvs.set(UVS_HOMESERVERS=json.dumps([table]))
            other.faults[WHOAMI] = answering(502)
            said = uvs("check", "--user", world.member.user_id, "--room", world.room)
        titles = [group.splitlines()[0] for group in said.out.split("\n\n")[:-1]]
        assert [title.split(" (")[0] for title in titles] == [
            "settings",
            "homeserver matrix.example",
            "homeserver other.example",
            f"{world.member.user_id} in {world.room}",
        ]
        assert said.status == 1
        assert "  ok    joined" in said.out  # the default homeserver answers that

    def test_colours_are_for_terminals(self, world: World) -> None:
        plain = _in_a_terminal(world, NO_COLOR="1")
        coloured = _in_a_terminal(world)
        assert "\x1b" not in plain
        assert "\x1b[32mok  \x1b[0m  options" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain

    def test_a_terminal_gets_lines_that_it_need_not_break(self, uvs: Uvs, world: World) -> None:
        world.homeserver.faults[USERINFO] = answering(404)
        narrow = _in_a_terminal(world, status=1, NO_COLOR="1", COLUMNS="80").splitlines()
        assert max(map(len, narrow)) <= 80
        cache = narrow.index("  ok    cache                        tokens 300 s, membership 5 s, levels 5 s")
        assert narrow[cache + 1].strip() == "(memory); delegations 5 min to 48 hours"
        assert " ".join(" ".join(narrow).split()) == " ".join(uvs("check").out.split())


def _in_a_terminal(world: World, status: int = 0, **environment: str) -> str:
    ours, theirs = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name.startswith("UVS_")}
    env |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", **environment}
    assert env["UVS_HOMESERVER_URL"] == world.homeserver.url
    command = [sys.executable, "-m", "uvs", "check"]
    child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    seen = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            while piece := terminal.read(4096):
                seen += piece
        except OSError:  # how a terminal ends
            pass
    _, error = child.communicate(timeout=30)
    assert (child.returncode, error) == (status, b"")
    return seen.decode().replace("\r\n", "\n")


class TestPeopleAndRooms:
    @pytest.mark.parametrize(
        ("who", "says"),
        [
            ("moderator", "100: moderator of the call; moderators are those from 50 on"),
            ("member", "0: member of the call; moderators are those from 50 on"),
        ],
    )
    def test_what_somebody_will_be_in_the_call(self, uvs: Uvs, world: World, who: str, says: str) -> None:
        user = world.person(who).user_id
        said = uvs("check", "--user", user, "--room", world.room)
        assert said.status == 0
        title, account, room, joined, level = last_group(said.out)
        assert title == f"{user} in {world.room}"
        assert account.split() == ["ok", "account", "in", "use"]
        assert room.split()[:2] == ["ok", "room"]
        assert joined.split() == ["ok", "joined", user, "is", "joined"]
        assert says in level

    def test_somebody_created_a_version_12_room(self, uvs: Uvs, world: World) -> None:
        room = world.homeserver.create_room(world.moderator, version="12")
        said = uvs("check", "--user", world.moderator.user_id, "--room", room)
        assert "the creator's: moderator of the call;" in said.out

    def test_somebody_is_not_joined(self, uvs: Uvs, world: World) -> None:
        said = uvs("check", "--user", world.visitor.user_id, "--room", world.room)
        assert said.status == 1
        assert "an invitation, a knock or a ban is not enough" in said.out
        assert last_group(said.out)[-1].split()[:2] == ["skip", "level"]

    def test_a_person_alone(self, uvs: Uvs, world: World) -> None:
        said = uvs("check", "--user", world.visitor.user_id)
        assert said.status == 0
        assert [line.split() for line in last_group(said.out)[1:]] == [["ok", "account", "in", "use"]]

    def test_a_room_alone(self, uvs: Uvs, world: World) -> None:
        said = uvs("check", "--room", world.room)
        assert said.status == 0
        (line,) = last_group(said.out)[1:]
        assert "known to the homeserver; moderators are those from 50 on" in line

    def test_a_room_that_the_homeserver_does_not_know(self, uvs: Uvs, world: World) -> None:
        for arguments in (["--room", "!nowhere:matrix.example"], ["--user", world.member.user_id]):
            said = uvs("check", "--room", "!nowhere:matrix.example", *arguments)
            assert said.status == 1
            assert "Compare the id with the one in Element" in said.out

    @pytest.mark.parametrize("state", ["deactivated", "locked", "absent"])
    def test_an_account_that_cannot_be_used(self, uvs: Uvs, world: World, state: str) -> None:
        user = world.homeserver.register(state)
        if state == "deactivated":
            world.homeserver.deactivate(user)
        elif state == "locked":
            world.homeserver.lock(world.admin, user)
        else:
            user = User("@nobody:matrix.example", "")
        said = uvs("check", "--user", user.user_id, "--room", world.room)
        assert said.status == 1
        _, account, mend, *rest = last_group(said.out)
        assert account.split()[:2] == ["FAIL", "account"]
        assert mend.strip().startswith("→ ")
        assert [line.split()[0] for line in rest] == ["skip"] * 3

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({}, "server-not-configured"),
            ({"UVS_FEDERATION": "listed", "UVS_FEDERATION_ALLOW": "partner.example"}, "server-not-configured"),
            ({"UVS_FEDERATION": "on", "UVS_FEDERATION_DENY": "*.example"}, "server-denied"),
        ],
    )
    def test_people_of_a_server_that_is_not_let_in(
        self, uvs: Uvs, world: World, options: dict[str, str], says: str
    ) -> None:
        uvs.set(**options)
        said = uvs("check", "--user", "@a:other.example", "--room", world.room)
        assert said.status == 1
        assert f"people of other.example are not let in ({says})" in said.out
        assert "UVS_FEDERATION" in last_group(said.out)[2]

    def test_people_of_a_server_that_is_let_in(self, uvs: Uvs, world: World) -> None:
        world.homeserver.add(world.moderator, world.room, User("@a:other.example", ""))
        uvs.set(UVS_FEDERATION="on")
        said = uvs("check", "--user", "@a:other.example", "--room", world.room)
        assert said.status == 0
        assert "0: member of the call" in said.out

    def test_an_old_homeserver_is_asked_all_the_same(self, uvs: Uvs, world: World) -> None:
        world.homeserver.faults[SERVER_VERSION] = answering(200, {"server_version": "1.98.0"})
        said = uvs("check", "--user", world.member.user_id, "--room", world.room)
        assert said.status == 1
        assert "  FAIL  version" in said.out
        assert "  ok    joined" in said.out

    def test_what_cannot_be_told_is_red(self, uvs: Uvs, world: World) -> None:
        world.homeserver.faults[STATE] = answering(500)
        said = uvs("check", "--user", world.member.user_id)
        assert said.status == 1  # the homeserver's own rows; the person is not looked at
        assert "the homeserver above comes first" in said.out


class TestGivenTokens:
    @pytest.mark.parametrize("as_json", [False, True])
    def test_it_is_verified_and_so_is_its_owner(self, uvs: Uvs, world: World, tmp_path: Path, as_json: bool) -> None:
        file = tmp_path / "token"
        token = world.homeserver.openid_token(world.member)
        answer = {"access_token": token, "matrix_server_name": "matrix.example", "expires_in": 3600}
        file.write_text(json.dumps(answer) if as_json else f"{token}\n")
        said = uvs("check", "--openid-token-file", str(file), "--room", world.room)
        assert said.status == 0
        title, verified, _, joined, level = last_group(said.out)
        assert title == f"the owner of the given token in {world.room}"
        assert f"it is that of {world.member.user_id}" in verified
        assert "is joined" in joined
        assert "0: member of the call" in level
        assert token not in said.out

    def test_it_comes_from_standard_input(self, uvs: Uvs, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(world.homeserver.openid_token(world.member)))
        assert f"it is that of {world.member.user_id}" in uvs("check", "--openid-token-file", "-").out

    def test_one_that_is_not_valid_is_red(self, uvs: Uvs, world: World, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(SECRET)
        said = uvs("check", "--openid-token-file", str(tmp_path / "token"), "--room", world.room)
        assert said.status == 1
        _, verified, mend, *rest = last_group(said.out)
        assert "it is refused (bad-token)" in verified
        assert "a token lasts an hour" in mend
        assert [line.split()[:2] for line in rest] == [["skip", "room"], ["skip", "joined"], ["skip", "level"]]

    def test_one_of_somebody_else_is_red(self, uvs: Uvs, world: World, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(world.homeserver.openid_token(world.member))
        said = uvs("check", "--openid-token-file", str(tmp_path / "token"), "--user", world.visitor.user_id)
        assert said.status == 1
        assert "the token is of another" in said.out

    def test_one_of_a_homeserver_whose_people_are_not_let_in_is_red(
        self, uvs: Uvs, world: World, tmp_path: Path
    ) -> None:
        assert world
        (tmp_path / "token").write_text(json.dumps({"access_token": SECRET, "matrix_server_name": "other.example"}))
        said = uvs("check", "--openid-token-file", str(tmp_path / "token"))
        assert said.status == 1
        assert "it is refused (server-not-configured)" in said.out


class TestForMachines:
    def test_it_is_one_json_object_and_nothing_else(self, uvs: Uvs, world: World) -> None:
        uvs.set(UVS_COLOUR="red")
        said = uvs("check", "--json", "--user", world.moderator.user_id, "--room", world.room)
        assert (said.status, said.err) == (0, "")
        report = json.loads(said.out)
        assert report.keys() == {"uvs", "counts", "rows", "standing"}
        assert report["uvs"] == __version__
        assert report["counts"] == {"green": 15, "yellow": 1, "red": 0, "skipped": 1}
        assert report["rows"][0] == {
            "group": "settings",
            "check": "options",
            "state": "yellow",
            "found": None,
            "mend": "UVS_COLOUR is set, but there is no such option.",
        }
        assert report["standing"] == {"joined": True, "power_level": 100, "moderator": True}

    def test_the_shape_is_the_documented_one(self, uvs: Uvs, world: World) -> None:
        text = (ROOT / "docs/check.md").read_text()
        documented = json.loads(re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0])
        said = json.loads(uvs("check", "--json", "--user", world.member.user_id, "--room", world.room).out)
        assert said.keys() == documented.keys()
        assert said["counts"].keys() == documented["counts"].keys()
        assert {tuple(row) for row in said["rows"]} == {tuple(documented["rows"][0])}
        assert said["standing"].keys() == documented["standing"].keys()

    def test_who_is_not_joined_has_no_level(self, uvs: Uvs, world: World) -> None:
        said = uvs("check", "--json", "--user", world.visitor.user_id, "--room", world.room)
        assert json.loads(said.out)["standing"] == {"joined": False, "power_level": None, "moderator": None}

    @pytest.mark.parametrize("arguments", [[], ["--user", "@moderator:matrix.example"]])
    def test_without_a_person_and_a_room_there_is_no_standing(
        self, uvs: Uvs, world: World, arguments: list[str]
    ) -> None:
        assert world
        assert json.loads(uvs("check", "--json", *arguments).out)["standing"] is None

    def test_mistakes_in_the_settings_are_in_it(self, uvs: Uvs) -> None:
        said = uvs("check", "--json")
        report = json.loads(said.out)
        assert said.status == report["counts"]["red"] == 2
        assert (said.err, report["rows"][0]["check"]) == ("", "UVS_ACCESS_TOKEN")


class TestCalls:
    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["--user"], "--user: expected one argument"),
            (["--user", "alice"], "--user: does not start with @ (example: @alice:example.org)"),
            (["--user", "@alice"], "--user: has no server name (example: @alice:example.org)"),
            (["--user", "@a/../b:c"], "--user: contains an empty or dot path segment"),
            (["--room", "#alias:example.org"], "Room settings, Advanced (example: !abc:example.org)"),
            (["--room", "abc"], "--room: does not start with ! (example: !abc:example.org)"),
            (["--room", "!a\n:b"], "--room: contains control or invisible characters"),
            (["--room", "!\udce9:b"], "--room: contains characters that are not Unicode text"),
            (["--server", "https://example.org"], "--server: is not what stands behind the colon in its people's ids"),
            (["--openid-token-file", "/nowhere"], "--openid-token-file: the file cannot be read: No such file"),
            (["--jitsi", "meet.example.org"], "--jitsi: is not a URL as it is wanted (example: https://meet.example"),
            (["--jitsi", "https://meet.example.org/room"], "--jitsi: is not a URL as it is wanted"),
            (["--jitsi", f"https://x:{SECRET}@meet.example.org"], "--jitsi: is not a URL as it is wanted"),
            (["--jitsi", "https://meet.example.org:99999"], "--jitsi: is not a URL as it is wanted"),
            (["--jitsi", "wss://meet.example.org"], "--jitsi: is not a URL as it is wanted"),
            (["--prosody", "xmpp:meet.example.org"], "--prosody: is not a URL as it is wanted"),
            (["--prosody", "https://meet.example.org/http-bind?room=x"], "--prosody: is not a URL as it is wanted"),
        ],
    )
    def test_a_bad_call_is_named_with_status_2(self, uvs: Uvs, arguments: list[str], reason: str) -> None:
        said = uvs("check", *arguments)
        assert (said.status, said.out) == (2, "")
        assert reason in said.err

    @pytest.mark.parametrize(
        "text",
        ["", "\n", "{", "{}", '{"access_token": "SeCrEt"}', '{"access_token": "SeCrEt", "matrix_server_name": "-:"}'],
    )
    def test_a_file_without_a_token_is_named_and_not_quoted(self, uvs: Uvs, tmp_path: Path, text: str) -> None:
        (tmp_path / "token").write_text(text)
        said = uvs("check", "--openid-token-file", str(tmp_path / "token"))
        assert (said.status, said.out) == (2, "")
        assert "--openid-token-file: " in said.err

    def test_a_token_is_no_option(self, uvs: Uvs) -> None:
        """Whoever lists the processes would see it."""
        assert uvs("check", "--openid-token", "x").status == 2

    def test_every_option_is_documented(self, uvs: Uvs) -> None:
        options = set(re.findall(r"--[a-z-]+", uvs("check", "--help").out)) - {"--help"}
        documented = set(re.findall(r"`(--[a-z-]+)", (ROOT / "docs/check.md").read_text()))
        assert options == documented

    def test_the_help_says_what_the_exit_status_is(self, uvs: Uvs) -> None:
        out = " ".join(uvs("check", "--help").out.split())
        assert "The exit status is the number of red rows (100 at most)." in out
        assert "docs/check.md" in out


class TestBounds:
    def test_more_red_rows_than_a_status_can_tell(self) -> None:
        report = Report()
        group = report.group("many")
        for number in range(300):
            group.fail(str(number), "Mend it.")
        assert exit_status(report) == MAX_STATUS == 100

    def test_what_others_say_cannot_move_the_cursor(self) -> None:
        report = Report()
        report.group("title\x1b[2J").fail("check", "mend\rtrick\n", "found\x07")
        for text in (for_people(report, colour=False), for_machines(report)):
            assert not set(text) & set("\x1b\r\x07")

    async def test_the_whole_ends_and_names_what_took_so_long(self, listening: FakeHomeserver) -> None:
        admin = listening.register("uvs", admin=True)
        listening.faults[WHOAMI] = after(30, answering(200))
        loaded = Loaded(settings(homeserver_url=listening.url, access_token=admin.access_token), [])
        report = await walk(loaded, Wanted(Question(user=UserID.parse("@a:matrix.example"))), limit=1.0)
        listening.faults.clear()
        (red,) = [row for group in report.groups for row in group.rows if row.state is State.RED]
        assert red.found == "not done after 1 s"
        (waited,) = report.groups[-1].rows
        assert waited.state is State.SKIPPED

    async def test_a_slow_step_is_named_while_it_lasts(self, listening: FakeHomeserver) -> None:
        admin = listening.register("uvs", admin=True)
        listening.faults[WHOAMI] = after(walking.SLOW_SECONDS + 1, answering(502))
        loaded = Loaded(settings(homeserver_url=listening.url, access_token=admin.access_token), [])
        said: list[str] = []
        await walk(loaded, Wanted(), say=said.append)
        listening.faults.clear()
        (line,) = said
        assert line.startswith("still waiting: homeserver ")
        assert line.endswith(": what the credential may do")

    async def test_a_defect_is_one_red_row_that_quotes_nothing(self, listening: FakeHomeserver) -> None:
        async def defect() -> None:
            raise KeyError(SECRET)

        group = Report().group("somewhere")
        group.begin("step")
        await walking._safely(group, defect())
        assert [(row.check, row.state, row.found) for row in group.rows] == [
            ("step", State.RED, "a defect in uvs (KeyError)")
        ]

    async def test_nothing_is_left_running(self, listening: FakeHomeserver) -> None:
        loaded = Loaded(settings(homeserver_url=listening.url, access_token="wrong"), [])
        before = asyncio.all_tasks()
        await walk(loaded, Wanted(), say=lambda _: None)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    async def test_settings_with_mistakes_are_not_gone_on_with(self) -> None:
        report = await walk(Mistakes(["UVS_X: there is no such option."]), Wanted())
        assert exit_status(report) == 1
