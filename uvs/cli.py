"""The command line. Exit status: 0 all is well, 1 something else has to be mended, 2 the call or the settings are; of
`uvs check`, the number of red rows."""

from __future__ import annotations

import argparse
import http.client
import logging
import math
import os
import shutil
import signal
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import as_file
from pathlib import Path
from tempfile import TemporaryDirectory

from uvs import __version__, check
from uvs.ops import logs
from uvs.registration import DEFAULT_NAME, AlreadyThereError, Registration
from uvs.resources import shipped
from uvs.settings import Loaded, Mistakes, Settings, load

_SETTINGS_HELP = "Settings come from UVS_… variables, from files named by UVS_…_FILE, and from the TOML file named by \
UVS_CONFIG_FILE; README.md lists them."


def main(argv: list[str] | None = None) -> None:
    """Run the command line; ends the process with its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser(checks=argv[:1] == ["check"]).parse_args(argv)
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read what is printed has seen enough: `uvs check | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    sys.exit(status)


def _parser(*, checks: bool) -> argparse.ArgumentParser:
    """What only one command needs is imported for that one: the service starts sooner, and `uvs health`, which a
    container may run every few seconds, loads no server."""
    parser = argparse.ArgumentParser(
        prog="uvs",
        description="Proves who a Matrix user is, and what they may do, to anything that is not Matrix.",
        epilog=_SETTINGS_HELP,
    )
    parser.add_argument("--version", action="version", version=f"uvs {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serving = commands.add_parser("serve", help="serve the API (the default)", epilog=_SETTINGS_HELP)
    serving.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that share the work, one for each core; more than one need UVS_CACHE_URL "
        "(default: UVS_WORKERS, or 1)",
    )
    checking = commands.add_parser("check", help=check.HELP, description=check.DESCRIPTION, epilog=_SETTINGS_HELP)
    if checks:
        from uvs.check.command import add_options

        add_options(checking)
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
            from uvs.check.command import run

            return run(arguments)
        if arguments.command == "health":
            return _health(load())
        return _serve(load(workers=getattr(arguments, "workers", None)))  # without a command there is no such option
    except Mistakes as mistakes:
        print(f"uvs cannot start; {len(mistakes.lines)} to mend in the settings:", file=sys.stderr)
        for line in mistakes.lines:
            print(f"  {line}", file=sys.stderr)
        return 2


def _serve(loaded: Loaded) -> int:
    from uvs.app import create_app
    from uvs.ops.server import listen, serve

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
        workers = f" with {settings.workers} workers" if settings.workers > 1 else ""
        log.info("uvs %s listens on %s%s", __version__, where, workers)
        if workers:
            return 0 if _serve_with_workers(settings, sockets) else 1
        serve(create_app(settings), sockets)
    return 0


def _serve_with_workers(settings: Settings, sockets: list[socket.socket]) -> bool:
    from uvs.app import create_app
    from uvs.ops.merged import Merged
    from uvs.ops.server import serve
    from uvs.ops.workers import Workers

    share = math.ceil(settings.max_concurrent_requests / settings.workers)
    memory = "/dev/shm"  # noqa: S108 - writable in a read-only container, and what is measured needs no disk
    with TemporaryDirectory(prefix="uvs-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        merged = Merged(Path(folder))
        app = create_app(settings.model_copy(update={"max_concurrent_requests": share}), merged=merged)

        def work(place: int) -> None:
            merged.enter(place)
            serve(app, sockets)

        return Workers(settings.workers, work, gone=merged.leave, listening=sockets).run()


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
        "the Synapse module",
        "synapse_module",
        "*.py",
        "Synapse's Python path",
        'Now start Synapse with PYTHONPATH="{}", and name uvs_synapse_module.UvsModule in its configuration as in '
        "docs/homeserver-access.md.",
    ),
}


def _export(export: _Export, directory: Path) -> int:
    try:
        if not directory.exists():
            directory.mkdir(parents=True)
            directory.chmod(0o755)  # what is in it is read by another user, whatever the umask is here
        with as_file(shipped(export.folder)) as source:
            for file in sorted(source.glob(export.pattern)):
                copy = Path(shutil.copyfile(file, directory / file.name))
                copy.chmod(0o644)
                print(copy)
    except OSError as error:
        print(f"uvs: {export.what} cannot be copied to {directory}: {error.strerror}", file=sys.stderr)
        return 1
    print(export.then.format(directory.resolve()))
    return 0


def _write_registration(registration: Registration, directory: Path, *, replace: bool) -> int:
    try:
        file, token = registration.write(directory, replace=replace)
    except AlreadyThereError as error:
        print(f"uvs: {error}; with --replace, both files are written anew, with new tokens", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"uvs: the registration cannot be written to {directory}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"""{file}
{token}
Now
  1. see that nobody is called @{registration.name} on the homeserver: the token would have their rights;
  2. copy {file.name} to where Synapse's user, and nobody else, can read it, and add to homeserver.yaml:
         app_service_config_files: ["/etc/matrix-synapse/{file.name}"]
         experimental_features: {{msc4502_enabled: true}}
  3. restart Synapse;
  4. put {token.name} where uvs reads its access token (docs/homeserver-access.md), set UVS_HOMESERVER_ACCESS=msc4502,
     restart uvs, and ask `uvs check`.""")
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
