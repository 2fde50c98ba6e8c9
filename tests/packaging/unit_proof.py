"""The systemd unit, installed as docs/operating.md says and started by a real systemd, in a Debian that systemd-nspawn
boots.

Not part of `make test`, since it takes a minute, and root: `make proofs`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.packaging.conftest import PROOFS, need, run
from tests.packaging.documents import blocks
from tests.parts import ROOT
from tests.parts.processes import Process, free_port

INSTALL, CHECK = blocks(ROOT / "docs/operating.md", "sh")
[DROP_IN] = blocks(ROOT / "docs/operating.md", "ini")


class Machine:
    """A booted Debian; its network is this machine's."""

    def __init__(self, root: Path, port: int, process: Process) -> None:
        self.root = root
        self.port = port
        self.process = process

    def run(self, script: str) -> str:
        """As its root, in its namespaces."""
        [init] = self.inits()
        inside = ("nsenter", "--target", str(init), "--mount", "--uts", "--ipc", "--pid", "--root", "--wd")
        return run(*inside, "sh", "-euc", script, env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})

    def inits(self) -> list[int]:
        """Its process 1, once there is one: before, systemd-nspawn has others that come and go."""
        return [pid for pid in descendants(self.process.pid)[:1] if told_of(pid, "comm") == "systemd\n"]

    def booted(self) -> bool:
        done = ("running", "degraded")  # units of other people may fail in here
        return bool(self.inits()) and (self.run("systemctl is-system-running 2>/dev/null || true").strip() in done)

    def answers(self) -> bool:
        try:
            return self.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False)

    def service(self) -> str:
        """What the kernel says of the service's process."""
        [service] = [pid for pid in descendants(self.process.pid) if "/opt/uvs/bin/uvs" in command_line(pid)]
        return Path(f"/proc/{service}/status").read_text()

    def journal(self) -> str:
        return run("journalctl", "--directory", self.root / "var/log/journal", "--unit", "uvs", "--output", "cat")


def told_of(pid: int, file: str) -> str:
    """What the kernel says there; nothing where the process has ended in the meantime."""
    try:
        return Path(f"/proc/{pid}/{file}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descendants(pid: int) -> list[int]:
    children = [int(child) for child in told_of(pid, f"task/{pid}/children").split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def command_line(pid: int) -> list[str]:
    return told_of(pid, "cmdline").split("\0")


@pytest.fixture(scope="module")
def machine(debian: Path, clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    need("systemd-nspawn", "systemd-container")
    root = PROOFS / "machine"
    shutil.rmtree(root, ignore_errors=True)
    try:
        run("cp", "--archive", "--reflink=auto", debian, root)
        shutil.copytree(clone, root / "root/uvs")
        (root / "root/uvs/secrets").mkdir()
        for secret in ("access_token", "auth_token"):
            (root / "root/uvs/secrets" / secret).write_text("of-this-test-only\n")
        (root / "var/log/journal").mkdir(exist_ok=True)  # so that it outlives the machine
        command: list[str | Path] = ["systemd-nspawn", "--directory", root, "--boot", "--register=no", "--keep-unit"]
        with Process([*command, "--console=pipe"], tmp_path_factory.mktemp("machine") / "console") as process:
            machine = Machine(root, free_port(), process)
            process.wait_until(machine.booted, timeout=60)
            # Nobody listens where the homeserver should be, and port 3000 may be taken on a shared machine.
            places = f"http://127.0.0.1:{free_port()} UVS_PORT={machine.port}"
            machine.run("umask 077; cd /root/uvs\n" + INSTALL.replace("https://matrix.example.org", places))
            process.wait_until(machine.answers, timeout=20)
            yield machine
    finally:
        shutil.rmtree(root, ignore_errors=True)


def test_the_service_answers(machine: Machine) -> None:
    assert machine.get("/.well-known/element/jitsi").json() == {"auth": "openidtoken-jwt"}


def test_it_is_nobody_in_particular_and_may_do_nothing_in_particular(machine: Machine) -> None:
    status = dict(re.findall(r"^(\w+):\t(.*)$", machine.service(), re.MULTILINE))
    user = status["Uid"].split()[0]
    assert 61184 <= int(user) <= 65519, "the range of systemd's dynamic users"
    assert status["Uid"].split() == [user] * 4
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_it_read_its_secrets_and_looks_for_the_homeserver(machine: Machine) -> None:
    """Without the files handed over as credentials it would not have started."""
    assert "Homeserver check: " in machine.journal()
    assert "of-this-test-only" not in machine.journal()


def test_the_modules_were_exported(machine: Machine) -> None:
    exported = {path.name for path in (machine.root / "opt/uvs-prosody").iterdir()}
    assert exported == {path.name for path in (ROOT / "prosody_lua").glob("*.lua")}


def test_the_check_is_about_the_same_settings(machine: Machine) -> None:
    """Red is only that nobody listens where the homeserver should be."""
    said = machine.run(f"{CHECK.strip()} || [ $? = 1 ]")
    assert re.search(r"^  ok    options +no mistakes$", said, re.MULTILINE)
    assert "homeserver example.org (http://127.0.0.1:" in said


def test_another_secret_is_handed_over_as_the_page_says(machine: Machine) -> None:
    """The key of the pseudonyms is read (an unreadable one ends the start), and one for a TOML file is there."""
    folder = machine.root / "etc/systemd/system/uvs.service.d"
    folder.mkdir()
    (folder / "override.conf").write_text(DROP_IN)
    for secret in re.findall(r"^LoadCredential=\w+:(.*)$", DROP_IN, re.MULTILINE):
        machine.run(f"umask 077; echo of-this-test-only > {secret}")
    machine.run("systemctl daemon-reload; systemctl restart uvs")
    machine.process.wait_until(machine.answers, timeout=20)
    assert "of-this-test-only" in machine.run("cat /run/credentials/uvs.service/school_module_secret")
    assert "UVS_LOG_PSEUDONYM_KEY_FILE=/run/credentials/uvs.service/log_pseudonym_key" in machine.run(
        "tr '\\0' '\\n' < /proc/$(systemctl show --property MainPID --value uvs)/environ"
    )


def test_it_ends_in_order_with_the_machine(machine: Machine) -> None:
    """The last test, since nothing answers after it."""
    machine.process.stop()
    assert "uvs.service: Deactivated successfully." in machine.journal()
    assert "uvs.service: Failed" not in machine.journal()
