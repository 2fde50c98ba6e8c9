"""The module inside of Synapse, asked as uvs asks it and as nobody should."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.conftest import MODULE, SYNAPSES, Cast, through
from tests.parts.processes import ProcessFailedError
from tests.parts.synapse import Synapse, Version, python_of
from tests.parts.ways_in import MODULE as MODULE_FOLDER
from tests.parts.ways_in import OpenSynapse
from uvs.homeserver.synapse_module import PATH

SECRET = "0123456789abcdef" * 2


@pytest.fixture
def client(world: OpenSynapse) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {world.module_secret}"}
    with httpx.Client(base_url=world.module_url, headers=headers, trust_env=False, timeout=20) as client:
        yield client


@through(MODULE, on=SYNAPSES)
@pytest.mark.usefixtures("access")
class TestAnswers:
    """Facts: the contents as they are, from which uvs computes the same as through the other ways in."""

    def test_nothing_asked_is_answered_with_the_server_name(self, client: httpx.Client) -> None:
        nothing = {"user_id": None, "account": None, "room": None}
        assert client.post(PATH, json={}).json() == {"server_name": "matrix.example", **nothing}

    def test_a_member_with_the_contents_of_levels_and_creation(
        self, client: httpx.Client, world: OpenSynapse, cast: Cast
    ) -> None:
        odd = {"users": {cast.moderator.user_id: 100}, "ban": 50, "ü": {"x": [1, None, "ü"]}}
        room = world.create_room(cast.moderator, version="9")
        world.send_state(cast.moderator, room, "m.room.power_levels", odd)
        answer = client.post(PATH, json={"user_id": cast.moderator.user_id, "room_id": room}).json()
        creation = answer["room"].pop("creation")
        assert answer["room"] == {"joined": True, "power_levels": odd}
        assert creation["sender"] == cast.moderator.user_id
        assert creation["content"]["room_version"] == "9"
        assert answer["account"] == {"deactivated": False, "locked": False}

    def test_who_is_not_in_the_room_is_told_nothing_about_it(self, client: httpx.Client, cast: Cast, room: str) -> None:
        answer = client.post(PATH, json={"user_id": cast.visitor.user_id, "room_id": room}).json()
        assert answer["room"] == {"joined": False, "power_levels": None, "creation": None}

    def test_a_bad_token_is_told_nothing_about_the_room(self, client: httpx.Client, room: str) -> None:
        answer = client.post(PATH, json={"token": "bad", "room_id": room}).json()
        assert (answer["user_id"], answer["account"], answer["room"]) == (None, None, None)

    @pytest.mark.parametrize("user_id", ["@x:elsewhere.example", "@nobody:matrix.example", "@:matrix.example"])
    def test_who_has_no_account_here_has_none_to_be_told_of(self, client: httpx.Client, user_id: str) -> None:
        assert client.post(PATH, json={"user_id": user_id}).json()["account"] is None


@through(MODULE, on=SYNAPSES)
@pytest.mark.usefixtures("access")
class TestRefusals:
    """None of them tells anything, and none of them is Synapse's own defect."""

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"\xff",
            b"null",
            b"[]",
            b'"text"',
            b"[" * 8000,
            b"1" * 8000,
            b'{"token": null}',
            b'{"token": 1}',
            b'{"token": ""}',
            b'{"token": "\\ud800"}',
            b'{"token": "a\\u0000b"}',
            b'{"token": "' + b"x" * 4097 + b'"}',
            b'{"token": "x", "user_id": "@a:b"}',
            b'{"room_id": "!a:b"}',
            b'{"user_id": "a:b"}',
            b'{"user_id": "@a"}',
            b'{"user_id": "@\\ud800:b"}',
            b'{"user_id": "@a:b\\u0000"}',
            b'{"user_id": "@' + b"x" * 254 + b':b"}',
            b'{"user_id": "@a:b", "room_id": "#a:b"}',
            b'{"user_id": "@a:b", "room_id": "!\\u0000:b"}',
            b'{"user_id": "@a:b", "room_id": ["!a:b"]}',
            b'{"other": "x"}',
        ],
    )
    def test_a_body_that_is_not_as_agreed(self, client: httpx.Client, body: bytes) -> None:
        answer = client.post(PATH, content=body)
        assert (answer.status_code, answer.json()["errcode"]) == (400, "M_BAD_JSON")

    def test_a_body_that_is_too_large(self, client: httpx.Client) -> None:
        assert client.post(PATH, content=b" " * 8193).status_code == 413

    @pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", "bearer {}", "{}", "Bearer {}x"])
    def test_a_request_without_exactly_the_secret(
        self, client: httpx.Client, world: OpenSynapse, given: str | None
    ) -> None:
        headers = {} if given is None else {"Authorization": given.format(world.module_secret)}
        with httpx.Client(base_url=world.module_url, headers=headers, trust_env=False) as stranger:
            answer = stranger.post(PATH, json={})
        assert (answer.status_code, answer.json()["errcode"]) == (401, "M_UNKNOWN_TOKEN")

    def test_a_request_with_the_secret_twice(self, world: OpenSynapse) -> None:
        headers = [("Authorization", f"Bearer {world.module_secret}")] * 2
        answer = httpx.post(world.module_url + PATH, headers=headers, json={}, trust_env=False)
        assert answer.status_code == 401

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
    def test_any_other_method(self, client: httpx.Client, method: str) -> None:
        assert client.request(method, PATH).status_code == 405

    @pytest.mark.parametrize("path", [PATH + "/", PATH + "/x", "/_synapse/uvs/v1", "/_synapse/uvs", "/_synapse/admin"])
    def test_any_other_path(self, client: httpx.Client, path: str) -> None:
        assert client.post(path, json={}).status_code == 404

    @pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
    def test_another_listener_as_if_nothing_were_there(
        self, client: httpx.Client, world: OpenSynapse, method: str
    ) -> None:
        there = client.request(method, world.url + PATH)
        nothing = client.request(method, world.url + "/_synapse/uvs/v1/nothing")
        assert (there.status_code, there.content) == (nothing.status_code, nothing.content)
        assert there.status_code == (204 if method == "OPTIONS" else 404)


@through(MODULE, on=SYNAPSES)
def test_neither_the_secret_nor_a_token_is_in_synapses_log(
    client: httpx.Client, world: OpenSynapse, access: str, cast: Cast, room: str
) -> None:
    token = world.openid_token(cast.member)
    client.post(PATH, json={"token": token, "room_id": room})
    client.post(PATH, json={"token": token + "x", "room_id": room})
    client.post(PATH, json={"token": token, "other": "x"})
    log = world.process.log_text()
    assert "/_synapse/uvs/v1/verify" in log
    assert token not in log
    assert world.module_secret not in log
    assert "Traceback" not in log


DRIVER = """
import json, sys
from synapse.module_api.errors import ConfigError
from uvs_synapse_module import UvsModule
for line in sys.stdin:
    try:
        config = UvsModule.parse_config(json.loads(line))
        print(json.dumps([sorted(config.listener_ports), repr(config)]), flush=True)
    except ConfigError as error:
        print(json.dumps(str(error)), flush=True)
"""


@pytest.fixture(scope="module", params=SYNAPSES)
def read_config(request: pytest.FixtureRequest) -> Iterator[Any]:
    """What the module makes of a configuration: its ports and how it shows itself, or why it is refused."""
    child = subprocess.Popen(
        [python_of(request.param), "-W", "ignore", "-c", DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(MODULE_FOLDER), "PYTHONDONTWRITEBYTECODE": "1"},
    )

    def read(config: dict[str, Any]) -> Any:
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps(config) + "\n")
        child.stdin.flush()
        return json.loads(child.stdout.readline())

    yield read
    child.communicate(timeout=20)


class TestConfiguration:
    """Synapse does not start with one that would open the door further than it has to."""

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            ({}, "set either secret_path or secret"),
            ({"secret": SECRET, "secret_path": "/x", "listener_ports": [8009]}, "set either secret_path or secret"),
            ({"secret": SECRET}, "name the internal listeners"),
            ({"secret": SECRET, "listener_ports": []}, "name the internal listeners"),
            ({"secret": SECRET, "listener_ports": 8009}, "name the internal listeners"),
            ({"secret": SECRET, "listener_ports": ["8009"]}, "name the internal listeners"),
            ({"secret": SECRET, "listener_ports": [True]}, "name the internal listeners"),
            ({"secret": SECRET, "listener_ports": [0]}, "name the internal listeners"),
            ({"secret": "", "listener_ports": [8009]}, "32 or more random characters"),
            ({"secret": SECRET[:31], "listener_ports": [8009]}, "32 or more random characters"),
            ({"secret": "changeme" * 8, "listener_ports": [8009]}, "32 or more random characters"),
            ({"secret": SECRET + "é", "listener_ports": [8009]}, "32 or more random characters"),
            ({"secret": SECRET + " x", "listener_ports": [8009]}, "32 or more random characters"),
            ({"secret": 10**40, "listener_ports": [8009]}, "32 or more random characters"),
            ({"secret_path": "/nonexistent", "listener_ports": [8009]}, "the file cannot be read (FileNotFoundError)"),
            ({"secret_path": 5, "listener_ports": [8009]}, "the file cannot be read (TypeError)"),
            ({"secret": SECRET, "listener_ports": [8009], "listener_port": 1}, "unknown option listener_port"),
        ],
    )
    def test_is_refused_with_a_reason(self, read_config: Any, config: dict[str, Any], reason: str) -> None:
        said = read_config(config)
        assert isinstance(said, str)
        assert reason in said
        assert SECRET not in said

    def test_is_read_with_the_secret_in_it_or_in_a_file(self, read_config: Any, tmp_path: Path) -> None:
        file = tmp_path / "secret"
        file.write_text(SECRET + "\n")
        for secret in ({"secret": SECRET}, {"secret_path": str(file)}):
            ports, shown = read_config({**secret, "listener_ports": [8009, 8010]})
            assert ports == [8009, 8010]
            assert SECRET not in shown


@pytest.mark.parametrize("version", SYNAPSES)
def test_a_synapse_with_a_weak_secret_does_not_start(version: Version, tmp_path: Path) -> None:
    module = {"module": "uvs_synapse_module.UvsModule", "config": {"secret": "weak", "listener_ports": [8009]}}
    with pytest.raises(ProcessFailedError, match="32 or more random characters"):
        Synapse(tmp_path, version=version, options={"modules": [module]}, python_path=[MODULE_FOLDER])
