"""Every option: its default, unit and reason. All mistakes are reported at once, and none of them quotes a secret.

Sources, the first that has a value wins: the environment (`UVS_…`, or for secrets a file named by `UVS_…_FILE`), then
the TOML file named by `UVS_CONFIG_FILE` (its keys are the names without `UVS_`, in lower case).
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from uvs.errors import UvsError
from uvs.matrix.identifiers import ServerName

PREFIX = "UVS_"
CONFIG_FILE = "UVS_CONFIG_FILE"

_IGNORED = frozenset({"UVS_OPENID_VERIFY_ANY_HOMESERVER"})
"""COMPAT: stands in the existing service's example file, although nothing ever read it."""

_TYPO_RATIO = 0.85
"""How alike an unknown name and an option must be to count as a typo, which stops the start: UVS_AUTH_TOKN would
leave the service open. Other unknown names are only warned of, since Kubernetes adds some for a Service named uvs."""

_HOST = re.compile(r"[A-Za-z0-9:._%-]{1,253}")


def _parse_url(value: object) -> object:
    """Accept `http(s)://host[:port][/prefix]`; the slash at the end goes."""
    if not isinstance(value, str):
        return value
    try:
        url = urlsplit(value)
        port_is_good = url.port != 0
    except ValueError:
        raise ValueError("must be a URL with a host name and a port below 65536") from None
    if url.username is not None or url.password is not None:
        raise ValueError("must not contain a user name or password")
    if not value.isascii() or not value.isprintable() or set(value) & set(" \\%?#"):
        raise ValueError("must not contain spaces, \\ % ? #, or a host name that is not in ASCII (use its xn-- form)")
    if url.scheme not in {"http", "https"} or not _HOST.fullmatch(url.hostname or "") or not port_is_good:
        raise ValueError("must start with http:// or https:// and name a host")
    return value.rstrip("/")


def _parse_secret(value: object) -> object:
    """Accept what can stand in an HTTP header. The message never quotes the value."""
    # Nothing at all is refused as well. (An empty variable is none, as compose and others pass it; `load` warns.)
    if isinstance(value, str) and not (value and value.isascii() and value.isprintable() and " " not in value):
        raise ValueError("must consist of visible ASCII characters without spaces")
    return value


def _parse_address(value: object) -> object:
    """Accept an IP address or a host name."""
    if isinstance(value, str) and not _HOST.fullmatch(value):
        raise ValueError("must be an IP address or a host name")
    return value


def _parse_server_name(value: object) -> object:
    """Accept a server name, and nothing from which pydantic would make one without parsing it."""
    if not isinstance(value, str | None):
        raise ValueError("must be text")  # noqa: TRY004 - what pydantic turns into a validation error
    return value and ServerName.parse(value)


def _parse_number(value: object) -> object:
    """Accept no truth value, which Python takes for 0 or 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - what pydantic turns into a validation error
    return value


Url = Annotated[str, BeforeValidator(_parse_url)]
Secret = Annotated[SecretStr, BeforeValidator(_parse_secret)]
Address = Annotated[str, BeforeValidator(_parse_address)]
Int = Annotated[int, BeforeValidator(_parse_number)]
Float = Annotated[float, BeforeValidator(_parse_number)]
LogLevel = Literal["error", "warning", "warn", "info", "http", "verbose", "debug", "silly"]


class Settings(BaseSettings):
    """The options. Descriptions are what README.md shows."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    homeserver_url: Url = Field(
        description="The homeserver's client API, with no `/_matrix` at the end. It is trusted, and may be on "
        "a private address.",
        examples=["https://matrix.example.org"],
    )
    access_token: Secret = Field(
        description="Access token of a server administrator of that Synapse.", examples=["syt_…"]
    )
    auth_token: Secret | None = Field(
        None,
        description="What callers must send as `Authorization: Bearer …`. Without it, whoever reaches the port may "
        "ask.",
        examples=["the output of: openssl rand -hex 32"],
    )
    openid_verify_server_name: Annotated[ServerName | None, NoDecode, BeforeValidator(_parse_server_name)] = Field(
        None,
        description="The homeserver's server name (what stands behind the colon in its users' ids). Then requests need "
        "not name it. Without it every request must, and the homeserver is asked which name is its own.",
        examples=["example.org"],
    )
    federation_url: Url | None = Field(
        None,
        description="Where OpenID tokens are redeemed, if the listener behind `UVS_HOMESERVER_URL` has no `openid` or "
        "`federation` resource.",
        examples=["https://matrix.example.org:8448"],
    )
    listen_address: Address = Field(
        "127.0.0.1",
        description="Address to listen on; in the container image `0.0.0.0`.",
        examples=["127.0.0.1", "0.0.0.0", "::"],  # noqa: S104
    )
    port: Int = Field(3000, ge=1, le=65535, description="Port to listen on.", examples=[3000])
    request_timeout: Float = Field(
        10.0,
        gt=0,
        le=60,
        description="Seconds that one request may take in all, upstream calls included.",
        examples=[10],
    )
    max_concurrent_requests: Int = Field(
        1000, ge=1, description="Verifications under way at once; further ones get 503 at once.", examples=[1000]
    )
    rate_limit: Int = Field(
        0,
        ge=0,
        description="Requests a minute from one client address; further ones get 429. 0: no limit, as is right where "
        "Prosody is the only caller.",
        examples=[0, 600],
    )
    log_level: LogLevel = Field("info", description="How much is logged.", examples=["info", "debug"])
    log_format: Literal["console", "json"] = Field(
        "console", description="Lines for people, or one JSON object a line.", examples=["console", "json"]
    )
    disable_ip_blacklist: Annotated[bool, BeforeValidator(lambda value: value in ("true", True))] = Field(
        False,
        description="Only exactly `true` counts. Accepted for compatibility, of no effect: no server but the "
        "configured one is contacted.",
        examples=["true"],
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings  # one way for each thing
        toml = TomlConfigSettingsSource(settings_cls, toml_file=os.environ.get(CONFIG_FILE) or None)
        return init_settings, env_settings, toml


SECRETS = ("access_token", "auth_token")


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


def load() -> Loaded:
    """Read the settings of this process. Raises Mistakes."""
    mistakes: list[str] = []
    secrets = _read_secret_files(os.environ, mistakes)
    readable = _toml_is_readable(os.environ.get(CONFIG_FILE), mistakes)
    warnings = _unknown_names(os.environ, mistakes)
    settings = None
    if readable:
        try:
            settings = Settings(**secrets)
        except ValidationError as error:
            already_named = " ".join(mistakes)
            mistakes += [
                line
                for name, line in map(_describe, error.errors(include_url=False, include_input=False))
                if f"{name}_FILE" not in already_named
            ]
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
            value = Path(file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            mistakes.append(f"{name}_FILE: the file cannot be read: {reason}. Example: /run/secrets/{field}")
            continue
        if value:
            values[field] = value
        else:
            mistakes.append(f"{name}_FILE: the file is empty. Write the secret into it, on one line.")
    return values


def _toml_is_readable(file: str | None, mistakes: list[str]) -> bool:
    if not file:
        return True
    try:
        with Path(file).open("rb") as opened:
            tomllib.load(opened)
    except OSError as error:
        mistakes.append(f"{CONFIG_FILE}: the file cannot be read: {error.strerror}. Example: /etc/uvs/uvs.toml")
    except (ValueError, RecursionError) as error:
        # Only the place: the rest of the text may quote the file.
        where = " (" + str(error).rpartition("(")[2] if isinstance(error, tomllib.TOMLDecodeError) else ""
        mistakes.append(f'{CONFIG_FILE}: the file is not TOML{where}. Example: homeserver_url = "https://…"')
    else:
        return True
    return False


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


def _describe(error: Mapping[str, Any]) -> tuple[str, str]:
    """Name, and the line: name, reason, example."""
    field = str(error["loc"][0])
    name = PREFIX + field.upper()
    if field not in Settings.model_fields:
        close = difflib.get_close_matches(field.lower().removeprefix(PREFIX.lower()), Settings.model_fields, n=1)
        meant = f", probably {close[0]} is meant" if close else ""
        return name, f"{field} (in {CONFIG_FILE}): there is no such option{meant}."
    reason = "is required" if error["type"] == "missing" else str(error["msg"]).removeprefix("Value error, ")
    if name == "UVS_PORT" and os.environ.get(name, "").startswith("tcp://"):
        reason = "was set by Kubernetes for a Service named uvs; set enableServiceLinks: false, or the port itself"
    examples = Settings.model_fields[field].examples or []
    return name, f"{name}: {reason[0].lower()}{reason[1:]}. Example: {' or '.join(map(str, examples))}"


def _advice(settings: Settings) -> list[str]:
    lines = []
    if settings.auth_token is None and {"UVS_AUTH_TOKEN", "UVS_AUTH_TOKEN_FILE"} & os.environ.keys():
        lines.append(
            "UVS_AUTH_TOKEN is empty, which is the same as none: whoever reaches the port can try OpenID tokens."
        )
    elif settings.auth_token is None and not _is_loopback(settings.listen_address):
        lines.append("UVS_AUTH_TOKEN is not set: whoever reaches the port can try OpenID tokens.")
    for name, url in (("UVS_HOMESERVER_URL", settings.homeserver_url), ("UVS_FEDERATION_URL", settings.federation_url)):
        if url and urlsplit(url).scheme == "http" and not _is_loopback(urlsplit(url).hostname or ""):
            lines.append(f"{name} is plain http: whoever can listen between here and there can take the tokens.")
    if settings.disable_ip_blacklist:
        lines.append("UVS_DISABLE_IP_BLACKLIST has no effect: no server but the configured one is contacted.")
    return lines


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
