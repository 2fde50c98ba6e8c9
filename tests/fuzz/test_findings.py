"""What the fuzzers have found, as ordinary tests."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest

from uvs.homeserver.client_api import read_content
from uvs.matrix.identifiers import ServerName
from uvs.matrix.server_globs import ServerGlobs
from uvs.settings import Mistakes, load


@pytest.mark.parametrize("raw", [b'{"users_default\x95": 10}', b'{"\xff": 1}', b'"\xff"'])
def test_the_content_of_an_event_that_is_not_utf_8_counts_as_empty(raw: bytes) -> None:
    # The answer around it is read all the same: a part that is left as it is, is not looked at.
    assert read_content(msgspec.Raw(raw)) == {}


def test_no_server_name_makes_the_holding_against_a_pattern_slow() -> None:
    globs = ServerGlobs.parse(["*.*.*.*.*.*.casino", "*a*a*a*a*a*a*a*a*a*a*b"])
    started = time.thread_time()
    assert not globs.matches(ServerName.parse("a." * 126 + "a"))
    assert time.thread_time() - started < 5  # with every way tried, it does not end while anybody waits


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\u2028"])
def test_a_mistake_is_one_line_whatever_the_name_of_the_option_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "uvs.toml"
    for text in (f"{json.dumps(name)} = 1", f"[[homeservers]]\n{json.dumps(name)} = 1"):
        file.write_text(text)
        monkeypatch.setenv("UVS_CONFIG_FILE", str(file))
        with pytest.raises(Mistakes) as raised:
            load()
        assert all(line.isprintable() for line in raised.value.lines)


def test_an_empty_list_of_homeservers_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVS_HOMESERVERS", "[]")
    with pytest.raises(Mistakes, match=r"^UVS_HOMESERVERS: must have one table at least\."):
        load()
