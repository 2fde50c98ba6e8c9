"""The paths that anybody may ask: `/health`, the well-known file, and the description of the API."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from uvs import __version__
from uvs.ops.paths import HEALTH, OPENAPI, WELL_KNOWN
from uvs.resources import shipped
from uvs.wire import Endpoint

_ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}


def openapi() -> bytes:
    """`uvs/ops/openapi.json`, with the version of this package."""
    description = msgspec.json.decode((files("uvs") / "ops" / "openapi.json").read_bytes())
    description["info"]["version"] = __version__
    return msgspec.json.encode(description)


def endpoints() -> Mapping[str, Endpoint]:
    """The endpoint for each path."""
    well_known = (shipped("wellknown") / "element" / "jitsi").read_bytes()
    description = openapi()

    async def health(_: Request) -> Response:
        return HTMLResponse("👍")

    async def element_jitsi(_: Request) -> Response:
        # Element fetches it from another origin, and without it asks for no token at all (docs/well-known.md).
        return Response(well_known, media_type="application/json", headers=_ANY_ORIGIN)

    async def openapi_json(_: Request) -> Response:
        return Response(description, media_type="application/json", headers=_ANY_ORIGIN)

    return {HEALTH.path: health, WELL_KNOWN.path: element_jitsi, OPENAPI.path: openapi_json}
