"""The only module that knows every part: settings in, application out; what it opens, it closes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from uvs.cache import Cache
from uvs.cache.redis import RedisStore
from uvs.errors import CannotTell, InvalidRequest
from uvs.limits import ConcurrencyLimit, RateLimit, SharedRateLimit
from uvs.net.calls import Call, Outcome
from uvs.ops import public, upstream
from uvs.ops.access import AccessMiddleware, on_cannot_tell, on_invalid_request, on_unknown_path
from uvs.ops.logs import on_loop_error
from uvs.ops.merged import Merged
from uvs.ops.metrics import Metrics
from uvs.ops.paths import METRICS, READY, VERIFY_USER, VERIFY_USER_IN_ROOM, routes
from uvs.ops.readiness import Readiness
from uvs.ops.startup import report_homeserver
from uvs.settings import Settings
from uvs.verification.api import VerificationApi
from uvs.ways import connect, open_cache
from uvs.wire import Callers, Gate, guarded


def create_app(
    settings: Settings,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.monotonic,
    getrandbits: Callable[[int], int] = random.getrandbits,
    merged: Merged | None = None,
) -> Starlette:
    """The application. `transport`, `clock` (seconds) and `getrandbits` are for tests. `merged` is where there are
    several workers: they are forks of the process that calls this, so nothing may be opened or started before the
    lifespan."""
    metrics = Metrics(merged)

    def observe(call: Call, outcome: Outcome, seconds: float) -> None:
        metrics.upstream(call, outcome, seconds)
        upstream.observe(seconds)

    cache = open_cache(settings, clock=clock, caches=metrics.cache)
    ways = connect(settings, transport=transport, observe=observe, clock=clock, caches=metrics.cache, cache=cache)
    callers = _callers(settings, clock, cache)
    gate = Gate(
        callers=callers,
        timeout=settings.request_timeout,
        concurrency=ConcurrencyLimit(settings.max_concurrent_requests, mend="raise UVS_MAX_CONCURRENT_REQUESTS"),
    )
    verification = VerificationApi(ways.verifier, gate, server_name_required=settings.openid_verify_server_name is None)
    names = [str(own.server_name or "default") for own in settings.own_homeservers]
    readiness = Readiness(dict(zip(names, ways.homeservers, strict=True)), clock=clock, observe=metrics.readiness)
    endpoints = {
        **public.endpoints(),
        VERIFY_USER.path: verification.user,
        VERIFY_USER_IN_ROOM.path: verification.user_in_room,
        READY.path: readiness.endpoint,
        METRICS.path: guarded(callers, metrics.endpoint(readiness.states)),
    }

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(on_loop_error)
        async with cache, ways:
            # Without the default one, nobody's standing can be told; without another, nobody there.
            reports = [
                asyncio.create_task(report_homeserver(homeserver, further=further))
                for homeserver, further in zip(ways.homeservers, ["", *names[1:]], strict=True)
                if merged is None or merged.first  # of several workers, one tells
            ]
            try:
                yield
            finally:
                for report in reports:
                    report.cancel()
                await asyncio.gather(*reports, return_exceptions=True)
                await readiness.close()

    app = Starlette(
        routes=routes(endpoints, internal_port=settings.internal_port),
        lifespan=lifespan,
        middleware=[
            *_forwarded(settings),
            Middleware(AccessMiddleware, metrics=metrics, getrandbits=getrandbits),
        ],
        exception_handlers={
            InvalidRequest: on_invalid_request,
            CannotTell: on_cannot_tell,
            HTTPException: on_unknown_path,
        },
    )
    app.router.redirect_slashes = False
    app.state.metrics = metrics
    return app


def _callers(settings: Settings, clock: Callable[[], float], cache: Cache) -> Callers:
    token = settings.auth_token.get_secret_value() if settings.auth_token else None
    mend = (
        "requests with the right UVS_AUTH_TOKEN are not limited"
        if token
        else "set UVS_AUTH_TOKEN, since requests with it are not limited"
    )
    rate = RateLimit(settings.rate_limit, clock=clock, mend=mend)
    if isinstance(cache.store, RedisStore) and settings.cache_secret is not None:
        secret = settings.cache_secret.get_secret_value().encode()
        rate = SharedRateLimit(settings.rate_limit, clock=clock, mend=mend, scripts=cache.store, secret=secret)
    return Callers(auth_token=token, rate=rate)


def _forwarded(settings: Settings) -> list[Middleware]:
    """Where a proxy is trusted, the client is who it says: the last address in X-Forwarded-For that is no proxy."""
    if not settings.trusted_proxies:
        return []
    return [Middleware(ProxyHeadersMiddleware, trusted_hosts=[str(network) for network in settings.trusted_proxies])]
