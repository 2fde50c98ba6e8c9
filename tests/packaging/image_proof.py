"""The image, built and run without a container engine: buildah builds it (chroot isolation) on a base that debootstrap
makes, and what is in it runs with a root file system that is read-only, as the image's own user, as process 1.

Not part of `make test`, since it takes a minute or two, and root: `make proofs`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.packaging.conftest import PROOFS, need, run
from tests.parts import ROOT
from tests.parts.processes import Process, free_port

USER = 65532


class Buildah:
    """buildah with a store of its own."""

    def __init__(self, store: Path) -> None:
        self._command = ("buildah", "--storage-driver", "vfs", "--root", store, "--runroot", store / "run")

    def __call__(self, *arguments: str | Path) -> str:
        return run(*self._command, *arguments, cwd=ROOT).strip()


@pytest.fixture(scope="session")
def buildah(debian: Path) -> Iterator[Buildah]:
    """With the image `localhost/uvs` in its store."""
    need("buildah", "buildah")
    store = PROOFS / "store"
    shutil.rmtree(store, ignore_errors=True)
    buildah = Buildah(store)
    try:
        container = buildah("from", "scratch")
        buildah("add", "--quiet", container, debian, "/")
        buildah("commit", "--quiet", container, "localhost/base")
        buildah(
            *("bud", "--isolation", "chroot", "--format", "docker", "--pull-never", "--tag", "localhost/uvs"),
            *("--build-arg", "PYTHON_IMAGE=localhost/base", "--build-arg", "VERSION=1.2.3", "."),
        )
        yield buildah
    finally:
        shutil.rmtree(store, ignore_errors=True)


@pytest.fixture(scope="session")
def image(buildah: Buildah) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", "localhost/uvs"))["Docker"]["config"]
    return config


class Container:
    """The image's root file system, read-only, in namespaces of its own for mounts and processes. The network is this
    machine's, so that tests set another port than the image's."""

    def __init__(self, root: Path, image: dict[str, Any], directory: Path) -> None:
        self.root = root
        self._image = image
        self._directory = directory

    def _command(self, arguments: Sequence[str], mount: Path | None, environ: Mapping[str, str]) -> list[str]:
        """What `docker run --read-only -e … [-v MOUNT:/mnt] uvs [ARGUMENTS]` would start."""
        script = f"""
            mount --bind {self.root} {self.root}
            mount -o remount,bind,ro {self.root}
            mount -t proc proc {self.root}/proc
            {f"mount --bind {mount} {self.root}/mnt" if mount else ""}
            exec chroot --userspec={self._image["User"]} {self.root} /usr/bin/env -i "$@"
        """
        environment = [*self._image["Env"], *(f"{name}={value}" for name, value in environ.items())]
        command = [*self._image["Entrypoint"], *(arguments or self._image["Cmd"])]
        namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
        return [*namespaces, "sh", "-ec", script, "container", *environment, *command]

    def run(
        self, arguments: Sequence[str], environ: Mapping[str, str], *, mount: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = self._command(arguments, mount, environ)
        return subprocess.run(command, text=True, capture_output=True, check=False, timeout=30)

    @contextmanager
    def service(self, environ: Mapping[str, str]) -> Iterator[Process]:
        """The service as the image starts it, once it answers."""
        url = f"http://127.0.0.1:{environ['UVS_PORT']}/health"
        with Process(self._command([], None, environ), self._directory / "service.log") as process:
            process.wait_until(lambda: answers(url), timeout=20)
            yield process


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def process_1(process: Process) -> int:
    """The number that the container's first process has out here."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())


@pytest.fixture(scope="session")
def container(buildah: Buildah, image: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Container:
    root = Path(buildah("mount", buildah("from", "localhost/uvs")))
    return Container(root, image, tmp_path_factory.mktemp("container"))


@pytest.fixture
def settings() -> dict[str, str]:
    """Enough to start; nobody listens where the homeserver should be."""
    return {
        "UVS_HOMESERVER_URL": f"http://127.0.0.1:{free_port()}",
        "UVS_ACCESS_TOKEN": "of-this-test-only",
        "UVS_PORT": str(free_port()),
    }


def test_the_image_says_what_it_is_and_how_it_is_run(image: dict[str, Any]) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in image["Labels"].items()}
    assert labels["title"] == "uvs"
    assert labels["version"] == "1.2.3"
    assert image["User"] == "65532:65532"
    assert image["ExposedPorts"] == {"3000/tcp": {}}
    assert image["Entrypoint"] == ["uvs"]
    assert image["Cmd"] == ["serve"]
    assert image["Healthcheck"]["Test"] == ["CMD", "uvs", "health"]


def test_nothing_that_installs_or_builds_is_shipped_beside_it(container: Container) -> None:
    packages = {path.name for path in container.root.glob("opt/uvs/lib/python3*/site-packages/*")}
    assert "uvs" in packages
    assert packages.isdisjoint({"pip", "setuptools", "hatchling"})


def test_the_service_runs_as_process_1_and_not_as_root(container: Container, settings: dict[str, str]) -> None:
    with container.service(settings) as service:
        status = Path(f"/proc/{process_1(service)}/status").read_text()
    assert re.search(r"^Uid:\s65532\s65532\s65532\s65532$", status, re.MULTILINE)
    assert re.search(r"^NSpid:\s\d+\s1$", status, re.MULTILINE)


def test_the_service_serves_the_well_known_file(container: Container, settings: dict[str, str]) -> None:
    with container.service(settings):
        answer = httpx.get(f"http://127.0.0.1:{settings['UVS_PORT']}/.well-known/element/jitsi", trust_env=False)
    assert answer.json() == {"auth": "openidtoken-jwt"}
    assert answer.headers["access-control-allow-origin"] == "*"


def test_the_health_check_tells_a_running_service_from_none(
    container: Container, image: dict[str, Any], settings: dict[str, str]
) -> None:
    arguments = image["Healthcheck"]["Test"][2:]
    assert container.run(arguments, settings).returncode == 1
    with container.service(settings):
        assert container.run(arguments, settings).returncode == 0


def test_sigterm_ends_the_service_in_order(container: Container, settings: dict[str, str]) -> None:
    with container.service(settings) as service:
        os.kill(process_1(service), signal.SIGTERM)
        deadline = time.monotonic() + 5
        while service.running and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not service.running
        assert service.stop() == 0


def test_it_exports_the_prosody_modules_into_a_mounted_folder(container: Container, tmp_path: Path) -> None:
    os.chown(tmp_path, USER, USER)
    assert container.run(["export-prosody", "/mnt"], {}, mount=tmp_path).returncode == 0
    exported = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert exported == {path.name: path.read_bytes() for path in (ROOT / "prosody_lua").glob("*.lua")}
    assert exported


def test_the_root_file_system_is_read_only_in_these_tests(container: Container) -> None:
    """Otherwise the others would prove less than they seem to."""
    done = container.run(["export-prosody", "/tmp/here"], {})  # noqa: S108
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_every_dependency_has_a_locked_wheel_for(architecture: str, tmp_path: Path) -> None:
    """What building on the other architecture needs beyond what was done above."""
    platforms = [f"--platform=manylinux_2_{glibc}_{architecture}" for glibc in (17, 28)]
    pip: list[str | Path] = ["python3", "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed", "--no-deps"]
    pip += ["--target", tmp_path]
    target = [*platforms, "--python-version=3.13", "--implementation=cp", "--only-binary=:all:"]
    run(*pip, *target, "--require-hashes", "-r", ROOT / "requirements/service.lock")
