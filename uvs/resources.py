"""The files that travel with the package: Prosody's Lua modules, the module for Synapse, and the well-known file."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def shipped(name: str) -> Traversable:
    """The folder of that name: inside the installed package, or beside it in a checkout."""
    installed = files("uvs") / "shipped" / name
    return installed if installed.is_dir() else Path(__file__).parent.parent / name
