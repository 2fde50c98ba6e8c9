"""The settings: where each comes from, and that all mistakes are named at once, with reason and example, no secret."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import certifi
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.service import settings
from uvs.matrix.identifiers import ServerName
from uvs.matrix.server_globs import NO_SERVERS, ServerGlobs
from uvs.settings import Loaded, Mistakes, Settings, load
from uvs.settings.options import HomeserverTable

REQUIRED = {"UVS_HOMESERVER_URL": "https://matrix.example", "UVS_ACCESS_TOKEN": "syt_SeCrEt", "UVS_FEDERATION": "off"}
SECRET = "SeCrEt"

Read = Callable[..., Loaded]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Read:
    """Load the settings from these variables (`None`: not set) and, if there is one, this TOML file."""

    def read(toml: str | bytes | None = None, /, **variables: str | None) -> Loaded:
        for name in list(os.environ):
            if name.upper().startswith("UVS_"):
                monkeypatch.delenv(name)
        if toml is not None:
            file = tmp_path / "uvs.toml"
            file.write_bytes(toml.encode() if isinstance(toml, str) else toml)
            variables = {"UVS_CONFIG_FILE": str(file), **variables}
        for name, value in {**REQUIRED, **variables}.items():
            if value is not None:
                monkeypatch.setenv(name, value)
        return load()

    return read


def mistakes(read: Read, toml: str | bytes | None = None, /, **variables: str | None) -> list[str]:
    """What is said to be wrong; never with a secret in it."""
    with pytest.raises(Mistakes) as raised:
        read(toml, **variables)
    assert SECRET not in str(raised.value)
    assert all(line.isprintable() for line in raised.value.lines)
    return raised.value.lines


def plain(value: object) -> object:
    """A value as the operator wrote it."""
    if isinstance(value, ServerName):
        return value.value
    if isinstance(value, ServerGlobs):
        return value.patterns
    if isinstance(value, tuple) and value and isinstance(value[0], IPv4Network):
        return tuple(map(str, value))
    if isinstance(value, tuple) and value and isinstance(value[0], HomeserverTable):
        return [str(table.server_name) for table in value]
    if isinstance(value, Path):
        return str(value)
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


TABLE = {"server_name": "two.example", "url": "https://two.example", "access_token": "syt_two"}
TOML_TABLE = "{" + ", ".join(f'{key} = "{value}"' for key, value in TABLE.items()) + "}"
CA_FILE = certifi.where()


OPTIONS: Mapping[str, tuple[str, str, Any]] = {
    # option: its text in the environment, the same in TOML, the value
    "homeserver_url": ("http://127.0.0.1:8008/", '"http://127.0.0.1:8008/"', "http://127.0.0.1:8008"),
    "access_token": ("another", '"another"', "another"),
    "auth_token": ("caller", '"caller"', "caller"),
    "openid_verify_server_name": ("matrix.example:8448", '"matrix.example:8448"', "matrix.example:8448"),
    "federation_url": ("https://[::1]:8448", '"https://[::1]:8448"', "https://[::1]:8448"),
    "listen_address": ("::", '"::"', "::"),
    "port": ("8080", "8080", 8080),
    "request_timeout": ("2.5", "2.5", 2.5),
    "max_concurrent_requests": ("7", "7", 7),
    "rate_limit": ("600", "600", 600),
    "cache_token_ttl": ("60", "60", 60),
    "cache_membership_ttl": ("2.5", "2.5", 2.5),
    "cache_power_levels_ttl": ("0", "0", 0),
    "cache_url": ("redis://:pass@redis:6380/1", '"redis://:pass@redis:6380/1"', "redis://:pass@redis:6380/1"),
    "cache_secret": ("key", '"key"', "key"),
    "log_level": ("verbose", '"verbose"', "verbose"),
    "log_format": ("json", '"json"', "json"),
    "disable_ip_blacklist": ("true", "true", True),
    "homeserver_access": ("msc4502", '"msc4502"', "msc4502"),
    "homeservers": (json.dumps([TABLE]), f"[{TOML_TABLE}]", ["two.example"]),
    "federation": ("off", '"off"', "off"),
    "federation_allow": (" a.example, *.B.example ,", '["a.example", "*.B.example"]', ("a.example", "*.b.example")),
    "federation_deny": ("[::1]:8448,evil.*", '["[::1]:8448", "evil.*"]', ("[::1]:8448", "evil.*")),
    "federation_proxy": ("http://proxy:3128/", '"http://proxy:3128/"', "http://proxy:3128"),
    "ca_file": (CA_FILE, f'"{CA_FILE}"', CA_FILE),
    "allowed_networks": ("10.0.0.0/8,fd00::/8", '["10.0.0.0/8", "fd00::/8"]', ("10.0.0.0/8", "fd00::/8")),
    "dns_servers": (
        "192.0.2.1,[2001:db8::1]:5353",
        '["192.0.2.1", "[2001:db8::1]:5353"]',
        (("192.0.2.1", 53), ("2001:db8::1", 5353)),
    ),
    "internal_port": ("3001", "3001", 3001),
    "internal_address": ("127.0.0.2", '"127.0.0.2"', "127.0.0.2"),
    "workers": ("2", "2", 2),
    "trusted_proxies": ("127.0.0.1,10.0.0.0/8", '["127.0.0.1", "10.0.0.0/8"]', ("127.0.0.1/32", "10.0.0.0/8")),
    "log_identifiers": ("true", "true", True),
    "log_pseudonym_key": ("key", '"key"', "key"),
}

COMPANIONS = {
    "cache_url": {"UVS_CACHE_SECRET": "key"},
    "federation_allow": {"UVS_FEDERATION": "listed"},
    "internal_address": {"UVS_INTERNAL_PORT": "3001"},
    "workers": {"UVS_CACHE_URL": "redis://localhost", "UVS_CACHE_SECRET": "key"},
}
"""What an option cannot be without."""


class TestWhereOptionsComeFrom:
    def test_every_option_is_in_the_table_of_these_tests(self) -> None:
        assert OPTIONS.keys() == Settings.model_fields.keys()

    @pytest.mark.parametrize("option", OPTIONS)
    def test_the_environment(self, read: Read, option: str) -> None:
        text, _, value = OPTIONS[option]
        variables = {f"UVS_{option.upper()}": text, **COMPANIONS.get(option, {})}
        assert plain(getattr(read(**variables).settings, option)) == value

    @pytest.mark.parametrize("option", OPTIONS)
    def test_the_file(self, read: Read, option: str) -> None:
        _, toml, value = OPTIONS[option]
        loaded = read(f"{option} = {toml}", **{f"UVS_{option.upper()}": None, **COMPANIONS.get(option, {})})
        assert plain(getattr(loaded.settings, option)) == value

    @pytest.mark.parametrize("option", OPTIONS)
    def test_the_environment_wins_over_the_file(self, read: Read, option: str) -> None:
        text, _, value = OPTIONS[option]
        loaded = read(f'{option} = "of the file"', **{f"UVS_{option.upper()}": text, **COMPANIONS.get(option, {})})
        assert plain(getattr(loaded.settings, option)) == value

    @pytest.mark.parametrize("option", OPTIONS)
    def test_what_is_empty_in_the_environment_is_not_set(self, read: Read, option: str) -> None:
        _, toml, value = OPTIONS[option]
        loaded = read(f"{option} = {toml}", **{f"UVS_{option.upper()}": "", **COMPANIONS.get(option, {})})
        assert plain(getattr(loaded.settings, option)) == value

    def test_the_rest_has_its_defaults(self, read: Read) -> None:
        assert read().settings.model_dump(exclude={"homeserver_url", "access_token", "federation"}) == {
            "auth_token": None,
            "openid_verify_server_name": None,
            "federation_url": None,
            "listen_address": "127.0.0.1",
            "port": 3000,
            "request_timeout": 10.0,
            "max_concurrent_requests": 1000,
            "rate_limit": 600,
            "cache_token_ttl": 300.0,
            "cache_membership_ttl": 5.0,
            "cache_power_levels_ttl": 5.0,
            "cache_url": None,
            "cache_secret": None,
            "log_level": "info",
            "log_format": "console",
            "disable_ip_blacklist": False,
            "homeserver_access": "synapse-admin",
            "homeservers": (),
            # federation: see TestFederation
            "federation_allow": {"patterns": ()},
            "federation_deny": {"patterns": ()},
            "federation_proxy": None,
            "ca_file": None,
            "allowed_networks": (),
            "dns_servers": (),
            "internal_port": None,
            "internal_address": None,
            "workers": 1,
            "trusted_proxies": (),
            "log_identifiers": False,
            "log_pseudonym_key": None,
        }

    @pytest.mark.parametrize("text", ["TRUE", "1", "yes", "on", "false", "0", "anything"])
    def test_only_exactly_true_is_true(self, read: Read, text: str) -> None:
        assert read(UVS_DISABLE_IP_BLACKLIST=text).settings.disable_ip_blacklist is False

    @pytest.mark.parametrize("name", ["null", "true", "123", "1.2.3.4", "[::1]:8448"])
    def test_a_server_name_is_taken_as_text_whatever_it_looks_like(self, read: Read, name: str) -> None:
        assert str(read(UVS_OPENID_VERIFY_SERVER_NAME=name).settings.openid_verify_server_name) == name

    @pytest.mark.parametrize(
        "url", ["http://matrix_synapse:8008", "https://xn--e1afmkfd.example", "http://[::1]:8008", "https://a.b/prefix"]
    )
    def test_a_homeserver_may_be_anywhere(self, read: Read, url: str) -> None:
        assert read(UVS_HOMESERVER_URL=url).settings.homeserver_url == url


class TestSecretsInFiles:
    @pytest.mark.parametrize("option", ["access_token", "auth_token"])
    @pytest.mark.parametrize("around", ["{}", "{}\n", " \t{}\r\n\n"])
    def test_a_secret_may_stand_in_a_file_of_its_own(
        self, read: Read, tmp_path: Path, option: str, around: str
    ) -> None:
        file = tmp_path / "secret"
        file.write_text(around.format("of-the-file"))
        name = f"UVS_{option.upper()}"
        loaded = read(f'{option} = "of the TOML file"', **{name: None, f"{name}_FILE": str(file)})
        assert plain(getattr(loaded.settings, option)) == "of-the-file"

    def test_an_empty_file_name_is_none(self, read: Read) -> None:
        assert plain(read(UVS_ACCESS_TOKEN_FILE="").settings.access_token) == REQUIRED["UVS_ACCESS_TOKEN"]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, "the file cannot be read: No such file or directory. Example: /run/secrets/access_token"),
            (b"", "the file is empty. Write the secret into it, on one line."),
            (b" \n", "the file is empty. Write the secret into it, on one line."),
            (b"\xff\xfeSeCrEt", "the file cannot be read: it is not text. Example: /run/secrets/access_token"),
        ],
    )
    def test_a_file_without_a_secret_is_named(
        self, read: Read, tmp_path: Path, content: bytes | None, reason: str
    ) -> None:
        file = tmp_path / "secret"
        if content is not None:
            file.write_bytes(content)
        assert mistakes(read, UVS_ACCESS_TOKEN=None, UVS_ACCESS_TOKEN_FILE=str(file)) == [
            f"UVS_ACCESS_TOKEN_FILE: {reason}"
        ]

    def test_a_folder_is_no_file(self, read: Read, tmp_path: Path) -> None:
        (line,) = mistakes(read, UVS_AUTH_TOKEN_FILE=str(tmp_path))
        assert line.startswith("UVS_AUTH_TOKEN_FILE: the file cannot be read: Is a directory.")

    def test_a_secret_in_both_places_is_a_mistake(self, read: Read, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("SeCrEt")
        (line,) = mistakes(read, UVS_ACCESS_TOKEN_FILE=str(tmp_path / "secret"))
        assert line == "UVS_ACCESS_TOKEN_FILE: UVS_ACCESS_TOKEN is set as well; keep one of them."

    @pytest.mark.parametrize("content", ["two\nlines SeCrEt", "SeCrEt é", "\ufeffSeCrEt", "SeCr\0Et", "a SeCrEt"])
    def test_a_file_with_more_than_a_secret_is_named(self, read: Read, tmp_path: Path, content: str) -> None:
        (tmp_path / "secret").write_text(content, "utf-8")
        (line,) = mistakes(read, UVS_ACCESS_TOKEN=None, UVS_ACCESS_TOKEN_FILE=str(tmp_path / "secret"))
        assert line == "UVS_ACCESS_TOKEN: must consist of visible ASCII characters without spaces. Example: syt_…"


BAD_URLS = {
    "must not contain a user name or password": [
        "https://user:SeCrEt@matrix.example",
        "https://SeCrEt@matrix.example",
        "https://@matrix.example",
        "https://a@b@matrix.example",
    ],
    "must start with http:// or https:// and name a host": [
        "matrix.example",
        "//matrix.example",
        "ftp://matrix.example",
        "file:///etc/passwd",
        "http://",
        "http:///SeCrEt",
        "http:matrix.example",
        "http://:8008",
        "http://a:0",
        "http://a,b",
        'http://a"b',
        "http://" + "a" * 254,
    ],
    "must be a URL with a host name and a port below 65536": [
        "http://a:SeCrEt",
        "http://a:65536",
        "http://a:-1",
        "http://[::1",
        "http://::1]",
        "http://[SeCrEt]",
        "http://[1.2.3.4]",
        "http://\u2100.example",
    ],
    "must have no /_matrix in it": [
        "https://matrix.example/_matrix",
        "https://matrix.example/prefix/_matrix/client/SeCrEt/",
    ],
    "must not contain spaces, \\ % ? #, or a host name that is not in ASCII (use its xn-- form)": [
        "http://a/?token=SeCrEt",
        "http://a?",
        "http://a#SeCrEt",
        "http://a/b c",
        " http://a",
        "http://a\n",
        "http://a\x01.example",
        "http://a\\b",
        "http://a%00",
        "http://a/%2e%2e",
        "http://ü.example",
        "http://a\u200b.example",
        "http://\udce9.example",
    ],
}


class TestMistakes:
    def test_all_are_named_at_once_each_with_reason_and_example(self, read: Read) -> None:
        assert mistakes(
            read,
            'log_format = "xml"\nauth_tokn = "SeCrEt"',
            UVS_HOMESERVER_URL=None,
            UVS_ACCESS_TOKEN=None,
            UVS_ACCESS_TOKEN_FILE="/nowhere/SeCr",
            UVS_FEDERATION_URL="https://user:SeCrEt@matrix.example",
            UVS_OPENID_VERIFY_SERVER_NAME="@SeCrEt",
            UVS_LISTEN_ADDRESS="http://SeCrEt",
            UVS_PORT="SeCrEt",
            UVS_REQUEST_TIMEOUT="0",
            UVS_MAX_CONCURRENT_REQUESTS="0",
            UVS_RATE_LIMIT="-1",
            UVS_LOG_LEVEL="SeCrEt",
            UVS_AUTH_TOKN="SeCrEt",
        ) == [
            "UVS_ACCESS_TOKEN_FILE: the file cannot be read: No such file or directory. "
            "Example: /run/secrets/access_token",
            "UVS_AUTH_TOKN: there is no such option, probably UVS_AUTH_TOKEN is meant.",
            "UVS_FEDERATION_URL: must not contain a user name or password. Example: https://matrix.example.org:8448",
            "UVS_HOMESERVER_URL: is required. Example: https://matrix.example.org",
            "UVS_LISTEN_ADDRESS: must be an IP address or a host name. Example: 127.0.0.1 or 0.0.0.0 or ::",
            "UVS_LOG_FORMAT: input should be 'console' or 'json'. Example: console or json",
            "UVS_LOG_LEVEL: input should be 'error', 'warning', 'warn', 'info', 'http', 'verbose', 'debug' or 'silly'."
            " Example: info or debug",
            "UVS_MAX_CONCURRENT_REQUESTS: input should be greater than or equal to 1. Example: 1000",
            "UVS_OPENID_VERIFY_SERVER_NAME: must be a host name or an IP address, with a port or without, and nothing "
            "else. Example: example.org",
            "UVS_PORT: input should be a valid integer, unable to parse string as an integer. Example: 3000",
            "UVS_RATE_LIMIT: input should be greater than or equal to 0. Example: 0 or 600",
            "UVS_REQUEST_TIMEOUT: input should be greater than 0. Example: 10",
            "auth_tokn (in UVS_CONFIG_FILE): there is no such option, probably auth_token is meant.",
        ]

    def test_a_server_name_without_a_homeserver_is_told_what_is_missing(self, read: Read) -> None:
        (line,) = mistakes(read, UVS_HOMESERVER_URL=None, UVS_OPENID_VERIFY_SERVER_NAME="matrix.example")
        assert line == "UVS_HOMESERVER_URL: is required. Example: https://matrix.example.org"

    @pytest.mark.parametrize("name", ["UVS_HOMESERVER_URL", "UVS_FEDERATION_URL"])
    @pytest.mark.parametrize(("reason", "url"), [(reason, url) for reason, urls in BAD_URLS.items() for url in urls])
    def test_a_url_that_is_none_or_says_too_much(self, read: Read, name: str, reason: str, url: str) -> None:
        (line,) = mistakes(read, **{name: url})
        assert line.startswith(f"{name}: {reason}. Example: https://")

    @pytest.mark.parametrize("value", ["two words SeCrEt", "SeCrEt\n", "SeCrEté", "\udce9SeCrEt", " ", "\x7fSeCrEt"])
    @pytest.mark.parametrize("name", ["UVS_ACCESS_TOKEN", "UVS_AUTH_TOKEN"])
    def test_a_secret_that_cannot_stand_in_a_header(self, read: Read, name: str, value: str) -> None:
        (line,) = mistakes(read, **{name: value})
        assert line.startswith(f"{name}: must consist of visible ASCII characters without spaces.")

    @pytest.mark.parametrize("value", ["", "a b", "[::1]", "host:name/", "é", "a\x01b", "x" * 254])
    def test_an_address_that_is_none(self, read: Read, value: str) -> None:
        toml = f'listen_address = "{value}"' if value.isprintable() else 'listen_address = "\\u0001"'
        (line,) = mistakes(read, toml)
        assert line.startswith("UVS_LISTEN_ADDRESS: must be an IP address or a host name.")

    @pytest.mark.parametrize(
        "value", ['{"value": "a b"}', "@a:b", "http://a", "a/b", "a..b", "ü.example", "a:0", "[a]"]
    )
    def test_a_server_name_that_is_none(self, read: Read, value: str) -> None:
        (line,) = mistakes(read, UVS_OPENID_VERIFY_SERVER_NAME=value)
        assert line.startswith("UVS_OPENID_VERIFY_SERVER_NAME: ")
        assert line.endswith(" Example: example.org")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("UVS_PORT", "0"),
            ("UVS_PORT", "65536"),
            ("UVS_PORT", "3000.5"),
            ("UVS_PORT", "٣٠٠٠"),
            ("UVS_REQUEST_TIMEOUT", "nan"),
            ("UVS_REQUEST_TIMEOUT", "inf"),
            ("UVS_REQUEST_TIMEOUT", "60.1"),
            ("UVS_REQUEST_TIMEOUT", "-1"),
            ("UVS_REQUEST_TIMEOUT", "10s"),
            ("UVS_MAX_CONCURRENT_REQUESTS", "-1"),
            ("UVS_RATE_LIMIT", "1e400"),
        ],
    )
    def test_a_number_out_of_its_range(self, read: Read, name: str, value: str) -> None:
        (line,) = mistakes(read, **{name: value})
        assert line.startswith(f"{name}: input should be ")

    def test_no_setting_shows_a_secret_of_its_own_accord(self, read: Read) -> None:
        settings = read(UVS_AUTH_TOKEN="auth-SeCrEt").settings
        assert SECRET not in f"{settings!r} {settings} {settings.model_dump()}"

    def test_not_even_pydantic_quotes_what_was_given(self) -> None:
        with pytest.raises(ValidationError) as raised:
            settings(homeserver_url="https://user:SeCrEt@a", access_token="SeCrEt x", auth_token={"SeCrEt": 1})
        assert SECRET not in f"{raised.value} {raised.value!r}"

    @effort(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(value=st.text(st.characters(exclude_characters="\0", codec="utf-8")).map(lambda text: f"SeCrEt{text}SeCrEt"))
    @example(value="tcp://SeCrEt")
    @pytest.mark.parametrize("option", OPTIONS)
    def test_nothing_that_is_given_is_quoted(self, read: Read, option: str, value: str) -> None:
        try:
            read(**{f"UVS_{option.upper()}": value})
        except Mistakes as raised:
            assert SECRET not in str(raised)  # noqa: PT017 - some values are good


class TestTheTomlFile:
    @pytest.mark.parametrize(
        ("toml", "option"),
        [
            ("homeserver_url = 5", "HOMESERVER_URL"),
            ('homeserver_url = ["https://a"]', "HOMESERVER_URL"),
            ("access_token = 5", "ACCESS_TOKEN"),
            ('access_token = ["SeCrEt"]', "ACCESS_TOKEN"),
            ('access_token = ""', "ACCESS_TOKEN"),
            ('auth_token = {value = "SeCrEt"}', "AUTH_TOKEN"),
            ('auth_token = ""', "AUTH_TOKEN"),
            ("auth_token = false", "AUTH_TOKEN"),
            ('openid_verify_server_name = {value = "a b/.."}', "OPENID_VERIFY_SERVER_NAME"),
            ("openid_verify_server_name = 5", "OPENID_VERIFY_SERVER_NAME"),
            ("listen_address = 1979-05-27", "LISTEN_ADDRESS"),
            ("port = true", "PORT"),
            ("port = 3000.5", "PORT"),
            ("port = inf", "PORT"),
            ("port = [3000]", "PORT"),
            ("[[port]]\nsecret = 'SeCrEt'", "PORT"),
            ("request_timeout = true", "REQUEST_TIMEOUT"),
            ("request_timeout = nan", "REQUEST_TIMEOUT"),
            ("max_concurrent_requests = true", "MAX_CONCURRENT_REQUESTS"),
            ("rate_limit = false", "RATE_LIMIT"),
            ("log_level = 5", "LOG_LEVEL"),
            ("log_format = {}", "LOG_FORMAT"),
        ],
    )
    def test_a_wrong_type_is_named(self, read: Read, toml: str, option: str) -> None:
        (line,) = mistakes(read, toml, **{f"UVS_{option}": None})
        assert line.startswith(f"UVS_{option}: ")
        assert " Example: " in line

    @pytest.mark.parametrize(
        ("key", "meant"),
        [
            ("auth_tokn", ", probably auth_token is meant"),
            ("UVS_AUTH_TOKEN", ", probably auth_token is meant"),
            ("colour", ""),
        ],
    )
    def test_an_unknown_key_is_named(self, read: Read, key: str, meant: str) -> None:
        assert mistakes(read, f'{key} = "SeCrEt"') == [f"{key} (in UVS_CONFIG_FILE): there is no such option{meant}."]

    @pytest.mark.parametrize(
        ("toml", "where"),
        [
            ("access_token = SeCrEt", " (at line 1, column 16)"),
            ('access_token = "SeCrEt', " (at end of document)"),
            ('port = 1\nport = "SeCrEt"\n', " (at line 2, column 16)"),
            (b"\x00", " (at line 1, column 1)"),
            (b'access_token = "SeCrEt"\xff', ""),
            (b"\x7fELF\x02\x01", ""),
            ("port = " + "9" * 5000, ""),
            ("port = " + "[" * 5000, ""),
        ],
    )
    def test_a_file_that_is_not_toml_is_named_with_the_place_and_not_quoted(
        self, read: Read, toml: str | bytes, where: str
    ) -> None:
        (line,) = mistakes(read, toml)
        assert line.startswith("UVS_CONFIG_FILE: the file is not TOML" + where)
        assert line.endswith('Example: homeserver_url = "https://…"')

    def test_a_file_that_is_missing_is_named(self, read: Read, tmp_path: Path) -> None:
        assert mistakes(read, UVS_CONFIG_FILE=str(tmp_path / "nowhere")) == [
            "UVS_CONFIG_FILE: the file cannot be read: No such file or directory. Example: /etc/uvs/uvs.toml"
        ]

    def test_a_folder_is_no_file(self, read: Read, tmp_path: Path) -> None:
        (line,) = mistakes(read, UVS_CONFIG_FILE=str(tmp_path))
        assert line.startswith("UVS_CONFIG_FILE: the file cannot be read: Is a directory.")

    def test_no_file_is_fine(self, read: Read) -> None:
        assert read(UVS_CONFIG_FILE="").settings.port == 3000

    def test_an_empty_file_is_fine(self, read: Read) -> None:
        assert read("").settings.port == 3000


class TestUnknownVariables:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("UVS_AUTH_TOKN", "UVS_AUTH_TOKEN"),
            ("UVS_AUTHTOKEN", "UVS_AUTH_TOKEN"),
            ("UVS_AUTH_TOKENFILE", "UVS_AUTH_TOKEN_FILE"),
            ("UVS_ACCES_TOKEN_FILE", "UVS_ACCESS_TOKEN_FILE"),
            ("UVS_OPENID_VERIFY_SERVERNAME", "UVS_OPENID_VERIFY_SERVER_NAME"),
            ("UVS_HOMESERVER_URL_FILE", "UVS_HOMESERVER_URL"),
            ("UVS_LISTEN_ADRESS", "UVS_LISTEN_ADDRESS"),
        ],
    )
    def test_a_typo_is_a_mistake(self, read: Read, name: str, meant: str) -> None:
        assert mistakes(read, **{name: "SeCrEt"}) == [f"{name}: there is no such option, probably {meant} is meant."]

    def test_anything_else_is_warned_of_and_not_quoted(self, read: Read) -> None:
        assert read(UVS_COLOUR="SeCrEt").warnings == ["UVS_COLOUR is set, but there is no such option."]

    def test_a_variable_of_the_existing_services_example_file_is_passed_over(self, read: Read) -> None:
        assert read(UVS_OPENID_VERIFY_ANY_HOMESERVER="false").warnings == []

    def test_those_that_kubernetes_adds_for_a_service_named_uvs_do_not_stop_it(self, read: Read) -> None:
        added = {
            "UVS_SERVICE_HOST": "10.0.0.1",
            "UVS_SERVICE_PORT": "3000",
            "UVS_SERVICE_PORT_HTTP": "3000",
            "UVS_PORT_3000_TCP": "tcp://10.0.0.1:3000",
            "UVS_PORT_3000_TCP_ADDR": "10.0.0.1",
            "UVS_PORT_3000_TCP_PORT": "3000",
            "UVS_PORT_3000_TCP_PROTO": "tcp",
        }
        loaded = read(UVS_PORT="3000", **added)
        assert loaded.warnings == [f"{name} is set, but there is no such option." for name in sorted(added)]

    def test_the_port_that_kubernetes_sets_is_named_with_its_mend(self, read: Read) -> None:
        (line,) = mistakes(read, UVS_PORT="tcp://10.0.0.1:3000")
        assert "enableServiceLinks: false" in line


class TestAdvice:
    @pytest.mark.parametrize(
        ("variables", "said"),
        [
            ({}, ""),
            ({"UVS_LISTEN_ADDRESS": "::1"}, ""),
            ({"UVS_LISTEN_ADDRESS": "localhost"}, ""),
            ({"UVS_LISTEN_ADDRESS": "0.0.0.0", "UVS_AUTH_TOKEN": "x"}, ""),
            ({"UVS_LISTEN_ADDRESS": "0.0.0.0"}, "UVS_AUTH_TOKEN is not set"),
            ({"UVS_LISTEN_ADDRESS": "::", "UVS_AUTH_TOKEN": ""}, "UVS_AUTH_TOKEN is empty"),
            ({"UVS_HOMESERVER_URL": "http://127.0.0.2:8008"}, ""),
            ({"UVS_HOMESERVER_URL": "http://[::1]:8008"}, ""),
            ({"UVS_HOMESERVER_URL": "http://synapse:8008"}, "UVS_HOMESERVER_URL is plain http"),
            ({"UVS_HOMESERVER_URL": "HTTP://synapse:8008"}, "UVS_HOMESERVER_URL is plain http"),
            ({"UVS_FEDERATION_URL": "http://10.0.0.1"}, "UVS_FEDERATION_URL is plain http"),
            ({"UVS_DISABLE_IP_BLACKLIST": "true"}, "UVS_DISABLE_IP_BLACKLIST is true"),
            ({"UVS_ALLOWED_NETWORKS": "10.0.0.0/8,::/0"}, "UVS_ALLOWED_NETWORKS holds every address"),
            ({"UVS_ALLOWED_NETWORKS": "10.0.0.0/8,fd00::/8"}, ""),
            ({"UVS_TRUSTED_PROXIES": "0.0.0.0/0"}, "UVS_TRUSTED_PROXIES holds every address"),
            ({"UVS_TRUSTED_PROXIES": "10.0.0.0/8"}, ""),
            ({"UVS_DISABLE_IP_BLACKLIST": "yes"}, "UVS_DISABLE_IP_BLACKLIST is neither true nor false"),
            ({"UVS_LOG_IDENTIFIERS": "TRUE"}, "UVS_LOG_IDENTIFIERS is neither true nor false"),
            ({"UVS_LOG_IDENTIFIERS": "false"}, ""),
            ({"SSL_CERT_FILE": CA_FILE}, ""),
            ({"UVS_FEDERATION": None}, "UVS_FEDERATION is not set, so people of every homeserver are verified"),
            ({"UVS_FEDERATION": None, "UVS_OPENID_VERIFY_SERVER_NAME": "matrix.example"}, ""),
            ({"UVS_FEDERATION": "on"}, ""),
            ({"UVS_ACCESS_TOKEN": '"syt_SeCrEt"'}, "UVS_ACCESS_TOKEN has quotation marks around it"),
            ({"UVS_AUTH_TOKEN": "'SeCrEt'"}, "UVS_AUTH_TOKEN has quotation marks around it"),
            ({"UVS_AUTH_TOKEN": "'SeCr'Et"}, ""),
            ({"UVS_AUTH_TOKEN": "'"}, ""),
        ],
    )
    def test_what_is_no_mistake_but_worth_knowing(self, read: Read, variables: dict[str, str], said: str) -> None:
        warnings = read(**variables).warnings
        assert len(warnings) == (1 if said else 0)
        assert "".join(warnings).startswith(said)


class TestTheCache:
    @pytest.mark.parametrize(
        "url",
        [
            "redis://redis",
            "redis://redis:6379/0",
            "rediss://user:p%40ss@[::1]:6380/15",
            "unix:///run/redis.sock",
            "unix://:pass@/run/redis.sock",
        ],
    )
    def test_redis_may_be_there(self, read: Read, url: str) -> None:
        assert plain(read(UVS_CACHE_URL=url, UVS_CACHE_SECRET="key").settings.cache_url) == url

    @pytest.mark.parametrize(
        "url",
        [
            "http://SeCrEt@redis",
            "redis://",
            "redis:///0",
            "redis://:SeCrEt@redis:0",
            "redis://:SeCrEt@redis:70000",
            "redis://:SeCrEt@redis/zero",
            "redis://:SeCrEt@redis/0?db=1",
            "redis://:SeC#rEt@redis",
            "redis://:SeC rEt@redis",
            "redis://[::1",
            "unix://",
            "unix:///",
            "unix://host/path",
            "SeCrEt",
        ],
    )
    def test_another_url_is_a_mistake_that_does_not_quote_it(self, read: Read, url: str) -> None:
        (line,) = mistakes(read, UVS_CACHE_URL=url, UVS_CACHE_SECRET="key")
        assert line.startswith("UVS_CACHE_URL: must")
        assert "SeC" not in line

    def test_redis_needs_the_secret(self, read: Read) -> None:
        (line,) = mistakes(read, UVS_CACHE_URL="redis://redis")
        assert line.startswith("UVS_CACHE_SECRET: is required with UVS_CACHE_URL.")

    def test_the_password_is_never_shown(self, read: Read) -> None:
        loaded = read(UVS_CACHE_URL="redis://:SeCrEt@127.0.0.1", UVS_CACHE_SECRET="SeCrEt")
        assert "SeCrEt" not in f"{loaded!r}{loaded.settings}"
        assert loaded.warnings == []

    def test_what_is_risky_is_said(self, read: Read) -> None:
        assert read(UVS_CACHE_MEMBERSHIP_TTL="60").warnings == []
        long, plain_text = read(
            UVS_CACHE_MEMBERSHIP_TTL="61", UVS_CACHE_URL="redis://redis", UVS_CACHE_SECRET="key"
        ).warnings
        assert "may still come in for 61 seconds" in long
        assert plain_text.startswith("UVS_CACHE_URL is without TLS")

    @pytest.mark.parametrize("value", ["-1", "3601", "nan", "inf", "five"])
    def test_times_are_an_hour_at_most(self, read: Read, value: str) -> None:
        (line,) = mistakes(read, UVS_CACHE_TOKEN_TTL=value)
        assert line.startswith("UVS_CACHE_TOKEN_TTL: input should be")


class TestFederation:
    @pytest.mark.parametrize(
        ("variables", "mode"),
        [
            ({}, "on"),
            ({"UVS_OPENID_VERIFY_SERVER_NAME": "matrix.example"}, "off"),
            ({"UVS_OPENID_VERIFY_SERVER_NAME": "matrix.example", "UVS_FEDERATION": "on"}, "on"),
            ({"UVS_FEDERATION": "off"}, "off"),
            ({"UVS_FEDERATION": "listed", "UVS_FEDERATION_ALLOW": "*"}, "listed"),
        ],
    )
    def test_is_on_where_nothing_was_chosen(self, read: Read, variables: dict[str, str], mode: str) -> None:
        assert read(**{"UVS_FEDERATION": None, **variables}).settings.federation_mode == mode

    @pytest.mark.parametrize(
        ("variables", "said"),
        [
            ({"UVS_FEDERATION": "listed"}, "UVS_FEDERATION_ALLOW: is required with listed."),
            (
                {"UVS_FEDERATION_ALLOW": "a.example"},
                "UVS_FEDERATION: must be listed, since UVS_FEDERATION_ALLOW is set.",
            ),
            ({"UVS_FEDERATION_DENY": "http://SeCrEt"}, "UVS_FEDERATION_DENY: has a pattern that is not a server name"),
            ({"UVS_FEDERATION_PROXY": "https://proxy"}, "UVS_FEDERATION_PROXY: must be http://host:port"),
            ({"UVS_FEDERATION_PROXY": "http://proxy/SeCrEt"}, "UVS_FEDERATION_PROXY: must be http://host:port"),
            ({"UVS_ALLOWED_NETWORKS": "10.0.0.1/8"}, "UVS_ALLOWED_NETWORKS: must be a list of networks"),
            ({"UVS_ALLOWED_NETWORKS": "SeCrEt"}, "UVS_ALLOWED_NETWORKS: must be a list of networks"),
            ({"UVS_DNS_SERVERS": "SeCrEt"}, "UVS_DNS_SERVERS: must be a list of IP addresses"),
            ({"UVS_DNS_SERVERS": "192.0.2.1:0"}, "UVS_DNS_SERVERS: must be a list of IP addresses"),
            ({"UVS_DNS_SERVERS": "[::1]:65536"}, "UVS_DNS_SERVERS: must be a list of IP addresses"),
            ({"SSL_CERT_FILE": "/nowhere"}, "SSL_CERT_FILE: the file cannot be read: No such file or directory."),
            ({"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE: the file holds no certificate in PEM form."),
            ({"UVS_CA_FILE": "/nowhere"}, "UVS_CA_FILE: the file cannot be read: No such file or directory."),
            ({"UVS_CA_FILE": __file__}, "UVS_CA_FILE: the file holds no certificate in PEM form."),
            ({"UVS_INTERNAL_PORT": "3000"}, "UVS_INTERNAL_PORT: must be another port than UVS_PORT."),
            ({"UVS_INTERNAL_ADDRESS": "127.0.0.1"}, "UVS_INTERNAL_PORT: is required with UVS_INTERNAL_ADDRESS."),
        ],
    )
    def test_what_cannot_be_is_named(self, read: Read, variables: dict[str, str], said: str) -> None:
        (line,) = mistakes(read, **variables)
        assert line.startswith(said)


class TestSeveralHomeservers:
    def test_the_default_is_the_one_of_the_short_form(self, read: Read) -> None:
        owns = read(f"homeservers = [{TOML_TABLE}]").settings.own_homeservers
        assert [own.url for own in owns] == ["https://matrix.example", "https://two.example"]

    def test_or_the_first_table(self, read: Read, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("syt_SeCrEt\n")
        toml = f"""
            [[homeservers]]
            server_name = "one.example"
            url = "https://one.example/"
            access = "msc4502"
            access_token_file = "{tmp_path / "secret"}"
            [[homeservers]]
            server_name = "two.example"
            url = "https://two.example"
            access_token = "syt_two"
            authoritative_for = ["two.example", "*"]
            federation_url = "https://two.example:8448"
        """
        one, two = read(toml, UVS_HOMESERVER_URL=None, UVS_ACCESS_TOKEN=None).settings.own_homeservers
        assert (one.url, one.access, one.access_token.get_secret_value()) == (
            "https://one.example",
            "msc4502",
            "syt_SeCrEt",
        )
        assert one.authoritative_for == NO_SERVERS
        assert two.authoritative_for.patterns == ("two.example", "*")
        assert (str(two.server_name), two.federation_url) == ("two.example", "https://two.example:8448")

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            ({**TABLE, "url": None}, "UVS_HOMESERVERS[0].url: is required."),
            ({**TABLE, "access_token": None}, "UVS_HOMESERVERS[0].access_token: is required."),
            ({**TABLE, "acces": "x"}, "UVS_HOMESERVERS[0].acces: there is no such option."),
            (
                {**TABLE, "auth_token": "x"},
                "UVS_HOMESERVERS[0].auth_token: is no option of a homeserver; write it above the first [[homeservers]]",
            ),
            ({**TABLE, "access": "SeCrEt"}, "UVS_HOMESERVERS[0].access: input should be 'synapse-admin'"),
            ({**TABLE, "access_token": "Se CrEt"}, "UVS_HOMESERVERS[0].access_token: must consist of visible ASCII"),
            ({**TABLE, "server_name": "@SeCrEt"}, "UVS_HOMESERVERS[0].server_name: must be a host name"),
            ({**TABLE, "authoritative_for": "Se CrEt"}, "UVS_HOMESERVERS[0].authoritative_for: has a pattern that is"),
            ({**TABLE, "access_token_file": "/SeCr"}, "UVS_HOMESERVERS[0]: access_token_file: access_token is set"),
            (
                {**TABLE, "access_token": None, "access_token_file": "/nowhere"},
                "UVS_HOMESERVERS[0]: access_token_file: the file cannot be read: No such file or directory.",
            ),
        ],
    )
    def test_a_table_that_is_wrong_is_named_with_its_field(
        self, read: Read, table: dict[str, str | None], said: str
    ) -> None:
        given = {key: value for key, value in table.items() if value is not None}
        (line,) = mistakes(read, UVS_HOMESERVERS=json.dumps([given]))
        assert line.startswith(said)

    @pytest.mark.parametrize("text", ["SeCrEt", "{}", '["SeCrEt"]', "[" * 100_000])
    def test_what_is_no_array_of_tables_is_named(self, read: Read, text: str) -> None:
        (line,) = mistakes(read, UVS_HOMESERVERS=text)
        assert line.startswith("UVS_HOMESERVERS")

    def test_a_table_with_single_brackets_is_told_from_an_array(self, read: Read) -> None:
        (line,) = mistakes(read, f"homeservers = {TOML_TABLE}")
        assert line.startswith("UVS_HOMESERVERS: must be an array of tables, each [[homeservers]];")

    @pytest.mark.parametrize(
        "variables",
        [
            {"UVS_HOMESERVERS": json.dumps([TABLE, TABLE])},
            {"UVS_HOMESERVERS": json.dumps([TABLE]), "UVS_OPENID_VERIFY_SERVER_NAME": "two.example"},
        ],
    )
    def test_no_server_name_stands_twice(self, read: Read, variables: dict[str, str]) -> None:
        (line,) = mistakes(read, **variables)
        assert line.startswith("UVS_HOMESERVERS: the same server_name stands there twice")

    def test_what_belongs_to_the_short_form_does_not_stand_alone(self, read: Read, tmp_path: Path) -> None:
        variables = {"UVS_HOMESERVERS": json.dumps([TABLE]), "UVS_HOMESERVER_URL": None}
        (line,) = mistakes(read, **variables)
        assert line.startswith("UVS_ACCESS_TOKEN: belongs to UVS_HOMESERVER_URL, which is not set")
        (tmp_path / "secret").write_text(SECRET)
        (line,) = mistakes(read, **variables, UVS_ACCESS_TOKEN=None, UVS_ACCESS_TOKEN_FILE=str(tmp_path / "secret"))
        assert line.startswith("UVS_ACCESS_TOKEN_FILE: belongs to UVS_HOMESERVER_URL, which is not set")

    def test_the_server_name_is_the_first_ones(self, read: Read) -> None:
        variables = {"UVS_HOMESERVERS": json.dumps([TABLE]), "UVS_HOMESERVER_URL": None, "UVS_ACCESS_TOKEN": None}
        (line,) = mistakes(read, **variables, UVS_OPENID_VERIFY_SERVER_NAME="one.example")
        assert line.startswith("UVS_OPENID_VERIFY_SERVER_NAME: must be the server_name of the first homeserver")
