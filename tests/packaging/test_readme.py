"""Whoever follows README.md gets what it promises: its commands are run here in their order, on the real parts."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.conftest import run
from tests.packaging.documents import blocks, rows
from tests.parts import PARTS, ROOT
from tests.parts.jitsi_client import Refused, Via
from tests.parts.processes import free_port
from tests.parts.prosody import Config, Prosody, Version
from tests.parts.synapse import Synapse, User
from tests.parts.widget import InCall, Widgets
from uvs.settings import PREFIX, Settings

README = ROOT / "README.md"
STAND_IN = Path(__file__).with_name("docker_stand_in.py")
TRY, TOKEN, SERVICE, EXPORT, WHY = blocks(README, "sh")
CHECKED, STANDING = blocks(README, "text")
[PROSODY] = blocks(README, "lua")
[DOCKER_JITSI_MEET] = blocks(README, "ini")


@dataclass(frozen=True)
class World:
    """The operator's machine, with a homeserver on which nothing was done yet."""

    synapse: Synapse
    folder: Path
    env: dict[str, str]
    port: int

    @property
    def modules(self) -> Path:
        return self.folder / "modules"

    def here(self, text: str) -> str:
        """The places that the examples name, on this machine."""
        places = {
            "/etc/matrix-synapse/homeserver.yaml": str(self.folder / "synapse/homeserver.yaml"),
            "http://127.0.0.1:8008": self.synapse.url,
            "https://matrix.example.org": self.synapse.url,
            "http://127.0.0.1:3000": f"http://127.0.0.1:{self.port}",
            "/opt/uvs-prosody": str(self.modules),
        }
        for example, place in places.items():
            text = text.replace(example, place)
        return text

    def follow(self, block: str) -> str:
        """Run the block as it stands, each command having to succeed. Returns what it prints."""
        script = self.here(block)
        done = subprocess.run(
            ["sh", "-eu", "-c", script], cwd=self.folder, env=self.env, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def world(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("operator")
    (folder / "state").mkdir()
    (folder / "bin").mkdir()
    shutil.copy(ROOT / "Dockerfile", folder)
    scripts = {
        "docker": f'exec {shlex.join([sys.executable, str(STAND_IN)])} "$@"',
        "sudo": '[ "$1" = chown ] || exec "$@"',  # there is no such user here
    }
    for name, line in scripts.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / "bin" / name).chmod(0o755)
    port = free_port()
    env = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}:{PARTS / 'synapse/bin'}",
        "STAND_IN_STATE": str(folder / "state"),
        "STAND_IN_UVS": str(installed / "uvs"),
        "STAND_IN_PORT": str(port),
    }
    with Synapse(folder / "synapse", server_name="example.org") as synapse:
        yield World(synapse, folder, env, port)
        for container in (folder / "state").glob("container-*"):
            os.kill(json.loads(container.read_text())["pid"], signal.SIGTERM)


@pytest.fixture(scope="module")
def token(world: World) -> str:
    """After the first step: what is in secrets/auth_token."""
    world.follow(TOKEN)
    return (world.folder / "secrets/auth_token").read_text().strip()


@pytest.fixture(scope="module")
def checked(world: World, token: str) -> str:
    """After the second step: what it printed."""
    assert token
    return world.follow(SERVICE)


@pytest.fixture(scope="module")
def exported(world: World, checked: str) -> Path:
    """After the third step: the folder with the modules."""
    assert checked
    world.follow(EXPORT)
    return world.modules


@dataclass(frozen=True)
class People:
    room_id: str
    alice: User
    member: User
    visitor: User


@pytest.fixture(scope="module")
def people(world: World) -> People:
    alice, member, visitor = (world.synapse.register(name) for name in ("alice", "member", "visitor"))
    room_id = world.synapse.create_room(alice)
    world.synapse.add(alice, room_id, member)
    world.synapse.set_level(alice, room_id, member, 0)
    return People(room_id, alice, member, visitor)


class ReadmeProsody(Prosody):
    """Its VirtualHost and its plugin_paths are those of README.md."""

    def __init__(self, version: Version, directory: Path, virtual_host: str, plugin_paths: str) -> None:
        self._virtual_host = virtual_host
        self._plugin_paths = plugin_paths
        super().__init__(version, directory, Config(uvs_url=""), domain="meet.example.org")

    def _global_section(self, *arguments: Any) -> str:
        section = super()._global_section(*arguments)
        return re.sub("^plugin_paths = .*$", self._plugin_paths, section, flags=re.MULTILINE)

    def _hosts(self, config: Config) -> str:
        del config
        return (
            f'{self._virtual_host}\nVirtualHost "{self.services}"\nVirtualHost "{self.recorders}"\n'
            f'Component "{self.conference}" "muc"\n'
        )


@pytest.fixture(params=Version)
async def widgets(
    request: pytest.FixtureRequest, world: World, exported: Path, token: str, tmp_path: Path
) -> AsyncIterator[Widgets]:
    assert exported
    plugin_paths, virtual_host = world.here(PROSODY).replace("what is in secrets/auth_token", token).split("\n", 1)
    with ReadmeProsody(request.param, tmp_path, virtual_host, plugin_paths) as prosody:
        opened = Widgets(world.synapse, prosody, Via.WEBSOCKET)
        yield opened
        await opened.close()
        assert prosody.lua_errors() == []


def test_the_first_step_gives_an_administrators_token_that_nobody_else_can_read(world: World, token: str) -> None:
    files = {path.name: path for path in (world.folder / "secrets").iterdir()}
    assert files.keys() == {"access_token", "auth_token"}
    assert [oct(path.stat().st_mode & 0o777) for path in files.values()] == ["0o600", "0o600"]
    assert len(token) == 64


def outline(table: str) -> list[tuple[str, str]]:
    """Of what `uvs check` says: titles, and each row's state and name. What is found is this machine's own."""
    lines = [re.fullmatch(r"(?:  (\w+)  +)?(.+?)(?: \(.*|  .*)?", line) for line in table.splitlines()[:-1] if line]
    rows = [(match[1] or "", match[2]) for match in lines if match]
    return [("ok", name) if name == "TLS" else (state, name) for state, name in rows]  # there is none here


def test_the_second_step_ends_with_all_checks_passed_as_shown(checked: str) -> None:
    assert outline(checked) == outline(CHECKED)
    assert checked.splitlines()[-1] == "12 green, 0 yellow, 0 red, 1 skipped"
    assert len(outline(checked)) == 12 + 1 + 2  # and two titles


def test_the_third_step_gives_prosody_its_modules(exported: Path) -> None:
    modules = {path.name: path.read_text() for path in (ROOT / "prosody_lua").glob("*.lua")}
    assert {path.name: path.read_text() for path in exported.iterdir()} == modules


async def test_then_people_of_the_room_get_into_its_call(widgets: Widgets, people: People) -> None:
    member = await widgets.enter(people.member, people.room_id)
    moderator = await widgets.enter(people.alice, people.room_id)
    assert isinstance(member, InCall)
    assert member.joined.affiliation != "owner"
    assert moderator.joined.affiliation == "owner"


async def test_and_others_are_told_why_they_do_not(widgets: Widgets, people: People) -> None:
    outcome = await widgets.try_to_enter(people.visitor, people.room_id)
    assert isinstance(outcome, Refused)
    assert outcome.shown == rows(README, "the person reads")[0][0]


def test_the_service_tells_the_standing_of_somebody_as_shown(world: World, checked: str, people: People) -> None:
    assert checked
    world.synapse.set_level(people.alice, people.room_id, people.alice, 50)
    said = world.follow(WHY.replace("!abc:example.org", people.room_id))
    assert said.split("\n\n")[-2].strip() == STANDING.strip().replace("!abc:example.org", people.room_id)


def test_the_docker_jitsi_meet_variables_say_the_same_as_the_prosody_section() -> None:
    variables = dict(line.split("=", 1) for line in DOCKER_JITSI_MEET.splitlines())
    options = dict(re.findall(r'^    (\w+) = "?(.*?)"?(?: --.*)?$', PROSODY, re.MULTILINE))
    assert variables == {
        "ENABLE_AUTH": "1",
        "AUTH_TYPE": options["authentication"].removesuffix("_user_verification"),
        "MATRIX_UVS_ISSUER": options["app_id"],
        "MATRIX_UVS_AUTH_TOKEN": f"<{options['uvs_auth_token']}>",
        "MATRIX_UVS_SYNC_POWER_LEVELS": {"true": "1"}[options["uvs_sync_power_levels"]],
        # In its network, the container has its name and the port it listens on.
        "MATRIX_UVS_URL": f"http://{re.findall('--name ([a-z]+)', SERVICE)[0]}:{Settings.model_fields['port'].default}",
    }


def test_every_reason_that_people_are_shown_is_explained() -> None:
    explained = {row[0] for row in rows(README, "the person reads")}
    shown = re.findall(r'\["[a-z-]+"\] = "([A-Z].*)";', (ROOT / "prosody_lua/matrix_uvs.lib.lua").read_text())
    assert explained == set(shown)


def test_the_table_of_options_is_the_settings_own() -> None:
    expected = []
    for name, field in Settings.model_fields.items():
        default = f"`{field.default}`".replace(".0`", "`") if field.default else ""
        expected.append([f"`{PREFIX}{name.upper()}`", default, field.description])
    assert rows(README, "option") == expected


@pytest.mark.parametrize("command", TRY.splitlines())
def test_the_two_commands_exist(command: str) -> None:
    """What they do is what the other tests are about."""
    assert command.startswith("make ")
    run(*command.split(), "--dry-run", cwd=ROOT)
