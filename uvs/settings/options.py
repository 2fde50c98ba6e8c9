"""Every option: its default, unit and reason. README.md shows the descriptions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from uvs.homeserver.ways_in import Access
from uvs.matrix.server_globs import NO_SERVERS
from uvs.settings.values import (
    Address,
    CacheUrl,
    CaFile,
    DnsServers,
    Float,
    Globs,
    Int,
    LogLevel,
    Networks,
    OnlyTrue,
    OptionalServerName,
    ProxyUrl,
    RequiredServerName,
    Secret,
    Url,
)

PREFIX = "UVS_"
CONFIG_FILE = "UVS_CONFIG_FILE"
SECRETS = ("access_token", "auth_token", "cache_secret", "log_pseudonym_key")
"""Options that may also stand in a file of their own, named by `UVS_…_FILE`."""


def read_secret(file: str) -> str:
    """The secret in `file`, without white space around it. Raises ValueError, which says what is wrong."""
    try:
        value = Path(file).read_text("utf-8").strip()
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("the file cannot be read: it is not text") from None
    if not value:
        raise ValueError("the file is empty. Write the secret into it, on one line")
    return value


class OwnHomeserver(BaseModel):
    """One of the operator's own homeservers. `authoritative_for`: about the rooms of which servers it is believed."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    server_name: OptionalServerName = None
    url: Url
    access: Access = Access.SYNAPSE_ADMIN
    access_token: Secret
    federation_url: Url | None = None
    authoritative_for: Globs = NO_SERVERS


class HomeserverTable(OwnHomeserver):
    """One of `[[homeservers]]` in the TOML file."""

    server_name: RequiredServerName

    @model_validator(mode="before")
    @classmethod
    def _read_access_token_file(cls, table: Any) -> Any:
        if isinstance(table, dict) and isinstance(file := table.get("access_token_file"), str):
            if "access_token" in table:
                raise ValueError("access_token_file: access_token is set as well; keep one of them")
            try:
                table = {key: value for key, value in table.items() if key != "access_token_file"}
                table["access_token"] = read_secret(file)
            except ValueError as error:
                raise ValueError(f"access_token_file: {error}") from None
        return table


def _parse_tables(value: object) -> object:
    """Accept tables, or (from the environment) JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list | tuple):
        # What pydantic turns into a validation error.
        raise ValueError("must be an array of tables, each [[homeservers]]; in the environment, JSON")  # noqa: TRY004
    if value == []:
        raise ValueError("must have one table at least")
    return value


class Settings(BaseSettings):
    """The options. Descriptions are what README.md shows."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    homeserver_url: Url | None = Field(
        None,
        description="Required, unless `UVS_HOMESERVERS` is set. The homeserver's client API, with no `/_matrix` at the "
        "end. It is trusted, and may be on a private address.",
        examples=["https://matrix.example.org"],
    )
    homeserver_access: Access = Field(
        Access.SYNAPSE_ADMIN,
        description="The way in to it: `synapse-admin`, `msc4502` or `synapse-module` "
        "([docs/homeserver-access.md](docs/homeserver-access.md)).",
        examples=[access.value for access in Access],
    )
    access_token: Secret | None = Field(
        None,
        description="Required with `UVS_HOMESERVER_URL`. The credential of that way in: the access token of a server "
        "administrator, the application service's `as_token`, or the module's secret.",
        examples=["syt_…"],
    )
    auth_token: Secret | None = Field(
        None,
        description="What callers must send as `Authorization: Bearer …`. Without it, whoever reaches the port may "
        "ask.",
        examples=["the output of: openssl rand -hex 32"],
    )
    openid_verify_server_name: OptionalServerName = Field(
        None,
        description="The homeserver's server name (what stands behind the colon in its users' ids). Then requests need "
        "not name it. Without it every request must, and the homeserver is asked which name is its own.",
        examples=["example.org"],
    )
    federation_url: Url | None = Field(
        None,
        description="Where OpenID tokens are redeemed, if the listener behind `UVS_HOMESERVER_URL` has no `openid` or "
        "`federation` resource. Not a Synapse worker, where that call fails. Not set: there, or else where other "
        "homeservers find yours.",
        examples=["https://matrix.example.org:8448"],
    )
    homeservers: Annotated[tuple[HomeserverTable, ...], NoDecode, BeforeValidator(_parse_tables)] = Field(
        (),
        description="Several homeservers of your own: `[[homeservers]]` tables in the TOML file "
        "([docs/homeservers.md](docs/homeservers.md)). The one of `UVS_HOMESERVER_URL`, or else the first, is the "
        "default: it is asked about rooms.",
        examples=["see docs/homeservers.md"],
    )
    federation: Literal["on", "off", "listed"] | None = Field(
        None,
        description="Whether people of other homeservers are verified: `on`, `off`, or `listed` in "
        "`UVS_FEDERATION_ALLOW`. Not set: `off` where `UVS_OPENID_VERIFY_SERVER_NAME` is set, else `on`.",
        examples=["off", "listed", "on"],
    )
    federation_allow: Globs = Field(
        NO_SERVERS,
        description="Server names, with `*` and `?`, separated by commas: with `listed`, the people of these only.",
        examples=["partner.example.org,*.example.com"],
    )
    federation_deny: Globs = Field(
        NO_SERVERS,
        description="Names of other people's homeservers whose people are never verified, whatever the two above say. "
        "Your own are not meant: theirs always are.",
        examples=["evil.example.com"],
    )
    federation_proxy: ProxyUrl | None = Field(
        None,
        description="An HTTP proxy for the way to other homeservers (`CONNECT` to the address that was judged). "
        "Proxies in the environment are never used.",
        examples=["http://proxy.example.org:3128"],
    )
    ca_file: CaFile | None = Field(
        None,
        description="A PEM file of certificate authorities that are trusted besides the system's, for every outgoing "
        "TLS connection. (`SSL_CERT_FILE` takes the place of the system's.)",
        examples=["/etc/uvs/ca.pem"],
    )
    allowed_networks: Networks = Field(
        (),
        description="Networks, separated by commas, in which other people's homeservers may be although they are "
        "private or otherwise special.",
        examples=["10.0.0.0/8,fd00::/8"],
    )
    disable_ip_blacklist: OnlyTrue = Field(
        False,
        description="Exactly `true`: other people's homeservers may be anywhere, in your own network too. Rather use "
        "`UVS_ALLOWED_NETWORKS`.",
        examples=["true"],
    )
    dns_servers: DnsServers = Field(
        (),
        description="Name servers for finding other people's homeservers: addresses, each with or without a port. Not "
        "set: those of the system.",
        examples=["192.0.2.53,[2001:db8::53]:5353"],
    )
    listen_address: Address = Field(
        "127.0.0.1",
        description="Address to listen on; in the container image `0.0.0.0`.",
        examples=["127.0.0.1", "0.0.0.0", "::"],  # noqa: S104
    )
    port: Int = Field(3000, ge=1, le=65535, description="Port to listen on.", examples=[3000])
    internal_port: Int | None = Field(
        None,
        ge=1,
        le=65535,
        description="A second port for your own systems: `/verify/…`, `/metrics` and `/ready` are then there, and "
        "no longer on `UVS_PORT`.",
        examples=[3001],
    )
    internal_address: Address | None = Field(
        None,
        description="Address of the internal port. Not set: `UVS_LISTEN_ADDRESS`.",
        examples=["127.0.0.1", "0.0.0.0", "::"],  # noqa: S104
    )
    workers: Int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that share the work, one for each core "
        "([docs/operating.md](docs/operating.md#several-cores)). More than one need `UVS_CACHE_URL`.",
        examples=[1, 4],
    )
    trusted_proxies: Networks = Field(
        (),
        description="Reverse proxies, addresses or networks separated by commas, whose `X-Forwarded-For` is believed.",
        examples=["127.0.0.1,10.0.0.0/8"],
    )
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
        600,
        ge=0,
        description="Requests a minute from one client address (IPv6: from one /64 network) without the right "
        "`UVS_AUTH_TOKEN`; further ones get 429. 0: no limit.",
        examples=[0, 600],
    )
    cache_token_ttl: Float = Field(
        300.0,
        ge=0,
        le=3600,
        description="Seconds for which it is kept whose an OpenID token is "
        "([docs/caching.md](docs/caching.md)). 0: not at all.",
        examples=[300],
    )
    cache_membership_ttl: Float = Field(
        5.0,
        ge=0,
        le=3600,
        description="Seconds for which it is kept that somebody is in a room and their account in use: so long, who "
        "was removed may still come in. 0: not at all.",
        examples=[5],
    )
    cache_power_levels_ttl: Float = Field(
        5.0,
        ge=0,
        le=3600,
        description="Seconds for which the power levels and creators of a room are kept. 0: not at all.",
        examples=[5],
    )
    cache_url: CacheUrl | None = Field(
        None,
        description="Redis or Valkey, which several replicas share for that: `redis://`, `rediss://` (TLS) or "
        "`unix://`. Not set: each keeps its own, in memory.",
        examples=["rediss://user:password@redis.example.org:6379/0", "unix:///run/redis/redis.sock"],
    )
    cache_secret: Secret | None = Field(
        None,
        description="Required with `UVS_CACHE_URL`, and the same for all replicas: what stands there without it counts "
        "for nothing.",
        examples=["the output of: openssl rand -hex 32"],
    )
    log_level: LogLevel = Field("info", description="How much is logged.", examples=["info", "debug"])
    log_format: Literal["console", "json"] = Field(
        "console", description="Lines for people, or one JSON object a line.", examples=["console", "json"]
    )
    log_identifiers: OnlyTrue = Field(
        False,
        description="Exactly `true`: user and room ids stand in the log. Otherwise pseudonyms do.",
        examples=["true"],
    )
    log_pseudonym_key: Secret | None = Field(
        None,
        description="Key of the pseudonyms. Without it they change with each start.",
        examples=["the output of: openssl rand -hex 32"],
    )

    @property
    def own_homeservers(self) -> tuple[OwnHomeserver, ...]:
        """The operator's homeservers; the first is the default."""
        if self.homeserver_url is None or self.access_token is None:
            return self.homeservers
        short = OwnHomeserver.model_construct(  # each of these is parsed already
            server_name=self.openid_verify_server_name,
            url=self.homeserver_url,
            access=self.homeserver_access,
            access_token=self.access_token,
            federation_url=self.federation_url,
        )
        return short, *self.homeservers

    @property
    def federation_mode(self) -> Literal["on", "off", "listed"]:
        """`federation`, or what holds where nothing was chosen. COMPAT: the existing service verifies people of any
        homeserver unless it is told the name of one."""
        return self.federation or ("off" if self.openid_verify_server_name else "on")

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
