"""A real Synapse with all three ways in: an administrator, an application service, and the module."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.parts import ROOT, issued
from tests.parts.processes import free_port
from tests.parts.synapse import Synapse, User, Version
from uvs.registration import SCOPE, Registration

MODULE = ROOT / "synapse_module"


class OpenSynapse(Synapse):
    """`options` go over the configuration, as in `Synapse`. `with_msc4502` and `with_module` say what its operator has
    turned on."""

    def __init__(
        self,
        directory: Path,
        *,
        server_name: str = "matrix.example",
        version: Version = Version.NEWEST,
        options: Mapping[str, Any] | None = None,
        python_path: Sequence[Path] = (),
        with_msc4502: bool = True,
        with_module: bool = True,
    ) -> None:
        self.server_name = server_name
        self.module_port = free_port()
        self.module_url = f"http://127.0.0.1:{self.module_port}"
        self._secret_file = directory / "module-secret"
        self._registrations = directory / "registration"
        self.new_registration()
        self.new_module_secret()
        self.scopeless_token = issued.register(secrets.token_urlsafe(32))
        without_scope = Registration("_without_scope", self.scopeless_token).yaml().replace(f'\n  - "{SCOPE}"', " []")
        (self._registrations / "without-scope.yaml").write_text(without_scope)
        config = {"secret_path": str(self._secret_file), "listener_ports": [self.module_port]}
        module = {"module": "uvs_synapse_module.UvsModule", "config": config}
        more = options or {}
        super().__init__(
            directory,
            server_name=server_name,
            version=version,
            python_path=[MODULE, *python_path],
            options={
                **more,
                "app_service_config_files": [str(each) for each in self._registrations.glob("*.yaml")],
                "experimental_features": {"msc4502_enabled": with_msc4502},
                "listeners": [listener(self.module_port), *more.get("listeners", [])],
                "modules": [*([module] if with_module else []), *more.get("modules", [])],
            },
        )

    def way_in(self, access: str, admin: User) -> dict[str, str]:
        """The settings for that way in."""
        url, token = {
            "synapse-admin": (self.url, admin.access_token),
            "msc4502": (self.url, self.service_user.access_token),
            "synapse-module": (self.module_url, self.module_secret),
        }[access]
        return {"homeserver_url": url, "access_token": token, "homeserver_access": access}

    # What is written anew counts from the next start on.

    def new_registration(self) -> None:
        registration = Registration(as_token=issued.register(secrets.token_urlsafe(32)))
        registration.write(self._registrations, replace=True)
        self.service_user = User(f"@{registration.name}:{self.server_name}", registration.as_token)

    def new_module_secret(self) -> None:
        self.module_secret = issued.register(secrets.token_urlsafe(32))
        self._secret_file.write_text(self.module_secret + "\n")

    def restart(self) -> None:
        self.process.stop()
        self.start()


def listener(port: int) -> dict[str, Any]:
    """One with nothing on it but what modules put there."""
    return {"port": port, "type": "http", "tls": False, "bind_addresses": ["127.0.0.1"], "resources": []}
