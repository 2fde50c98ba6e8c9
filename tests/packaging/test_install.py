"""`pip install .` alone gives a service that works, and a source archive gives the same."""

from __future__ import annotations

import zipfile
from pathlib import Path

import httpx
import pytest

import uvs
from tests.packaging.conftest import build_wheel, run
from tests.parts import ROOT
from tests.parts.processes import Process, free_port, listening


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_carries_the_modules_and_the_well_known_file(wheel: Path) -> None:
    folders = ("prosody_lua", "synapse_module", "wellknown")
    shipped = {f"{folder}/{name}": data for folder in folders for name, data in files(ROOT / folder).items()}
    found = contents(wheel)
    assert {name: found.get(f"uvs/shipped/{name}") for name in shipped} == shipped
    some = ("prosody_lua/mod_auth_matrix_user_verification.lua", "synapse_module/uvs_synapse_module.py")
    assert {*some, "wellknown/element/jitsi"} <= shipped.keys()


def test_the_wheel_carries_no_tests_and_no_leftovers(wheel: Path) -> None:
    folders = {name.split("/")[0] for name in contents(wheel)}
    assert folders == {"uvs", f"uvs-{uvs.__version__}.dist-info"}
    assert [name for name in contents(wheel) if "__pycache__" in name] == []


def test_the_source_archive_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    run("tar", "--extract", "--file", sdist, "--directory", tmp_path)
    source = next(tmp_path.glob("uvs-*"))
    assert contents(build_wheel(source, tmp_path)) == contents(wheel)


@pytest.mark.parametrize("command", [("uvs",), ("python", "-m", "uvs")], ids=" ".join)
def test_an_installed_service_knows_its_version(installed: Path, command: tuple[str, ...], tmp_path: Path) -> None:
    said = run(installed / command[0], *command[1:], "--version", cwd=tmp_path)
    assert said == f"uvs {uvs.__version__}\n"


@pytest.mark.parametrize(
    ("command", "folder"), [("export-prosody", "prosody_lua"), ("export-synapse-module", "synapse_module")]
)
def test_an_installed_service_exports_the_modules(installed: Path, tmp_path: Path, command: str, folder: str) -> None:
    run(installed / "uvs", command, tmp_path / "modules", cwd=tmp_path)
    assert files(tmp_path / "modules") == files(ROOT / folder)


def test_an_installed_service_serves(installed: Path, tmp_path: Path) -> None:
    port = free_port()
    env = {"UVS_HOMESERVER_URL": "http://127.0.0.1:1", "UVS_ACCESS_TOKEN": "of-this-test-only", "UVS_PORT": str(port)}
    with Process([installed / "uvs"], tmp_path / "uvs.log", env=env, cwd=tmp_path) as service:
        service.wait_until(lambda: listening(port), timeout=20)
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/health", trust_env=False).text == "👍"
        assert httpx.get(f"{url}/.well-known/element/jitsi", trust_env=False).json() == {"auth": "openidtoken-jwt"}
