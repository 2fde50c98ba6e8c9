"""The two paths that anybody may ask: `/health` and the well-known file."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from uvs.resources import shipped

WELL_KNOWN = "/.well-known/element/jitsi"


def routes() -> list[Route]:
    """`GET /health`, and the file that tells Element to send an OpenID token (docs/well-known.md)."""
    well_known = (shipped("wellknown") / "element" / "jitsi").read_bytes()

    async def health(_: Request) -> Response:
        return HTMLResponse("👍")

    async def element_jitsi(_: Request) -> Response:
        # Element fetches it from another origin, and without it asks for no token at all.
        return Response(well_known, media_type="application/json", headers={"Access-Control-Allow-Origin": "*"})

    return [Route("/health", health), Route(WELL_KNOWN, element_jitsi)]
