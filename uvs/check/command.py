"""The command line's side of the check: its options, and what comes out."""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from uvs.check.people import GivenToken, Question
from uvs.check.render import exit_status, for_machines, for_people
from uvs.check.walk import Wanted, walk
from uvs.matrix.identifiers import InvalidIdentifier, RoomID, ServerName, UserID
from uvs.settings import Mistakes, load

T = TypeVar("T")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let `parser` know what can be asked."""
    parser.add_argument(
        "--user", type=_parsed(UserID.parse), metavar="@USER:SERVER", help="would this person be let in?"
    )
    parser.add_argument("--room", type=_parsed(_room), metavar="!ROOM:SERVER", help="into this room (an id, no alias)?")
    parser.add_argument(
        "--openid-token-file",
        type=_parsed(_given_token),
        metavar="FILE",
        help="verify the OpenID token in FILE, bare or as the homeserver's JSON answer; - is standard input",
    )
    parser.add_argument(
        "--server",
        type=_parsed(_server),
        metavar="NAME",
        help="find this other homeserver step by step; are its people let in?",
    )
    parser.add_argument(
        "--jitsi", type=_parsed(_site), metavar="URL", help="is the file for Element there, on https://meet.…?"
    )
    parser.add_argument(
        "--prosody",
        type=_parsed(_xmpp_site),
        metavar="URL",
        help="do /http-bind and /xmpp-websocket answer there, on https://meet.…? (Or the URL of one of them.)",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable (docs/check.md)")


def run(arguments: argparse.Namespace) -> int:
    """Check, print, and return the exit status."""
    try:
        loaded = load()
    except Mistakes as mistakes:
        report = asyncio.run(walk(mistakes, _wanted(arguments)))
    else:
        report = asyncio.run(walk(loaded, _wanted(arguments), say=None if arguments.json else _say))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # rather no arrow than no table
    if arguments.json:
        sys.stdout.write(for_machines(report))
    else:
        terminal = sys.stdout.isatty()
        columns = shutil.get_terminal_size().columns if terminal else None
        sys.stdout.write(for_people(report, colour=terminal and not os.environ.get("NO_COLOR"), columns=columns))
    return exit_status(report)


def _wanted(arguments: argparse.Namespace) -> Wanted:
    question = Question(arguments.user, arguments.room, arguments.openid_token_file)
    return Wanted(question, server=arguments.server, jitsi=arguments.jitsi, prosody=arguments.prosody)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


# --- values of the options --------------------------------------------------------------------------------------------


def _parsed(parse: Callable[[str], T]) -> Callable[[str], T]:
    """With the reason in argparse's message; it would otherwise only say that the value is invalid, and quote it."""

    def parse_or_say_why(raw: str) -> T:
        try:
            return parse(raw)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_or_say_why


def _room(raw: str) -> RoomID:
    if raw.startswith("#"):
        raise InvalidIdentifier(
            "is an alias, which may point elsewhere tomorrow; Element shows the id under Room settings, Advanced "
            "(example: !abc:example.org)"
        )
    return RoomID.parse(raw)


def _server(raw: str) -> ServerName:
    try:
        return ServerName.parse(raw)
    except InvalidIdentifier:
        raise InvalidIdentifier(
            "is not what stands behind the colon in its people's ids (example: example.org)"
        ) from None


def _given_token(file: str) -> GivenToken:
    try:
        return GivenToken.read(sys.stdin.read() if file == "-" else Path(file).read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("the file is not text") from None


def _site(raw: str, schemes: tuple[str, ...] = ("https", "http"), *, path: bool = False) -> str:
    """The URL, without a slash at its end."""
    wanted = ValueError("is not a URL as it is wanted (example: https://meet.example.org)")
    raw = raw.rstrip("/")
    try:
        url = urlsplit(raw)
        port_is_good = url.port != 0
    except ValueError:
        raise wanted from None
    if not raw.isascii() or not raw.isprintable() or set(raw) & set(" \\?#") or not port_is_good:
        raise wanted
    if url.scheme not in schemes or not url.hostname or "@" in url.netloc or (url.path and not path):
        raise wanted
    return raw


def _xmpp_site(raw: str) -> str:
    return _site(raw, ("https", "http", "wss", "ws"), path=True)
