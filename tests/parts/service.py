"""The real service, started as operators start it: `python -m uvs serve` and its environment."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.parts import ROOT, issued
from tests.parts.processes import Process, Stoppable, free_port

START_SECONDS = 20.0


class Service(Stoppable):
    """A running uvs. `options` are further variables of its environment."""

    def __init__(
        self,
        directory: Path,
        *,
        homeserver_url: str,
        access_token: str,
        auth_token: str | None = None,
        server_name: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._auth_token = auth_token
        secrets = [value for name, value in (options or {}).items() if name.endswith(("_TOKEN", "_KEY", "_SECRET"))]
        for value in (access_token, auth_token or "", *secrets):
            issued.register(value)
        env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "UVS_HOMESERVER_URL": homeserver_url,
            "UVS_ACCESS_TOKEN": access_token,
            "UVS_LISTEN_ADDRESS": "127.0.0.1",
            "UVS_PORT": str(self.port),
            # Tests change the homeserver and look at once whether that counts; those about the cache say otherwise.
            "UVS_CACHE_TOKEN_TTL": "0",
            "UVS_CACHE_MEMBERSHIP_TTL": "0",
            "UVS_CACHE_POWER_LEVELS_TTL": "0",
        }
        if auth_token is not None:
            env["UVS_AUTH_TOKEN"] = auth_token
        if server_name is not None:
            env["UVS_OPENID_VERIFY_SERVER_NAME"] = server_name
        command = [sys.executable, "-m", "uvs", "serve"]
        # Not in the repository's folder: what is installed or on the path is what runs.
        internal_port = (options or {}).get("UVS_INTERNAL_PORT", self.port)
        self._own_systems = f"http://127.0.0.1:{internal_port}"
        self.process = Process(command, directory / "uvs.log", env=env | dict(options or {}), cwd=directory)
        self.process.wait_until(self._healthy, timeout=START_SECONDS)

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=2.0, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def log_text(self) -> str:
        return self.process.log_text()

    def stop(self) -> int:
        if self.process.running:
            with contextlib.suppress(httpx.HTTPError):
                issued.look_at("metrics of the service", self.metrics())
        status = self.process.stop()
        issued.look_at("log of the service", self.log_text())
        return status

    def metrics(self) -> str:
        """What Prometheus would read now."""
        headers = {"Authorization": f"Bearer {self._auth_token}"} if self._auth_token else {}
        return httpx.get(f"{self._own_systems}/metrics", headers=headers, timeout=2.0, trust_env=False).text
