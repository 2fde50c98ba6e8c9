"""The locks pin everything by hash, name no place to download from, and agree with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.parts import ROOT

REQUIREMENTS = ROOT / "requirements"
LOCKS = ("service", "dev", "build", "synapse", "synapse-oldest")
PIN = re.compile(
    r"(?P<name>[a-z0-9]+(-[a-z0-9]+)*)==(?P<version>[a-z0-9.+!]+)"
    r"( ; [\w '\"=!<>.()]+)?"  # a marker
    r"( --hash=sha256:[0-9a-f]{64})+"
)


def logical_lines(lock: str) -> list[str]:
    """Continuation lines joined, comments and spaces between words dropped."""
    text = (REQUIREMENTS / f"{lock}.lock").read_text().replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def pins(lock: str) -> dict[str, Version]:
    found = [PIN.fullmatch(line) for line in logical_lines(lock)]
    return {match["name"]: Version(match["version"]) for match in found if match}


def wanted(lock: str) -> list[Requirement]:
    """What people wrote, that this lock has to answer for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    written: dict[str, list[str]] = {
        "service": project["project"]["dependencies"],
        "dev": project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"],
        "build": project["build-system"]["requires"] + source("build.in"),
        "synapse": source("synapse.in"),
        "synapse-oldest": source("synapse-oldest.in"),
    }
    return [Requirement(line) for line in written[lock]]


def source(name: str) -> list[str]:
    lines = (REQUIREMENTS / name).read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_is_a_version_with_its_hashes_and_nothing_else(lock: str) -> None:
    """So neither an address, nor a path, nor an option of pip can stand in it."""
    lines = logical_lines(lock)
    assert lines
    assert [line for line in lines if not PIN.fullmatch(line)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_no_comment_names_a_place_either(lock: str) -> None:
    comments = re.findall(r"#.*", (REQUIREMENTS / f"{lock}.lock").read_text())
    assert [comment for comment in comments if re.search(r"://|--|/", comment)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_asked_for_is_pinned_within_its_bounds(lock: str) -> None:
    pinned = pins(lock)
    for requirement in wanted(lock):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in {lock}.lock: run `make lock`"
        assert version in requirement.specifier, f"{lock}.lock has {version} for {requirement}: run `make lock`"


def test_the_tests_run_with_the_versions_that_are_shipped() -> None:
    service, dev = pins("service"), pins("dev")
    assert {name: dev.get(name) for name in service} == service


def test_every_lock_is_covered_here() -> None:
    assert {path.stem for path in Path(REQUIREMENTS).glob("*.lock")} == set(LOCKS)
