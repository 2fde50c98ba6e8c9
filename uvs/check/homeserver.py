"""One of the operator's own homeservers: reachable, new enough, on time, and does our credential do what is needed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from uvs.check.reach import reach
from uvs.check.rows import Group
from uvs.errors import CannotTell, Refusal
from uvs.homeserver import Inspectable
from uvs.homeserver.ways_in import WAYS_IN, Access
from uvs.net.calls import Call
from uvs.net.dates import read_date
from uvs.net.http import HttpClient
from uvs.settings import OwnHomeserver

APART_SECONDS = 30
FAR_APART_SECONDS = 300

CREDENTIAL, VERIFIED = "what the credential may do", "an OpenID token is verified"

_LIMIT = 64 * 1024
_NUMBERS = re.compile(r"(\d{1,4})\.(\d{1,6})(?!\d)\S*", re.ASCII)


class _Versions(msgspec.Struct):
    versions: list[str]


class _AdminVersion(msgspec.Struct):
    server_version: str


class _Server(msgspec.Struct):
    name: str
    version: str


class _FederationVersion(msgspec.Struct):
    server: _Server


async def check_homeserver(  # noqa: PLR0913 - one homeserver, and what of the world it is held against
    group: Group,
    own: OwnHomeserver,
    homeserver: Inspectable,
    client: HttpClient,
    *,
    ca_file: Path | None,
    token_given: bool,
    now: Callable[[], float] = time.time,
) -> bool:
    """Add the rows. `token_given`: a person's token will be verified, so that none has to be made. Says whether it can
    be asked about people; that it is old, or its clock wrong, does not keep it from that."""
    rest = ("version", "clock", CREDENTIAL, VERIFIED)
    if not await reach(group, own.url, ca_file, now=now):
        group.skip("the homeserver cannot be reached", *rest)
        return False
    if own.federation_url and WAYS_IN[own.access].client_api:
        await reach(group, own.federation_url, ca_file, now=now, where="federation ")
    if not await _ask_versions(group, own, client, now):
        group.skip("version comes first", CREDENTIAL, VERIFIED)
        return False
    group.begin(CREDENTIAL)
    findings = await homeserver.check()
    for finding in findings:
        if finding.good:
            group.ok(finding.name)
        else:
            group.fail(finding.name, finding.mend)
    if not all(finding.good for finding in findings):
        group.skip("what the credential may do comes first", VERIFIED)
        return False
    if token_given:
        group.skip("the given token is verified below", VERIFIED)
    else:
        await _verify_own_token(group, homeserver)
    return True


# --- version and clock ------------------------------------------------------------------------------------------------


async def _ask_versions(group: Group, own: OwnHomeserver, client: HttpClient, now: Callable[[], float]) -> bool:
    """Add the rows version and clock. Says whether there is a homeserver to go on with. No credential is sent yet."""
    group.begin("version")
    what = "Asking which versions of Matrix it speaks"
    try:
        answer = await client.get(
            own.url + "/_matrix/client/versions", call=Call.VERSIONS, what=what, limit=_LIMIT, expect=_Versions
        )
        answered = now()
        # 4xx: the listener of the module needs no client API, nor does a proxy have to let this through.
        if answer.status not in range(400, 500) and answer.body is None:
            raise answer.unexpected("See what is at that URL; it should be the homeserver's client API")
    except CannotTell as error:
        group.cannot_tell("version", error)
        group.skip("version comes first", "clock")
        return False
    _compare_version(group, own.access, await _synapse_version(own, client))
    _compare_clock(group, answer.headers.get("date"), answered)
    return True


async def _synapse_version(own: OwnHomeserver, client: HttpClient) -> _Server | None:
    what = "Asking for the homeserver's version"
    try:
        admin = await client.get(
            own.url + "/_synapse/admin/v1/server_version",
            call=Call.VERSIONS,
            what=what,
            limit=_LIMIT,
            expect=_AdminVersion,
        )
        if admin.body is not None:
            return _Server("Synapse", admin.body.server_version)
        federation = await client.get(
            (own.federation_url or own.url) + "/_matrix/federation/v1/version",
            call=Call.VERSIONS,
            what=what,
            limit=_LIMIT,
            expect=_FederationVersion,
        )
    except CannotTell:
        return None
    return federation.body.server if federation.body is not None else None


def _compare_version(group: Group, access: Access, server: _Server | None) -> None:
    oldest = WAYS_IN[access].oldest_synapse
    needed = f"uvs needs Synapse {oldest[0]}.{oldest[1]} or newer for {access}"
    numbers = _NUMBERS.match(server.version) if server else None
    if server is None and not WAYS_IN[access].client_api:
        group.skip("a listener with nothing but the module does not tell it", "version")
        return
    if server is None or numbers is None:
        group.warn("version", f"{needed}: see in its log, at the start, whether it is.", "not told")
        return
    found = f"{server.name} {numbers[0]}"
    if server.name != "Synapse":
        group.fail("version", f"{needed}; with another homeserver it cannot work.", found)
    elif (int(numbers[1]), int(numbers[2])) < oldest:
        group.fail("version", f"{needed}: upgrade it.", found)
    else:
        group.ok("version", found)


def _compare_clock(group: Group, date: str | None, now: float) -> None:
    try:
        apart = now - read_date(date or "")
    except ValueError:
        group.warn("clock", "See whether both machines set their clocks by NTP.", "the homeserver's answer has no date")
        return
    seconds = round(abs(apart))
    mend = "Let both machines set their clocks by NTP"
    if seconds < APART_SECONDS:
        group.ok("clock", "agrees with the homeserver's")
        return
    found = f"{seconds} s {'ahead of' if apart > 0 else 'behind'} the homeserver's"
    if seconds < FAR_APART_SECONDS:
        group.warn("clock", f"{mend}.", found)
    else:
        group.fail("clock", f"{mend}: certificates and tokens are judged by them.", found)


# --- a token ----------------------------------------------------------------------------------------------------------


async def _verify_own_token(group: Group, homeserver: Inspectable) -> None:
    group.begin(VERIFIED)
    give = "give one of somebody's with --openid-token-file (docs/check.md says how to get it)"
    try:
        token = await homeserver.own_token()
    except CannotTell as error:
        group.warn(VERIFIED, f"{error} Or {give}.", "none could be had")
        return
    if token is None:
        group.warn(VERIFIED, f"This way in has no account to make one for: {give}.", "none could be had")
        return
    try:
        user = await homeserver.redeem(token)
    except CannotTell as error:
        group.cannot_tell(VERIFIED, error)
        return
    if isinstance(user, Refusal):
        mend = "Look into the homeserver's log, and see whether UVS_FEDERATION_URL leads to the same homeserver."
        group.fail(VERIFIED, mend, f"a token that the homeserver has just made is refused ({user})")
    else:
        group.ok(VERIFIED, f"it is that of {user}")
