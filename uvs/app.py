"""The only module that knows every part: settings in, application out; what it opens, it closes."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from uvs.errors import CannotTell, InvalidRequest
from uvs.homeserver import Homeserver
from uvs.homeserver.synapse_admin import SynapseAdmin
from uvs.limits import ConcurrencyLimit, RateLimit
from uvs.net.http import open_client
from uvs.ops import public
from uvs.ops.access import AccessMiddleware, on_cannot_tell, on_invalid_request, on_unknown_path
from uvs.ops.logs import on_loop_error
from uvs.ops.startup import report_homeserver
from uvs.settings import Settings
from uvs.verification.api import VerificationApi
from uvs.verification.decision import Verifier
from uvs.wire import Gate


def connect_homeserver(settings: Settings, client: httpx.AsyncClient) -> Homeserver:
    """The configured way to the homeserver."""
    return SynapseAdmin(
        client,
        url=settings.homeserver_url,
        access_token=settings.access_token.get_secret_value(),
        federation_url=settings.federation_url,
        server_name=settings.openid_verify_server_name,
    )


def create_app(
    settings: Settings,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.monotonic,
    getrandbits: Callable[[int], int] = secrets.randbits,
) -> Starlette:
    """The application. `transport`, `clock` (seconds) and `getrandbits` are for tests."""
    client = open_client(timeout=settings.request_timeout, transport=transport)
    homeserver = connect_homeserver(settings, client)
    gate = Gate(
        auth_token=settings.auth_token.get_secret_value() if settings.auth_token else None,
        timeout=settings.request_timeout,
        concurrency=ConcurrencyLimit(settings.max_concurrent_requests, mend="raise UVS_MAX_CONCURRENT_REQUESTS"),
        rate=RateLimit(settings.rate_limit, clock=clock),
    )
    verification = VerificationApi(
        Verifier(homeserver), gate, server_name_required=settings.openid_verify_server_name is None
    )
    routes = [*public.routes(), *verification.routes()]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(on_loop_error)
        async with client:
            report = asyncio.create_task(report_homeserver(homeserver))
            yield
            report.cancel()
            with suppress(asyncio.CancelledError):
                await report

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(AccessMiddleware, paths=frozenset(route.path for route in routes), getrandbits=getrandbits)
        ],
        exception_handlers={
            InvalidRequest: on_invalid_request,
            CannotTell: on_cannot_tell,
            HTTPException: on_unknown_path,
        },
    )
    app.router.redirect_slashes = False
    return app
