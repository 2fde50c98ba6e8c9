"""`GET /ready`: whether people can be verified right now. (`/health` only says whether the process serves.)"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from enum import StrEnum

from starlette.requests import Request
from starlette.responses import Response

from uvs.errors import CannotTell
from uvs.homeserver import Homeserver
from uvs.homeserver.credential import CredentialRefused
from uvs.wire import json_response

FRESH_SECONDS = 5.0
"""How long an answer holds: however often it is asked for, the homeservers are asked no more often than this."""

PING_SECONDS = 3.0
"""For a homeserver to answer: those who ask for readiness wait no longer than some seconds themselves."""

_log = logging.getLogger("uvs")


class State(StrEnum):
    """Of one homeserver. The values are labels of metrics, so the set is closed."""

    READY = "ready"
    CREDENTIAL_REFUSED = "credential-refused"
    UNAVAILABLE = "unavailable"


States = Mapping[str, State]
"""By the names of the homeservers."""


class Readiness:
    """Looks after the operator's own homeservers when somebody asks, and says in the log what has changed."""

    def __init__(
        self, homeservers: Mapping[str, Homeserver], *, clock: Callable[[], float], observe: Callable[[States], None]
    ) -> None:
        """`clock` gives seconds and never goes back. `observe` is told of every look."""
        self._homeservers = homeservers
        self._clock = clock
        self._observe = observe
        self._look: asyncio.Task[States] | None = None
        self._began = 0.0
        self._last: dict[str, State] = {}

    async def states(self) -> States:
        """The states, no older than FRESH_SECONDS. Whoever asks while they are looked up gets the same."""
        if self._look is None or (self._look.done() and self._clock() - self._began >= FRESH_SECONDS):
            self._began = self._clock()
            self._look = asyncio.create_task(self._look_at_all())
        # Shielded: who asked first and hangs up must not leave the others without an answer.
        return await asyncio.shield(self._look)

    async def close(self) -> None:
        """End a look that is under way."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)

    async def endpoint(self, _: Request) -> Response:
        """200 where all are ready, else 503. No mend and no reason in words: whoever reaches the port can read it."""
        states = await self.states()
        ready = is_ready(states)
        body = {
            "ready": ready,
            "homeservers": [{"name": name, "state": state} for name, state in states.items()],
        }
        return json_response(body, status=200 if ready else 503, headers={"Cache-Control": "no-store"})

    async def _look_at_all(self) -> States:
        found = await asyncio.gather(*(self._look_at(name) for name in self._homeservers))
        states = dict(zip(self._homeservers, found, strict=True))
        self._observe(states)
        return states

    async def _look_at(self, name: str) -> State:
        state, level, why, detail = State.READY, logging.INFO, "", None
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._homeservers[name].ping()
        except CredentialRefused as error:
            state, level, why, detail = State.CREDENTIAL_REFUSED, logging.ERROR, str(error), error.detail
        except CannotTell as error:
            state, level, why, detail = State.UNAVAILABLE, logging.WARNING, str(error), error.detail
        except TimeoutError:
            state, level, why = State.UNAVAILABLE, logging.WARNING, f"no answer within {PING_SECONDS:g} s."
        except Exception:  # noqa: BLE001 - the last net, as for requests: a defect must not read as ready
            _log.exception("Defect in the look at a homeserver; please report it")
            state = State.UNAVAILABLE
        if state is not self._last.get(name, State.READY):
            _log.log(
                level, "Homeserver %s is %s%s", name, state, why and f": {why}", extra={"facts": {"detail": detail}}
            )
        self._last[name] = state
        return state


def is_ready(states: States) -> bool:
    """Whether everybody who should be can be verified."""
    return all(state is State.READY for state in states.values())
