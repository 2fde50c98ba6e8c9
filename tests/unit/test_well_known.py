"""`/.well-known/matrix/server`, from real web servers: what counts, what does not, and for how long."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.parts.dns_server import servfail
from tests.unit.strangers import Asked, Behave, Internet, Stranger, by_path, hang, says
from uvs.matrix.identifiers import InvalidIdentifier, ServerName
from uvs.net.answers import Answer
from uvs.net.calls import Call, Outcome
from uvs.net.destination import Step
from uvs.net.well_known import (
    DEFAULT_SECONDS,
    FIRST_BACK_OFF,
    LIMIT,
    MAX_BACK_OFF,
    MAX_HOW,
    MAX_REDIRECTS,
    MAX_SECONDS,
    MIN_SECONDS,
    PATH,
    REFRESH_AT,
    WellKnown,
    _delegate,
    _Document,
    _Useless,
    lifetime,
)

HOST = "a.example"
GOOD = json.dumps({"m.server": "d.example:8448"})
OTHER = json.dumps({"m.server": "e.example:8448"})


async def delegate(net: Internet) -> str | None:
    found = await net.well_known.delegate(HOST, lambda _step: None)
    return None if found is None else found.value


async def how(net: Internet) -> str:
    """What is said of it in a trace, where there is no delegation."""
    steps: list[Step] = []
    assert await net.well_known.delegate(HOST, steps.append) is None
    assert (steps[-1].name, steps[-1].good) == (f"well-known of {HOST}", False)
    return steps[-1].outcome


class TestDocuments:
    @pytest.mark.parametrize("name", ["d.example", "d.example:443", "192.0.2.1", "192.0.2.1:1", "[2001:db8::1]",
                                      "[2001:db8::1]:1", "D.Example"])  # fmt: skip
    async def test_whoever_is_named_speaks_for_the_host(self, net: Internet, name: str) -> None:
        await net.publish(HOST, json.dumps({"m.server": name, "else": [1]}), Content_Type="text/html")
        assert await delegate(net) == name

    @pytest.mark.parametrize(
        "document",
        [
            "", "null", "[]", "{}", '"d.example"', '{"m.server": null}', '{"m.server": 1}',
            '{"m.server": ["d.example"]}',
            '{"m.server": ""}', '{"m.server": " d.example"}', '{"m.server": "https://d.example"}', "<html>", GOOD[:-1],
            '{"m.server": "d.example/x"}', '{"m.server": "d.example:0"}', '{"m.server": "d.example:65536"}',
            '{"m.server": "d.example:"}', '{"m.server": "user@d.example"}', '{"m.server": "[fe80::1%25lo]"}',
            '{"m.server": "d..example"}', '{"m.server": "d.example\\u0000"}', '{"m.server": "\\u24d3.example"}',
            '{"M.Server": "d.example"}', "\ufeff" + GOOD, GOOD + GOOD, '{"m.server":' * 10000,
        ],
    )  # fmt: skip
    async def test_what_names_nobody_counts_as_none(self, net: Internet, document: str) -> None:
        await net.publish(HOST, document)
        assert (await how(net)).startswith("none: ")

    @pytest.mark.parametrize("status", [201, 204, 304, 400, 403, 404, 410, 429, 500, 503])
    async def test_any_status_but_200_counts_as_none(self, net: Internet, status: int) -> None:
        await net.publish(HOST, GOOD, status=status)
        assert await delegate(net) is None

    async def test_what_is_too_large_counts_as_none(self, net: Internet) -> None:
        await net.publish(HOST, json.dumps({"m.server": "d.example", "pad": "x" * LIMIT}))
        assert "larger than" in await how(net)

    async def test_what_is_compressed_counts_as_none(self, net: Internet) -> None:
        await net.publish(HOST, GOOD, Content_Encoding="gzip")
        assert await delegate(net) is None

    async def test_a_host_with_nobody_there_has_none(self, net: Internet) -> None:
        assert "no address" in await how(net)

    async def test_a_host_about_which_dns_gives_no_answer_has_none(self, net: Internet) -> None:
        for kind in ("A", "AAAA"):
            net.dns.on(HOST, kind, servfail)
        assert "DNS gives no answer" in await how(net)

    @pytest.mark.parametrize(("name", "expired"), [("b.example", False), (HOST, True)])
    async def test_a_host_without_a_good_certificate_is_not_asked(
        self, net: Internet, name: str, expired: bool
    ) -> None:
        web = await net.serve(name, behave=says(200, GOOD), port=net.well_known_port, expired=expired)
        net.dns.add_address(HOST, web.address)
        assert "certificate is not valid" in await how(net)
        assert web.asked == []

    async def test_who_does_not_answer_is_not_waited_for_until_the_deadline_of_the_caller(self, net: Internet) -> None:
        await net.web(HOST, hang)
        net.well_known = WellKnown(net.client, net.addresses, clock=net.clock, seconds=0.3, port=net.well_known_port)
        async with asyncio.timeout(0.3 + 1):
            assert "no answer within 0.3 s" in await how(net)
        assert net.observed[-1] == (Call.WELL_KNOWN, Outcome.TIMEOUT)

    async def test_of_what_went_wrong_only_a_line_is_remembered(self, net: Internet) -> None:
        net.dns.add_address(HOST, *(f"10.0.0.{number}" for number in range(1, 17)))
        assert len(await how(net)) <= MAX_HOW + len("none: ")

    async def test_no_credential_is_sent(self, net: Internet) -> None:
        web = await net.publish(HOST, GOOD)
        await delegate(net)
        assert (web.asked[0].target, web.asked[0].headers["host"]) == (PATH, HOST)
        assert not {"authorization", "cookie"} & web.asked[0].headers.keys()


def redirects(location: str, status: int = 302) -> Behave:
    return says(status, Location=location)


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_they_are_followed(self, net: Internet, status: int) -> None:
        other = await net.web("b.example", says(200, GOOD))
        await net.web(HOST, redirects("https://b.example/x/y?z=1&%2F#part", status))
        assert await delegate(net) == "d.example:8448"
        assert (other.asked[0].target, other.asked[0].headers["host"]) == ("/x/y?z=1&%2F", "b.example")
        assert other.asked[0].sni == "b.example"

    async def test_a_port_is_kept_in_the_host_header(self, net: Internet) -> None:
        other = await net.serve("b.example", behave=says(200, GOOD))
        net.dns.add_address("b.example", other.address)
        await net.web(HOST, redirects(f"https://b.example:{other.port}/"))
        assert await delegate(net) == "d.example:8448"
        assert other.asked[0].headers["host"] == f"b.example:{other.port}"

    async def test_an_address_is_asked_under_its_own_certificate(self, net: Internet) -> None:
        other = await net.serve(behave=says(200, GOOD))
        await net.web(HOST, redirects(f"https://{other.address}:{other.port}/"))
        assert await delegate(net) == "d.example:8448"

    async def test_an_internationalised_name_is_looked_up_in_the_form_that_dns_has(self, net: Internet) -> None:
        other = await net.web("xn--bcher-kva.example", says(200, GOOD))
        await net.web(HOST, redirects("https://xn--bcher-kva.example/"))
        assert await delegate(net) == "d.example:8448"
        assert other.asked[0].sni == other.asked[0].headers["host"] == "xn--bcher-kva.example"

    async def test_relative_ones_stay_with_the_host(self, net: Internet) -> None:
        web = await net.web(HOST, by_path(server=redirects("../other"), other=says(200, GOOD)))
        assert await delegate(net) == "d.example:8448"
        assert [asked.target for asked in web.asked] == [PATH, "/.well-known/other"]

    async def test_only_a_few_are_followed(self, net: Internet) -> None:
        async def onward(asked: Asked, writer: asyncio.StreamWriter) -> None:
            number = int(asked.target.rpartition("/")[2]) if asked.target != PATH else 0
            behave = says(200, GOOD) if number == last else redirects(f"/{number + 1}")
            await behave(asked, writer)

        web = await net.web(HOST, onward)
        last = MAX_REDIRECTS
        assert await delegate(net) == "d.example:8448"
        assert len(web.asked) == MAX_REDIRECTS + 1
        net.clock.now += MAX_SECONDS
        web.asked.clear()
        last = MAX_REDIRECTS + 1
        assert "redirects more than" in await how(net)
        assert len(web.asked) == MAX_REDIRECTS + 1

    async def test_a_circle_is_left_at_once(self, net: Internet) -> None:
        web = await net.web(HOST, by_path(server=redirects("/other"), other=redirects(PATH + "#again")))
        assert "in a circle" in await how(net)
        assert len(web.asked) == 2

    @pytest.mark.parametrize(
        "location",
        [
            "http://b.example/", "http://{canary}/", "ftp://b.example/", "//user@b.example/", "https://u:p@b.example/",
            "https:///x", "https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/",
            "https://[fe80::1%25lo]/", "https://127.0.0.1./", "https://b.example:99999/", "https://b.example:0/", "https://[::1/",
            "javascript:1", "https://\u2460.example/", "https://b_c.example/", "unix:/run/x", "file:///etc/passwd",
        ],
    )  # fmt: skip
    async def test_what_is_no_https_to_a_host_is_not_followed(self, net: Internet, location: str) -> None:
        canary = await net.forbidden(net.well_known_port)
        net.dns.add_address("b.example", canary.address)
        await net.web(HOST, redirects(location.format(canary=f"{canary.address}:{canary.port}")))
        asked = len(net.dns.asked)
        assert (await how(net)).startswith("none: ")
        assert {name for name, _ in net.dns.asked[asked:]} == {HOST}

    async def test_without_a_location_there_is_a_circle(self, net: Internet) -> None:
        await net.web(HOST, says(302))
        assert "in a circle" in await how(net)

    @pytest.mark.parametrize("form", ["https://{0}:{1}/", "https://[::ffff:{0}]:{1}/", "https://name.example:{1}/",
                                      "https://0.0.0.0:{1}/", "https://[::]:{1}/", "https://[::1]:{1}/",
                                      "https://[64:ff9b::{0}]:{1}/"])  # fmt: skip
    async def test_none_leads_into_the_operators_network(self, net: Internet, form: str) -> None:
        canary = await net.forbidden()
        net.dns.add_address("name.example", canary.address)
        await net.web(HOST, redirects(form.format(canary.address, canary.port)))
        assert "nowhere on the internet" in await how(net)
        assert (Call.DNS, Outcome.BLOCKED) in net.observed


class TestMemory:
    async def publish(self, net: Internet, **headers: str) -> Stranger:
        return await net.web(HOST, says(200, GOOD, **headers))

    async def test_a_document_is_fetched_again_when_most_of_its_time_is_over(self, net: Internet) -> None:
        web = await self.publish(net, Cache_Control="public, max-age=10000")
        await delegate(net)
        net.clock.now += 10000 * REFRESH_AT - 1
        await delegate(net)
        assert len(web.asked) == 1
        net.clock.now += 2
        web.behave = says(200, OTHER)
        assert await delegate(net) == "e.example:8448"

    async def test_a_document_that_must_not_be_kept_is_fetched_each_time(self, net: Internet) -> None:
        web = await self.publish(net, Cache_Control="no-store")
        await delegate(net)
        web.behave = says(404)
        assert await delegate(net) is None

    @pytest.mark.parametrize("behave", [says(500), says(503), says(429), says(200, GOOD, Content_Encoding="x")])
    async def test_no_answer_leaves_a_document_in_force_for_the_rest_of_its_time(
        self, net: Internet, behave: Behave
    ) -> None:
        web = await self.publish(net, Cache_Control="max-age=100000")
        await delegate(net)
        web.behave = behave
        net.clock.now += 99_990
        assert await delegate(net) == "d.example:8448"
        tries = len(web.asked)
        assert await delegate(net) == "d.example:8448"
        assert len(web.asked) == tries  # not at once
        net.clock.now += 11
        assert await delegate(net) is None

    async def test_a_document_that_was_withdrawn_is_not_believed_any_longer(self, net: Internet) -> None:
        web = await self.publish(net, Cache_Control="max-age=100000")
        await delegate(net)
        web.behave = says(404)
        net.clock.now += 90_000
        assert await delegate(net) is None

    async def test_that_there_is_none_is_remembered_longer_each_time_up_to_an_hour(self, net: Internet) -> None:
        web = await net.web(HOST, says(404))
        waits = []
        for _ in range(12):
            web.asked.clear()
            start = net.clock.now
            while not web.asked:
                assert await delegate(net) is None
                net.clock.now += FIRST_BACK_OFF / 2
            waits.append(net.clock.now - start)
        assert waits[1:] == sorted(waits[1:])
        assert waits[1] <= 2 * FIRST_BACK_OFF
        assert waits[-1] == pytest.approx(MAX_BACK_OFF, abs=FIRST_BACK_OFF)
        web.behave = says(200, GOOD)
        net.clock.now += MAX_BACK_OFF
        assert await delegate(net) == "d.example:8448"

    async def test_after_a_good_document_patience_starts_anew(self, net: Internet) -> None:
        web = await net.web(HOST, says(404))
        for _ in range(5):
            await delegate(net)
            net.clock.now += MAX_BACK_OFF + 1
        web.behave = says(200, GOOD, Cache_Control="no-store")
        assert await delegate(net)
        web.behave = says(404)
        await delegate(net)
        net.clock.now += FIRST_BACK_OFF + 1
        web.behave = says(200, GOOD)
        assert await delegate(net)

    async def test_hits_and_misses_are_counted(self, net: Internet) -> None:
        await self.publish(net)
        for _ in range(3):
            await delegate(net)
        assert net.remembered == [False, True, True]

    async def test_who_gives_up_does_not_end_the_fetch_of_the_others(self, net: Internet) -> None:
        came, go = asyncio.Event(), asyncio.Event()

        async def later(asked: Asked, writer: asyncio.StreamWriter) -> None:
            came.set()
            await go.wait()
            await says(200, GOOD)(asked, writer)

        web = await net.web(HOST, later)
        waiting = [asyncio.create_task(delegate(net)) for _ in range(20)]
        await came.wait()
        for task in waiting[:19]:
            task.cancel()
        await asyncio.sleep(0.05)
        go.set()
        assert await waiting[19] == "d.example:8448"
        assert len(web.asked) == 1


NOW = datetime(2026, 11, 21, tzinfo=UTC)


def after(seconds: float) -> str:
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, DEFAULT_SECONDS),
        ({"Cache-Control": "max-age=3600"}, 3600),
        ({"Cache-Control": "Public, Max-Age = 3600 ,x"}, 3600),
        ({"Cache-Control": 'max-age="3600"'}, 3600),
        ({"Cache-Control": "max-age=3600, max-age=7200"}, 3600),
        ({"Cache-Control": "s-maxage=7200"}, DEFAULT_SECONDS),
        ({"Cache-Control": "x-max-age=7200"}, DEFAULT_SECONDS),
        ({"Cache-Control": "max-age=0"}, MIN_SECONDS),
        ({"Cache-Control": "max-age=-1"}, MIN_SECONDS),
        ({"Cache-Control": "max-age=soon"}, MIN_SECONDS),
        ({"Cache-Control": "max-age"}, MIN_SECONDS),
        ({"Cache-Control": "max-age=999999999"}, MAX_SECONDS),
        ({"Cache-Control": "max-age=" + "9" * 5000}, MIN_SECONDS),
        ({"Cache-Control": "max-age=3_600"}, MIN_SECONDS),
        ({"Cache-Control": "no-store"}, 0),
        ({"Cache-Control": "NO-STORE, max-age=3600"}, 0),
        ({"Cache-Control": "no-cache"}, 0),
        ({"Cache-Control": 'private, no-cache="x"'}, 0),
        ({"Cache-Control": "max-age=3600", "Age": "600"}, 3000),
        ({"Cache-Control": "max-age=3600", "Age": "3599"}, MIN_SECONDS),
        ({"Cache-Control": "max-age=3600", "Age": "x"}, 3600),
        ({"Age": "3600"}, DEFAULT_SECONDS - 3600),
        ({"Date": after(0), "Expires": after(3600)}, 3600),
        ({"Date": after(0), "Expires": after(3600), "Cache-Control": "max-age=7200"}, 7200),
        ({"Date": after(0), "Expires": after(-3600)}, MIN_SECONDS),
        ({"Date": after(0), "Expires": after(10**9)}, MAX_SECONDS),
        ({"Date": after(0), "Expires": "0"}, MIN_SECONDS),
        ({"Date": "x", "Expires": after(3600)}, MIN_SECONDS),
        ({"Expires": after(3600)}, MIN_SECONDS),
        ({"Date": after(0), "Expires": "Sat Nov 21 01:00:00 2026"}, 3600),  # an old form, in UTC (RFC 9110)
    ],
)
def test_the_headers_say_for_how_long(headers: dict[str, str], seconds: float) -> None:
    assert lifetime(httpx.Headers(headers)) == seconds


texts = st.text(max_size=40) | st.from_regex(r"(max-age|no-store|age|public)[ =\",0-9a-z]{0,20}", fullmatch=True)


@given(st.fixed_dictionaries({}, optional={"cache-control": texts, "expires": texts, "date": texts, "age": texts}))
@example({"expires": "Sat, 99 Nov 99999 99:99:99 +9999", "date": "Sat, 21 Nov 2026 00:00:00 GMT"})
def test_whatever_the_headers_say_it_is_within_reason(headers: dict[str, str]) -> None:
    assert lifetime(headers) == 0 or MIN_SECONDS <= lifetime(headers) <= MAX_SECONDS


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_age_is_taken_off(max_age: int, age: int) -> None:
    headers = {"cache-control": f"max-age={max_age}", "age": str(age)}
    assert lifetime(headers) == min(MAX_SECONDS, max(MIN_SECONDS, max_age - age))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30), lambda each: st.lists(each, max_size=3)
)
names = st.from_regex(r"[a-z0-9.:\[\]-]{0,30}", fullmatch=True)


@given(value=json_values | names)
def test_a_document_delegates_to_a_server_name_or_to_nobody(value: Any) -> None:
    try:
        body = msgspec.json.decode(json.dumps({"m.server": value}).encode(), type=_Document)
    except msgspec.DecodeError:
        assert not isinstance(value, str)
        return
    answer = Answer(200, body, "x")
    try:
        ServerName.parse(value)
    except InvalidIdentifier:
        with pytest.raises(_Useless):
            _delegate(answer)
    else:
        assert _delegate(answer).value == value
