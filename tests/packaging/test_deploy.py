"""The systemd unit and the compose file: accepted, tight, and in agreement with the settings of the service."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.conftest import run
from tests.packaging.documents import blocks, options
from tests.parts import PARTS, ROOT
from uvs.settings import load

UNIT = ROOT / "deploy/systemd/uvs.service"
OPERATING = ROOT / "docs/operating.md"
COMPOSE = ROOT / "deploy/compose/compose.yaml"
EXPOSURE = 2.0
"""Of 10, by systemd's own reckoning; a unit without any hardening has 9.6."""


def variables(text: str) -> set[str]:
    return set(re.findall(r"\bUVS_[A-Z0-9_]+", text))


def test_systemd_accepts_the_unit(installed: Path, tmp_path: Path) -> None:
    """With the command where this machine has it; nothing else is changed."""
    unit = tmp_path / "uvs.service"
    unit.write_text(UNIT.read_text().replace("/opt/uvs/bin", str(installed)))
    done = subprocess.run(["systemd-analyze", "verify", unit], text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_leaves_little_to_an_intruder() -> None:
    report = run("systemd-analyze", "security", "--offline=yes", "--no-pager", UNIT, env={**os.environ, "LC_ALL": "C"})
    exposure = re.search(r"Overall exposure level for uvs.service: ([0-9.]+)", report)
    assert exposure
    assert float(exposure[1]) <= EXPOSURE


def test_systemd_accepts_what_an_operator_adds_for_another_secret(installed: Path, tmp_path: Path) -> None:
    """And it is what the service reads: both lines of a secret name the same credential."""
    unit = tmp_path / "uvs.service"
    unit.write_text(UNIT.read_text().replace("/opt/uvs/bin", str(installed)))
    [added] = blocks(OPERATING, "ini")
    (tmp_path / "uvs.service.d").mkdir()
    (tmp_path / "uvs.service.d/override.conf").write_text(added)
    done = subprocess.run(["systemd-analyze", "verify", unit], text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    handed_over = set(re.findall(r"^LoadCredential=(\w+):", added, re.MULTILINE))
    assert set(re.findall(r"=%d/(\w+)", added)) <= handed_over
    assert set(re.findall(r"/run/credentials/uvs[.]service/(\w+)", OPERATING.read_text())) <= handed_over
    assert variables(added) <= options()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Read with the YAML library that Synapse brings."""
    script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"
    python = PARTS / "synapse/bin/python"
    done = subprocess.run([python, "-c", script], input=COMPOSE.read_text(), text=True, capture_output=True, check=True)
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def test_the_compose_file_asks_for_no_more_than_the_image_needs(compose: dict[str, Any]) -> None:
    service = compose["services"]["uvs"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [port.rpartition(":")[0] for port in service["ports"]] == ["127.0.0.1:3000"]


def test_every_secret_of_the_compose_file_is_a_file_that_the_service_is_told_of(compose: dict[str, Any]) -> None:
    service = compose["services"]["uvs"]
    told = {value.removeprefix("/run/secrets/") for name, value in service["environment"].items() if "_FILE" in name}
    assert told == set(service["secrets"]) == set(compose["secrets"])


def test_the_service_gets_every_option_of_the_env_file(compose: dict[str, Any]) -> None:
    """Whatever stands there: nothing but secrets is written into the compose file, or asked of the shell."""
    service = compose["services"]["uvs"]
    assert service["env_file"] == ".env"
    assert [name for name in service["environment"] if not name.endswith("_FILE")] == []


def test_with_the_example_and_the_secrets_the_service_would_start(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (ROOT / "deploy/compose/example.env").read_text().splitlines()
    for name, value in dict(line.split("=", 1) for line in lines if line[:1] != "#").items():
        monkeypatch.setenv(name, value)
    for name, file in compose["services"]["uvs"]["environment"].items():
        secret = tmp_path / Path(file).name
        secret.write_text("of-this-test-only")
        monkeypatch.setenv(name, str(secret))
    assert load().warnings == []


@pytest.mark.parametrize("file", [UNIT, COMPOSE, ROOT / "Dockerfile"], ids=lambda file: file.name)
def test_every_setting_in_it_exists(file: Path) -> None:
    assert variables(file.read_text())
    assert variables(file.read_text()) <= options()
