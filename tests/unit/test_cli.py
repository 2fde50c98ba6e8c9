"""The command line: what it prints, and its exit status (0 all is well, 1 to be mended elsewhere, 2 the call is).
Of `uvs check`, test_check_command.py tells more."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parts import ROOT
from tests.unit.command import SECRET, Said, Uvs
from tests.unit.serving import served
from uvs import __version__


@pytest.fixture
def uvs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Uvs:
    return Uvs(monkeypatch, capsys)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Lets child processes be interrupted, also where a shell started the tests in its background, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
        ],
    )
    def test_a_bad_call_is_named(self, uvs: Uvs, arguments: list[str], reason: str) -> None:
        said = uvs(*arguments)
        assert (said.status, said.out) == (2, "")
        assert said.err.splitlines()[-1].endswith(reason) or reason in said.err

    @pytest.mark.parametrize("command", [[], ["serve"], ["health"]])
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

    def test_another_user_can_read_them_whatever_the_umask(self, uvs: Uvs, tmp_path: Path) -> None:
        before = os.umask(0o077)
        try:
            assert uvs("export-prosody", str(tmp_path / "plugins")).status == 0
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "plugins").stat().st_mode) == 0o755
        assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "plugins").iterdir()} == {0o644}

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
        assert re.fullmatch(r"uvs: the Lua modules cannot be copied to \S+: [A-Z][a-z ]+\n", said.err)

    def test_it_needs_no_settings(self, uvs: Uvs, tmp_path: Path) -> None:
        uvs.set(UVS_PORT="nonsense")
        assert uvs("export-prosody", str(tmp_path)).status == 0


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


class TestEndings:
    def test_a_reader_who_has_seen_enough_is_no_traceback(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "uvs", "check", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"]},
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            child.stdout.close()
            said = child.stderr.read()
        assert (child.returncode, said) == (128 + signal.SIGPIPE, b"")

    @pytest.mark.usefixtures("interrupts")
    def test_an_interrupt_is_no_traceback(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            environment = {
                "PATH": os.environ["PATH"],
                "UVS_HOMESERVER_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
                "UVS_ACCESS_TOKEN": "an-administrators-token",
            }
            with subprocess.Popen(
                [sys.executable, "-m", "uvs", "check"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
            ) as child:
                connection, _ = silent.accept()  # it is under way
                child.send_signal(signal.SIGINT)
                assert child.stderr is not None
                said = child.stderr.read()
                connection.close()
        assert child.returncode == 128 + signal.SIGINT
        assert b"Traceback" not in said
