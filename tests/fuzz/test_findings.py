"""What the fuzzers have found, as ordinary tests."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest

from tests.fuzz.targets.discovery import Fixed, Web
from uvs.check import jitsi
from uvs.errors import CannotTell
from uvs.homeserver.client_api import read_content
from uvs.matrix.identifiers import ServerName
from uvs.matrix.server_globs import ServerGlobs
from uvs.net.destination import Addresses, Step
from uvs.net.egress import Egress
from uvs.net.well_known import WellKnown
from uvs.ops.metrics import Metrics
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


@pytest.mark.parametrize("host", ["xn--d.example", "xn--e1afmkfd.example", "xn--a-ecp.example"])
async def test_a_well_known_may_redirect_to_any_name_in_its_ascii_form(host: str) -> None:
    # The first is none that could be shown in other letters, which is nothing to stumble over.
    web = Web([f"302 https://{host}/".encode(), b'200\n{"m.server": "b.example"}'])
    addresses = Addresses(Fixed({"*": ["8.8.8.8"]}), Egress())
    steps: list[Step] = []
    found = await WellKnown(web, addresses, clock=lambda: 0.0).delegate("a.example", steps.append)
    assert str(found) == "b.example"
    assert f"addresses of {host}" in [step.name for step in steps]


async def test_a_well_known_may_redirect_to_brackets_around_anything() -> None:
    web = Web(["302 https://[::👍]/".encode()])
    steps: list[Step] = []
    addresses = Addresses(Fixed({"*": ["8.8.8.8"]}), Egress())
    assert await WellKnown(web, addresses, clock=lambda: 0.0).delegate("a.example", steps.append) is None
    assert steps[-1].outcome == "none: it redirects to what is no URL"


@pytest.mark.parametrize("location", ["//[", "https://[x]/", "http://meet.example/"])
def test_a_redirect_of_the_jitsi_domain_to_what_is_no_url_is_said(location: str) -> None:
    with pytest.raises(CannotTell, match=r"^It redirects to (what is no URL|plain HTTP)"):
        jitsi._target("https://meet.example/x", location)


def test_metrics_repeat_nothing_of_what_was_asked_for() -> None:
    _, media_type = Metrics().render("application/openmetrics-text;version=1.0.0.0SeCrEt\xb2")
    assert media_type.startswith("text/plain; version=0.0.4")
