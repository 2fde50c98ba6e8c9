"""What operators write into the settings, and what strangers make appear in their logs."""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import tomllib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from tests.fuzz.target import Messages, joined, parts, target, text
from uvs.homeserver.ways_in import Access
from uvs.matrix.identifiers import InvalidIdentifier, RoomAlias, RoomID, ServerName, UserID
from uvs.ops.logs import ConsoleFormatter, JsonFormatter, Pseudonyms
from uvs.settings import PREFIX, Mistakes, Settings, load
from uvs.settings import values as kinds

OPERATORS = "the operator's"

_reasons = Messages(60)

VALUES: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(getattr(kinds, name))
    for name in (
        *("Url", "ProxyUrl", "Secret", "Address", "OptionalServerName", "RequiredServerName", "Globs", "Networks"),
        *("DnsServers", "Int", "Float", "OnlyTrue", "LogLevel"),
    )
} | {"Access": TypeAdapter(Access)}


@target(
    "settings-values",
    parser="uvs.settings.values",
    whose=OPERATORS,
    seeds=[
        joined("Url", "https://matrix.example.org:8448/prefix/"),
        joined("Url", "http://[2001:db8::1]:80"),
        joined("ProxyUrl", "http://proxy.example.org:3128"),
        joined("Secret", "syt_abc"),
        joined("Address", "0.0.0.0"),
        joined("OptionalServerName", "example.org"),
        joined("RequiredServerName", "[::1]:8448"),
        joined("Globs", "*.example.com, partner.example.org"),
        joined("Networks", "10.0.0.0/8,fd00::/8"),
        joined("DnsServers", "192.0.2.53,[2001:db8::53]:5353,2001:db8::1"),
        *(joined("Int", "3000"), joined("Float", "1e1"), joined("OnlyTrue", "true"), joined("LogLevel", "silly")),
        joined("Access", "msc4502"),
    ],
    words=(*VALUES, ",", "/", "://", "@", "]", "[", ":", "%25", "http", "https", "?", "#", "/32", "/0", "::ffff:"),
)
def settings_values(data: bytes) -> str:
    """Each kind of value is read, or refused in words that do not quote it; a URL that is read names a host, and
    neither a user nor a query."""
    kind, raw = map(text, parts(data, 2))
    if kind not in VALUES:
        kind = list(VALUES)[sum(data[:1]) % len(VALUES)]
    try:
        value = VALUES[kind].validate_python(raw)
    except ValidationError as error:
        told = [str(each["msg"]) for each in error.errors(include_input=False, include_url=False)]
        return _reasons.see(f"{kind} {' '.join(told)}")
    if kind in {"Url", "ProxyUrl"}:
        assert isinstance(value, str)
        url = urlsplit(value)
        assert url.scheme in {"http", "https"}
        assert url.hostname
        assert (url.username, url.password, url.query, url.fragment) == (None, None, "", "")
        assert url.port != 0
        assert not value.endswith("/")
        assert VALUES[kind].validate_python(value) == value
    return f"{kind} read"


TOML = """\
homeserver_url = "https://matrix.example.org"
access_token = "syt_TOKEN"
openid_verify_server_name = "example.org"
federation = "listed"
federation_allow = ["*.example.com"]
allowed_networks = ["10.0.0.0/8"]
dns_servers = "192.0.2.53"
port = 3000
internal_port = 3001
request_timeout = 9.5
log_identifiers = true

[[homeservers]]
server_name = "other.example"
url = "https://other.example"
access_token = "syt_TOKEN"
access = "synapse-module"
authoritative_for = ["other.example"]
"""
TABLES = '[{"server_name": "a.example", "url": "https://a.example", "access_token": "syt_TOKEN"}]'


@cache
def _config_file() -> Path:
    directory = TemporaryDirectory(prefix="uvs-fuzz-")
    atexit.register(directory.cleanup)
    return Path(directory.name) / "uvs.toml"


def _load(**environment: str) -> str:
    before = {name: value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}
    for name in before:
        del os.environ[name]
    try:
        os.environ |= environment
        loaded = load()
    except Mistakes as error:
        return _mistake(error)
    finally:
        for name in environment:
            os.environ.pop(name, None)
        os.environ |= before
    assert loaded.settings.own_homeservers
    assert "syt_TOKEN" not in repr(loaded)
    return f"read {len(loaded.warnings)}"


def _mistake(error: Mistakes) -> str:
    assert "syt_TOKEN" not in str(error), "a secret is told"
    assert all(line.isprintable() for line in error.lines)
    return re.sub(r"[^a-zA-Z_: ].*", "", min(error.lines))[:60]


@target(
    "settings-file",
    parser="uvs.settings.load, UVS_CONFIG_FILE",
    whose=OPERATORS,
    seeds=[TOML, TOML.partition("[[")[0], "[[homeservers]]" + TOML.partition("[[homeservers]]")[2]],
    words=(*Settings.model_fields, "[", "[[", "]", "]]", " = ", '"', "'''", "\n", "#", "{", "1979-05-27", "inf", "0x1"),
    cost=40,
)
def settings_file(data: bytes) -> str:
    """Settings, or mistakes a line each, of which none has a secret."""
    try:
        if any("TOKEN" in key for key in _keys(tomllib.loads(data.decode()))):
            return "a secret in the place of a name, which is told"
    except (ValueError, RecursionError):
        pass
    file = _config_file()
    file.write_bytes(data)
    return _load(UVS_CONFIG_FILE=str(file))


def _keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [str(key) for key in value] + [key for inner in value.values() for key in _keys(inner)]
    return [key for inner in value for key in _keys(inner)] if isinstance(value, list) else []


@target(
    "settings-environment",
    parser="uvs.settings.load, the environment",
    whose=OPERATORS,
    seeds=[
        joined("HOMESERVERS", TABLES, "FEDERATION", "off"),
        joined("HOMESERVER_URL", "https://x", "ACCESS_TOKEN", "syt_TOKEN", "PORT", "tcp://10.0.0.1:3000"),
        joined("HOMESERVER_URL", "https://x", "ACCESS_TOKEN", "syt_TOKEN", "AUTH_TOKN", "x"),
        joined("HOMESERVER_URL", "https://x", "ACCESS_TOKEN", "syt_TOKEN", "LOG_LEVEL", "http", "RATE_LIMIT", "0"),
    ],
    words=(*(name.upper() for name in Settings.model_fields), "_FILE", "true", "false", "{", "[", '"', ","),
    cost=40,
)
def settings_environment(data: bytes) -> str:
    """As `settings-file`."""
    given = [text(part).replace("\0", "").replace("=", "") for part in parts(data, 12)]
    names = [re.sub(r"[^A-Za-z0-9_]", "", name)[:100] for name in given[::2]]
    if any("TOKEN" in name.replace("ACCESS_TOKEN", "").replace("AUTH_TOKEN", "") for name in names) or (
        '"syt_TOKEN' in data.decode("latin-1") and '"syt_TOKEN"' not in data.decode("latin-1")
    ):
        return "a secret in the place of a name, which is told"
    values = [value.encode("utf-8", "replace").decode() for value in given[1::2]]
    named = {PREFIX + name: value for name, value in zip(names, values, strict=True) if name}
    named.pop("UVS_CONFIG_FILE", None)  # the other target
    return _load(**{name: value for name, value in named.items() if not name.endswith("_FILE")})


_FACT = re.compile(r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "=\\]+)')
_HEAD = re.compile(r"[0-9TZ:.-]{24} INFO    ")


@target(
    "log-lines",
    parser="uvs.ops.logs",
    whose="strangers', homeservers'",
    seeds=[
        joined("POST /verify/user 200", '["@alice:x", "!a:x", "#b:x", "example.org", 50, null, true]'),
        joined("failed: no", '["a=b \\" c\\\\", "\\n", "\\u001b[31m", "\\ud800", ""]'),
    ],
    words=("=", " ", '"', "\\", "\n", "\x1b", "\x85", "\u2028", "@a:x", "!a:x", "#a:x", "{", "%s", "%(x)s"),
    cost=2,
)
def log_lines(data: bytes) -> str:
    """One line for each event, in either form, whatever is in it; facts are read from it again as they were, so that
    none can be forged; and identifiers are not in it unless the operator wants them."""
    message, raw = parts(data, 2)
    try:
        given = json.loads(raw)
    except (ValueError, RecursionError):
        given = text(raw)
    values = [_typed(value) for value in (given if isinstance(given, list) else [given])[:9]]
    facts = {f"fact_{'abcdefghi'[at]}": value for at, value in enumerate(values)}
    record = logging.LogRecord("uvs.test", logging.INFO, "file.py", 1, "%s", (text(message),), None)
    record.facts = facts
    told = {name: value for name, value in facts.items() if value is not None}
    plain, structured = ConsoleFormatter(None).format(record), JsonFormatter(None).format(record)
    for line in (plain, structured):
        assert line.isprintable()
    assert _HEAD.match(plain)
    for match, (name, value) in zip(_trailing_facts(plain, list(told)), told.items(), strict=True):
        assert match[1] == name
        assert (json.loads(match[2]) if match[2].startswith('"') else match[2]) == str(value)
    read = json.loads(structured, parse_constant=_refuse)
    assert read["message"] == text(message)
    for name, value in told.items():
        assert read[name] == (str(value) if isinstance(value, UserID | RoomID | RoomAlias | ServerName) else value)
    hidden = json.loads(JsonFormatter(Pseudonyms("key")).format(record))
    for name, value in told.items():
        if isinstance(value, UserID | RoomID | RoomAlias):
            assert hidden[name] != value.value
    return f"{len(told)} {any(isinstance(value, UserID) for value in values)} {message.isascii()}"


def _trailing_facts(line: str, names: list[str]) -> list[re.Match[str]]:
    """The facts at the end of the line; what the message has before them is none."""
    for first in re.finditer(f" {names[0]}=", line) if names else ():
        found = list(_FACT.finditer(line, first.start()))
        if len(found) == len(names) and sum(len(each[0]) for each in found) == len(line) - first.start():
            return found
    return []


def _typed(value: Any) -> Any:
    """As it is given to the log: identifiers parsed, no numbers or structures that only code could make."""
    if isinstance(value, str):
        for kind in (UserID, RoomID, RoomAlias, ServerName):
            try:
                return kind.parse(value)
            except InvalidIdentifier:
                continue
        return value
    return value if isinstance(value, bool | None) or (isinstance(value, int) and abs(value) < 2**63) else str(value)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
