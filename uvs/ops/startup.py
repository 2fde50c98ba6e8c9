"""Tells the operator, right after the start, whether the homeserver can be worked with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from uvs.homeserver import Homeserver

_log = logging.getLogger("uvs")

FIRST_RETRY = 5.0  # seconds
LAST_RETRY = 300.0  # seconds: a homeserver that is down for hours is reported a dozen times an hour

Sleep = Callable[[float], Awaitable[None]]


async def report_homeserver(homeserver: Homeserver, *, further: str = "", sleep: Sleep = asyncio.sleep) -> None:
    """Check until something certain can be said, and say it in one line. The service runs meanwhile, since a homeserver
    that is down at this moment is no reason to stay down as well. `further` is its name where it is not the default:
    without it, only its own people cannot be verified. `sleep` is for tests."""
    try:
        await _report(homeserver, f" of {further}" if further else "", sleep)
    except Exception:  # noqa: BLE001 - the last net, as for requests: nobody waits for this task
        _log.exception("Defect in the check of the homeserver; please report it")


async def _report(homeserver: Homeserver, whose: str, sleep: Sleep) -> None:
    wait = FIRST_RETRY
    while True:
        findings = await homeserver.check()
        mends = [finding.mend for finding in findings if not finding.good]
        if not mends:
            _log.info(
                "Homeserver %s answers, and the access token can do all that is needed", await homeserver.server_name()
            )
            return
        if all(finding.certain for finding in findings):
            _log.error("Nobody%s can be verified until this is mended: %s", whose, " ".join(mends))
            return
        _log.warning("Homeserver check%s: %s Checking again in %g s", whose, " ".join(mends), wait)
        await sleep(wait)
        wait = min(wait * 2, LAST_RETRY)
