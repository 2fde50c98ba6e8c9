"""`uvs check`: walks the way of a verification and says of each step whether it works, and what to do where it does not
(docs/check.md). One module for each link of the chain; `walk` knows their order, `render` how they look."""
