"""A real Synapse with all three ways in: an administrator, an application service, and the module."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from tests.parts import ROOT
from tests.parts.processes import free_port
from tests.parts.synapse import Synapse, User, Version
from uvs.registration import Registration

MODULE = ROOT / "synapse_module"


class OpenSynapse(Synapse):
    """`options` go over the configuration, as in `Synapse`."""

    def __init__(
        self, directory: Path, *, version: Version = Version.NEWEST, options: dict[str, Any] | None = None
    ) -> None:
        self.module_port = free_port()
        self.module_url = f"http://127.0.0.1:{self.module_port}"
        self.module_secret = secrets.token_hex(32)
        self.secret_file = directory / "module-secret"
        registration = Registration()
        self.registration_file, _ = registration.write(directory / "registration")
        self.secret_file.write_text(self.module_secret + "\n")
        module = {"secret_path": str(self.secret_file), "listener_ports": [self.module_port]}
        super().__init__(
            directory,
            version=version,
            python_path=[MODULE],
            options={
                "app_service_config_files": [str(self.registration_file)],
                "experimental_features": {"msc4502_enabled": True},
                "listeners": [listener(self.module_port)],
                "modules": [{"module": "uvs_synapse_module.UvsModule", "config": module}],
                **(options or {}),
            },
        )
        self.service_user = User(f"@{registration.name}:{self.server_name}", registration.as_token)

    def way_in(self, access: str, admin: User) -> dict[str, str]:
        """The settings for that way in."""
        url, token = {
            "synapse-admin": (self.url, admin.access_token),
            "msc4502": (self.url, self.service_user.access_token),
            "synapse-module": (self.module_url, self.module_secret),
        }[access]
        return {"homeserver_url": url, "access_token": token, "homeserver_access": access}


def listener(port: int) -> dict[str, Any]:
    """One with nothing on it but what modules put there."""
    return {"port": port, "type": "http", "tls": False, "bind_addresses": ["127.0.0.1"], "resources": []}
