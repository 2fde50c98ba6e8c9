"""What is measured: this service, a bare Starlette application, and whatever else speaks the same wire."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load import AUTH_TOKEN
from tests.parts import ROOT

ACCESS_TOKEN = "access-token-of-the-benchmark"
OURS, REFERENCE, BARE = "uvs", "reference", "bare Starlette"


@dataclass(frozen=True, slots=True)
class Candidate:
    """How one of them is started. In command and environment, the names of `places` stand in braces for what is known
    only then."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path = ROOT

    def started_with(self, places: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """Command and environment."""

        def fill(text: str) -> str:
            for name, value in places.items():
                text = text.replace(f"{{{name}}}", value)
            return text

        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **self.environment}
        return [fill(word) for word in self.command], {name: fill(value) for name, value in environment.items()}


def places(*, port: int, homeserver_port: int, ca_file: Path) -> dict[str, str]:
    """What may stand in braces. A server name that is an address with a port is found without DNS."""
    return {
        "port": str(port),
        "homeserver_url": f"https://127.0.0.1:{homeserver_port}",
        "server_name": f"127.0.0.1:{homeserver_port}",
        "ca_file": str(ca_file),
        "access_token": ACCESS_TOKEN,
        "auth_token": AUTH_TOKEN,
    }


def ours() -> Candidate:
    return Candidate(
        OURS,
        (sys.executable, "-m", "uvs", "serve"),
        {
            "PYTHONPATH": str(ROOT),
            "UVS_HOMESERVER_URL": "{homeserver_url}",
            "UVS_ACCESS_TOKEN": "{access_token}",
            "UVS_AUTH_TOKEN": "{auth_token}",
            "UVS_OPENID_VERIFY_SERVER_NAME": "{server_name}",
            "UVS_CA_FILE": "{ca_file}",
            "UVS_LISTEN_ADDRESS": "127.0.0.1",
            "UVS_PORT": "{port}",
            # A busy machine makes the figures worse; it must not leave us without any.
            "UVS_REQUEST_TIMEOUT": "60",
        },
    )


def bare() -> Candidate:
    return Candidate(
        BARE, (sys.executable, "-m", "benchmarks.bare", "{port}", "{server_name}"), {"PYTHONPATH": str(ROOT)}
    )


def reference(file: Path) -> Candidate:
    """From a TOML file: `command`, `directory`, and a table `environment`."""
    table = tomllib.loads(file.read_text("utf-8"))
    return Candidate(
        REFERENCE, tuple(table["command"]), table.get("environment", {}), Path(table.get("directory", file.parent))
    )
