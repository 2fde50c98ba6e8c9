"""`uvs check`, run as operators run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.parts import ROOT, issued


@dataclass(frozen=True, slots=True)
class Checked:
    """What it said, with --json."""

    status: int
    rows: list[dict[str, Any]]
    standing: dict[str, Any] | None

    def states(self, group: str) -> dict[str, str]:
        """The rows of the groups whose title begins like this."""
        return {row["check"]: row["state"] for row in self.rows if row["group"].startswith(group)}

    def row(self, check: str) -> dict[str, Any]:
        """The last one of that name."""
        return [row for row in self.rows if row["check"] == check][-1]

    def not_green(self) -> dict[str, str]:
        return {row["check"]: row["state"] for row in self.rows if row["state"] in {"yellow", "red"}}


def check(settings: Mapping[str, str], *arguments: str, given: str = "") -> Checked:
    """`given` is its standard input. No secret that this test run has issued may be in what it says."""
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "uvs", "check", "--json", *arguments],
        env=environment | dict(settings),
        input=given,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    issued.look_at(f"what uvs check {arguments} says", done.stdout + done.stderr)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    checked = Checked(done.returncode, report["rows"], report["standing"])
    assert checked.status == report["counts"]["red"] == sum(row["state"] == "red" for row in checked.rows)
    assert all(row["mend"] for row in checked.rows if row["state"] in {"yellow", "red"})
    return checked
