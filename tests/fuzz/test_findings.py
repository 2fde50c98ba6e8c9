"""What the fuzzers have found, as ordinary tests."""

from __future__ import annotations

import time

import msgspec
import pytest

from uvs.homeserver.client_api import read_content
from uvs.matrix.identifiers import ServerName
from uvs.matrix.server_globs import ServerGlobs


@pytest.mark.parametrize("raw", [b'{"users_default\x95": 10}', b'{"\xff": 1}', b'"\xff"'])
def test_the_content_of_an_event_that_is_not_utf_8_counts_as_empty(raw: bytes) -> None:
    # The answer around it is read all the same: a part that is left as it is, is not looked at.
    assert read_content(msgspec.Raw(raw)) == {}


def test_no_server_name_makes_the_holding_against_a_pattern_slow() -> None:
    globs = ServerGlobs.parse(["*.*.*.*.*.*.casino", "*a*a*a*a*a*a*a*a*a*a*b"])
    started = time.thread_time()
    assert not globs.matches(ServerName.parse("a." * 126 + "a"))
    assert time.thread_time() - started < 5  # with every way tried, it does not end while anybody waits
