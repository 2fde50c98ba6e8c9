"""Does what the `docker` lines of README.md ask for without a container engine: the same program, settings, files and
arguments, outside of a container. An option that is not listed here is an error, so that none stays untested unnoticed.

What the image itself does is proven by image_proof.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ["STAND_IN_STATE"])
UVS = os.environ["STAND_IN_UVS"]
PORT = os.environ["STAND_IN_PORT"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="docker", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", allow_abbrev=False)
    build.add_argument("-t", dest="tag", required=True)
    build.add_argument("context", type=Path)
    run = commands.add_parser("run", allow_abbrev=False)
    for flag in ("-d", "--rm", "--read-only"):
        run.add_argument(flag, action="store_true")
    run.add_argument("--name")
    run.add_argument("--restart", choices=["unless-stopped"])
    run.add_argument("--cap-drop", choices=["ALL"])
    run.add_argument("--security-opt", choices=["no-new-privileges"])
    run.add_argument("--user", choices=["0"])
    run.add_argument("-p", dest="publish", choices=["127.0.0.1:3000:3000"])
    run.add_argument("-v", dest="mounts", action="append", default=[])
    run.add_argument("-e", dest="environ", action="append", default=[])
    run.add_argument("image")
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    execute = commands.add_parser("exec", allow_abbrev=False)
    execute.add_argument("name")
    execute.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.command == "build":
        return _build(given)
    return _run(given) if given.command == "run" else _exec(given)


def _build(given: argparse.Namespace) -> int:
    assert (given.context / "Dockerfile").is_file()
    (STATE / f"image-{given.tag}").touch()
    return 0


def _run(given: argparse.Namespace) -> int:
    assert (STATE / f"image-{given.image}").exists(), f"there is no image {given.image}"
    mounts: dict[str, str] = dict(reversed(mount.removesuffix(":ro").split(":")) for mount in given.mounts)

    def outside(value: str) -> str:
        """A path in the container is where the mount puts it."""
        for inner, outer in mounts.items():
            if value == inner or value.startswith(f"{inner}/"):
                return outer + value.removeprefix(inner)
        return value

    env = {"UVS_PORT": PORT, **{name: outside(value) for name, _, value in (e.partition("=") for e in given.environ)}}
    command = [UVS, *(outside(argument) for argument in given.arguments)]
    if not given.d:
        return subprocess.run(command, env=env, check=False).returncode
    with (STATE / "log").open("wb") as log:
        child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    (STATE / f"container-{given.name}").write_text(json.dumps({"pid": child.pid, "env": env}))
    return 0


def _exec(given: argparse.Namespace) -> int:
    container = json.loads((STATE / f"container-{given.name}").read_text())
    assert given.arguments[0] == "uvs"
    return subprocess.run([UVS, *given.arguments[1:]], env=container["env"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
