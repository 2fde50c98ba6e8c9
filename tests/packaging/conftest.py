"""A copy of this checkout as a fresh clone would have it, and what is built and installed from it, each made once.

For the proofs (`make proofs`) also a Debian of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.parts import PARTS, ROOT

PROOFS = PARTS / "proofs"


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, text=True, capture_output=True, check=False, cwd=cwd, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file that git has or would take, and none of those it ignores."""
    clone = tmp_path_factory.mktemp("clone") / "uvs"
    # Also for root in somebody else's checkout.
    git = ("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = run(*git, cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    return clone


@pytest.fixture(scope="session")
def sdist(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=clone)
    return next(folder.glob("uvs-*.tar.gz"))


@pytest.fixture(scope="session")
def wheel(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(clone, tmp_path_factory.mktemp("wheel"))


def build_wheel(source: Path, folder: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    return next(folder.glob("uvs-*.whl"))


@pytest.fixture(scope="session")
def installed(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the commands of a clean environment in which nothing was done but `pip install .`."""
    environment = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", environment)
    run(environment / "bin/pip", "install", "-qq", "--disable-pip-version-check", ".", cwd=clone)
    return environment / "bin"


def need(command: str, package: str) -> None:
    """Install the Debian package that has the command, where it is missing."""
    if shutil.which(command) is None:
        install = ("apt-get", "install", "-qq", "-y", "--no-install-recommends", package)
        if subprocess.run(install, capture_output=True, check=False).returncode != 0:
            run("apt-get", "update", "-qq")
            run(*install)


@pytest.fixture(scope="session")
def debian() -> Path:
    """The root of a small Debian of this machine's release with Python and systemd, kept for the next time."""
    assert os.geteuid() == 0, "this works with chroots and needs root"
    need("debootstrap", "debootstrap")
    base = PROOFS / "debian"
    if not (base / ".complete").exists():
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        codename = run("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME").strip()
        sources = run(
            "apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages"
        )
        mirror = next(line.split()[2] for line in sources.splitlines() if line.split()[:2] == ["Debian", codename])
        packages = "python3-venv,ca-certificates,systemd-sysv,dbus"
        run("debootstrap", "--variant=minbase", f"--include={packages}", codename, base, mirror)
        _trust_what_this_machine_trusts(base)
        (base / ".complete").touch()
    return base


def _trust_what_this_machine_trusts(base: Path) -> None:
    """Where this machine reaches packages through a proxy or a mirror, the new one has to go the same way."""
    config = run(sys.executable, "-m", "pip", "config", "list")
    found = dict(re.findall(r"^\S+[.](cert|index-url|proxy|trusted-host)='(.*)'$", config, re.MULTILINE))
    (base / "etc/pip.conf").write_text("\n".join(["[global]", *(f"{name} = {found[name]}" for name in found)]))
    if "cert" in found:
        shutil.copy(found["cert"], base / found["cert"].lstrip("/"))
