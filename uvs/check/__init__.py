"""`uvs check`: walks the way of a verification and says of each step whether it works, and what to do where it does not
(docs/check.md). One module for each link of the chain; `walk` knows their order, `render` how they look."""

from __future__ import annotations

HELP = "find what is wrong, and what to do about it"
DESCRIPTION = """Walk the way of a verification step by step: the settings, the homeservers, what the access token may
do, and whatever the options name. The exit status is the number of red rows (100 at most). docs/check.md tells more."""
