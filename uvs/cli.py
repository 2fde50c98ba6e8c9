"""The command line. Exit status: 0 all is well, 1 something else has to be mended, 2 the call or the settings are."""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import logging
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import as_file
from pathlib import Path

from uvs import __version__
from uvs.app import create_app
from uvs.errors import CannotTell, Refusal
from uvs.homeserver import Finding, Homeserver
from uvs.matrix.identifiers import InvalidIdentifier, RoomID, UserID
from uvs.matrix.power_levels import CREATOR_LEVEL
from uvs.net.http import open_client, trust
from uvs.ops import logs
from uvs.ops.server import listen, serve
from uvs.registration import DEFAULT_NAME, Registration
from uvs.resources import shipped
from uvs.settings import Loaded, Mistakes, load
from uvs.ways import connect_homeserver

_SETTINGS_HELP = "Settings come from UVS_… variables, from files named by UVS_…_FILE, and from the TOML file named by \
UVS_CONFIG_FILE; README.md lists them."


def main(argv: list[str] | None = None) -> None:
    """Run the command line; ends the process with its exit status."""
    sys.exit(_run(_parser().parse_args(sys.argv[1:] if argv is None else argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="uvs",
        description="Proves who a Matrix user is, and what they may do, to anything that is not Matrix.",
        epilog=_SETTINGS_HELP,
    )
    parser.add_argument("--version", action="version", version=f"uvs {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="serve the API (the default)", epilog=_SETTINGS_HELP)
    check = commands.add_parser(
        "check",
        help="find what is wrong with settings, homeserver and token",
        description="Check the settings, the homeserver and what the access token may do; with --user and --room, also "
        "tell what the service would say about that person.",
        epilog=_SETTINGS_HELP,
    )
    check.add_argument("--user", type=_user, metavar="@USER:SERVER", help="whose standing to look up")
    check.add_argument("--room", type=_room, metavar="!ROOM:SERVER", help="in which room (an id, not an alias)")
    check.add_argument("--json", action="store_true", help="machine-readable")
    for name, export in _EXPORTS.items():
        exporting = commands.add_parser(
            name,
            help=f"copy {export.what} into a folder",
            description=f"Copy {export.what} into DIR, for {export.where}. Files that differ are replaced.",
        )
        exporting.add_argument("dir", type=Path, metavar="DIR")
    registration = commands.add_parser(
        "registration",
        help="write the registration of an application service",
        description="Write into DIR what UVS_HOMESERVER_ACCESS=msc4502 needs: uvs-registration.yaml for Synapse, and "
        "uvs-access-token for UVS_ACCESS_TOKEN_FILE, both with new tokens and for nobody but their owner to read.",
    )
    registration.add_argument("dir", type=Path, metavar="DIR")
    registration.add_argument(
        "--name",
        type=_registration,
        default=DEFAULT_NAME,
        metavar="NAME",
        help="the application service's id and the local part of its user, which must be nobody's yet "
        "(default: %(default)s)",
    )
    registration.add_argument("--replace", action="store_true", help="replace the files where they are there already")
    commands.add_parser("health", help="exit with 0 if the service on this machine answers, for health checks")
    return parser


def _user(raw: str) -> UserID:
    try:
        return UserID.parse(raw)
    except InvalidIdentifier as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _room(raw: str) -> RoomID:
    try:
        return RoomID.parse(raw)
    except InvalidIdentifier as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _registration(raw: str) -> Registration:
    try:
        return Registration(raw)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run(arguments: argparse.Namespace) -> int:
    try:
        if arguments.command in _EXPORTS:
            return _export(_EXPORTS[arguments.command], arguments.dir)
        if arguments.command == "registration":
            return _write_registration(arguments.name, arguments.dir, replace=arguments.replace)
        if arguments.command == "check":
            return _check(load(), arguments.user, arguments.room, as_json=arguments.json)
        if arguments.command == "health":
            return _health(load())
        return _serve(load())
    except Mistakes as mistakes:
        print(f"uvs cannot start; {len(mistakes.lines)} to mend in the settings:", file=sys.stderr)
        for line in mistakes.lines:
            print(f"  {line}", file=sys.stderr)
        return 2


def _serve(loaded: Loaded) -> int:
    settings = loaded.settings
    key = settings.log_pseudonym_key and settings.log_pseudonym_key.get_secret_value()
    logs.configure(
        settings.log_level, settings.log_format, None if settings.log_identifiers else logs.Pseudonyms(key or None)
    )
    log = logging.getLogger("uvs")
    for warning in loaded.warnings:
        log.warning("%s", warning)
    places = [(settings.listen_address, settings.port)]
    if settings.internal_port is not None:
        places.append((settings.internal_address or settings.listen_address, settings.internal_port))
    with ExitStack() as listening:
        sockets = []
        for address, port in places:
            try:
                sockets.append(listening.enter_context(listen(address, port)))
            except OSError as error:
                reason = str(error.strerror).partition(" (")[0]  # Python adds the address
                log.error("uvs cannot listen on %s port %d: %s", address, port, reason)  # noqa: TRY400
                return 1
        where = " and ".join(f"{address} port {port}" for address, port in places)
        log.info("uvs %s listens on %s", __version__, where)
        serve(create_app(settings), sockets)
    return 0


@dataclass(frozen=True, slots=True)
class _Export:
    """Files that travel with the package, and what is done with them."""

    what: str
    folder: str
    pattern: str
    where: str
    then: str


_EXPORTS = {
    "export-prosody": _Export(
        "the Lua modules",
        "prosody_lua",
        "*.lua",
        "Prosody's plugin_paths",
        'Now add "{}" to plugin_paths in the Prosody configuration.',
    ),
    "export-synapse-module": _Export(
        "the module",
        "synapse_module",
        "*.py",
        "Synapse's Python path",
        'Now start Synapse with PYTHONPATH="{}", and name uvs_synapse_module.UvsModule in its configuration as in '
        "docs/homeserver-access.md.",
    ),
}


def _export(export: _Export, directory: Path) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with as_file(shipped(export.folder)) as source:
            for file in sorted(source.glob(export.pattern)):
                shutil.copyfile(file, directory / file.name)
                print(directory / file.name)
    except OSError as error:
        print(f"uvs: {export.what} cannot be copied to {directory}: {error.strerror}", file=sys.stderr)
        return 1
    print(export.then.format(directory.resolve()))
    return 0


def _write_registration(registration: Registration, directory: Path, *, replace: bool) -> int:
    try:
        file, token = registration.write(directory, replace=replace)
    except FileExistsError as error:
        print(f"uvs: {error}; with --replace, both files are written anew, with new tokens", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"uvs: the registration cannot be written to {directory}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"""{file}
{token}
Now
  1. see that nobody is called @{registration.name} on the homeserver: the token would have their rights;
  2. let Synapse's user, and nobody else, read {file.name}, and add to homeserver.yaml:
         app_service_config_files: ["{file.resolve()}"]
         experimental_features: {{msc4502_enabled: true}}
  3. restart Synapse;
  4. give uvs UVS_HOMESERVER_ACCESS=msc4502 and UVS_ACCESS_TOKEN_FILE={token.resolve()}, and ask `uvs check`.""")
    return 0


def _health(loaded: Loaded) -> int:
    settings = loaded.settings
    # What listens everywhere is asked on loopback.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.listen_address, settings.listen_address)  # noqa: S104
    connection = http.client.HTTPConnection(host, settings.port, timeout=5)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
        if status == 200:
            return 0
        reason = f"HTTP status {status}"
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        reason = str(error)
    finally:
        connection.close()
    print(f"uvs does not answer on {host} port {settings.port}: {reason}", file=sys.stderr)
    return 1


def _check(loaded: Loaded, user: UserID | None, room: RoomID | None, *, as_json: bool) -> int:
    if (user is None) != (room is None):
        print("uvs check: --user and --room go together", file=sys.stderr)
        return 2
    if not as_json:
        print(f"asking {loaded.settings.own_homeservers[0].url} …", file=sys.stderr)
    findings, standing = asyncio.run(_ask(loaded, user, room))
    if as_json:
        report = {
            "findings": [{"check": f.name, "good": f.good, "mend": f.mend or None} for f in findings],
            "warnings": loaded.warnings,
            "standing": standing,
        }
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        for warning in loaded.warnings:
            print(f"warn  {warning}")
        for finding in findings:
            print(
                f"{'ok   ' if finding.good else 'FAIL '} {finding.name}" + (f": {finding.mend}" if finding.mend else "")
            )
        if standing:
            print(f"      {standing['says']}")
    return 0 if all(finding.good for finding in findings) else 1


async def _ask(
    loaded: Loaded, user: UserID | None, room: RoomID | None
) -> tuple[list[Finding], dict[str, object] | None]:
    timeout = loaded.settings.request_timeout
    async with open_client(timeout=timeout, tls=trust(loaded.settings.ca_file)) as client:
        homeserver = connect_homeserver(loaded.settings.own_homeservers[0], client)
        findings = [Finding("settings"), *await homeserver.check()]
        standing = None
        if user and room and all(finding.good for finding in findings):
            finding, standing = await _standing(homeserver, user, room)
            findings.append(finding)
    return findings, standing


async def _standing(homeserver: Homeserver, user: UserID, room: RoomID) -> tuple[Finding, dict[str, object] | None]:
    name = "standing can be looked up"
    try:
        standing = await homeserver.standing(user, room)
    except CannotTell as error:
        return Finding(name, str(error)), None
    if isinstance(standing, Refusal):
        says = f"{user} is not joined to {room}: an invitation, a knock or a ban is not enough."
        return Finding(name), {"joined": False, "power_level": None, "says": says}
    if standing.level is None or standing.power_levels is None:
        says = f"{user} is joined to {room}; their level cannot be known in this way."
        return Finding(name), {"joined": True, "power_level": None, "says": says}
    level = "the creator's" if standing.level == CREATOR_LEVEL else str(standing.level)
    threshold = standing.power_levels.state_default
    moderator = "is a moderator" if standing.level >= threshold else "is not a moderator"
    says = f"{user} is joined to {room}, has level {level}, and {moderator} (from {threshold} on)."
    return Finding(name), {"joined": True, "power_level": standing.level, "says": says}
