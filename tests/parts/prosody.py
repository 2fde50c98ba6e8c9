"""A real Prosody, of either version, with the modules of this repository and the hosts that Jitsi Meet has."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.parts import PARTS, ROOT, PartMissingError, issued
from tests.parts.processes import Process, Stoppable, free_port, listening

START_SECONDS = 20.0
DOMAIN = "meet.example"
SERVICE_PASSWORD = "of-this-test-run-only"

_TRACEBACK = re.compile(
    r"traceback|attempt to (?:index|call|compare|concatenate|perform)|bad argument #", re.IGNORECASE
)


class Version(StrEnum):
    PROSODY_0_12 = "0.12"
    PROSODY_13 = "13"


@dataclass(frozen=True, slots=True)
class Config:
    """What tests vary. The values of `options` are Lua: use `lua()` for strings."""

    uvs_url: str
    auth_token: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    """On the VirtualHost."""
    readme_only: bool = False
    """The VirtualHost section of the original README and a bare conference component, nothing else."""
    conference_options: Mapping[str, str] = field(default_factory=dict)
    conference_modules: tuple[str, ...] = ()
    log_level: str = "debug"
    more: str = ""
    """Appended as it stands."""


def lua(value: str) -> str:
    """A Lua string."""
    return json.dumps(value, ensure_ascii=False)


class Prosody(Stoppable):
    """A running server. `domain` is where Jitsi Meet logs in."""

    def __init__(self, version: Version, directory: Path, config: Config, *, domain: str = DOMAIN) -> None:
        self.version = version
        self.domain = domain
        self.conference = f"conference.{domain}"
        self.lobby = f"lobby.{domain}"
        self.breakout = f"breakout.{domain}"
        self.internal = f"internal.auth.{domain}"
        self.services = f"auth.{domain}"
        self.recorders = f"recorder.{domain}"
        self.focus = f"focus.{domain}"
        self.http_port, self.c2s_port = free_port(), free_port()
        self.bosh_url = f"http://127.0.0.1:{self.http_port}/http-bind"
        self.websocket_url = f"ws://127.0.0.1:{self.http_port}/xmpp-websocket"
        self._home = PARTS / f"prosody-{version}"
        if not (self._home / ".complete").exists():
            raise PartMissingError(self._home)
        directory.mkdir(parents=True, exist_ok=True)
        self.config_file = directory / "prosody.cfg.lua"
        self.config_file.write_text(self._global_section(directory, config.log_level) + self._hosts(config))
        self._add_account(directory, "focus", self.services)
        self._add_account(directory, "jibri", self.services)
        self._add_account(directory, "recorder", self.recorders)
        self.process = Process(
            [self._home / "prosody", "--config", self.config_file, "-F"], directory / "prosody.log", env=_environment()
        )
        self.process.wait_until(lambda: listening(self.http_port) and listening(self.c2s_port), timeout=START_SECONDS)

    # --- the log ------------------------------------------------------------------------------------------------------

    def log_text(self) -> str:
        return self.process.log_text()

    def lua_errors(self, since: int = 0) -> list[str]:
        """Lines of the log, from that character on, that tell of an error in Lua."""
        return [line for line in self.log_text()[since:].splitlines() if _TRACEBACK.search(line)]

    def check_config(self) -> subprocess.CompletedProcess[str]:
        """`prosodyctl check config`."""
        command = [str(self._home / "prosodyctl"), "--config", str(self.config_file), "check", "config"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, env=_environment(), check=False)

    # --- configuration ------------------------------------------------------------------------------------------------

    def _global_section(self, directory: Path, log_level: str) -> str:
        return f"""\
run_as_root = {"true" if os.getuid() == 0 else "false"}
pidfile = {lua(str(directory / "prosody.pid"))}
data_path = {lua(str(directory / "data"))}
certificates = {lua(str(directory))}
plugin_paths = {{ {lua(str(ROOT / "prosody_lua"))}, {lua(str(ROOT / "tests/parts/prosody_plugins"))} }}
log = {{ {{ levels = {{ min = {lua(log_level)} }}, to = "console", timestamps = "%H:%M:%S" }} }}
network_backend = "epoll"
c2s_ports = {{ {self.c2s_port} }}
c2s_interfaces = {{ "127.0.0.1" }}
http_ports = {{ {self.http_port} }}
http_interfaces = {{ "127.0.0.1" }}
https_ports = {{}}
http_default_host = {lua(self.domain)}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
consider_bosh_secure = true
consider_websocket_secure = true
allow_registration = false
authentication = "internal_hashed"
storage = {{ smacks_h = "memory" }}
smacks_max_unacked_stanzas = 5
smacks_hibernation_time = 60
smacks_max_old_sessions = 1
admins = {{ {lua(f"focus@{self.services}")} }}
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "version", "ping", "posix", "bosh", "websocket", "smacks" }}
modules_disabled = {{ "s2s", "offline", "register" }}
"""

    def _hosts(self, config: Config) -> str:
        virtual_host = f"""
VirtualHost {lua(self.domain)}
    authentication = "matrix_user_verification"
{_options(self._defaults(config) | dict(config.options))}
"""
        if config.readme_only:
            conference = f'Component {lua(self.conference)} "muc"\n{_options(config.conference_options)}'
            return f"{virtual_host}\n{conference}\n{config.more}\n"
        modules = ", ".join(map(lua, config.conference_modules))
        return f"""{virtual_host}
VirtualHost {lua(self.services)}

VirtualHost {lua(self.recorders)}

Component {lua(self.conference)} "muc"
    modules_enabled = {{ {modules} }}
{_MUC}{_options(config.conference_options)}
Component {lua(self.lobby)} "muc"
    restrict_room_creation = true
{_MUC}
Component {lua(self.breakout)} "muc"
    modules_enabled = {{ "test_jitsi_rooms" }}
    main_muc = {lua(self.conference)}
    lobby_muc = {lua(self.lobby)}
{_MUC}
Component {lua(self.internal)} "muc"
{_MUC}
Component {lua(self.focus)} "test_focus"

{config.more}
"""

    def _defaults(self, config: Config) -> dict[str, str]:
        defaults = {"app_id": lua(self.domain), "uvs_base_url": lua(config.uvs_url)}
        return defaults if config.auth_token is None else defaults | {"uvs_auth_token": lua(config.auth_token)}

    def _add_account(self, directory: Path, name: str, host: str) -> None:
        """What `prosodyctl register` leaves behind; that takes a third of a second each."""
        folder = directory / "data" / host.replace(".", "%2e") / "accounts"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.dat").write_text(f"return {{ password = {lua(SERVICE_PASSWORD)} }};\n")

    def stop(self) -> None:
        self.process.stop()
        issued.look_at("log of Prosody", self.log_text())


# As in docker-jitsi-meet.
_MUC = """\
    storage = "memory"
    muc_room_locking = false
    muc_room_default_public_jids = true
    muc_tombstones = false
    muc_room_allow_persistent = false
"""


def _options(options: Mapping[str, str]) -> str:
    return "".join(f"    {name} = {value}\n" for name, value in options.items())


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/nonexistent", "LANG": "C.UTF-8"}
