"""Proves who a Matrix user is, and what they may do, to anything that is not Matrix."""

__version__ = "0.1.0"
