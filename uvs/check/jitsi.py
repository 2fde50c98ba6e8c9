"""The file on the Jitsi domain by which Element knows that it should send an OpenID token (docs/well-known.md)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from uvs.check.reach import reach
from uvs.check.rows import Group
from uvs.check.web import Reply, ask
from uvs.errors import CannotTell
from uvs.net.tls import trust

PATH = "/.well-known/element/jitsi"
ORIGIN = "https://app.element.io"
"""A page of another site, as Element's is to the Jitsi domain."""

MAX_REDIRECTS = 3

_FILE, _READABLE, _TYPE = "well-known file", "readable from Element (CORS)", "content type"
_HOW = "docs/well-known.md has the lines for nginx and Caddy"


async def check_jitsi(group: Group, url: str, ca_file: Path | None, *, now: Callable[[], float] = time.time) -> None:
    """Add the rows for the Jitsi domain at `url`."""
    if not await reach(group, url, ca_file, now=now):
        group.skip("the Jitsi domain cannot be reached", _FILE, _TYPE, _READABLE)
        return
    if urlsplit(url).scheme != "https":
        group.warn("https", "Check the https:// URL: Element asks no other.", "this is plain HTTP")
    group.begin(_FILE)
    try:
        replies = await _follow(url + PATH, ca_file)
    except CannotTell as error:
        group.cannot_tell(_FILE, error)
        group.skip("the file comes first", _TYPE, _READABLE)
        return
    if _check_file(group, replies):
        _check_type(group, replies[-1])
        _check_readable(group, replies)
    else:
        group.skip("the file comes first", _TYPE, _READABLE)


async def _follow(url: str, ca_file: Path | None) -> list[Reply]:
    """The answer, after those that redirect to it."""
    replies: list[Reply] = []
    while True:
        reply = await ask(trust(ca_file), url, headers={"Origin": ORIGIN, "Accept": "*/*"})
        replies.append(reply)
        location = reply.headers.get("location")
        if reply.status not in {301, 302, 303, 307, 308} or not location:
            return replies
        url = _target(url, location)
        if len(replies) > MAX_REDIRECTS:
            raise CannotTell(f"It redirects more than {MAX_REDIRECTS} times: {_HOW}.")


def _target(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
    except ValueError:
        raise CannotTell(f"It redirects to what is no URL: {_HOW}.") from None
    if urlsplit(url).scheme == "https" and scheme != "https":
        raise CannotTell(f"It redirects to plain HTTP, which a browser does not follow: {_HOW}.")
    return target


def _check_file(group: Group, replies: list[Reply]) -> bool:
    reply = replies[-1]
    if reply.status != 200:
        group.fail(_FILE, f"Put it there: {_HOW}.", f"HTTP status {reply.status}")
        return False
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        kind = "a page of the site" if reply.body.lstrip()[:1] == b"<" else "no JSON"
        group.fail(_FILE, f"Put it there, before the site's other lines: {_HOW}.", f"{kind} is at {PATH}")
        return False
    if not isinstance(document, dict) or document.get("auth") != "openidtoken-jwt":
        mend = f'It has to be {{"auth": "openidtoken-jwt"}}: {_HOW}.'
        group.fail(_FILE, mend, "it does not tell Element to send a token")
        return False
    if len(replies) > 1:
        mend = f"Put it where Element asks; each redirect must be readable from there, too: {_HOW}."
        group.warn(_FILE, mend, "it is found by a redirect")
    else:
        group.ok(_FILE, "Element will send an OpenID token")
    return True


def _check_type(group: Group, reply: Reply) -> None:
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        group.ok(_TYPE, kind)
    else:
        group.warn(_TYPE, f"Send it as application/json: {_HOW}.", kind or "none")


def _check_readable(group: Group, replies: list[Reply]) -> None:
    """Each answer on the way has to let other sites read it, or the browser stops there."""
    header = "Access-Control-Allow-Origin"
    for reply in replies:
        values = [value.strip() for line in reply.headers.get_list(header) for value in line.split(",")]
        if not values:
            found = f"{header} is missing" + (" in the redirect" if reply is not replies[-1] else "")
            group.fail(_READABLE, f"Send {header}: * with it: {_HOW}.", found)
            return
        if len(values) > 1:
            mend = f"Send it once; a browser takes two for none. Something else in the site adds it: {_HOW}."
            group.fail(_READABLE, mend, f"{header} is there {len(values)} times")
            return
        if values[0] not in {"*", ORIGIN}:
            mend = f"Send *, unless nobody uses another Element than this one (the desktop app does): {_HOW}."
            group.warn(_READABLE, mend, f"only pages of {values[0]} may read it")
            return
    group.ok(_READABLE, f"{header} is there once")
