"""The outermost ring of every request: its reference, its one log line, its measurements, and the last net under a
defect."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uvs.errors import CannotTell, InvalidRequest, LimitExceeded
from uvs.ops.metrics import Metrics, Outcome
from uvs.ops.paths import UNKNOWN, known
from uvs.ops.reference import HEADER, new_reference
from uvs.ops.upstream import Spending
from uvs.wire import json_response, log_facts

_log = logging.getLogger("uvs.access")
_HEADER = HEADER.lower().encode()


class AccessMiddleware:
    """Gives every request a reference, which its answer carries in a header, and logs one line for it: never a query
    string, a header or a body, and the path only where it is one of ours."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, getrandbits: Callable[[int], int]) -> None:
        self._app = app
        self._metrics = metrics
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
                message["headers"] = [*message.get("headers", ()), (_HEADER, reference.encode())]
            await send(message)

        self._metrics.in_flight.inc()
        with Spending() as spent:
            try:
                await self._app(scope, receive, send_with_reference)
            except Exception:  # noqa: BLE001 - the last net
                # A defect of ours. It costs one answer, never the process, and its text (which may quote the request)
                # stays out of the answer; the formatter keeps it out of the log.
                _log.exception("Defect in the service; please report it", extra={"facts": {"reference": reference}})
                facts.update(outcome=Outcome.DEFECT)
                if not status:
                    answer = json_response(
                        {"errcode": "M_UNKNOWN", "error": "Internal error; see the log.", "reference": reference},
                        status=500,
                    )
                    await answer(scope, receive, send_with_reference)
            finally:
                self._metrics.in_flight.dec()
        seconds = time.perf_counter() - started
        facts.setdefault("outcome", Outcome.OK)
        self._metrics.request(scope["path"], facts["outcome"], facts.get("reason", ""), seconds)
        path = known(scope["path"])
        level = logging.WARNING if status >= 500 else logging.INFO
        if path is not None and path.quiet and not 400 <= status < 500:
            level = logging.DEBUG
        if _log.isEnabledFor(level):
            facts = {"ms": _ms(seconds), **facts, "reference": reference}
            if spent.calls:
                facts |= {"upstream_calls": spent.calls, "upstream_ms": _ms(spent.seconds)}
            method = scope["method"] if scope["method"].isalpha() else "?"
            message = f"{method} {path.path if path else UNKNOWN} {status or 'no answer'}"
            # As `_log.log` makes it, which looks for more that no line says.
            record = logging.LogRecord(_log.name, level, "", 0, message, None, None)
            record.facts = facts
            _log.handle(record)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """COMPAT: mistakes in a request are answered in HTML, as the existing service does."""
    assert isinstance(error, InvalidRequest)  # noqa: S101 - Starlette dispatches by type
    log_facts(request).update(outcome=Outcome.REJECTED, reason="invalid-request", error=str(error))
    return HTMLResponse(str(error), error.status)


async def on_cannot_tell(request: Request, error: Exception) -> Response:
    """An outage never looks like a *no*: JSON with a status of its own, and what to do about it."""
    assert isinstance(error, CannotTell)  # noqa: S101 - Starlette dispatches by type
    outcome = Outcome.REJECTED if isinstance(error, LimitExceeded) else Outcome.CANNOT_TELL
    log_facts(request).update(outcome=outcome, reason=reason(error.errcode), error=str(error), detail=error.detail)
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else None
    body = {"errcode": error.errcode, "error": str(error), "reference": request.state.reference}
    return json_response(body, status=error.status, headers=headers)


def reason(errcode: str) -> str:
    """The word for an error code in logs and metrics: `overloaded` for `UVS_OVERLOADED`."""
    return errcode.partition("_")[2].lower().replace("_", "-")


async def on_unknown_path(request: Request, error: Exception) -> Response:
    """COMPAT: a wrong method is answered like an unknown path, with 404."""
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette dispatches by type
    log_facts(request).update(outcome=Outcome.REJECTED, reason="not-found")
    return HTMLResponse("Not found.", 404)
