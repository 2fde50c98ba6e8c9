"""The kinds of values that options have: each parses its text, and says what is wrong without quoting it."""

from __future__ import annotations

import ipaddress
import re
import ssl
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from uvs.matrix.identifiers import InvalidIdentifier, ServerName
from uvs.matrix.server_globs import ServerGlobs

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
    if "_matrix" in url.path.split("/"):
        raise ValueError("must have no /_matrix in it")
    return value.rstrip("/")


def _parse_proxy(value: object) -> object:
    """Accept `http://host:port`, with nothing behind it."""
    value = _parse_url(value)
    if isinstance(value, str) and (urlsplit(value).scheme != "http" or urlsplit(value).path):
        raise ValueError("must be http://host:port (the proxy is spoken to in plain HTTP; what goes through it is TLS)")
    return value


def _parse_secret(value: object) -> object:
    """Accept what can stand in an HTTP header. The message never quotes the value."""
    # Nothing at all is refused as well. (An empty variable is none, as compose and others pass it; `load` warns.)
    if isinstance(value, str) and not (value and value.isascii() and value.isprintable() and " " not in value):
        raise ValueError("must consist of visible ASCII characters without spaces")
    return value


def _parse_cache_url(value: object) -> object:
    """Accept `redis://[user[:password]@]host[:port][/database]`, the same with rediss (TLS), and
    `unix://[user[:password]@]/path`. The message never quotes the value, which may hold a password."""
    if not isinstance(value, str):
        return value
    try:
        url = urlsplit(value)
        host, port_is_good = url.hostname or "", url.port != 0
    except ValueError:
        raise ValueError("must be a URL with a host name and a port below 65536") from None
    if not value.isascii() or not value.isprintable() or " " in value or url.query or url.fragment:
        raise ValueError("must not contain spaces, ? or # (in a password, percent-encode what is no letter or digit)")
    if url.scheme == "unix":
        if host or not url.path.removeprefix("/"):
            raise ValueError("must have three slashes and a path behind unix: (after user and password, one)")
    elif url.scheme not in {"redis", "rediss"} or not _HOST.fullmatch(host) or not port_is_good:
        raise ValueError("must start with redis://, rediss:// (TLS) or unix://, and name a host or a path")
    elif not re.fullmatch(r"/?|/[0-9]{1,4}", url.path):
        raise ValueError("must have nothing behind the host but the number of a database")
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
    try:
        return value and ServerName.parse(value)
    except InvalidIdentifier:
        raise ValueError("must be a host name or an IP address, with a port or without, and nothing else") from None


def _parse_number(value: object) -> object:
    """Accept no truth value, which Python takes for 0 or 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - what pydantic turns into a validation error
    return value


def _parse_list(value: object) -> list[str]:
    """Accept an array of texts, or one text with commas between them (as in the environment)."""
    if isinstance(value, str):
        value = [part for part in map(str.strip, value.split(",")) if part]
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ValueError("must be a list of texts")
    return list(value)


def _parse_globs(value: object) -> object:
    if isinstance(value, ServerGlobs):
        return value
    try:
        return ServerGlobs.parse(_parse_list(value))
    except InvalidIdentifier as error:
        raise ValueError(f"has a pattern that {error}") from None


def _parse_networks(value: object) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part) for part in _parse_list(value))
    except ValueError:
        raise ValueError(
            "must be a list of networks such as 10.0.0.0/8 or fd00::/8 (no bits set after the prefix)"
        ) from None


def _parse_dns_servers(value: object) -> tuple[tuple[str, int], ...]:
    return tuple(map(_parse_dns_server, _parse_list(value)))


def _parse_dns_server(text: str) -> tuple[str, int]:
    """Accept `192.0.2.1`, `192.0.2.1:53`, `2001:db8::1` and `[2001:db8::1]:53`."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError:
        address = ""
    if not address or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise ValueError("must be a list of IP addresses, each with or without a port")
    return address, int(port)


def parse_ca_file(value: object) -> object:
    """Accept a file of certificates that OpenSSL can read."""
    if isinstance(value, str):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
        except ssl.SSLError:
            raise ValueError("the file holds no certificate in PEM form") from None
        except OSError as error:
            raise ValueError(f"the file cannot be read: {error.strerror}") from None
    return value


Url = Annotated[str, BeforeValidator(_parse_url)]
ProxyUrl = Annotated[str, BeforeValidator(_parse_proxy)]
Secret = Annotated[SecretStr, BeforeValidator(_parse_secret)]
CacheUrl = Annotated[SecretStr, BeforeValidator(_parse_cache_url)]
Address = Annotated[str, BeforeValidator(_parse_address)]
OptionalServerName = Annotated[ServerName | None, NoDecode, BeforeValidator(_parse_server_name)]
RequiredServerName = Annotated[ServerName, NoDecode, BeforeValidator(_parse_server_name)]
Globs = Annotated[ServerGlobs, NoDecode, BeforeValidator(_parse_globs)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_parse_networks)]
DnsServers = Annotated[tuple[tuple[str, int], ...], NoDecode, BeforeValidator(_parse_dns_servers)]
CaFile = Annotated[Path, BeforeValidator(parse_ca_file)]
Int = Annotated[int, BeforeValidator(_parse_number)]
Float = Annotated[float, BeforeValidator(_parse_number)]
OnlyTrue = Annotated[bool, BeforeValidator(lambda value: value in ("true", True))]
LogLevel = Literal["error", "warning", "warn", "info", "http", "verbose", "debug", "silly"]
