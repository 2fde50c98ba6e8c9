"""The order of the steps, and what bounds all of them together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from uvs.check.homeserver import check_homeserver
from uvs.check.jitsi import check_jitsi
from uvs.check.people import People, Question
from uvs.check.prosody import check_prosody
from uvs.check.rows import Group, Report
from uvs.check.server import check_server
from uvs.matrix.identifiers import ServerName
from uvs.net.well_known import MAX_SECONDS, MIN_SECONDS
from uvs.settings import Loaded, Mistakes, OwnHomeserver, Settings
from uvs.ways import connect

LIMIT_SECONDS = 55.0
"""For everything; what is still under way then is red."""

CALL_SECONDS = 10.0
"""For one call, however patient the service is."""

SLOW_SECONDS = 2.0
"""Whoever waits longer is told for what."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for, besides the settings and the homeservers."""

    question: Question = field(default_factory=Question)
    server: ServerName | None = None
    jitsi: str | None = None
    prosody: str | None = None


async def walk(
    loaded: Loaded | Mistakes, wanted: Wanted, *, say: Say | None = None, limit: float = LIMIT_SECONDS
) -> Report:
    """Look at everything. `say` is told of slow steps. Raises nothing."""
    report = Report()
    _check_settings(report.group("settings"), loaded)
    if isinstance(loaded, Mistakes):
        report.group("everything else").skip("the settings come first", "all of it")
        return report
    with _naming_slow_steps(report, say):
        try:
            patience = min(CALL_SECONDS, loaded.settings.request_timeout)
            async with asyncio.timeout(limit):
                await _walk(report, loaded.settings.model_copy(update={"request_timeout": patience}), wanted)
        except TimeoutError:
            for group in report.groups:
                if group.step is not None:
                    group.fail(group.step, "See what is slow there, then try again.", f"not done after {limit:g} s")
                elif not group.rows:
                    group.skip("what it waited for was not done in time", "all of it")
    return report


def _check_settings(group: Group, loaded: Loaded | Mistakes) -> None:
    if isinstance(loaded, Mistakes):
        for line in loaded.lines:
            name, _, mend = line.partition(": ")
            group.fail(name, mend[:1].upper() + mend[1:])
        return
    for warning in loaded.warnings:
        group.warn("options", warning)
    if not loaded.warnings:
        group.ok("options", "no mistakes")
    settings = loaded.settings
    kept = {
        "tokens": settings.cache_token_ttl,
        "membership": settings.cache_membership_ttl,
        "levels": settings.cache_power_levels_ttl,
    }
    times = ", ".join(f"{what} {seconds:g} s" for what, seconds in kept.items() if seconds)
    where = "memory" if settings.cache_url is None else "Redis"
    others = f"delegations {MIN_SECONDS / 60:g} min to {MAX_SECONDS / 3600:g} hours"
    group.ok("cache", f"{times} ({where}); {others}" if times else f"no verification is kept; {others}")


async def _walk(report: Report, settings: Settings, wanted: Wanted) -> None:
    own, ca_file, question = settings.own_homeservers, settings.ca_file, wanted.question
    async with connect(settings) as ways, asyncio.TaskGroup() as steps:

        def start(title: str, step: Callable[[Group], Awaitable[object]]) -> asyncio.Task[object]:
            group = report.group(title)
            return steps.create_task(_safely(group, step(group)))

        def homeserver(number: int) -> Callable[[Group], Awaitable[bool]]:
            return lambda group: check_homeserver(
                group,
                own[number],
                ways.homeservers[number],
                ways.clients[number],
                ca_file=ca_file,
                token_given=question.token is not None,
            )

        homeservers = [start(_title(each), homeserver(number)) for number, each in enumerate(own)]

        async def people(group: Group) -> None:
            usable = await asyncio.gather(*homeservers)
            if not usable[0]:
                group.skip("the homeserver above comes first", *question.checks)
                return
            asked = People(group, question, own, ways)
            await asked.check()
            report.joined, report.standing = asked.joined, asked.standing

        if question.checks:
            start(question.title, people)
        if wanted.server is not None:
            server = wanted.server
            start(f"other homeserver {server}", lambda group: check_server(group, server, own, ways))
        if wanted.jitsi is not None:
            jitsi = wanted.jitsi
            start(f"Jitsi domain ({jitsi})", lambda group: check_jitsi(group, jitsi, ca_file))
        if wanted.prosody is not None:
            prosody = wanted.prosody
            start(f"Prosody ({prosody})", lambda group: check_prosody(group, prosody, ca_file))


def _title(own: OwnHomeserver) -> str:
    name = f"homeserver {own.server_name}" if own.server_name else "homeserver"
    return f"{name} ({own.url}, {own.access})"


async def _safely(group: Group, step: Awaitable[object]) -> object:
    try:
        return await step
    except Exception as error:  # noqa: BLE001 - the last net: the other links are still worth looking at
        # Only the kind of the error: its text may quote what was asked or answered.
        group.fail(group.step or "check", "Please report it.", f"a defect in uvs ({type(error).__name__})")
        return None


@contextmanager
def _naming_slow_steps(report: Report, say: Say | None) -> Iterator[None]:
    if say is None:
        yield
        return
    watching = asyncio.create_task(_name_slow_steps(report, say))
    try:
        yield
    finally:
        watching.cancel()


async def _name_slow_steps(report: Report, say: Say) -> None:
    named = set()
    while True:
        await asyncio.sleep(SLOW_SECONDS / 8)
        for group in report.groups:
            step = (group.title, group.step, group.since)
            if group.step is not None and time.monotonic() - group.since > SLOW_SECONDS and step not in named:
                named.add(step)
                say(f"still waiting: {group.title}: {group.step}")
