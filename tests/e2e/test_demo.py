"""The demo, as an operator runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.parts import ROOT
from tests.parts.processes import Process

SECONDS_TO_SHOW = 20.0
DEMO = [sys.executable, "-m", "tests.demo"]

Demo = Callable[..., Process]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """Runs it with these arguments; its temporary files lie where the test can see them."""
    started: list[Process] = []

    def run(*arguments: str) -> Process:
        env = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)}
        (tmp_path / "tmp").mkdir(exist_ok=True)
        started.append(Process([*DEMO, *arguments], tmp_path / "demo.log", env=env, cwd=ROOT))
        return started[-1]

    yield run
    for each in started:
        each.stop()


def children_of(pid: int) -> list[int]:
    """The processes that it started and that are still there."""
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listing.read_text().split()] if listing.exists() else []


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_demo_shows_who_gets_in_and_as_what() -> None:
    began = time.monotonic()
    shown = subprocess.run([*DEMO, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    took = time.monotonic() - began
    assert shown.returncode == 0, shown.stderr
    rows = [(row["who"].split(":")[0], row["got_in"], row["standing_in_call"]) for row in json.loads(shown.stdout)]
    assert rows == [
        ("@moderator", True, "owner"),
        ("@member", True, "member"),
        ("@visitor", False, ""),
        ("@banned", False, ""),
    ]
    assert "opens the widget" in shown.stderr
    assert took < SECONDS_TO_SHOW


def test_the_demo_cleans_up_after_itself(demo: Demo, tmp_path: Path) -> None:
    running = demo()
    running.wait_until(lambda: "reason shown" in running.log_text(), timeout=SECONDS_TO_SHOW)
    running.wait_ended(timeout=SECONDS_TO_SHOW)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_demo_stays_up_until_it_is_ended_and_leaves_nothing_behind(
    demo: Demo, tmp_path: Path, number: signal.Signals
) -> None:
    running = demo("--keep")
    running.wait_until(lambda: "WebSocket ws://" in running.log_text(), timeout=SECONDS_TO_SHOW)
    url = re.search(r"uvs +(http://\S+)\n.*BOSH", running.log_text())
    assert url is not None
    assert httpx.get(f"{url[1]}/health", trust_env=False).status_code == 200
    children = children_of(running.pid)
    assert len(children) == 3
    os.kill(running.pid, number)
    running.wait_ended(timeout=SECONDS_TO_SHOW)
    assert [child for child in children if is_running(child)] == []
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("moment", ["starting Synapse", "Synapse (matrix.example) answers", "uvs answers", "opens"])
def test_the_demo_leaves_nothing_behind_when_it_is_interrupted(demo: Demo, tmp_path: Path, moment: str) -> None:
    running = demo()
    running.wait_until(lambda: moment in running.log_text(), timeout=SECONDS_TO_SHOW)
    children = children_of(running.pid)
    os.kill(running.pid, signal.SIGINT)
    running.wait_ended(timeout=SECONDS_TO_SHOW)
    assert [child for child in children if is_running(child)] == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_demo_says_what_is_missing(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVS_TEST_SYNAPSE_PYTHON", "/nonexistent/python")
    running = demo()
    running.wait_ended(timeout=SECONDS_TO_SHOW)
    assert "/nonexistent/python is not there: run `make parts`" in running.log_text()
