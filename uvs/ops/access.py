"""The outermost ring of every request: its reference, its one log line, and the last net under a defect."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uvs.errors import CannotTell, InvalidRequest
from uvs.ops.reference import HEADER, new_reference
from uvs.wire import json_response, log_facts

_log = logging.getLogger("uvs.access")

QUIET_PATHS = frozenset({"/health"})
"""Asked by machines every few seconds: logged only at debug level."""


class AccessMiddleware:
    """Gives every request a reference, which answers of status 400 and above carry in a header, and logs one line for
    it: never a query string, a header or a body, and the path only where it is one of ours, since a stranger can write
    anything there, a token by mistake included."""

    def __init__(self, app: ASGIApp, *, paths: frozenset[str], getrandbits: Callable[[int], int]) -> None:
        self._app = app
        self._paths = paths
        self._getrandbits = getrandbits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        reference = new_reference(self._getrandbits)
        state = scope.setdefault("state", {})
        state["reference"] = reference
        facts: dict[str, Any] = state.setdefault("log_facts", {})
        status = 0

        async def send_with_reference(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400:
                    MutableHeaders(scope=message)[HEADER] = reference
            await send(message)

        try:
            await self._app(scope, receive, send_with_reference)
        except Exception:  # noqa: BLE001 - the last net
            # A defect of ours. It costs one answer, never the process, and its text (which may quote the request)
            # stays out of the answer; the formatter keeps it out of the log.
            _log.exception("Defect in the service; please report it", extra={"facts": {"reference": reference}})
            if not status:
                answer = json_response(
                    {"errcode": "M_UNKNOWN", "error": "Internal error; see the log.", "reference": reference},
                    status=500,
                )
                await answer(scope, receive, send_with_reference)
        path = scope["path"] if scope["path"] in self._paths else "(unknown path)"
        level = logging.DEBUG if path in QUIET_PATHS else logging.WARNING if status >= 500 else logging.INFO
        if _log.isEnabledFor(level):
            facts = {"ms": round((time.perf_counter() - started) * 1000, 1), **facts}
            if status >= 400:
                facts["reference"] = reference
            method = scope["method"] if scope["method"].isalpha() else "?"
            _log.log(level, "%s %s %s", method, path, status or "no answer", extra={"facts": facts})


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """COMPAT: mistakes in a request are answered in HTML, as the existing service does."""
    assert isinstance(error, InvalidRequest)  # noqa: S101 - Starlette dispatches by type
    log_facts(request).update(outcome="invalid-request", error=str(error))
    return HTMLResponse(str(error), error.status)


async def on_cannot_tell(request: Request, error: Exception) -> Response:
    """An outage never looks like a *no*: JSON with a status of its own, and what to do about it."""
    assert isinstance(error, CannotTell)  # noqa: S101 - Starlette dispatches by type
    log_facts(request).update(outcome="cannot-tell", error=str(error))
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else None
    body = {"errcode": error.errcode, "error": str(error), "reference": request.state.reference}
    return json_response(body, status=error.status, headers=headers)


async def on_unknown_path(request: Request, error: Exception) -> Response:
    """COMPAT: a wrong method is answered like an unknown path, with 404."""
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette dispatches by type
    return HTMLResponse("Not found.", 404)
