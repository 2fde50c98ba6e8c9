"""What docs/homeserver-access.md has operators run: the form for the image does what the form without it does."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.documents import blocks
from tests.packaging.test_readme import STAND_IN
from tests.parts import ROOT

DOCUMENT = ROOT / "docs/homeserver-access.md"
COMMANDS = [block.splitlines()[:2] for block in blocks(DOCUMENT, "sh") if "docker run " in block]


def files_of(command: str, uvs: Path, folder: Path) -> set[str]:
    """Run it with its example of a folder in `folder`, and name what it leaves there."""
    [place] = {word.partition(":")[0] for word in shlex.split(command) if word.startswith(("/opt/", "/root/"))}
    (folder / "state").mkdir(parents=True)
    (folder / "state/image-uvs").touch()
    out = folder / "out"
    docker = shlex.join([sys.executable, str(STAND_IN)])
    script = command.replace(place, str(out)).replace("docker ", f"{docker} ", 1)
    env = {
        "PATH": f"{uvs.parent}:{os.environ['PATH']}",
        "STAND_IN_STATE": str(folder / "state"),
        "STAND_IN_UVS": str(uvs),
        "STAND_IN_PORT": "3000",
    }
    subprocess.run(["sh", "-eu", "-c", script], env=env, check=True, capture_output=True)
    return {file.name for file in out.iterdir()}


@pytest.mark.parametrize("commands", COMMANDS, ids=["registration", "module"])
def test_both_forms_write_the_same_files(commands: list[str], installed: Path, tmp_path: Path) -> None:
    in_container, bare = commands
    assert in_container.startswith("docker run ")
    assert bare.startswith("uvs ")
    written = files_of(in_container, installed / "uvs", tmp_path / "container")
    assert written
    assert written == files_of(bare, installed / "uvs", tmp_path / "bare")
