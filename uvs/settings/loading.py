"""Reading the options. All mistakes are reported at once, and none of them quotes a secret.

Sources, the first that has a value wins: the environment (`UVS_…`, or for secrets a file named by `UVS_…_FILE`), then
the TOML file named by `UVS_CONFIG_FILE` (its keys are the names without `UVS_`, in lower case).
"""

from __future__ import annotations

import difflib
import importlib.util
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from uvs.errors import UvsError
from uvs.settings.options import CONFIG_FILE, PREFIX, SECRETS, Settings, read_secret
from uvs.settings.values import parse_ca_file

_IGNORED = frozenset({"UVS_OPENID_VERIFY_ANY_HOMESERVER"})
"""COMPAT: stands in the existing service's example file, although nothing ever read it."""

_TYPO_RATIO = 0.85
"""How alike an unknown name and an option must be to count as a typo, which stops the start: UVS_AUTH_TOKN would
leave the service open. Other unknown names are only warned of, since Kubernetes adds some for a Service named uvs."""

LONG_MEMBERSHIP = 60.0
"""Seconds; who keeps memberships for longer is told what that means."""


class Mistakes(UvsError):
    """Everything that is wrong with the settings, a line each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and what the operator should know about them although it is no mistake."""

    settings: Settings
    warnings: list[str]


def load(*, workers: int | None = None) -> Loaded:
    """Read the settings of this process; `workers`, where it is given, wins. Raises Mistakes."""
    mistakes: list[str] = []
    given = _read_secret_files(os.environ, mistakes)
    if workers is not None:
        given["workers"] = workers
    table = _read_toml(os.environ.get(CONFIG_FILE), mistakes)
    warnings = _unknown_names(os.environ, mistakes)
    _look_at_ssl_cert_file(os.environ, mistakes)
    settings = None
    if table is not None:
        _require(os.environ, table, mistakes)
        try:
            settings = Settings(**given)
        except ValidationError as error:
            already_named = " ".join(mistakes)
            mistakes += [
                line
                for name, line in map(_describe, error.errors(include_url=False, include_input=False))
                if f"{name}_FILE" not in already_named
            ]
        else:
            mistakes += _contradictions(settings)
    if settings is None or mistakes:
        raise Mistakes(sorted(mistakes))
    return Loaded(settings, warnings + _advice(settings))


def _read_secret_files(environ: Mapping[str, str], mistakes: list[str]) -> dict[str, Any]:
    values = {}
    for field in SECRETS:
        name = PREFIX + field.upper()
        file = environ.get(f"{name}_FILE")
        if not file:
            continue
        if environ.get(name):
            mistakes.append(f"{name}_FILE: {name} is set as well; keep one of them.")
            continue
        try:
            values[field] = read_secret(file)
        except ValueError as error:
            example = "" if "empty" in str(error) else f" Example: /run/secrets/{field}"
            mistakes.append(f"{name}_FILE: {error}.{example}")
    return values


def _read_toml(file: str | None, mistakes: list[str]) -> Mapping[str, Any] | None:
    """The table in the file, empty where none is named; `None` where it cannot be read."""
    if not file:
        return {}
    try:
        with Path(file).open("rb") as opened:
            return tomllib.load(opened)
    except OSError as error:
        mistakes.append(f"{CONFIG_FILE}: the file cannot be read: {error.strerror}. Example: /etc/uvs/uvs.toml")
    except (ValueError, RecursionError) as error:
        # Only the place: the rest of the text may quote the file.
        where = " (" + str(error).rpartition("(")[2] if isinstance(error, tomllib.TOMLDecodeError) else ""
        mistakes.append(f'{CONFIG_FILE}: the file is not TOML{where}. Example: homeserver_url = "https://…"')
    return None


def _look_at_ssl_cert_file(environ: Mapping[str, str], mistakes: list[str]) -> None:
    """OpenSSL says nothing where it cannot read the file, and then trusts nobody."""
    if file := environ.get("SSL_CERT_FILE"):
        try:
            parse_ca_file(file)
        except ValueError as error:
            mistakes.append(f"SSL_CERT_FILE: {error}. Example: /etc/ssl/certs/ca-certificates.crt")


def _unknown_names(environ: Mapping[str, str], mistakes: list[str]) -> list[str]:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    known |= {f"{PREFIX}{field.upper()}_FILE" for field in SECRETS} | {CONFIG_FILE}
    warnings = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known | _IGNORED:
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=_TYPO_RATIO)
        if close:
            mistakes.append(f"{name}: there is no such option, probably {close[0]} is meant.")
        else:
            warnings.append(f"{name} is set, but there is no such option.")
    return warnings


def _require(environ: Mapping[str, str], table: Mapping[str, Any], mistakes: list[str]) -> None:
    """One homeserver there must be, and what belongs to it. Looked for before anything is parsed, so that it is
    reported together with the rest."""

    def given(field: str) -> str | None:
        """How it is called where it is given."""
        name = PREFIX + field.upper()
        if field in SECRETS and environ.get(f"{name}_FILE"):
            return f"{name}_FILE"
        return name if environ.get(name) or field in table else None

    if given("homeservers") and not given("homeserver_url"):
        mistakes += [
            f"{name}: belongs to UVS_HOMESERVER_URL, which is not set; write it into the table of its homeserver, or "
            "set that."
            for name in map(given, ("access_token", "federation_url", "homeserver_access"))
            if name
        ]
        return
    for field in ("homeserver_url", "access_token"):
        if not given(field):
            mistakes.append(f"{PREFIX}{field.upper()}: is required. Example: {_examples(field)}")


def _examples(field: str) -> str:
    return " or ".join(map(str, Settings.model_fields[field].examples or []))


def _describe(error: Mapping[str, Any]) -> tuple[str, str]:
    """Name, and the line: name, reason, example."""
    # A name in a table may be anything; a line is a line.
    field, *inner = (part if part.isprintable() else ascii(part) for part in map(str, error["loc"]))
    name = PREFIX + field.upper()
    if field not in Settings.model_fields:
        close = difflib.get_close_matches(field.lower().removeprefix(PREFIX.lower()), Settings.model_fields, n=1)
        meant = f", probably {close[0]} is meant" if close else ""
        return name, f"{field} (in {CONFIG_FILE}): there is no such option{meant}."
    reason = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        reason = "is required"
    elif error["type"] == "extra_forbidden":
        reason = "there is no such option"
        if inner[-1] in Settings.model_fields:  # TOML counts whatever stands below a table into it
            reason = f"is no option of a homeserver; write it above the first [[{field}]]"
    if name == "UVS_PORT" and os.environ.get(name, "").startswith("tcp://"):
        reason = "was set by Kubernetes for a Service named uvs; set enableServiceLinks: false, or the port itself"
    if inner:
        place = f"{name}[{inner[0]}]" + "".join(f".{part}" for part in inner[1:])
        return name, f"{place}: {reason[0].lower()}{reason[1:]}. (The first table is 0; see docs/homeservers.md.)"
    return name, f"{name}: {reason[0].lower()}{reason[1:]}. Example: {_examples(field)}"


def _contradictions(settings: Settings) -> list[str]:
    """Options that are right each for itself, and not together."""
    lines = []
    names = [own.server_name for own in settings.own_homeservers if own.server_name is not None]
    if len(set(names)) < len(names):
        lines.append(
            "UVS_HOMESERVERS: the same server_name stands there twice (or is the default's); keep one of them."
        )
    if names and settings.homeserver_url is None and settings.openid_verify_server_name not in {None, names[0]}:
        lines.append(
            "UVS_OPENID_VERIFY_SERVER_NAME: must be the server_name of the first homeserver, or not be set. "
            f"Example: {names[0]}"
        )
    if settings.federation == "listed" and not settings.federation_allow:
        lines.append(f"UVS_FEDERATION_ALLOW: is required with listed. Example: {_examples('federation_allow')}")
    if settings.federation_allow and settings.federation_mode != "listed":
        lines.append("UVS_FEDERATION: must be listed, since UVS_FEDERATION_ALLOW is set. Example: listed")
    if settings.cache_url is not None and settings.cache_secret is None:
        lines.append(f"UVS_CACHE_SECRET: is required with UVS_CACHE_URL. Example: {_examples('cache_secret')}")
    if settings.cache_url is not None and importlib.util.find_spec("redis") is None:
        lines.append("UVS_CACHE_URL: needs the package redis, which is not installed. Install it with: uvs[redis]")
    if settings.workers > 1 and settings.cache_url is None:
        lines.append(
            "UVS_CACHE_URL: is required with more than one worker (UVS_WORKERS, --workers), since they have to agree. "
            "Example: redis://127.0.0.1:6379"
        )
    if settings.internal_port == settings.port:
        lines.append("UVS_INTERNAL_PORT: must be another port than UVS_PORT. Example: 3001")
    if settings.internal_address is not None and settings.internal_port is None:
        lines.append("UVS_INTERNAL_PORT: is required with UVS_INTERNAL_ADDRESS. Example: 3001")
    return lines


def _advice(settings: Settings) -> list[str]:
    lines = []
    if settings.auth_token is None and {"UVS_AUTH_TOKEN", "UVS_AUTH_TOKEN_FILE"} & os.environ.keys():
        lines.append(
            "UVS_AUTH_TOKEN is empty, which is the same as none: whoever reaches the port can try OpenID tokens."
        )
    elif settings.auth_token is None and not _is_loopback(settings.internal_address or settings.listen_address):
        lines.append("UVS_AUTH_TOKEN is not set: whoever reaches the port can try OpenID tokens.")
    urls = [("UVS_FEDERATION_URL", settings.federation_url)] + [
        ("UVS_HOMESERVER_URL" if own.url == settings.homeserver_url else f"url of {own.server_name}", own.url)
        for own in settings.own_homeservers
    ]
    for name, url in urls:
        if url and urlsplit(url).scheme == "http" and not _is_loopback(urlsplit(url).hostname or ""):
            lines.append(f"{name} is plain http: whoever can listen between here and there can take the tokens.")
    lines += _advice_on_cache(settings)
    if settings.federation is None and settings.federation_mode == "on":
        lines.append(
            "UVS_FEDERATION is not set, so people of every homeserver are verified. Choose: off (only your own), "
            "listed (and those of UVS_FEDERATION_ALLOW), or on."
        )
    if any(network.prefixlen == 0 for network in settings.trusted_proxies):
        lines.append(
            "UVS_TRUSTED_PROXIES holds every address: whoever sends X-Forwarded-For chooses what address they have."
        )
    if any(network.prefixlen == 0 for network in settings.allowed_networks):
        lines.append(
            "UVS_ALLOWED_NETWORKS holds every address: whoever names a homeserver can have this service connect to any "
            "address of your network."
        )
    lines += [
        f"{PREFIX}{field.upper()} has quotation marks around it, which count as part of it (docker's --env-file keeps "
        "them)."
        for field in SECRETS
        if (secret := getattr(settings, field)) and _is_quoted(secret.get_secret_value())
    ]
    lines += [
        f"{name} is neither true nor false, which is the same as false: only exactly true counts."
        for name in ("UVS_DISABLE_IP_BLACKLIST", "UVS_LOG_IDENTIFIERS")
        if os.environ.get(name, "") not in {"", "true", "false"}
    ]
    if settings.disable_ip_blacklist:
        lines.append(
            "UVS_DISABLE_IP_BLACKLIST is true: whoever names a homeserver can have this service connect to any address "
            "of your network. UVS_ALLOWED_NETWORKS opens only what is needed."
        )
    return lines


def _advice_on_cache(settings: Settings) -> list[str]:
    lines = []
    if settings.cache_membership_ttl > LONG_MEMBERSHIP:
        lines.append(
            f"UVS_CACHE_MEMBERSHIP_TTL is {settings.cache_membership_ttl:g}: whoever is removed from a room, or whose "
            f"account is locked, may still come in for {settings.cache_membership_ttl:g} seconds."
        )
    cache_url = urlsplit(settings.cache_url.get_secret_value()) if settings.cache_url else None
    if cache_url and cache_url.scheme == "redis" and not _is_loopback(cache_url.hostname or ""):
        lines.append(
            "UVS_CACHE_URL is without TLS: whoever can listen between here and there learns who verifies (write "
            "rediss://)."
        )
    return lines


def _is_quoted(secret: str) -> bool:
    return len(secret) > 1 and secret[0] == secret[-1] and secret[0] in "\"'"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
